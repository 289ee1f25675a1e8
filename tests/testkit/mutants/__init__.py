"""Deliberately wrong backends, each wrong in one way that an author could get wrong.

Each is a :class:`Sound` backend, which passes every law, with one thing changed, and names the law
that must kill it.
"""

from tests.testkit.mutants import (  # noqa: F401 -- each registers its mutants
    adding,
    batches,
    cascades,
    claiming,
    corners,
    counting,
    differential,
    durability,
    editing,
    following,
    handlers,
    holds,
    keeping,
    lifetimes,
    listed_claims,
    listing,
    lookups,
    marks,
    offers,
    order,
    overlap,
    overlap_of_runs,
    queues,
    reaching,
    removing,
    repeats,
    requests,
    revisions,
    settling,
    takeovers,
    transactions,
    troubles,
    unreadable,
    unseen,
    values,
    waking,
    whole,
    workers,
)
from tests.testkit.mutants.base import MUTANTS, Mutant, MutantHarness, Sound, harness_of
from tests.testkit.mutants.batches import Limited
from tests.testkit.mutants.durability import Filed
from tests.testkit.mutants.joined import Joined
from tests.testkit.mutants.troubles import Silent

SOUND: tuple[type[Sound], ...] = (Sound, Filed, Joined, Silent, Limited)
"""Each can be examined by laws that no other one can."""

__all__ = ["MUTANTS", "SOUND", "Filed", "Joined", "Mutant", "MutantHarness", "Sound", "harness_of"]
