"""Cursors of ``follow``: which place in the history of which store they name.

A cursor names the execution that was returned last, not a number alone. So it is noticed where that
one is not in the history: after a restore of an earlier state, or a failover that lost the newest
commits, numbers are given once more, and what has them now was never returned.
"""

from __future__ import annotations

import re
from binascii import crc32

from attrs import frozen

from sched_core.errors import InvalidDefinition, shown

_FORM = re.compile(r"([0-9a-f]{1,16})\.(\d{1,20})\.(\d{1,19})\.([0-9a-f]{1,8})", re.ASCII)


@frozen
class Cursor:
    """A place in the history of one store.

    Attributes:
        store: The store's own number.
        xact: The transaction that wrote the execution; 0 in a store that has one writer at a time.
        seq: The execution's ``seq``; 0 before the oldest one.
        mark: What tells the execution from another one at the same place; 0 before the oldest.
    """

    store: int
    xact: int = 0
    seq: int = 0
    mark: int = 0

    def __str__(self) -> str:
        """Return what a caller gets, and gives back."""
        return f"{self.store:x}.{self.xact}.{self.seq}.{self.mark:x}"

    @property
    def place(self) -> tuple[int, int]:
        """Where it is: places of one store compare as the executions come."""
        return self.xact, self.seq


def mark_of(execution_id: str) -> int:
    """Return the mark of an execution."""
    return crc32(execution_id.encode(errors="surrogatepass"))


def read_cursor(text: str, store: int) -> Cursor:
    """Return what a caller's cursor says; an empty one is before the oldest execution.

    Raises:
        InvalidDefinition: It is no cursor, or one of another store.
    """
    if not text:
        return Cursor(store)
    found = _FORM.fullmatch(text)
    if found is None:
        raise InvalidDefinition(
            "after", f"must be a cursor that follow returned, not {shown(text)}"
        )
    cursor = Cursor(int(found[1], 16), int(found[2]), int(found[3]), int(found[4], 16))
    if cursor.store != store:
        raise InvalidDefinition(
            "after",
            f"{shown(text)} is a cursor of another store: follow this one with after='' for all "
            "that is there, or after=None for what comes",
        )
    return cursor
