"""The ledger of the PostgreSQL dialect: writing lines that may be there, finding, deleting."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sched_core.job import Execution
from sched_sql.postgres.names import LINES, NOW, Names, Query, Steps, numbers, texts
from sched_sql.rows import EARLIEST, LEDGER_COLUMNS, line_values

CHUNK = 5_000
"""Rows that one transaction of a prune deletes at most."""

_WINDOW = 20_000
"""Lines that one step of a prune looks at."""


class Found:
    """The lines that are stored about some occurrences."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int, int], tuple[str, int, str]] = {}
        self._final: set[tuple[str, int]] = set()

    def add(self, row: Sequence[object]) -> None:
        """Take in uid, number, attempt, status, token, worker and whether it is final."""
        uid, number, attempt, status, token, worker, final = row
        self._lines[uid, number, attempt] = (status, token, worker)  # type: ignore[index,assignment]  # a row of the driver's
        if final:
            self._final.add((uid, number))  # type: ignore[arg-type]  # as above

    def stored(self, line: Execution) -> tuple[str, int, str] | None:
        """Return status, token and worker of the line with the same id."""
        return self._lines.get((line.uid, line.number, line.attempt))

    def has_final(self, uid: str, number: int) -> bool:
        """Whether the occurrence has its final line."""
        return (uid, number) in self._final


class Ledger:
    """Lines in one schema."""

    def __init__(self, names: Names) -> None:
        ledger = names.ledger
        columns = ", ".join(f"i.{name}" for name in LINES.names)
        self._write = f"""
            INSERT INTO {ledger} (seq, {LEDGER_COLUMNS})
            SELECT {names.next}, {columns}
            FROM (SELECT * FROM {LINES.unnest} ORDER BY n) i
            LEFT JOIN LATERAL (
                SELECT true AS known FROM {ledger} l
                WHERE l.uid = i.uid AND l.number = i.number AND l.final
                LIMIT 1  -- or a planner might rather read all final lines there are
            ) earlier ON i.final
            WHERE earlier.known IS NULL
            ON CONFLICT (uid, number, attempt) DO NOTHING
        """
        self._find = f"""
            SELECT l.uid, l.number, l.attempt, l.status, l.token, l.worker, l.final
            FROM unnest(%s::text[], %s::bigint[]) AS i(uid, number)
            JOIN {ledger} l ON l.uid = i.uid AND l.number = i.number
        """
        self._window = f"""
            SELECT min(seq), (SELECT max(seq) FROM {ledger}) FROM {ledger} WHERE seq > %s
        """
        self._prune_old = f"""
            WITH old AS MATERIALIZED (
                SELECT seq FROM {ledger}
                WHERE seq BETWEEN %s AND %s AND finished_at < %s AND finished_at >= {EARLIEST}
                ORDER BY seq LIMIT {CHUNK} FOR UPDATE SKIP LOCKED
            ), gone AS (DELETE FROM {ledger} l USING old WHERE l.seq = old.seq RETURNING l.seq)
            SELECT count(*), max(seq) FROM gone
        """
        self._prune_expired = f"""
            WITH old AS MATERIALIZED (
                SELECT seq FROM {ledger} WHERE expires_at <= coalesce(%s::bigint, {NOW})
                    AND expires_at >= {EARLIEST}
                ORDER BY expires_at LIMIT {CHUNK} FOR UPDATE SKIP LOCKED
            ), gone AS (DELETE FROM {ledger} l USING old WHERE l.seq = old.seq RETURNING l.seq)
            SELECT count(*) FROM gone
        """

    def write(self, lines: Iterable[Execution]) -> Steps[None]:
        """Write lines; pass over those that are stored already, and second final ones."""
        values, final = [], set[tuple[str, int]]()
        for line in lines:
            about = (line.uid, line.number)
            if line.final and about in final:
                continue
            if line.final:
                final.add(about)
            values.append(line_values(line))
        if values:
            yield Query(self._write, LINES.values(values))

    def find(self, lines: Sequence[Execution]) -> Steps[Found]:
        """Return what is stored about the occurrences that the lines are about."""
        found = Found()
        about = {(line.uid, line.number) for line in lines}
        if about:
            uids, occurrences = zip(*about, strict=True)
            for row in (yield Query(self._find, (texts(uids), numbers(occurrences)))):
                found.add(row)
        return found

    def prune_old(self, before: int, cursor: int) -> Steps[tuple[int, int | None]]:
        """Delete a chunk of the lines that finished before; return how many, and where to go on."""
        ((first, newest),) = yield Query(self._window, (cursor,))
        if first is None:
            return 0, None
        end = first + _WINDOW
        ((deleted, last),) = yield Query(self._prune_old, (first, end, before))
        if deleted == CHUNK:
            end = last
        return deleted, (end if end < newest else None)

    def prune_expired(self, now: int | None) -> Steps[int]:
        """Delete a chunk of the lines that have expired."""
        ((deleted,),) = yield Query(self._prune_expired, (now,))
        return int(deleted)
