"""The marker of a group: a record that holds the newest version that has synced the group.

The record is stored like a job. It is never due, no list shows it, and its id is reserved.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import frozen

from sched_core._model.job import Job
from sched_core._service.reserved import Reserved, reserved_id
from sched_core.clock import Clock
from sched_core.errors import InvalidDefinition
from sched_core.ports import Backend, Undecodable

Version = tuple[int, ...]

_DOTTED = re.compile(r"\d+(\.\d+)*", re.ASCII)
_UNREADABLE: Version = (2**63,)


class Superseded(Exception):
    """A newer deployment has synced the group; the text is its version."""


@frozen
class _Marker:
    """What the stored marker says."""

    version: Version = ()
    complete: bool = True
    job: Job | None = None


class GroupMarker:
    """The marker of one group, as one deployment reads and moves it.

    Args:
        backend: Where jobs are stored.
        clock: The clock that decides.
        new_id: Makes the uid of a marker.
        group: The group's name.
        version: The deployment's version, from :func:`version_of`.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        *,
        new_id: Callable[[], str],
        group: str,
        version: Version,
    ) -> None:
        self._record = Reserved(backend, marker_id(group), name="marker", new_id=new_id)
        self._clock = clock
        self._group = group
        self._version = version

    async def take_lead(self, *, dry_run: bool) -> bool:
        """Move the marker to the own version; return whether a sync of it has been completed.

        Raises:
            Superseded: The marker is newer.
        """
        while True:
            marker = await self._read_current()
            if marker.version == self._version or dry_run:
                return marker.complete
            if await self._write(marker, complete=False):
                return False

    async def check(self) -> None:
        """Ensure that no newer deployment has moved the marker.

        Raises:
            Superseded: The marker is newer.
        """
        await self._read_current()

    async def complete(self) -> None:
        """Note that a sync of the own version has been completed.

        Raises:
            Superseded: The marker is newer.
        """
        marker = await self._read_current()
        if not marker.complete:
            await self._write(marker, complete=True)

    async def _read_current(self) -> _Marker:
        marker = await self._read()
        if marker.version > self._version:
            raise Superseded(
                "unreadable" if marker.version == _UNREADABLE else version_text(marker.version)
            )
        return marker

    async def _read(self) -> _Marker:
        stored = await self._record.read()
        if stored is None:
            return _Marker()
        if isinstance(stored, Undecodable):
            return _Marker(_UNREADABLE)
        text = stored.spec.metadata.get("version", "")
        version = version_of(text) if _DOTTED.fullmatch(text) else _UNREADABLE
        return _Marker(version, "complete" in stored.spec.metadata, stored)

    async def _write(self, marker: _Marker, *, complete: bool) -> bool:
        """Write the own version; return whether no other process wrote the marker first."""
        metadata = {"group": self._group, "version": version_text(self._version)}
        if complete:
            metadata["complete"] = "yes"
        now = self._clock.now()
        return await self._record.write(marker.job, metadata, now=now) is not None


def marker_id(group: str) -> str:
    """Return the id of a group's marker: reserved, and of the same length for any group."""
    return reserved_id("group", group)


def version_text(version: Version) -> str:
    """Return a version as dotted numbers."""
    return ".".join(map(str, version))


def version_of(version: int | str | None) -> Version:
    """Return a version as numbers that compare; ``None`` is below all others.

    Raises:
        InvalidDefinition: It is neither a whole number nor dotted numbers.
    """
    if version is None:
        return ()
    if isinstance(version, int) and not isinstance(version, bool) and version >= 0:
        return (version,)
    if isinstance(version, str) and len(version) <= 100 and _DOTTED.fullmatch(version):
        numbers = [int(number) for number in version.split(".")]
        while len(numbers) > 1 and numbers[-1] == 0:
            numbers.pop()  # 1.4 is 1.4.0
        return tuple(numbers)
    raise InvalidDefinition(
        "version",
        f"must be a whole number or dotted numbers such as '1.4.10', which grow with every "
        f"deployment, not {version!r}: a build number, or the time of the commit in seconds",
    )
