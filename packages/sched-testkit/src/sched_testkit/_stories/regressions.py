"""Stories that a backend once failed with, each shortened to what it needs, in one line.

They are told first, and on every backend: what chance finds on one may be rare on another.
"""

from __future__ import annotations

from sched_testkit._stories.stories import Step, Story


def _ids(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _add(ids: str = "a", due: str = "now") -> Step:
    return Step("add", ids=_ids(ids), due=due)


def _claim(by: int = 0, most: int = 10) -> Step:
    return Step("claim", by, number=most)


def _edit(how: str, ids: str = "a", due: str = "now") -> Step:
    return Step("replace", ids=_ids(ids), how=how, due=due)


def _remove(how: str = "", ids: str = "a") -> Step:
    return Step("remove", ids=_ids(ids), how=how)


def _settle(how: str = "done", ids: str = "a", due: str = "now", by: int = 0, ago: int = 0) -> Step:
    return Step("settle", by, _ids(ids), how, due, ago)


def _release(ids: str = "a") -> Step:
    return Step("release", ids=_ids(ids))


def _renew(ids: str = "a", ago: int = 0) -> Step:
    return Step("renew", ids=_ids(ids), number=ago)


def _again(what: str, by: int = 0) -> Step:
    return Step("again", by, how=what)


def _pass(how: str = "a lease") -> Step:
    return Step("pass", how=how)


def _taken(by: int = 1) -> Story:
    return _claim(by), _pass("10 s"), _claim(by)


def _prune(how: str = "ended") -> Step:
    return Step("prune", how=how)


def _turn(what: str, most: int = 0) -> Step:
    return Step("turn", how=what, number=most)


BY_OURS: tuple[Story, ...] = (
    # JetStream answered that nothing is due: the only hint that it had was taken by another.
    (
        _add("a b ab", due="this second"),
        _pass("an hour"),
        _claim(most=2),
        _settle("done", "a b ab"),
        _claim(1, most=1),
        _claim(most=1),
        _claim(1, most=1),
    ),
    # SQLite and JetStream wrote a second execution under the id of the lost attempt.
    (_add(), _claim(), _pass(), _claim(), _settle("freed"), _claim(1), _settle()),
    # SQLite wrote a second execution of an attempt that had ended without its standing.
    (_add(), _claim(), _settle("interrupted only"), _claim(), _settle()),
    # PostgreSQL ended nothing that had lapsed, when it had no room or others filled it.
    (_add(), _claim(), _pass(), _claim(1, most=0), _claim(1, most=1)),
    (_add(), _claim(), _pass(), _add("b", "an hour ago"), _claim(1, most=1)),
    # PostgreSQL handed out what it had ended after what is due later.
    (
        _add("a b ab"),
        _edit("pause with an end"),
        _claim(),
        _pass(),
        _claim(most=2),
        _pass(),
        _claim(),
    ),
)
"""What was wrong with memory, SQLite, PostgreSQL, JetStream or the example."""

BY_OTHERS: tuple[Story, ...] = (
    # Removal
    (_add(), _claim(), _remove(), _again("remove"), _renew(), _settle("last execution only")),
    (_add("a ab"), _claim(), _remove(), _release(), _renew("a ab"), _add(), _claim()),
    (_add(), _claim(), _remove("with its end"), _pass(), _prune("nothing old"), _claim()),
    (_add(), _claim(), _remove(), _pass(), _add(), _renew(), _claim(1), _claim(1)),
    (_add(), _claim(), _remove(), _pass(), _add(), _claim(1), _settle(), _settle(ago=1)),
    (_add(), _claim(), _edit("pause"), _remove("of an old revision"), _remove()),
    (_add(), _edit("pause"), _remove("of an old revision"), _again("remove"), _add(), _claim()),
    (_add(), _claim(), _settle(), _remove(), _again("settle"), _add(), _again("settle"), _claim()),
    (
        _add(),
        _claim(),
        _remove(),
        _settle("last execution only"),
        _again("settle"),
        _add(),
        _claim(),
    ),
    # Edits
    (_add(), _claim(), _edit("definition"), _pass(), *_taken(0), _settle()),
    (_add(), _claim(), _edit("definition"), _renew(), _settle(), _settle("re-decided"), _claim()),
    (_add("a b ab"), _edit("pause"), _again("add"), _edit("definition", "b"), _again("add")),
    (_add(), _edit("definition"), _claim(), _edit("of an old revision"), _again("replace")),
    (
        _add("a b"),
        _claim(),
        *2 * (_edit("next occurrence", "b"),),
        _settle("last execution only", "b"),
    ),
    (_add("a b"), _claim(), *2 * (_edit("next occurrence"),), _release("a b"), _claim()),
    (
        _add(),
        _claim(),
        _edit("next occurrence", due="never"),
        _pass(),
        _claim(),
        _pass("10 s"),
        _claim(),
        _claim(1),
    ),
    (
        _add(),
        _claim(),
        _edit("pause"),
        _pass(),
        *_taken(),
        _edit("due moment"),
        _claim(1),
    ),
    (
        _add(),
        _claim(),
        _edit("due moment", due="after a lease"),
        _pass(),
        *_taken(),
        _pass(),
    ),
    (
        _add(),
        _claim(),
        _edit("expiry"),
        _pass(),
        _prune("nothing old"),
        _settle("done", due="never"),
    ),
    # Settlements
    (
        _add(),
        *2 * (_claim(), _settle("to retry")),
        _claim(),
        _pass(),
        *_taken(),
        _settle(),
    ),
    (_add(), _claim(), _settle("done, standing still"), _claim(), _settle(), _claim(), _renew()),
    (_add("a b ab"), _claim(), _settle("blindly"), _settle("without executions"), _again("settle")),
    (_add(), _claim(), _settle("with a missed one", due="never"), _again("settle", 1)),
    (_add(), _claim(), _settle(), _claim(), _again("settle"), _settle(), _again("settle", 1)),
    (_add(), _claim(), _settle("freed"), _renew(), _settle("freed"), _claim(1), _again("settle")),
    (
        _add("a b"),
        _claim(),
        _settle("by no worker", "a b"),
        _settle("by a later token", "a b"),
        _claim(1),
    ),
    (
        _add(),
        _claim(),
        _pass(),
        *_taken(),
        _settle(ago=1),
        _settle(by=1),
        _again("settle"),
    ),
    # Leases
    (_add(), _claim(), _release(), _settle("with a missed one"), _renew(), _claim(1), _release()),
    (_add(), *3 * (_claim(), _pass()), _claim(), _release(), _claim(1), _settle("to retry")),
    (
        _add(),
        _claim(),
        _pass(),
        *_taken(),
        _release(),
        _claim(),
        _pass(),
        *_taken(),
    ),
    (
        _add(),
        _claim(),
        _pass(),
        *_taken(),
        _release(),
        _edit("next occurrence"),
        _claim(),
    ),
    (
        _add(),
        _claim(),
        _pass("an hour"),
        _renew(),
        _pass("a lease but a tick"),
        _claim(1),
        _pass("a tick"),
        _claim(1),
    ),
    (
        _add(),
        _claim(),
        _pass(),
        _claim(1),
        _renew(),
        _renew(ago=1),
        _pass(),
        _claim(),
        _settle(ago=1),
    ),
    # Listings
    (
        _add("a b ab"),
        _claim(),
        _settle("done", "a b ab"),
        _turn("history"),
        _claim(),
        _settle("done", "b ab"),
        _turn("history"),
        _prune("ended before"),
        _turn("history"),
        _turn("history"),
    ),
    (_add("a b ab"), _turn("jobs"), _remove(), _add("a", "never"), _turn("jobs"), _turn("jobs", 3)),
)
"""What wrong backends die of that pass every other law."""

FOUND = BY_OTHERS + BY_OURS
"""A harness that asks for a share of them gets the last ones."""
