"""The laws of the port, in the order of its methods: see :mod:`sched_testkit.laws.order`.

Each is one function, whose docstring is the law in one sentence. Standings, executions and
settlements are built by hand; nothing asks the core's rules. A law takes a
:class:`~sched_testkit.bench.Bench` and asserts. Laws that need something that not every backend has
say so, and are skipped by name where it is not declared.
"""

from sched_testkit.laws import (
    batches,
    cancelling,
    claiming,
    definitions,
    differential,
    durability,
    generated,
    handlers,
    keeping,
    lifetimes,
    listing,
    offers,
    overlap,
    overlap_of_runs,
    reaching,
    removal,
    repeats,
    requests,
    revisions,
    settling,
    takeovers,
    texts,
    transactions,
    troubles,
    turning,
    unreadable,
    values,
    waits,
    waking,
    whole,
)
from sched_testkit.laws.law import GeneratedLaw, Law, SeededLaw, laws_of
from sched_testkit.laws.order import STEPS, step_of

_ALONE = (
    definitions,
    revisions,
    claiming,
    takeovers,
    settling,
    requests,
    repeats,
    removal,
    cancelling,
    listing,
    turning,
    values,
    texts,
    whole,
    batches,
    keeping,
    lifetimes,
    waking,
    waits,
    reaching,
    troubles,
    unreadable,
    offers,
    durability,
)
"""One call at a time: what an author meets first."""
_TOGETHER = (overlap, overlap_of_runs)
"""As soon as whatever they call is written: what is wrong here is wrong in the design."""
_OFFERED = (transactions, handlers)

_IN_ORDER = sorted(
    (found for module in _ALONE for found in laws_of(module)), key=lambda law: step_of(law.check)
)
_LATE = [law for law in _IN_ORDER if step_of(law.check) > STEPS.index(("settle",))]

LAWS: tuple[Law, ...] = (
    *_IN_ORDER[: -len(_LATE)],
    *(found for module in _TOGETHER for found in laws_of(module)),
    *_LATE,
    *(found for module in _OFFERED for found in laws_of(module)),
)

GENERATED_LAWS: tuple[GeneratedLaw, ...] = generated.LAWS
SEEDED_LAWS: tuple[SeededLaw, ...] = differential.LAWS

__all__ = ["GENERATED_LAWS", "LAWS", "SEEDED_LAWS", "GeneratedLaw", "Law", "SeededLaw"]
