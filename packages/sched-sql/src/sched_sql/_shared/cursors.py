"""Cursors of ``follow``: which place in the history of which store they name.

A cursor names the execution that was returned last, not a number alone. So it is noticed where that
one is not in the history: after a restore of an earlier state, or a failover that lost the newest
commits, numbers are given once more, and what has them now was never returned.

Who begins with the oldest execution goes past places of which all that was there is deleted: short
retentions end before long ones. Until it is beyond them, its cursors say that this is known.
"""

from __future__ import annotations

import re
from binascii import crc32

from attrs import frozen

from sched_core.errors import InvalidDefinition, shown

_PLACE = r"(\d{1,20})\.(\d{1,19})"
_FORM = re.compile(rf"([0-9a-f]{{1,16}})\.{_PLACE}\.([0-9a-f]{{1,8}})(?:\.{_PLACE})?", re.ASCII)


@frozen
class Cursor:
    """A place in the history of one store.

    Attributes:
        store: The store's own number.
        xact: The transaction that wrote the execution; 0 in a store that has one writer at a time.
        seq: The execution's ``seq``; 0 before the oldest one.
        mark: What tells the execution from another one at the same place; 0 before the oldest.
        known: The place of the newest execution that had been deleted when its owner began with the
            oldest one.
    """

    store: int
    xact: int = 0
    seq: int = 0
    mark: int = 0
    known: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        """Return what a caller gets, and gives back."""
        text = f"{self.store:x}.{self.xact}.{self.seq}.{self.mark:x}"
        return text if self.known == (0, 0) else f"{text}.{self.known[0]}.{self.known[1]}"

    @property
    def place(self) -> tuple[int, int]:
        """Its place. Places of one store compare as the executions come."""
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
    store_named, xact, seq, mark, known_xact, known_seq = found.groups(default="0")
    known = int(known_xact), int(known_seq)
    cursor = Cursor(int(store_named, 16), int(xact), int(seq), int(mark, 16), known)
    if cursor.store != store:
        raise InvalidDefinition(
            "after",
            f"{shown(text)} is a cursor of another store: follow this one with after='' for all "
            "that is there, or after=None for what comes",
        )
    return cursor
