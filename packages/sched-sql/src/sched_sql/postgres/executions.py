"""The history in PostgreSQL: writing executions that may be there, finding, deleting."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Iterable

from sched_core import Execution, UndecodableExecution
from sched_sql._shared.history import EXECUTION_COLUMNS, execution_values, named, read_execution
from sched_sql._shared.moments import EARLIEST, Row
from sched_sql.postgres.partitions import Partitions, drop_at
from sched_sql.postgres.sql import EXECUTIONS, NOW, Names, Query, Steps, numbers, qualified, texts

CHUNK = 5_000
"""Rows that one transaction of a prune deletes at most."""

_WINDOW = 20_000
"""Executions that one step of a prune looks at."""

FINISHED_AT, EXPIRES_AT = 12, 17
"""Their places in ``EXECUTION_COLUMNS``."""


class Found:
    """What is stored under some ids, and what is to be written; see ``sched_core.row.History``."""

    def __init__(self, stored: Iterable[Execution | UndecodableExecution] = ()) -> None:
        self._stored = {each.id: each for each in stored}
        self.written: list[Execution] = []

    def stored(self, execution_id: str) -> Execution | UndecodableExecution | None:
        """Return the execution with the id, if it was asked for."""
        return self._stored.get(execution_id)

    def append(self, execution: Execution) -> None:
        """Have an execution written; where one with its id is stored, that stays as it is."""
        self.written.append(execution)


class Executions:
    """Executions in one schema."""

    def __init__(self, names: Names) -> None:
        execution = names.execution
        self.partitions = Partitions(names)
        columns = ", ".join(f"i.{name}" for name in EXECUTIONS.names)
        # The key has the partition in it; one with the same id may lie in another one.
        self._write = f"""
            INSERT INTO {execution} (seq, {", ".join(EXECUTIONS.names)})
            SELECT {names.next}, {columns}
            FROM (SELECT * FROM {EXECUTIONS.unnest} ORDER BY n) i
            LEFT JOIN LATERAL (
                SELECT true AS known FROM {execution} l
                WHERE l.uid = i.uid AND l.number = i.number AND l.attempt = i.attempt LIMIT 1
            ) earlier ON true
            WHERE earlier.known IS NULL
            ON CONFLICT (uid, number, attempt, drop_at) DO NOTHING
        """
        self._find = f"""
            SELECT {qualified("l", EXECUTION_COLUMNS)}, l.seq
            FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS i(uid, number, attempt)
            JOIN {execution} l
                ON l.uid = i.uid AND l.number = i.number AND l.attempt = i.attempt
        """
        self._window = f"""
            SELECT min(seq), (SELECT max(seq) FROM {execution}) FROM {execution} WHERE seq > %s
        """
        gone = f"""
            gone AS (
                DELETE FROM {execution} l USING old
                WHERE l.drop_at = old.drop_at AND l.ctid = old.place RETURNING l.seq)
        """
        self._prune_old = f"""
            WITH old AS MATERIALIZED (
                SELECT ctid AS place, drop_at FROM {execution}
                WHERE seq BETWEEN %s AND %s AND finished_at < %s AND finished_at >= {EARLIEST}
                ORDER BY seq LIMIT {CHUNK} FOR UPDATE SKIP LOCKED
            ), {gone}
            SELECT count(*), max(seq) FROM gone
        """
        self._prune_expired = f"""
            WITH old AS MATERIALIZED (
                SELECT ctid AS place, drop_at FROM {execution}
                WHERE expires_at <= coalesce(%s::bigint, {NOW})
                    AND expires_at >= {EARLIEST} AND NOT drop_at = ANY(%s::bigint[])
                ORDER BY expires_at LIMIT {CHUNK} FOR UPDATE SKIP LOCKED
            ), {gone}
            SELECT count(*) FROM gone
        """

    def write(self, executions: Iterable[Execution]) -> Steps[None]:
        """Write executions; pass over those whose ids are stored already."""
        rows = {each.id: execution_values(each) for each in executions}
        if rows:
            yield from self.partitions.make(
                (row[FINISHED_AT], row[EXPIRES_AT]) for row in rows.values()
            )
            yield Query(self._write, EXECUTIONS.values(map(with_partition, rows.values())))

    def find(self, executions: Iterable[Execution]) -> Steps[Found]:
        """Return what is stored under the ids of these."""
        ids = {name for each in executions if (name := named(each.id)) is not None}
        if not ids:
            return Found()
        uids, occurrences, attempts = zip(*ids, strict=True)
        values = (texts(uids), numbers(occurrences), numbers(attempts))
        return Found(read_execution(row) for row in (yield Query(self._find, values)))

    def prune_old(self, before: int, cursor: int) -> Steps[tuple[int, int | None]]:
        """Delete a chunk of what finished before; return how many, and where to go on."""
        ((first, newest),) = yield Query(self._window, (cursor,))
        if first is None:
            return 0, None
        end = first + _WINDOW
        ((deleted, last),) = yield Query(self._prune_old, (first, end, before))
        if deleted == CHUNK:
            end = last
        return deleted, (end if end < newest else None)

    def prune_expired(self, now: int | None) -> Steps[int]:
        """Delete a chunk of what has expired; what lies in a large partition goes with that."""
        large = yield from self.partitions.large()
        ((deleted,),) = yield Query(self._prune_expired, (now, numbers(large)))
        return int(deleted)


def with_partition(row: Row) -> Row:
    """Return the values of an execution's columns, and the one that says where it lies."""
    return (*row, drop_at(row[FINISHED_AT], row[EXPIRES_AT]))
