"""The calls of a table that look at a schema, apart from pages; see ``sched_sql._shared.table``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from psycopg.errors import LockNotAvailable

from sched_core import (
    Claim,
    ClaimQuery,
    CountQuery,
    Counts,
    Execution,
    Followed,
    Hold,
    Page,
    UndecodableExecution,
    WorkerState,
)
from sched_sql._shared.table import Now
from sched_sql.postgres import lookups
from sched_sql.postgres.follow import Follow
from sched_sql.postgres.server_time import ServerTime
from sched_sql.postgres.session import LaneConnection
from sched_sql.postgres.sql import Names
from sched_sql.postgres.survey import Survey


class Looks:
    """Looks at one schema.

    Args:
        names: The schema's names.
        lane: The connection on which to look.
        time: The clock that decides.
    """

    def __init__(self, names: Names, lane: LaneConnection, time: ServerTime) -> None:
        self._names, self._lane, self._time = names, lane, time
        self._survey, self._follow = Survey(names), Follow(names)
        self._worker = ""

    def _ensure_era(self) -> None:
        with suppress(LockNotAvailable):  # then who follows the history begins it
            self._lane.run(self._follow.ensure_era)

    def _note_claims(self, claims: Sequence[Claim]) -> None:
        if claims:
            self._survey.claimed(claims[-1].claimed_at)

    def _forget_workers(self, now: datetime) -> None:
        self._lane.run(lambda: self._survey.forget(now), transaction=False)

    def execution(self, execution_id: str) -> Execution | UndecodableExecution | None:
        return self._lane.run(lambda: lookups.execution(self._names, execution_id))

    def recent(
        self, job_ids: Sequence[str], limit: int
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        return self._lane.run(lambda: lookups.recent(self._names, job_ids, limit))

    def follow(self, after: str | None, limit: int, now: Now) -> Followed:
        at = self._time.fixed(now)
        return self._lane.run(lambda: self._follow.steps(after, limit, at))

    # -- what is going on

    def claims(self, query: ClaimQuery, after: str | None, limit: int, now: Now) -> Page[Hold]:
        at = now()
        return self._lane.run(lambda: self._survey.claims(query, after, limit, at))

    def report(self, state: WorkerState) -> None:
        self._lane.run(lambda: self._survey.report(state), transaction=False)

    def withdraw(self) -> None:
        self._lane.run(lambda: self._survey.withdraw(self._worker), transaction=False)

    def workers(self) -> Sequence[WorkerState]:
        return self._lane.run(self._survey.workers, transaction=False)

    def counts(self, query: CountQuery, now: Now) -> Counts:
        at = self._time.fixed(now)
        return self._lane.run(lambda: self._survey.counts(query, at))
