"""The partitions of the history: which one an execution belongs to, and that it is there.

An execution lies in the partition of the moment by which it, and all that lies with it, has
expired: the end of the day, or of 2, 4, 8 … days for what is kept for 16 days or more, 32, 64 …
So there are few of them, however long something is kept, and each can be dropped whole soon after
its last execution has expired. What never expires has a partition of its own.

The moment is computed from what is in the execution, and that is decided when it is written: a
settlement that is repeated carries the same. A worker that writes makes the partition that is
missing; a worker that prunes makes those that come next, and drops those that are over.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from psycopg.errors import CheckViolation

from sched_sql.postgres.sql import NOW, Names, Query, Steps, numbers

T = TypeVar("T")

DAY = 86_400_000_000
"""Microseconds."""
NEVER = 2**63 - 1
"""The moment of what never expires."""
USUAL = 30 * DAY
"""The time for which most executions are kept, in microseconds."""
LARGE = 256 * 2**20
"""Bytes from which on a partition is left to be dropped whole. Executions in a smaller one are
deleted one by one as soon as they have expired."""

_SIXTEEN = 4
"""The number of bits by which the days of retention are shifted to find the width."""


def drop_at(finished_at: int, expires_at: int | None) -> int:
    """Return the moment of the partition that an execution is in, in microseconds since 1970."""
    if expires_at is None:
        return NEVER
    width = _width(finished_at, expires_at)
    return -(-expires_at // width) * width


def _width(finished_at: int, expires_at: int) -> int:
    days = (expires_at - finished_at) // DAY
    return DAY << (days >> _SIXTEEN).bit_length() if days > 0 else DAY


class Partitions:
    """The partitions of one schema, as far as this process knows them.

    Args:
        names: The schema's names.
    """

    def __init__(self, names: Names) -> None:
        self._known = {NEVER}
        self._longest: dict[int, int] = {}
        """The longest retention of an execution seen so far, by width of partition."""
        self._make = f"SELECT {names.make_partitions}(%s::bigint[])"
        self._drop = f"SELECT {names.drop_partitions}(coalesce(%s::bigint, {NOW}))"
        self._large = f"""
            SELECT substr(c.relname, 11)::bigint * {DAY}
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = '{names.literal}.execution'::regclass
                AND c.relname ~ '^execution_-?[0-9]+$' AND pg_relation_size(c.oid) >= %s
        """

    def has(self, moments: Iterable[int]) -> bool:
        """Whether the partitions of these moments are known to be there."""
        return self._known.issuperset(moments)

    def forget(self) -> None:
        """Believe nothing: a partition that was believed to be there is not."""
        self._known = {NEVER}

    def retry(self, write: Callable[[], T]) -> T:
        """Call something that writes executions: again where a partition was gone."""
        try:
            return write()
        except CheckViolation:
            self.forget()
            return write()

    def make(self, written: Iterable[tuple[int, int | None]]) -> Steps[None]:
        """Make the partitions that are not known to be there.

        What a transaction made and rolled back is believed to be there all the same. A caller that
        finds it missing calls :meth:`forget`, and comes again.

        Args:
            written: When each execution ended, and when it expires.
        """
        missing = set[int]()
        for finished_at, expires_at in written:
            moment = drop_at(finished_at, expires_at)
            if expires_at is not None and moment not in self._known:
                missing.add(moment)
                width, kept = _width(finished_at, expires_at), expires_at - finished_at
                self._longest[width] = max(kept, self._longest.get(width, kept))
        yield from self._made(missing)

    def make_usual(self, now: int) -> Steps[None]:
        """Make the one that is written first, so that no run has to wait for it."""
        yield from self.make([(now, now + USUAL)])

    def make_next(self, now: int) -> Steps[None]:
        """Make those that come next, so that no run has to wait for them.

        Each is for what ends from now on until a partition's width later.
        """
        ends = ((width, drop_at(now, now + kept)) for width, kept in self._longest.items())
        following = {end + width for width, end in ends}
        yield from self._made(following - self._known)

    def _made(self, missing: set[int]) -> Steps[None]:
        if missing:
            yield Query(self._make, (numbers(sorted(missing)),))
            self._known |= missing

    def drop(self, now: int | None) -> Steps[int]:
        """Drop those of which all has expired; return how many executions were in them."""
        ((dropped,),) = yield Query(self._drop, (now,))
        return int(dropped)

    def large(self) -> Steps[list[int]]:
        """Return the moments of those that are left to be dropped."""
        return [row[0] for row in (yield Query(self._large, (LARGE,)))]
