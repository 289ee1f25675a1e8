"""Deliberately wrong backends, each wrong in one way that an author could get wrong.

Each is a :class:`Sound` backend, which passes every law, with one thing changed, and names the law
that must kill it.
"""

from tests.testkit.mutants import (  # noqa: F401 -- each registers its mutants
    adding,
    batches,
    cascades,
    claiming,
    differential,
    durability,
    editing,
    keeping,
    lifetimes,
    listing,
    offers,
    order,
    overlap,
    overlap_of_runs,
    reaching,
    removing,
    repeats,
    revisions,
    settling,
    takeovers,
    unreadable,
    values,
    waking,
)
from tests.testkit.mutants.base import MUTANTS, Mutant, MutantHarness, Sound, harness_of
from tests.testkit.mutants.durability import Filed

__all__ = ["MUTANTS", "Filed", "Mutant", "MutantHarness", "Sound", "harness_of"]
