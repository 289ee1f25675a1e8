"""Stories: sequences of calls of the port, made by two instances.

A story is made from a seed by a generator of its own, and not by hypothesis, whose choices depend
on the modules that happen to be loaded: the same stories are told on every machine. A step says
what is done in words that mean something after every other step, so that a story which goes wrong
is shortened by leaving steps out. Where a step has nothing to act on, it does nothing.
"""

from __future__ import annotations

import random  # noqa: TID251 -- chance comes from the seed, and must
from collections.abc import Callable

from attrs import evolve, frozen

IDS = ("a", "b", "ab")

DUE = ("now", "this second", "an hour ago", "soon", "after a lease", "never")
EDITS = (
    *(
        "definition",
        "queue",
        "next occurrence",
        "due moment",
        "pause",
        "pause with an end",
        "expiry",
    ),
    *("request", "two requests", "cancel", "of an old revision", "as if no claim held it"),
)
REMOVALS = ("", "with its end", "of an old revision", "as if no claim held it")
ENDS = (
    *(
        "done",
        "done",
        "done",
        "to retry",
        "interrupted",
        "done, standing still",
        "with a missed one",
        "asking for more",
    ),
    *(
        "freed",
        "last execution only",
        "interrupted only",
        "without executions",
        "re-decided",
        "blindly",
        "by no worker",
        "by a later token",
    ),
)
ROOMS = (*6 * ("",), "of one queue", "of all queues", "of no queue", "refusing")
SPANS = ("a tick", "to the next second", "10 s", "a lease but a tick", "a lease", "an hour")
REPEATED = ("add", "replace", "remove", "renew", "release", "settle")
PRUNED = ("an hour old", "ended before", "ended", "nothing old")


@frozen
class Step:
    """What is done.

    Attributes:
        does: The name of the step.
        by: The number of the instance, 0 or 1.
        ids: The ids of the jobs that it is about.
        how: The variant of the step.
        due: When jobs are due afterwards.
        number: A limit; how many claims ago; which filter.
    """

    does: str
    by: int = 0
    ids: tuple[str, ...] = ("a",)
    how: str = ""
    due: str = "now"
    number: int = 0

    def __str__(self) -> str:
        """Return it in a few words."""
        said = [f"worker {self.by + 1}", self.does]
        shown: dict[str, tuple[str, ...]] = {
            "add": ("ids", "due", "how"),
            "replace": ("id", "how", "due"),
            "remove": ("id", "how"),
            "claim": ("number", "how"),
            "renew": ("ids", "how", "ago"),
            "release": ("ids", "ago"),
            "settle": ("ids", "ago", "how", "due"),
            "again": ("how",),
            "pass": ("how",),
            "prune": ("how",),
        }
        parts = {
            "ids": " and ".join(self.ids),
            "id": self.ids[0],
            "how": self.how,
            "due": f"due {self.due}",
            "number": f"up to {self.number}",
            "ago": "an earlier claim" if self.number else "",
        }
        said += [parts[name] for name in shown.get(self.does, ("how",)) if parts[name]]
        return f"{said[0]}: {said[1]} {', '.join(said[2:])}".rstrip()


Story = tuple[Step, ...]

WEIGHTS = {
    "add": 10,
    "replace": 12,
    "remove": 8,
    "claim": 22,
    "renew": 6,
    "release": 8,
    "settle": 22,
    "again": 10,
    "pass": 16,
    "prune": 3,
    "list": 5,
    "turn": 4,
    "reopen": 2,
}
MOTIFS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("claim", ""), ("pass", "a lease"), ("claim", ""), ("pass", "10 s"), ("claim", "")),
    (
        *2
        * (("claim", ""), ("renew", "alone"), ("pass", "a lease"), ("claim", ""), ("pass", "10 s")),
    ),
    (("replace", "two requests"), ("claim", ""), ("settle", ""), ("claim", ""), ("settle", "")),
    (("replace", "request"), ("claim", ""), ("replace", "pause"), ("settle", ""), ("claim", "")),
    (("replace", "pause with an end"), ("pass", "10 s"), ("claim", ""), ("pass", "a lease")),
    (("claim", ""), ("replace", "cancel"), ("renew", ""), ("pass", "a lease"), ("claim", "")),
    (
        ("claim", ""),
        ("pass", "a lease"),
        ("claim", ""),
        ("pass", "10 s"),
        ("claim", ""),
        ("release", ""),
    ),
    (("claim", ""), ("release", ""), ("replace", ""), ("claim", "")),
    (("claim", ""), ("remove", ""), ("add", ""), ("claim", "")),
    (("claim", ""), ("replace", "next occurrence"), ("settle", ""), ("claim", "")),
    (("claim", ""), ("replace", "next occurrence"), ("pass", "a lease"), ("claim", "")),
    (("claim", ""), ("remove", "with its end"), ("pass", "a lease"), ("claim", "")),
    (("claim", ""), ("settle", "done"), ("claim", ""), ("again", "settle")),
    (("claim", ""), ("settle", "done, standing still"), ("claim", ""), ("settle", "done")),
    (("claim", ""), ("replace", "pause"), ("pass", "a lease"), ("claim", ""), ("replace", "")),
    (("claim", ""), ("settle", "to retry"), ("claim", ""), ("settle", "to retry")),
    (("claim", ""), ("remove", ""), ("pass", "a lease"), ("prune", "")),
    (("claim", ""), ("remove", ""), ("pass", "a lease"), ("add", ""), ("claim", "")),
    (("claim", ""), ("settle", "with a missed one")),
    (("turn", "history"), ("claim", ""), ("settle", "done"), ("prune", ""), ("turn", "history")),
    (("turn", "jobs"), ("remove", ""), ("add", ""), ("turn", "jobs")),
)
"""What is done in a row more often than chance would: kinds of steps and their variants."""
END: Story = (
    Step("renew", 0, IDS),
    Step("renew", 1, IDS),
    Step("renew", 0, IDS, number=1),
    Step("settle", 1, IDS, "done", number=1),
    Step("again", 0, how="settle"),
    Step("pass", how="a lease"),
    Step("claim", 1, number=10),
    Step("claim", 0, number=10),
    Step("settle", 0, IDS, "done"),
    Step("again", 1, how="settle"),
    Step("claim", 0, number=10),
    Step("prune", how="ended"),
)
"""Ends every story: shows what is still held, what is due, and what was lost."""


def story(seed: int, length: int = 24) -> Story:
    """Return the story of a seed."""
    chance = random.Random(seed)  # noqa: S311 -- the seed decides
    kinds, weights = tuple(WEIGHTS), tuple(WEIGHTS.values())
    steps = [Step("add", 0, IDS[: chance.choice((1, 2, 3))], due=chance.choice(DUE[:3]))]
    while len(steps) < length:
        if chance.random() < 0.8:
            steps.append(_step(chance, chance.choices(kinds, weights)[0]))
        else:
            ids = _some(chance)
            for kind, how in chance.choice(MOTIFS):
                step = evolve(_step(chance, kind), ids=ids, number=10 if kind == "claim" else 0)
                due = chance.choice(("now", "now", step.due))
                steps.append(evolve(step, how=how or step.how, due=due))
    return tuple(steps) + END


def _some(chance: random.Random) -> tuple[str, ...]:
    return tuple(chance.sample(IDS, chance.choice((1, 1, 2, 3))))


def _step(chance: random.Random, does: str) -> Step:
    variants = {
        "add": ("", "", "", "twice"),
        "replace": EDITS,
        "remove": REMOVALS,
        "claim": ROOMS,
        "renew": ("", "", "alone"),
        "settle": ENDS,
        "again": REPEATED,
        "pass": SPANS,
        "prune": PRUNED,
        "list": ("jobs", "history"),
        "turn": ("jobs", "history"),
    }
    return Step(
        does,
        by=chance.choice((0, 1)),
        ids=_some(chance),
        how=chance.choice(variants.get(does, ("",))),
        due=chance.choice(DUE),
        number=chance.choice((1, 2, 10)) if does == "claim" else chance.choice((0, 0, 0, 1, 2, 3)),
    )


def shortened(told: Story, fails: Callable[[Story], bool], tries: int = 250) -> Story:
    """Return a story that fails, too, and has fewer and simpler steps."""
    size = len(told) // 2
    while size:
        start = 0
        while start < len(told) and tries:
            shorter = told[:start] + told[start + size :]
            tries -= 1
            if fails(shorter):
                told = shorter
            else:
                start += size
        size //= 2
    for place in range(len(told)):
        for plain in ({"by": 0}, {"ids": ("a",)}, {"due": "now"}, {"number": 0}):
            step = evolve(told[place], **plain)
            simpler = (*told[:place], step, *told[place + 1 :])
            if step != told[place] and tries:
                tries -= 1
                told = simpler if fails(simpler) else told
    return told
