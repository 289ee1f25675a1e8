"""A place in the history, as a cursor of ``follow``. Pure."""

from __future__ import annotations

import re

from attrs import frozen

from sched_core.errors import InvalidDefinition

_CURSOR = re.compile(r"([-_0-9A-Za-z]+)\.(\d+)\.(\d{1,20})\.(\d{1,20})\.(\d{1,20})\.(\d{1,20})\Z")


@frozen
class Place:
    """Up to where the history was read, and what was missing from it then.

    What is copied into the history gets consecutive sequences. So whatever is missing was deleted,
    and a place that counts what is missing behind it knows when that becomes more.

    Attributes:
        bucket: The bucket of executions.
        made: When its stream was made, as digits: another stream of this name is another history.
        sequence: The sequence of what was read last; 0 before the first.
        origin: The sequence, in the stream of jobs, that it was copied from; 0 where that is not
            known. A stream that was set back may have something else there.
        removed: How many sequences of the stream were missing.
        ahead: How many of them come after this place.
    """

    bucket: str
    made: str
    sequence: int
    origin: int
    removed: int
    ahead: int

    def __str__(self) -> str:
        """Return the cursor."""
        return (
            f"{self.bucket}.{self.made}.{self.sequence}.{self.origin}.{self.removed}.{self.ahead}"
        )


def place_of(cursor: str, bucket: str) -> Place:
    """Return the place of a cursor.

    Raises:
        InvalidDefinition: The text is no cursor of this bucket.
    """
    match = _CURSOR.match(cursor)
    if match is None or match[1] != bucket:
        raise InvalidDefinition("after", f"must be a cursor that follow returned, not {cursor!r}")
    sequence, origin, removed, ahead = map(int, match.groups()[2:])
    return Place(bucket, match[2], sequence, origin, removed, ahead)
