"""What a user declares, and what is stored of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn

from attrs import field, frozen

from sched_core._model.execution import DEFAULT_QUEUE
from sched_core._model.occurrence import Standing, State
from sched_core._model.policy import DEFAULT, Policy
from sched_core._support.values import quick
from sched_core.errors import InvalidDefinition, shown
from sched_core.schedule import Schedule

LONGEST_TEXT = 255
"""The most characters in an id, a name or a group."""
RESERVED = "sched:"
"""Ids that begin with it are this package's own records: never due, never listed."""
REST = "*"
"""Stands for all queues that a worker does not name."""
LARGEST_METADATA = 64 * 1024
"""The most bytes of UTF-8 in all keys and values together."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


class Metadata(dict[str, str]):
    """A dictionary that refuses to be changed; it can be copied, pickled and written as JSON."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("metadata is read-only: use update_job, or change a copy, dict(metadata)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Metadata], tuple[dict[str, str]]]:
        return type(self), (dict(self),)


NOTHING: Mapping[str, str] = Metadata()


def check_text(name: str, value: object) -> None:
    """Refuse what cannot be an id, a name or a group.

    Raises:
        InvalidDefinition: It is no string, is empty, has more than 255 characters, or has a control
            character.
    """
    if not isinstance(value, str):
        raise InvalidDefinition(name, f"must be a string, not {shown(value)}")
    if not value:
        raise InvalidDefinition(name, "must not be empty")
    if len(value) > LONGEST_TEXT:
        raise InvalidDefinition(
            name, f"must have at most {LONGEST_TEXT} characters, not {len(value)}"
        )
    if not (value.isascii() and value.isprintable()) and (found := _UNPRINTABLE.search(value)):
        raise InvalidDefinition(
            name, f"must not contain the control character {found.group()!r}; remove it"
        )


def check_queue(value: object, name: str = "queue") -> None:
    """Refuse what cannot be a queue of jobs.

    Raises:
        InvalidDefinition: It is no text that :func:`check_text` takes, or is ``"*"``.
    """
    check_text(name, value)
    if value == REST:
        raise InvalidDefinition(
            name, f"must be a queue's own name: {REST!r} stands for all queues that are not named"
        )


def texts_of(field: str, given: object) -> Mapping[str, str]:
    """Return a read-only copy of texts by name; of ``None`` an empty one.

    Raises:
        InvalidDefinition: It is no mapping of texts to texts, or larger than 64 KiB.
    """
    if given is None:
        return NOTHING
    if not isinstance(given, Mapping):
        raise InvalidDefinition(field, f"must map strings to strings, not {shown(given)}")
    if not given:
        return NOTHING
    size = 0
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidDefinition(
                field,
                f"must map strings to strings, not {shown(key)} to {shown(value)}: use str(...)",
            )
        try:
            size += len(key.encode()) + len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidDefinition(
                field, f"the entry {shown(key)} is no valid Unicode text: {error.reason}"
            ) from None
    if size > LARGEST_METADATA:
        raise InvalidDefinition(
            field,
            f"must be at most {LARGEST_METADATA} bytes in all, not {size}: "
            "store the data elsewhere and keep a reference here",
        )
    return Metadata(given)


def _copied(metadata: object) -> Mapping[str, str]:
    return texts_of("metadata", metadata)


@frozen
class JobSpec:
    """What a user declares.

    Args:
        id: 1 to 255 characters, none of them a control character.
        schedule: When the job occurs.
        name: A name for people; 255 characters at most.
        metadata: Handed to the handler; at most 64 KiB. Kept as a read-only copy.
        policy: How occurrences are treated.
        group: The set of jobs that ``sync_jobs`` keeps it in.
        queue: Which workers may take the job: those that serve this queue. 255 characters at most;
            ``"*"`` is no queue, but the name for all others in ``Scheduler(queues=…)``.

    Raises:
        InvalidDefinition: A field is out of bounds; the message names it and the remedy.
    """

    id: str
    schedule: Schedule
    name: str | None = None
    metadata: Mapping[str, str] = field(factory=dict, converter=_copied, hash=False)
    policy: Policy = DEFAULT
    group: str | None = None
    queue: str = DEFAULT_QUEUE

    def __attrs_post_init__(self) -> None:
        check_text("id", self.id)
        if isinstance(self.schedule, type) or not (
            hasattr(self.schedule, "first") and hasattr(self.schedule, "next_after")
        ):
            raise InvalidDefinition(
                "schedule",
                f"must be a schedule such as Cron('0 3 * * *') or Interval(hours=1), "
                f"not {shown(self.schedule)}",
            )
        if self.name is not None:
            check_text("name", self.name)
        if not isinstance(self.policy, Policy):
            raise InvalidDefinition("policy", f"must be a Policy, not {shown(self.policy)}")
        if self.group is not None:
            check_text("group", self.group)
        if self.queue != DEFAULT_QUEUE:
            check_queue(self.queue)


@quick
@frozen(weakref_slot=False)
class Job:
    """A stored job.

    Attributes:
        spec: What the user declared.
        uid: The incarnation: a job that is removed and added again has another one.
        declared: Whether ``ensure_job`` declared it.
        anchor: When the schedule took effect.
        standing: What runs and operators change.
        revision: A number that the backend gives on every write, a takeover included.
        held: The number of the occurrence that a claim holds; the backend gives it on every read.
        held_at: When that claim was made; given likewise.
        actor: Who wrote the definition, as far as the newest call that changed it says.
    """

    spec: JobSpec
    uid: str
    declared: bool
    anchor: datetime
    standing: Standing
    revision: int = 0
    held: int | None = None
    held_at: datetime | None = None
    actor: str | None = None

    @property
    def id(self) -> str:
        """The id that the user gave."""
        return self.spec.id

    @property
    def state(self) -> State:
        """Whether the job is active, paused or finished."""
        return self.standing.state

    @property
    def next_run(self) -> datetime | None:
        """The nominal moment of the schedule's occurrence that is next, or under way."""
        return self.standing.next_run

    @property
    def running(self) -> bool:
        """Whether a worker had it when it was read."""
        return self.held is not None
