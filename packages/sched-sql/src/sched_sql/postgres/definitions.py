"""Adding, replacing and removing jobs in PostgreSQL, on any connection and in any transaction."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sched_core.errors import JobAlreadyExists, JobNotFound, JobUndecodable, RevisionConflict
from sched_core.job import Execution, Job
from sched_core.ports import MAX_POLL, Undecodable
from sched_sql.postgres.ledger import Ledger
from sched_sql.postgres.names import DURABLE, JOBS, NOW, Names, Query, Steps, texts
from sched_sql.rows import (
    HOLD_COLUMNS,
    JOB_COLUMNS,
    Row,
    held_claim,
    held_values,
    job_values,
    micros_or_none,
    read_job_or_undecodable,
)
from sched_sql.rules import at_same_occurrence, is_doubtful, refuse_twins, revised

BULK = 2_000
"""Jobs that one statement of an ``add`` inserts."""

_HOLD_WIDTH = HOLD_COLUMNS.count(",") + 1
_HELD = "held_uid, held_number, held_attempt, held_at, held_manual, held_keep"
_SOON = MAX_POLL.seconds * 1_000_000


class Definitions:
    """Jobs in one schema."""

    def __init__(self, names: Names, ledger: Ledger) -> None:
        self._ledger = ledger
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
            UPDATE {names.job}
            SET ({columns}, revision, removed, doubtful, lost)
                = ({marks}, {names.next}, false, doubtful OR %s, CASE WHEN %s THEN 0 ELSE lost END)
            WHERE id = %s RETURNING revision
        """
        self._copy_hold = f"""
            UPDATE {names.job} SET ({_HELD}) = (%s, %s, %s, %s, %s, %s) WHERE id = %s
        """
        self._get = f"SELECT {JOB_COLUMNS} FROM {names.job} WHERE id = %s AND NOT removed"
        self._lock = f"""
            SELECT {HOLD_COLUMNS}, removed, {JOB_COLUMNS}
            FROM {names.job} WHERE id = ANY(%s::text[]) ORDER BY id FOR NO KEY UPDATE
        """
        self._bury = f"""
            UPDATE {names.job} SET removed = true, revision = {names.next}, due_at = lease_until
            WHERE id = %s
        """
        self._delete = f"DELETE FROM {names.job} WHERE id = %s"
        # One announcement for each transaction: the server drops repeats, but not for free.
        notify = f"pg_notify('{names.channel}', %s)"
        is_soon = f"%s <= coalesce(%s::bigint, {NOW}) + {_SOON}"
        self._announce = f"SELECT {notify} WHERE {is_soon}"
        self._add_one = f"""
            WITH added AS ({self._insert})
            SELECT revision, CASE WHEN {is_soon} THEN {notify} END
            FROM added, (SELECT {DURABLE}) durable
        """
        self.fixed: Callable[[], int | None] = lambda: None
        """Tells the moment where the clock decides, and not the server's."""

    def get(self, job_id: str) -> Steps[Job | Undecodable | None]:
        """Return what is stored under the id."""
        rows = yield Query(self._get, (job_id,))
        return read_job_or_undecodable(rows[0]) if rows else None

    def add(self, jobs: Sequence[Job]) -> Steps[list[Job]]:
        """Store new jobs, all or none: whoever runs this takes it back if it raises."""
        refuse_twins(jobs)
        # Everybody inserts in the order of ids, so that nobody waits for each other.
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
        """Store a new job, and wake everybody, in one statement; ``None`` if the id is taken."""
        values = JOBS.values([job_values(job, 0)])
        due_at = micros_or_none(job.standing.due_at)
        rows = yield Query(self._add_one, (*values, due_at, self.fixed(), ""))
        return revised(job, rows[0][0]) if rows else None

    def _meet(self, part: dict[str, Job], stored: dict[str, Job]) -> Steps[None]:
        """Deal with ids that are taken; what is gone meanwhile stays in the part."""
        for row in (yield Query(self._lock, (texts(part),))):
            removed, found = row[_HOLD_WIDTH], row[_HOLD_WIDTH + 1 :]
            job = part.pop(found[0])
            if removed:
                # The tombstone's hold has its own copy of what it holds.
                revision = yield from self._store(job, doubtful=False, forget_lost=False)
                stored[job.id] = revised(job, revision)
                continue
            if found[9] != job.uid:
                raise JobAlreadyExists(job.id)
            known = read_job_or_undecodable(found)
            if isinstance(known, Undecodable):
                raise JobUndecodable(job.id, known.reason)
            stored[job.id] = known

    def _store(self, job: Job, *, doubtful: bool, forget_lost: bool) -> Steps[int]:
        values = job_values(job, 0)[2:]
        ((revision,),) = yield Query(self._overwrite, (*values, doubtful, forget_lost, job.spec.id))
        return int(revision)

    def replace(self, job: Job, lines: Sequence[Execution]) -> Steps[Job]:
        """Store the job if its revision is still the stored one."""
        job_id = job.spec.id
        hold, stored = yield from self._locked(job_id)
        if stored is None:
            raise JobNotFound(job_id)
        if stored.revision != job.revision:
            raise RevisionConflict(job_id)
        held = yield from self._prepare_edit(stored, hold, lines)
        revision = yield from self._store(
            job,
            doubtful=is_doubtful(job.uid, job.standing.number, lines),
            forget_lost=not held and not at_same_occurrence(stored, job),
        )
        yield from self.announce([micros_or_none(job.standing.due_at)])
        return revised(job, revision)

    def remove(self, job_id: str, lines: Sequence[Execution], expected: int | None) -> Steps[bool]:
        """Remove the job, or make it a tombstone while it is claimed."""
        hold, stored = yield from self._locked(job_id)
        if stored is None:
            return False
        if expected is not None and stored.revision != expected:
            raise RevisionConflict(job_id)
        held = yield from self._prepare_edit(stored, hold, lines)
        yield Query(self._bury if held else self._delete, (job_id,))
        return True

    def _locked(self, job_id: str) -> Steps[tuple[Row, Job | None]]:
        rows = yield Query(self._lock, (texts([job_id]),))
        if not rows or rows[0][_HOLD_WIDTH]:
            return (), None
        stored = read_job_or_undecodable(rows[0][_HOLD_WIDTH + 1 :])
        if isinstance(stored, Undecodable):
            raise JobUndecodable(job_id, stored.reason)
        return rows[0][:_HOLD_WIDTH], stored

    def _prepare_edit(self, stored: Job, hold: Row, lines: Sequence[Execution]) -> Steps[bool]:
        """Prepare for an edit: let the hold keep what is held, and write the lines.

        Lines about the held occurrence are not written. Returns whether there is a hold.
        """
        job_id = stored.spec.id
        held = hold[3] is not None
        if held:
            claim = held_claim(job_id, hold, stored)
            about = (claim.job.uid, claim.job.standing.number)
            yield Query(self._copy_hold, (*held_values(claim), job_id))
            lines = [line for line in lines if (line.uid, line.number) != about]
        yield from self._ledger.write(lines)
        return held

    def announce(self, moments: Iterable[int | None], by: str = "") -> Steps[None]:
        """Wake all who wait, once this is committed, if one is due before they look anyway.

        Args:
            moments: When something is due.
            by: A worker that knows of it already.
        """
        earliest = min((moment for moment in moments if moment is not None), default=None)
        if earliest is not None:
            yield Query(self._announce, (by, earliest, self.fixed()))
