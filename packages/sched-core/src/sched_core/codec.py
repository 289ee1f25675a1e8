"""Values ⇄ versioned JSON, through one cattrs converter. No pickle, ever.

What is stored has a header, ``format`` and ``tag`` (the kind of schedule), that lies outside the
body: :func:`readable` says from the header alone whether this version can read the body, so nothing
is parsed to find out. Moments are ISO 8601 in UTC, durations numbers of seconds, both exact to the
microsecond. A field that has its default is left out, and a field that is not known is refused: a
record that uses nothing new stays readable by older versions, and nothing is read by halves.

On the way of every run lie only the cached :func:`decode_schedule` and :func:`decode_policy`, and
``Once``, which is cheap to read and would only thrash a cache. To import cattrs takes as long as to
import all the rest, so that is done when something first needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from attrs import frozen

from sched_core._model.claim import Hold
from sched_core._model.execution import Execution
from sched_core._model.job import Job, JobSpec
from sched_core._model.occurrence import Standing
from sched_core._model.policy import DEFAULT, CatchUp, Coalesce, Drop, Policy
from sched_core._support.logger import Logger
from sched_core.errors import InvalidDefinition, SchedError
from sched_core.ports import UndecodableExecution
from sched_core.schedule import (
    AnyOf,
    Between,
    Cron,
    DstRule,
    Excluding,
    FixedDelay,
    Interval,
    Once,
    Schedule,
)
from sched_core.schedule.combined import MOST_PARTS

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

logger = Logger("sched_core")

FORMAT = 2
"""The format of whole jobs and holds that this version writes, and the only one that it reads."""


LARGEST_SCHEDULE = 256 * 1024
"""Characters of a stored schedule: more than the largest built-in one takes, and little enough to
be read again and again where it cannot be understood."""


class Malformed(SchedError, ValueError):
    """A body whose header is fine and whose content is not. Whoever reads it leaves it alone."""


class Record(NamedTuple):
    """A stored value: the header, and a body that is parsed only if the header says it can be."""

    format: int
    tag: str
    body: bytes


# -- kinds of schedules ------------------------------------------------------

ENTRY_POINTS = "sched.schedules"
"""Group of entry points by which installed packages add kinds: the name is the tag, the object a
:class:`ScheduleKind`."""


@frozen
class ScheduleKind:
    """How one kind of schedule is stored; what an entry point of ``sched.schedules`` names.

    Args:
        cls: The class; subclasses are other kinds.
        encode: Returns what ``json`` can write. Equal schedules must give equal values.
        decode: The reverse; raises whatever it likes for what it cannot read.
    """

    cls: type
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_KINDS: dict[str, ScheduleKind] = {}
_TAGS: dict[type, str] = {}


def register(
    tag: str,
    cls: type[T],
    encode: Callable[[T], Any],
    decode: Callable[[Any], T],
) -> None:
    """Make a kind of schedule storable.

    Args:
        tag: Names the kind in what is stored; it never changes.
        cls: The class; subclasses are other kinds.
        encode: Returns what ``json`` can write. Equal schedules must give equal values.
        decode: The reverse; raises whatever it likes for what it cannot read.

    Raises:
        InvalidDefinition: The tag, or the class, stands for something else already; or the class
            does not compare by value.
    """
    if _TAGS.get(cls, tag) != tag or (tag in _KINDS and _TAGS.get(cls) != tag):
        raise InvalidDefinition("tag", f"{tag!r} or {cls.__name__} is registered already")
    if cls.__eq__ is object.__eq__:
        raise InvalidDefinition(
            "cls",
            f"{cls.__name__} must compare by value, or every ensure_job would be an edit: "
            "define __eq__ (attrs.frozen and dataclasses do)",
        )
    _TAGS[cls] = tag
    _KINDS[tag] = ScheduleKind(cls, encode, decode)
    known_tags.cache_clear()
    _schedule.cache_clear()


@cache
def load_installed() -> None:
    """Register the kinds that installed packages offer; once for each process.

    One that cannot be loaded is logged, and stays unknown: its jobs are left alone here.
    """
    # Here and not at the top: only whoever meets a kind that is not built in has to look.
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        try:
            kind = point.load()
            if not isinstance(kind, ScheduleKind):
                raise TypeError(f"{point.value} is no ScheduleKind")  # noqa: TRY301 -- logged below
            register(point.name, kind.cls, kind.encode, kind.decode)
        except Exception:
            logger.exception("the kind of schedule %r (%s) cannot be used", point.name, point.value)


@cache
def known_tags() -> tuple[str, ...]:
    """Return the kinds of schedules that this process can read."""
    load_installed()
    return tuple(sorted(_KINDS))


def _kind(tag: str) -> ScheduleKind:
    if tag not in _KINDS:
        load_installed()
    return _KINDS[tag]


def readable(format: int, tag: str) -> str | None:
    """Return why a body with this header cannot be read here, ``None`` if it can.

    Args:
        format: Of the record.
        tag: The kind of its schedule; empty where there is none in it.
    """
    if format > FORMAT:
        return f"format {format} is newer than {FORMAT}, the newest that this version reads"
    if format < FORMAT:
        return f"format {format} is not read by this version, but only {FORMAT}"
    if tag and tag not in _KINDS and tag not in known_tags():
        return f"the kind of schedule {tag!r} is not known here"
    return None


# -- the parts of a definition -----------------------------------------------


def tag_of(schedule: Schedule) -> str:
    """Return the kind of a schedule.

    Raises:
        InvalidDefinition: It is none that :func:`register` knows.
    """
    tag = _TAGS.get(type(schedule))
    if tag is None:
        load_installed()
        tag = _TAGS.get(type(schedule))
    if tag is None:
        raise InvalidDefinition(
            "schedule",
            f"{type(schedule).__name__} cannot be stored: sched_core.codec.register it, or install "
            f"a package with an entry point of the group {ENTRY_POINTS!r}",
        )
    return tag


_ONCE_START, _ONCE_END = '{"at":"', '"}'


def encode_schedule(schedule: Schedule) -> str:
    """Return the body of a schedule as compact JSON; its kind is :func:`tag_of`'s.

    Raises:
        InvalidDefinition: It is of no kind that can be stored, or too large.
    """
    if type(schedule) is Once:
        return _ONCE_START + encode_moment(schedule.at) + _ONCE_END
    text = _dump(_KINDS[tag_of(schedule)].encode(schedule))
    if len(text) > LARGEST_SCHEDULE:
        raise InvalidDefinition(
            "schedule",
            f"must be at most {LARGEST_SCHEDULE} characters when it is stored, not {len(text)}",
        )
    return text


def decode_schedule(tag: str, text: str) -> Schedule:
    """Return the schedule of a body.

    Raises:
        Malformed: It is none of this kind.
    """
    if tag == "once" and text[:7] == _ONCE_START:
        try:
            return Once(datetime.fromisoformat(text[7:-2]))
        except ValueError as error:
            raise Malformed(f"schedule: {error}") from error
    if len(text) > LARGEST_SCHEDULE:
        raise Malformed(f"schedule: more than {LARGEST_SCHEDULE} characters")
    return _schedule(tag, text)


@lru_cache(maxsize=4096)
def _schedule(tag: str, text: str) -> Schedule:
    with _Reading("schedule"):
        schedule: Schedule = _kind(tag).decode(json.loads(text))
        return schedule


def encode_policy(policy: Policy) -> str:
    """Return a policy as compact JSON; the default one is empty."""
    if policy == DEFAULT:
        return ""
    return _dump(_converter().unstructure(policy))


def decode_policy(text: str | None) -> Policy:
    """Return the policy of a body.

    Raises:
        Malformed: It is none.
    """
    return _policy(text) if text else DEFAULT


@lru_cache(maxsize=1024)
def _policy(text: str) -> Policy:
    with _Reading("policy"):
        return _converter().structure(json.loads(text), Policy)


def encode_metadata(metadata: Mapping[str, str]) -> str:
    """Return metadata as compact JSON; none is empty."""
    return _dump(dict(metadata)) if metadata else ""


def decode_metadata(text: str | None) -> dict[str, str]:
    """Return the metadata of a body.

    Raises:
        Malformed: It maps something else than strings to strings.
    """
    if not text:
        return {}
    with _Reading("metadata"):
        found = json.loads(text)
        if not isinstance(found, dict) or not all(type(value) is str for value in found.values()):
            raise ValueError("must map strings to strings")
        return found


# -- whole values ------------------------------------------------------------


def encode_job(job: Job) -> Record:
    """Return a whole job."""
    spec = job.spec
    body = {
        "id": spec.id,
        "name": spec.name,
        "group": spec.group,
        "metadata": dict(spec.metadata),
        "schedule": _KINDS[tag_of(spec.schedule)].encode(spec.schedule),
        "policy": _converter().unstructure(spec.policy),
        "uid": job.uid,
        "declared": job.declared,
        "anchor": encode_moment(job.anchor),
        "standing": _converter().unstructure(job.standing),
        "revision": job.revision,
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
    structure = _converter().structure
    with _Reading("job"):
        body = _fields(
            json.loads(record.body),
            "id name group metadata schedule policy uid declared anchor standing revision",
        )
        spec = JobSpec(
            id=body["id"],
            schedule=_kind(record.tag).decode(body["schedule"]),
            name=body["name"],
            metadata=body["metadata"],
            policy=structure(body["policy"], Policy),
            group=body["group"],
        )
        return Job(
            spec,
            structure(body["uid"], str),
            structure(body["declared"], bool),
            decode_moment(body["anchor"]),
            structure(body["standing"], Standing),
            structure(body["revision"], int),
        )


def encode_hold(hold: Hold) -> Record:
    """Return a stored claim. There is no schedule in it, so its header has no tag."""
    return Record(FORMAT, "", _dump(_converter().unstructure(hold)).encode())


def decode_hold(record: Record) -> Hold:
    """Return the stored claim of a record that is :func:`readable`.

    Raises:
        Malformed: The body is no claim, or the header says that it cannot be read.
    """
    reason = readable(record.format, record.tag)
    if reason is not None:
        raise Malformed(reason)
    with _Reading("claim"):
        return _converter().structure(json.loads(record.body), Hold)


def encode_value(value: Any) -> str:
    """Return a part of a standing as compact JSON: for stores that keep a job in columns."""
    return _dump(_converter().unstructure(value))


def decode_value(text: str, kind: type[T]) -> T:
    """Return the part of a standing that a text holds.

    Args:
        text: As :func:`encode_value` made it.
        kind: What it is: a class of fields, or a tuple of such.

    Raises:
        Malformed: The text is none.
    """
    with _Reading("standing"):
        return _converter().structure(json.loads(text), kind)


def encode_execution(execution: Execution) -> bytes:
    """Return an execution."""
    return _dump(_converter().unstructure(execution)).encode()


def decode_execution(body: bytes) -> Execution:
    """Return an execution.

    Raises:
        Malformed: The body is none.
    """
    with _Reading("execution"):
        return _converter().structure(json.loads(body), Execution)


def read_execution(body: bytes, name: str, job_id: str = "") -> Execution | UndecodableExecution:
    """Return a record of the history, or what can be told of one that cannot be read here.

    Args:
        body: Of the record.
        name: Names it within its store, where it does not say its id.
        job_id: As the store tells it; empty where only the body knows.
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


# -- the smallest parts ------------------------------------------------------


def encode_moment(moment: datetime) -> str:
    """Return a moment in ISO 8601, in UTC."""
    return moment.astimezone(UTC).isoformat()[:-6] + "Z"


def decode_moment(value: Any) -> datetime:
    """Return the moment of an ISO 8601 text that names its offset."""
    if type(value) is not str:
        raise ValueError(f"a moment must be ISO 8601 text, not {value!r}")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"the moment {value!r} names no offset from UTC")
    return moment.astimezone(UTC)


def encode_duration(duration: timedelta) -> float | str:
    """Return seconds: a number, or its digits where no float is exact to the microsecond."""
    whole, rest = divmod(duration, timedelta(seconds=1))
    if not rest:
        return whole
    if abs(whole) < 2**32:  # 136 years: floats lie closer together than microseconds
        return duration.total_seconds()
    return f"{whole}.{rest.microseconds:06}"


def decode_duration(value: Any) -> timedelta:
    """Return the duration of a number of seconds."""
    if type(value) is str:
        whole, _, rest = value.partition(".")
        return timedelta(seconds=int(whole), microseconds=int(rest))
    if type(value) is not int and type(value) is not float:
        raise ValueError(f"a duration must be a number of seconds, not {value!r}")
    return timedelta(seconds=value)


_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class _Reading:
    """Turns whatever goes wrong while a body is read into :class:`Malformed`."""

    __slots__ = ("part",)

    def __init__(self, part: str) -> None:
        self.part = part

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            text = f"{type(error).__name__}: {error}"[:500]
            raise Malformed(f"the {self.part} is malformed: {text}") from error


def _fields(value: Any, required: str, optional: str = "") -> dict[str, Any]:
    """Check that an object has these fields and no other."""
    if not isinstance(value, dict):
        raise TypeError(f"must be an object, not {value!r}")
    missing = set(required.split()) - value.keys()
    unknown = value.keys() - set(required.split()) - set(optional.split())
    if missing or unknown:
        raise ValueError(f"missing: {sorted(missing)}, unknown: {sorted(unknown)}")
    return value


def _encode_cron(cron: Cron) -> dict[str, Any]:
    body: dict[str, Any] = {"expression": cron.expression}
    if cron.tz != "UTC":
        body["tz"] = cron.tz
    if isinstance(cron.dst, DstRule):
        body["dst"] = {"gap": cron.dst.gap, "fold": cron.dst.fold}
    return body


def _decode_cron(value: Any) -> Cron:
    body = _fields(value, "expression", "tz dst")
    rule = _fields(body["dst"], "gap fold") if "dst" in body else None
    dst: Literal["debian"] | DstRule = DstRule(rule["gap"], rule["fold"]) if rule else "debian"
    return Cron(body["expression"], body.get("tz", "UTC"), dst)


def _encode_interval(interval: Interval) -> dict[str, Any]:
    every = {"every": encode_duration(interval.every)}
    return every if interval.start is None else every | {"start": encode_moment(interval.start)}


def _decode_interval(value: Any) -> Interval:
    body = _fields(value, "every", "start")
    start = decode_moment(body["start"]) if "start" in body else None
    return Interval(decode_duration(body["every"]), start=start)


register("cron", Cron, _encode_cron, _decode_cron)
register("interval", Interval, _encode_interval, _decode_interval)
register(
    "fixed_delay",
    FixedDelay,
    lambda schedule: {"every": encode_duration(schedule.every)},
    lambda value: FixedDelay(decode_duration(_fields(value, "every")["every"])),
)
register(
    "once",
    Once,
    lambda schedule: {"at": encode_moment(schedule.at)},
    lambda value: Once(decode_moment(_fields(value, "at")["at"])),
)


def _encode_part(schedule: Schedule) -> list[Any]:
    tag = tag_of(schedule)
    return [tag, _KINDS[tag].encode(schedule)]


def _decode_part(value: Any) -> Schedule:
    tag, body = value
    reason = readable(FORMAT, tag)
    if reason is not None:
        raise Malformed(reason)
    schedule: Schedule = _kind(tag).decode(body)
    return schedule


def _encode_between(between: Between) -> dict[str, Any]:
    body: dict[str, Any] = {"schedule": _encode_part(between.schedule)}
    if between.start is not None:
        body["start"] = encode_moment(between.start)
    if between.end is not None:
        body["end"] = encode_moment(between.end)
    return body


def _decode_between(value: Any) -> Between:
    body = _fields(value, "schedule", "start end")
    start = decode_moment(body["start"]) if "start" in body else None
    end = decode_moment(body["end"]) if "end" in body else None
    return Between(_decode_part(body["schedule"]), start, end)


def _encode_excluding(excluding: Excluding) -> dict[str, Any]:
    return {
        "schedule": _encode_part(excluding.schedule),
        "dates": [day.isoformat() for day in excluding.dates],
        "tz": excluding.tz,
    }


def _decode_excluding(value: Any) -> Excluding:
    body = _fields(value, "schedule dates tz")
    dates = [date.fromisoformat(day) for day in body["dates"]]
    return Excluding(_decode_part(body["schedule"]), dates, body["tz"])


def _decode_any_of(value: Any) -> AnyOf:
    # One more than may be is enough to be refused; the rest need not be read for that.
    return AnyOf(*map(_decode_part, _fields(value, "schedules")["schedules"][: MOST_PARTS + 1]))


register(
    "any_of",
    AnyOf,
    lambda schedule: {"schedules": [_encode_part(part) for part in schedule.schedules]},
    _decode_any_of,
)
register("between", Between, _encode_between, _decode_between)
register("excluding", Excluding, _encode_excluding, _decode_excluding)

_MISFIRES: dict[str, type[Coalesce | CatchUp | Drop]] = {
    "coalesce": Coalesce,
    "catch_up": CatchUp,
    "drop": Drop,
}


@cache
def _converter() -> Converter:
    """Return the converter of everything that is a record of fields."""
    from cattrs import Converter

    converter = Converter(omit_if_default=True, forbid_extra_keys=True, detailed_validation=False)
    converter.register_unstructure_hook(datetime, encode_moment)
    converter.register_structure_hook(datetime, lambda value, _: decode_moment(value))
    converter.register_unstructure_hook(timedelta, encode_duration)
    converter.register_structure_hook(timedelta, lambda value, _: decode_duration(value))
    for plain in (int, str, bool):
        converter.register_structure_hook(plain, _exactly)
    converter.register_structure_hook(float, lambda value, _: _number(value))

    kinds = {cls: kind for kind, cls in _MISFIRES.items()}

    def encode_misfire(misfire: Coalesce | CatchUp | Drop) -> dict[str, Any]:
        fields: dict[str, Any] = converter.unstructure(misfire, unstructure_as=type(misfire))
        return {"kind": kinds[type(misfire)]} | fields

    def decode_misfire(value: Any, _: object) -> Coalesce | CatchUp | Drop:
        fields = dict(value)
        kind = fields.pop("kind")
        if kind == "run_all":  # as it was called, when its window was a day unless given
            return converter.structure({"window": 86_400} | fields, CatchUp)
        return converter.structure(fields, _MISFIRES[kind])

    union = Coalesce | CatchUp | Drop
    converter.register_unstructure_hook(union, encode_misfire)
    converter.register_structure_hook(union, decode_misfire)
    kept = timedelta | Literal["default"] | None
    converter.register_unstructure_hook(kept, _encode_kept)
    converter.register_structure_hook(kept, lambda value, _: _decode_kept(value))
    return converter


def _encode_kept(kept: Any) -> Any:
    return encode_duration(kept) if isinstance(kept, timedelta) else kept


def _decode_kept(value: Any) -> timedelta | Literal["default"] | None:
    if value is None:
        return None
    return "default" if value == "default" else decode_duration(value)


def _exactly(value: Any, kind: type[T]) -> Any:
    """Refuse what a lenient reader would bend into shape."""
    if type(value) is not kind:
        raise TypeError(f"must be {kind.__name__}, not {value!r}")
    return value


def _number(value: Any) -> float:
    if type(value) is not int and type(value) is not float:
        raise TypeError(f"must be a number, not {value!r}")
    return value
