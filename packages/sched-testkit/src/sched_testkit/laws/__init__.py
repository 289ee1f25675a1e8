"""The laws of the port, in the order of its methods: see :mod:`sched_testkit.laws.order`.

Each is one function, whose docstring is the law in one sentence. Standings, executions and
settlements are built by hand; nothing asks the core's rules. A law takes a
:class:`~sched_testkit._suite.bench.Bench` and asserts. Laws that need something that not every
backend has say so, and are skipped by name where it is not declared.
"""

from sched_testkit.laws import (
    batches,
    cancellation,
    claims,
    counting,
    cursors,
    definitions,
    differential,
    durability,
    following,
    generated,
    handlers,
    lifetimes,
    listed_claims,
    lookups,
    marks,
    offers,
    outages,
    overlap,
    overlap_of_listings,
    overlap_of_runs,
    queries,
    queues,
    removal,
    repeats,
    replacements,
    requests,
    retention,
    revisions,
    settlements,
    takeovers,
    texts,
    transactions,
    trouble,
    unreadable,
    values,
    waits,
    waits_by_queue,
    wakeups,
    workers,
)
from sched_testkit.laws.law import GeneratedLaw, Law, SeededLaw, laws_of
from sched_testkit.laws.order import STEPS, step_of

_ALONE = (
    definitions,
    revisions,
    claims,
    takeovers,
    settlements,
    requests,
    repeats,
    removal,
    cancellation,
    queries,
    cursors,
    values,
    texts,
    replacements,
    retention,
    lifetimes,
    wakeups,
    waits,
    queues,
    waits_by_queue,
    listed_claims,
    lookups,
    counting,
    workers,
    following,
    marks,
    outages,
    trouble,
    unreadable,
    offers,
    durability,
)
"""One call at a time: what an author meets first."""
_TOGETHER = (overlap, overlap_of_runs, overlap_of_listings)
"""Two calls at a time; they call whatever comes up to `settle`."""
_OFFERED = (transactions, handlers)


def _placed(law: Law, group: int) -> tuple[int, int]:
    step = step_of(law.check)
    return (max(step, STEPS.index(("settle",))) if group == 1 else step), group


LAWS: tuple[Law, ...] = (
    *(
        law
        for _, law in sorted(
            (
                (_placed(law, group), law)
                for group, modules in enumerate((_ALONE, _TOGETHER, (batches,)))
                for module in modules
                for law in laws_of(module, Law)
            ),
            key=lambda placed: placed[0],
        )
    ),
    *(law for module in _OFFERED for law in laws_of(module, Law)),
)
"""Sorted by the last method they call; overlap comes before large batches, which take long."""

GENERATED_LAWS: tuple[GeneratedLaw, ...] = tuple(laws_of(generated, GeneratedLaw))
SEEDED_LAWS: tuple[SeededLaw, ...] = tuple(laws_of(differential, SeededLaw))

__all__ = ["GENERATED_LAWS", "LAWS", "SEEDED_LAWS", "GeneratedLaw", "Law", "SeededLaw"]
