"""The history of PostgreSQL in the order of commit: nothing is left out that commits late.

An execution has the number of the transaction that wrote it. What was written by transactions
below the oldest one that still runs is complete, in one snapshot with that number. So executions
come in the order of these numbers, and of ``seq`` within one. What an open transaction may still
come before waits for its end. A savepoint has the number of its transaction.

The numbers are those of one cluster. Executions that a dump or a replication brought into another
one have numbers of the first: they are of an earlier *era*, which ended when the store was opened
here, and come before. Within a cluster, a failover, a crash or a restore of an earlier state may
give numbers once more. Then the execution that a cursor names is gone, and the cursor has expired.
While it is there, all that came before it is there, too, and new numbers are greater.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from attrs import evolve

from sched_core import Followed
from sched_core.errors import CursorExpired
from sched_sql._shared.cursors import Cursor, mark_of, read_cursor
from sched_sql._shared.history import EXECUTION_COLUMNS, read_execution
from sched_sql._shared.moments import MOST, Row, moment
from sched_sql.postgres.sql import NOW, Names, Query, Steps

_COMPLETE = "xact < pg_snapshot_xmin(pg_current_snapshot())"

Place = tuple[int, int, int]
"""Era, transaction and ``seq`` of an execution: they compare as executions come."""


class Era(NamedTuple):
    """A part of the history with numbers of one cluster.

    Attributes:
        number: The eras are counted from 0.
        after: All of it has a greater ``seq``.
        upto: All of it has this ``seq`` or a smaller one.
        is_last: Whether it is still being written.
        deleted: The newest execution of it that was deleted; ``seq`` 0 for none.
        is_complete: Whether nothing can come before that one any more.
    """

    number: int
    after: int
    upto: int
    is_last: bool
    deleted: Place
    is_complete: bool


class Follow:
    """Reads the history of one schema in the order of commit."""

    def __init__(self, names: Names) -> None:
        execution = names.execution
        self._store = f"""
            SELECT value, (SELECT cluster FROM {names.era} ORDER BY era DESC LIMIT 1)
                = {names.cluster}, (SELECT min(seq) FROM {execution})
            FROM {names.meta} WHERE key = 'store'
        """
        self._begin_era = f"SELECT {names.begin_era}"
        self._eras = f"""
            SELECT era, after_seq, deleted_xact::text, deleted_seq,
                deleted_xact < pg_snapshot_xmin(pg_current_snapshot())
                    OR era < (SELECT max(era) FROM {names.era})
            FROM {names.era} ORDER BY era
        """
        select = f"SELECT {EXECUTION_COLUMNS}, seq, xact::text AS its FROM {execution}"
        # Not as conditions on ``seq`` itself: its own index would be chosen, and all of it sorted.
        of_era = "seq + 0 > %s AND seq + 0 <= %s"
        page = f"{select} WHERE (xact, seq) >= (%s::xid8, %s) AND {of_era}"
        newest = f"{select} WHERE {of_era}"
        self._page = {
            True: f"{page} AND {_COMPLETE} ORDER BY xact, seq LIMIT %s",
            False: f"{page} ORDER BY xact, seq LIMIT %s",
        }
        self._newest = {
            True: f"{newest} AND {_COMPLETE} ORDER BY xact DESC, seq DESC LIMIT 1",
            False: f"{newest} ORDER BY xact DESC, seq DESC LIMIT 1",
        }
        # Of the oldest transaction only a role may know that may see others' sessions. For another
        # role it had begun, at the latest, when the first one ended that it keeps back.
        self._waits = f"""
            WITH oldest AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xact),
            kept AS MATERIALIZED (
                SELECT e.finished_at FROM {execution} e
                WHERE e.xact >= (SELECT xact FROM oldest) AND e.seq + 0 > %s
                ORDER BY e.xact, e.seq LIMIT 1)
            SELECT kept.finished_at, coalesce(%s::bigint, {NOW}) - {NOW}
                + (SELECT (extract(epoch FROM min(began)) * 1000000)::bigint FROM (
                    SELECT xact_start FROM pg_stat_activity
                    WHERE backend_xid = (SELECT xact::xid FROM oldest)
                    UNION ALL
                    SELECT prepared FROM pg_prepared_xacts
                    WHERE transaction = (SELECT xact::xid FROM oldest)) open(began))
            FROM kept
        """

    def ensure_era(self) -> Steps[None]:
        """Begin an era, where the store has come into another cluster.

        Raises:
            LockNotAvailable: A transaction has written to the history, and is open.
        """
        rows = yield Query(self._store)
        if rows and not rows[0][1]:
            yield Query(self._begin_era)

    def steps(self, after: str | None, limit: int, at: int | None) -> Steps[Followed]:
        """Return executions after a cursor; see ``ports.Backend.follow``."""
        ((store, is_here, oldest),) = yield Query(self._store)
        if not is_here:
            yield Query(self._begin_era)
        eras = yield from self._read_eras()
        if after is None:
            newest = yield from self._find_newest(store, eras)
            return Followed((), str(_at_least(newest, eras)))
        cursor = read_cursor(after, store)
        begin = _era_of(eras, cursor.seq)
        rows, found = list[Row](), False
        for era in eras[begin.number :]:
            if oldest is None or (oldest > era.upto):
                continue  # a search in an index of another order would go through all of it
            place = cursor.place if era is begin else (0, 0)
            wanted = limit - len(rows) + (era is begin and cursor.seq > 0)
            if wanted <= 0:
                break
            part = yield Query(
                self._page[era.is_last],
                (str(place[0]), place[1], era.after, era.upto, wanted),
            )
            if era is begin and part and _is_at(cursor, part[0]):
                found = True
                part = part[1:]
            rows += part[: limit - len(rows)]
        # What was deleted before the page was read, this tells, because it is read later.
        newest_deleted = _deleted((yield from self._read_eras()))
        known = cursor.known
        if after:
            its, past = _place(eras, cursor.place), _place(eras, known)
            is_gone = its > newest_deleted and cursor.seq and not found
            if max(its, past) < newest_deleted or is_gone:
                raise CursorExpired(after)
        else:
            known = _deleted(eras)[1:]
        if rows:
            last = _cursor(store, rows[-1])
            is_past = _place(eras, last.place) >= _place(eras, known)
            following = str(last if is_past else evolve(last, known=known))
        elif limit and (later := _at_least(cursor, eras)) != cursor:
            following = str(later)
        else:
            following = str(cursor) if after or newest_deleted == _NOTHING else ""
        waits = None
        if len(rows) < limit:
            waits = yield from self._waits_since(eras[-1], at)
        return Followed([read_execution(row[:-1]) for row in rows], following, waits)

    def _read_eras(self) -> Steps[list[Era]]:
        rows = yield Query(self._eras)
        ends = [row[1] for row in rows[1:]] + [MOST]
        return [
            Era(row[0], row[1], upto, row is rows[-1], (row[0], int(row[2]), row[3]), row[4])
            for row, upto in zip(rows, ends, strict=True)
        ]

    def _find_newest(self, store: int, eras: list[Era]) -> Steps[Cursor]:
        for era in reversed(eras):
            rows = yield Query(self._newest[era.is_last], (era.after, era.upto))
            if rows:
                return _cursor(store, rows[0])
        return Cursor(store)

    def _waits_since(self, era: Era, at: int | None) -> Steps[datetime | None]:
        rows = yield Query(self._waits, (era.after, at))
        if not rows:
            return None
        kept, began = rows[0]
        return moment(kept if began is None else began)


_NOTHING: Place = (0, 0, 0)


def _deleted(eras: list[Era]) -> Place:
    """Return the newest execution that was deleted."""
    return max((era.deleted for era in eras if era.deleted[2]), default=_NOTHING)


def _place(eras: list[Era], place: tuple[int, int]) -> Place:
    return (_era_of(eras, place[1]).number, *place) if place[1] else _NOTHING


def _at_least(cursor: Cursor, eras: list[Era]) -> Cursor:
    """Return a cursor, or a later one: that of the newest execution that was deleted.

    Args:
        cursor: There is nothing after it.
        eras: The eras as they were when that was not known yet. All before what was deleted by
            then, and was complete, has been seen.
    """
    _, xact, seq = deleted = _deleted([era for era in eras if era.is_complete])
    is_later = _place(eras, cursor.place) < deleted
    return Cursor(cursor.store, xact, seq) if is_later else cursor


def _era_of(eras: list[Era], seq: int) -> Era:
    return next((era for era in reversed(eras) if seq and era.after < seq), eras[0])


def _is_at(cursor: Cursor, row: Row) -> bool:
    here = _cursor(cursor.store, row)
    return here.place == cursor.place and here.mark == cursor.mark


def _cursor(store: int, row: Row) -> Cursor:
    return Cursor(store, int(row[-1]), row[-2], mark_of(read_execution(row[:-1]).id))
