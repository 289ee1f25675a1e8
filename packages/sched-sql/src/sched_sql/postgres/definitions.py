"""Adding, replacing and removing jobs in PostgreSQL, on any connection and in any transaction."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sched_core import Execution, Hold, Job, Undecodable
from sched_core import row as core
from sched_core.ports import MAX_POLL
from sched_sql._shared.holds import RECORD_COLUMNS, held_text, read_record
from sched_sql._shared.moments import micros_or_none
from sched_sql._shared.rows import JOB_COLUMNS, job_values
from sched_sql._shared.rules import reject_duplicate_ids, revised
from sched_sql.postgres.executions import Executions, Found
from sched_sql.postgres.notifications import CANCEL
from sched_sql.postgres.sql import JOBS, NOW, SYNC_COMMIT, Names, Query, Steps, texts

BULK = 2_000
"""Jobs that one statement of an ``add`` inserts."""

_SOON = MAX_POLL.seconds * 1_000_000


class Definitions:
    """Jobs in one schema."""

    def __init__(self, names: Names, executions: Executions) -> None:
        self._executions = executions
        inserted = ", ".join(
            names.next if name == "revision" else f"i.{name}" for name in JOBS.names
        )
        self._insert = f"""
            INSERT INTO {names.job} ({JOB_COLUMNS})
            SELECT {inserted} FROM (SELECT * FROM {JOBS.unnest} ORDER BY id) i
            ON CONFLICT (id) DO NOTHING RETURNING id, revision
        """
        columns = ", ".join(name for name in JOBS.names if name not in {"id", "revision"})
        marks = ", ".join("%s" for name in JOBS.names if name not in {"id", "revision"})
        self._overwrite = f"""
            UPDATE {names.job} SET ({columns}, revision, removed, held)
                = ({marks}, {names.next}, false, CASE WHEN lease_until IS NOT NULL THEN %s END)
            WHERE id = %s RETURNING revision
        """
        self._get = f"SELECT {RECORD_COLUMNS} FROM {names.job} WHERE id = %s AND NOT removed"
        self._lock = f"""
            SELECT {RECORD_COLUMNS} FROM {names.job} WHERE id = ANY(%s::text[])
            ORDER BY id FOR NO KEY UPDATE
        """
        self._make_tombstone = f"""
            UPDATE {names.job}
            SET removed = true, revision = {names.next}, due_at = NULL, held = %s
            WHERE id = %s
        """
        self._delete = f"DELETE FROM {names.job} WHERE id = %s"
        # One announcement for each transaction: the server drops repeats, but not for free.
        notify = f"pg_notify('{names.channel}', %s)"
        is_soon = f"%s <= coalesce(%s::bigint, {NOW}) + {_SOON}"
        self._announce = f"SELECT {notify} WHERE {is_soon}"
        self._notify = f"SELECT {notify}"
        self._add_one = f"""
            WITH added AS ({self._insert})
            SELECT revision, CASE WHEN {is_soon} THEN {notify} END
            FROM added, (SELECT {SYNC_COMMIT}) durable
        """
        self.fixed: Callable[[], int | None] = lambda: None
        """Tells the moment where the clock decides, and not the server's."""

    def get(self, job_id: str) -> Steps[Job | Undecodable | None]:
        """Return what is stored under the id."""
        rows = yield Query(self._get, (job_id,))
        return read_record(rows[0]).read() if rows else None

    def add(self, jobs: Sequence[Job]) -> Steps[list[Job]]:
        """Store new jobs, all or none: the caller rolls back if this raises."""
        reject_duplicate_ids(jobs)
        # Every worker inserts in the order of ids, so no two workers wait for each other.
        waiting = sorted(jobs, key=lambda job: job.id.encode())
        stored: dict[str, Job] = {}
        for start in range(0, len(waiting), BULK):
            part = {job.id: job for job in waiting[start : start + BULK]}
            while part:
                values = JOBS.values(job_values(job, 0) for job in part.values())
                for job_id, revision in (yield Query(self._insert, values)):
                    stored[job_id] = revised(part.pop(job_id), revision)
                if part:
                    yield from self._meet(part, stored)
        yield from self.announce(micros_or_none(job.standing.due_at) for job in jobs)
        return [stored[job.id] for job in jobs]

    def add_one(self, job: Job) -> Steps[Job | None]:
        """Store a new job and wake all workers, in one statement; ``None`` if the id is taken."""
        values = JOBS.values([job_values(job, 0)])
        due_at = micros_or_none(job.standing.due_at)
        rows = yield Query(self._add_one, (*values, due_at, self.fixed(), ""))
        return revised(job, rows[0][0]) if rows else None

    def _meet(self, part: dict[str, Job], stored: dict[str, Job]) -> Steps[None]:
        """Deal with ids that are taken; a job that is gone by now stays in the part."""
        for row in (yield Query(self._lock, (texts(part),))):
            record = read_record(row)
            job = part.pop(row[0])
            is_new = record.job is None  # a tombstone, which carries a hold
            stored[job.id] = record.add(job, 0)
            if is_new:
                revision = yield from self._store(job, record.hold)
                record.job = revised(job, revision)
                stored[job.id] = record.readable(job.id)

    def _store(self, job: Job, hold: Hold | None) -> Steps[int]:
        values = job_values(job, 0)[2:]
        held = None if hold is None else held_text(hold)
        ((revision,),) = yield Query(self._overwrite, (*values, held, job.spec.id))
        return int(revision)

    def replace(self, job: Job, executions: Sequence[Execution]) -> Steps[Job]:
        """Store the job if it is still what was read."""
        record, history = (yield from self._locked(job.spec.id)), Found()
        record.replace(job, executions, 0, history)
        revision = yield from self._store(job, record.hold)
        yield from self._executions.write(history.written)
        yield from self.announce([micros_or_none(job.standing.due_at)])
        yield from self._announce_cancel(job, record.hold)
        record.job = revised(job, revision)
        return record.readable(job.spec.id)

    def remove(self, job: Job, executions: Sequence[Execution]) -> Steps[None]:
        """Remove the job if it is still what was read, or make it a tombstone while claimed."""
        record, history = (yield from self._locked(job.spec.id)), Found()
        record.remove(job, executions, history)
        yield from self._executions.write(history.written)
        if record.hold is None:
            yield Query(self._delete, (job.spec.id,))
        else:
            yield Query(self._make_tombstone, (held_text(record.hold), job.spec.id))
            yield from self._announce_cancel(None, record.hold)

    def _announce_cancel(self, job: Job | None, hold: Hold | None) -> Steps[None]:
        """Wake the worker of a hold, once this is committed, if its run is to be cancelled."""
        if hold is not None and core.is_to_be_cancelled(job, hold):
            yield Query(self._notify, (f"{CANCEL}{hold.worker}",))

    def _locked(self, job_id: str) -> Steps[core.Row]:
        rows = yield Query(self._lock, (texts([job_id]),))
        return read_record(rows[0]) if rows else core.Row()

    def announce(self, moments: Iterable[int | None], by: str = "") -> Steps[None]:
        """Wake all who wait, once this is committed, if one is due before they look anyway.

        Args:
            moments: When something is due.
            by: A worker that knows of it already.
        """
        earliest = min((moment for moment in moments if moment is not None), default=None)
        if earliest is not None:
            yield Query(self._announce, (by, earliest, self.fixed()))
