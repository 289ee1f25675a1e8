"""What is stored under ids, under locks: read as a whole, given to the rules, and written back."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sched_core import Job, Undecodable
from sched_core import row as core
from sched_sql._shared.moments import micros_or_none
from sched_sql._shared.standings import STANDING_COLUMNS, standing_values
from sched_sql.postgres.sql import Columns, Names, Query, Steps, numbers, texts

_STANDINGS = Columns(f"id, {STANDING_COLUMNS}, settled")


class Freed(NamedTuple):
    """A row whose claim has ended.

    Attributes:
        id: The job's id.
        before: The job as it was stored.
        row: What is to be stored now.
        settled: Whether the claim was settled: by its token and worker a repeat is known then.
    """

    id: str
    before: Job | Undecodable | None
    row: core.Row
    settled: bool = False


class Records:
    """Rows in one schema."""

    def __init__(self, names: Names) -> None:
        job = names.job
        standing = ", ".join(f"{name} = i.{name}" for name in STANDING_COLUMNS.split(", "))
        end = (
            "lease_until = NULL, held = NULL, progress = NULL, "
            "worker = CASE WHEN i.settled THEN j.worker END"
        )
        self._end = f"""
            UPDATE {job} j SET {standing}, revision = {names.next}, {end}
            FROM {_STANDINGS.unnest} WHERE j.id = i.id
        """
        self._free = f"""
            UPDATE {job} j SET {end}
            FROM unnest(%s::text[], %s::boolean[]) AS i(id, settled) WHERE j.id = i.id
        """
        self._delete = f"DELETE FROM {job} WHERE id = ANY(%s::text[])"

    def write(self, freed: Iterable[Freed]) -> Steps[list[int | None]]:
        """Write rows that are free now; return when what is left of them is due.

        Of a job, only the standing may have changed.
        """
        gone, free, ended = list[str](), list[tuple[str, bool]](), list[tuple[object, ...]]()
        due = list[int | None]()
        for job_id, before, row, settled in freed:
            job = row.job
            if row.is_empty():
                gone.append(job_id)
                continue
            if isinstance(job, Job):
                due.append(micros_or_none(job.standing.due_at))
            if job is before or not isinstance(job, Job):
                free.append((job_id, settled))
            else:
                ended.append((job_id, *standing_values(job.standing), settled))
        yield from self.delete(gone)
        if free:
            ids, flags = zip(*free, strict=True)
            yield Query(self._free, (texts(ids), numbers(flags)))
        if ended:
            yield Query(self._end, _STANDINGS.values(ended))
        return due

    def delete(self, ids: Iterable[str]) -> Steps[None]:
        """Delete rows."""
        gone = texts(ids)
        if gone != "{}":
            yield Query(self._delete, (gone,))
