"""Recognising a pooler that gives each transaction another session."""

from __future__ import annotations

from collections.abc import Sequence

from sched_sql.postgres.session import LaneConnection

ROUNDS = 3
"""How often each connection is asked, both ways: others may use the pooler at the same time."""


def shares_sessions(lanes: Sequence[LaneConnection], processes: Sequence[tuple[int, int]]) -> bool:
    """Say whether connections share the sessions of a server, as in PgBouncer's transaction mode.

    Nothing is set for that, so nothing is left to other users of the pooler. Each connection of the
    pooler's is told the number of a server process that is not the one which answers; that it
    changes, or answers to two connections, tells this mode from one session for each connection.

    Args:
        lanes: Connected ones.
        processes: The process that each was told of, and the one that has answered.
    """
    known = [answers for _, answers in processes]
    if len(set(known)) < len(known):
        return True
    if all(told == answers for told, answers in processes):
        return False
    # Forth and back: one is asked twice in succession, in case sessions are given out in turn.
    order = [*range(len(lanes)), *reversed(range(len(lanes)))] * ROUNDS
    return any(lanes[index].processes()[1] != known[index] for index in order)
