"""Deterministic simulation: real schedulers on a store that is far away, from a seed.

``play(seed)`` plays one history and returns what came of it: the same, whenever and wherever.
``python -m sched_testkit.simulation --histories 100000`` plays many.
"""

from sched_testkit.simulation.world import Outcome, Setup, play

__all__ = ["Outcome", "Setup", "play"]
