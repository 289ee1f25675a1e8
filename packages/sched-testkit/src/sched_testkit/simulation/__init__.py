"""Deterministic simulation: real schedulers on a store that is far away, from a seed.

``play(seed)`` plays one history and returns its outcome: the same one in every process and on
every machine.
``python -m sched_testkit.simulation --histories 100000`` plays many.
"""

from sched_testkit.simulation.history import Outcome, Setup, play

__all__ = ["Outcome", "Setup", "play"]
