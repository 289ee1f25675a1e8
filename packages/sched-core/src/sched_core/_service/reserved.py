"""Records of this package's own: stored like jobs, never due, never listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b

from attrs import evolve

from sched_core._model.job import RESERVED, Job, JobSpec
from sched_core._model.occurrence import Standing
from sched_core.errors import JobAlreadyExists, JobNotFound, RevisionConflict
from sched_core.ports import Backend, Undecodable
from sched_core.schedule import Once

_NEVER = Once(datetime(1970, 1, 1, tzinfo=UTC))


def reserved_id(kind: str, name: str) -> str:
    """Return a reserved id: of the same length for any name."""
    return f"{RESERVED}{kind}:{blake2b(name.encode(), digest_size=16).hexdigest()}"


class Reserved:
    """One such record: texts by name, written by compare-and-set.

    Args:
        backend: Where it is stored.
        id: Its reserved id.
        name: A name for those who look into the store.
        new_id: Makes its uid.
    """

    def __init__(self, backend: Backend, id: str, *, name: str, new_id: Callable[[], str]) -> None:
        self._backend, self._id, self._name, self._new_id = backend, id, name, new_id

    async def read(self) -> Job | Undecodable | None:
        """Return what is stored; the texts are its metadata."""
        return await self._backend.get(self._id)

    async def write(
        self, read: Job | None, metadata: Mapping[str, str], *, now: datetime
    ) -> Job | None:
        """Store texts in the place of what was read.

        Args:
            read: What :meth:`read` returned, or an earlier call of this.
            metadata: The texts, 64 KiB at most.
            now: The present moment, by the clock that decides.

        Returns:
            The record as it is stored; ``None`` where another process wrote first.
        """
        spec = JobSpec(self._id, _NEVER, name=self._name, metadata=metadata)
        try:
            if read is None:
                new = Job(spec, self._new_id(), True, now, Standing(1, None, None))
                return (await self._backend.add([new]))[0]
            return await self._backend.replace(evolve(read, spec=spec))
        except (JobAlreadyExists, JobNotFound, RevisionConflict):
            return None
