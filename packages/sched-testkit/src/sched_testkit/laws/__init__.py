"""The laws of the port, in the order in which they build on each other.

Each is one function, whose docstring is the law in one sentence. Standings, lines and settlements
are built by hand; nothing asks ``lifecycle``. A law takes a :class:`~sched_testkit.bench.Bench` and
asserts. Laws that need something that not every backend has say so, and are skipped by name where
it is not declared.
"""

from sched_testkit.laws import (
    claiming,
    definitions,
    generated,
    keeping,
    lifetimes,
    listing,
    overlap,
    overlap_of_runs,
    reaching,
    removal,
    repeats,
    revisions,
    settling,
    takeovers,
    unreadable,
    waking,
)
from sched_testkit.laws.law import GeneratedLaw, Law, laws_of

LAWS: tuple[Law, ...] = tuple(
    found
    for module in (
        definitions,
        revisions,
        claiming,
        takeovers,
        settling,
        repeats,
        removal,
        listing,
        keeping,
        lifetimes,
        waking,
        reaching,
        unreadable,
        overlap,
        overlap_of_runs,
    )
    for found in laws_of(module)
)

GENERATED_LAWS: tuple[GeneratedLaw, ...] = generated.LAWS

__all__ = ["GENERATED_LAWS", "LAWS", "GeneratedLaw", "Law"]
