"""Values as versioned JSON, and back. Nothing is pickled.

A stored value has a header outside its body: ``format``, and ``tag`` for the kind of schedule.
:func:`readable` says from the header alone whether this version can read the body, so nothing is
parsed to find out. A field that has its default is left out, so a record that uses nothing new
stays readable by older versions. A field that is not known is refused, so no record is read in
part.

A schedule is encoded by its kind (``sched_core.schedule``), everything else by one cattrs
converter. A run needs only :func:`decode_schedule` and :func:`decode_policy`, which are cached.
``Once`` is not, because it is cheap to read and would fill the cache. To import cattrs takes as
long as to import all the rest, so it is imported when it is first needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from sched_core._model.claim import Hold
from sched_core._model.conversion import converter
from sched_core._model.execution import DEFAULT_QUEUE, Execution
from sched_core._model.job import Job, JobSpec
from sched_core._model.occurrence import Standing
from sched_core._model.policy import DEFAULT, Policy
from sched_core.errors import InvalidDefinition
from sched_core.ports import UndecodableExecution
from sched_core.schedule import Once, Schedule, any_of, between, cron, excluding, interval
from sched_core.schedule.encoding import (
    Malformed,
    Reading,
    decode_duration,
    decode_moment,
    decode_moments,
    encode_duration,
    encode_moment,
    encode_moments,
    fields_of,
)
from sched_core.schedule.kinds import (
    ENTRY_POINTS,
    KINDS,
    ScheduleKind,
    decoded,
    kind_of,
    known_tags,
    load_installed,
    register,
    tag_of,
    unknown,
)

__all__ = [
    "ENTRY_POINTS",
    "FORMAT",
    "LARGEST_SCHEDULE",
    "Malformed",
    "Record",
    "ScheduleKind",
    "decode_arguments",
    "decode_duration",
    "decode_execution",
    "decode_hold",
    "decode_job",
    "decode_metadata",
    "decode_moment",
    "decode_moments",
    "decode_policy",
    "decode_schedule",
    "decode_value",
    "encode_arguments",
    "encode_duration",
    "encode_execution",
    "encode_hold",
    "encode_job",
    "encode_metadata",
    "encode_moment",
    "encode_moments",
    "encode_policy",
    "encode_schedule",
    "encode_value",
    "known_tags",
    "load_installed",
    "read_execution",
    "readable",
    "register",
    "tag_of",
]

T = TypeVar("T")

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

FORMAT = 2
"""The format of whole jobs and holds that this version writes, and the only one that it reads."""

LARGEST_SCHEDULE = 256 * 1024
"""The most characters of a stored schedule: more than the largest built-in one takes, and few
enough to read again and again if it cannot be understood."""


class Record(NamedTuple):
    """A stored value: the header, and a body that is parsed only if the header says it can be."""

    format: int
    tag: str
    body: bytes


def readable(format: int, tag: str) -> str | None:
    """Return why a body with this header cannot be read here, ``None`` if it can.

    Args:
        format: The record's format.
        tag: The kind of its schedule; empty where the record has none.
    """
    if format > FORMAT:
        return f"format {format} is newer than {FORMAT}, the newest that this version reads"
    if format < FORMAT:
        return f"format {format} is not read by this version, but only {FORMAT}"
    return unknown(tag) if tag and tag not in KINDS else None


register("cron", cron.Cron, cron.encode_cron, cron.decode_cron)
register("interval", interval.Interval, interval.encode_interval, interval.decode_interval)
register(
    "fixed_delay",
    interval.FixedDelay,
    interval.encode_fixed_delay,
    interval.decode_fixed_delay,
)
register("once", interval.Once, interval.encode_once, interval.decode_once)
register("any_of", any_of.AnyOf, any_of.encode_any_of, any_of.decode_any_of)
register("between", between.Between, between.encode_between, between.decode_between)
register("excluding", excluding.Excluding, excluding.encode_excluding, excluding.decode_excluding)


# -- the parts of a definition -----------------------------------------------


_ONCE_START, _ONCE_END = '{"at":"', '"}'


def encode_schedule(schedule: Schedule) -> str:
    """Return the body of a schedule as compact JSON; its kind is :func:`tag_of`'s.

    Raises:
        InvalidDefinition: Its kind cannot be stored, or it is too large.
    """
    if type(schedule) is Once:
        return _ONCE_START + encode_moment(schedule.at) + _ONCE_END
    text = _dump(KINDS[tag_of(schedule)].encode(schedule))
    if len(text) > LARGEST_SCHEDULE:
        raise InvalidDefinition(
            "schedule",
            f"must be at most {LARGEST_SCHEDULE} characters when it is stored, not {len(text)}",
        )
    return text


def decode_schedule(tag: str, text: str) -> Schedule:
    """Return the schedule of a body.

    Raises:
        Malformed: The text is no schedule of this kind.
    """
    if tag == "once" and text[:7] == _ONCE_START:
        try:
            return Once(datetime.fromisoformat(text[7:-2]))
        except ValueError as error:
            raise Malformed(f"schedule: {error}") from error
    if len(text) > LARGEST_SCHEDULE:
        raise Malformed(f"schedule: more than {LARGEST_SCHEDULE} characters")
    return decoded(tag, text)


def encode_policy(policy: Policy) -> str:
    """Return a policy as compact JSON; the default policy as an empty text."""
    if policy == DEFAULT:
        return ""
    return _dump(converter().unstructure(policy))


def decode_policy(text: str | None) -> Policy:
    """Return the policy of a body.

    Raises:
        Malformed: The text is no policy.
    """
    return _policy(text) if text else DEFAULT


@lru_cache(maxsize=1024)
def _policy(text: str) -> Policy:
    with Reading("policy"):
        return converter().structure(json.loads(text), Policy)


def encode_metadata(metadata: Mapping[str, str]) -> str:
    """Return metadata as compact JSON; no metadata as an empty text."""
    return _dump(dict(metadata)) if metadata else ""


def decode_metadata(text: str | None) -> dict[str, str]:
    """Return the metadata of a body.

    Raises:
        Malformed: The text does not map strings to strings.
    """
    return _texts("metadata", text) if text else {}


def _texts(part: str, text: str) -> dict[str, str]:
    with Reading(part):
        found = json.loads(text)
        if not isinstance(found, dict) or not all(type(value) is str for value in found.values()):
            raise ValueError("must map strings to strings")
        return found


def encode_arguments(args: Mapping[str, str]) -> str:
    """Return the arguments of a request as compact JSON; no arguments as an empty object."""
    return _dump(dict(args))


def decode_arguments(text: str) -> dict[str, str]:
    """Return the arguments of a body.

    Raises:
        Malformed: The text does not map strings to strings.
    """
    return _texts("arguments", text)


# -- whole values ------------------------------------------------------------


def encode_job(job: Job) -> Record:
    """Return a whole job as a record."""
    spec = job.spec
    body = {
        "id": spec.id,
        "name": spec.name,
        "group": spec.group,
        **({} if spec.queue == DEFAULT_QUEUE else {"queue": spec.queue}),
        "metadata": dict(spec.metadata),
        "schedule": KINDS[tag_of(spec.schedule)].encode(spec.schedule),
        "policy": converter().unstructure(spec.policy),
        "uid": job.uid,
        "declared": job.declared,
        "anchor": encode_moment(job.anchor),
        "standing": converter().unstructure(job.standing),
        "revision": job.revision,
        **({} if job.actor is None else {"actor": job.actor}),
    }
    return Record(FORMAT, tag_of(spec.schedule), _dump(body).encode())


def decode_job(record: Record) -> Job:
    """Return the job of a record that is :func:`readable`.

    Raises:
        Malformed: The body is no job, or the header says that it cannot be read.
    """
    reason = readable(record.format, record.tag)
    if reason is not None:
        raise Malformed(reason)
    structure = converter().structure
    with Reading("job"):
        body = fields_of(
            json.loads(record.body),
            "id name group metadata schedule policy uid declared anchor standing revision",
            "queue actor",
        )
        spec = JobSpec(
            id=body["id"],
            schedule=kind_of(record.tag).decode(body["schedule"]),
            name=body["name"],
            metadata=body["metadata"],
            policy=structure(body["policy"], Policy),
            group=body["group"],
            queue=body.get("queue", DEFAULT_QUEUE),
        )
        return Job(
            spec,
            structure(body["uid"], str),
            structure(body["declared"], bool),
            decode_moment(body["anchor"]),
            structure(body["standing"], Standing),
            structure(body["revision"], int),
            actor=None if body.get("actor") is None else structure(body["actor"], str),
        )


def encode_hold(hold: Hold) -> Record:
    """Return a stored claim as a record; it has no schedule, so its header has no tag."""
    return Record(FORMAT, "", _dump(converter().unstructure(hold)).encode())


def decode_hold(record: Record) -> Hold:
    """Return the stored claim of a record that is :func:`readable`.

    Raises:
        Malformed: The body is no claim, or the header says that it cannot be read.
    """
    reason = readable(record.format, record.tag)
    if reason is not None:
        raise Malformed(reason)
    with Reading("claim"):
        return converter().structure(json.loads(record.body), Hold)


def encode_value(value: Any) -> str:
    """Return a part of a standing as compact JSON, for stores that keep a job in columns."""
    return _dump(converter().unstructure(value))


def decode_value(text: str, kind: type[T]) -> T:
    """Return the part of a standing that a text holds.

    Args:
        text: The text that :func:`encode_value` made.
        kind: The part's type: a class of fields, or a tuple of such.

    Raises:
        Malformed: The text is no such part.
    """
    with Reading("standing"):
        return converter().structure(json.loads(text), kind)


def encode_execution(execution: Execution) -> bytes:
    """Return an execution as JSON."""
    return _dump(converter().unstructure(execution)).encode()


def decode_execution(body: bytes) -> Execution:
    """Return the execution of a body.

    Raises:
        Malformed: The body is no execution.
    """
    with Reading("execution"):
        return converter().structure(json.loads(body), Execution)


def read_execution(body: bytes, name: str, job_id: str = "") -> Execution | UndecodableExecution:
    """Return a record of the history, or what can be told of one that cannot be read here.

    Args:
        body: The record's body.
        name: Its name within its store, for a body that does not tell its id.
        job_id: The job's id if the store knows it apart from the body; else empty.
    """
    try:
        return decode_execution(body)
    except Malformed as error:
        reason = str(error)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    known = found if isinstance(found, dict) else {}
    return UndecodableExecution(
        _text_of(known.get("id")) or name,
        job_id or _text_of(known.get("job_id")),
        reason,
        body,
        _moment_of(known.get("finished_at")),
        _moment_of(known.get("expires_at")),
    )


def _text_of(value: Any) -> str:
    try:
        return value if type(value) is str and value.encode() else ""
    except UnicodeEncodeError:
        return ""


def _moment_of(value: Any) -> datetime | None:
    try:
        return decode_moment(value)
    except (TypeError, ValueError, OverflowError):
        return None
