"""The record of a job, and its bytes: what one message of the bucket of jobs says. Pure.

Two lines of JSON. The first is what runs and claims change. It begins with ``format``, ``tag`` and
``id``, always in this order, so that a version that cannot read the rest can tell what it is. The
second is the definition: written once, carried along as it is, parsed once for each text. One that
is large lies in a message of its own, and the first line has its digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

from attrs import evolve, frozen

from sched_core import codec
from sched_core.codec import Malformed
from sched_core.job import (
    Backlog,
    Claim,
    Job,
    JobSpec,
    LostClaim,
    Standing,
    State,
    Status,
    pending,
)
from sched_core.policy import Policy
from sched_core.ports import Undecodable
from sched_core.schedule import Once

T = TypeVar("T")

MOST = 2**60
"""Numbers that only grow stay below it, in whatever time; what is above was not written here."""
LARGE = 2048
"""Bytes from which on a definition lies apart, so that a run does not write it again and again."""


@frozen
class Held:
    """The occurrence that is held, where the job has moved on since it was claimed.

    Attributes:
        uid: Of its incarnation.
        number: Of the occurrence.
        attempts: As they were when it was claimed.
        scheduled_at: Its nominal moment.
        manual: Made by a trigger.
        keep: How long its ledger lines are kept.
    """

    uid: str
    number: int
    attempts: int
    scheduled_at: datetime | None
    manual: bool
    keep: timedelta | None


@frozen
class Hold:
    """Who has the job, and until when.

    Attributes:
        token: With the worker: the fence.
        worker: Who has it.
        claimed_at: When it was claimed.
        until: When others may take it over.
        lost: What was taken over.
        was: The occurrence that is held; ``None`` while it is the one the job stands at.
    """

    token: int
    worker: str
    claimed_at: datetime
    until: datetime
    lost: LostClaim | None = None
    was: Held | None = None


@frozen
class Released:
    """A takeover that was released: its lost attempts keep counting for this occurrence."""

    uid: str
    number: int
    lost: LostClaim


@frozen
class Definition:
    """The part of a record that runs do not change.

    Attributes:
        tag: The kind of its schedule.
        text: JSON, one line.
    """

    tag: str
    text: str

    @property
    def apart(self) -> str | None:
        """The digest under which it lies in a message of its own, ``None`` where it does not."""
        if len(self.text) < LARGE // 4 or len(self.text.encode()) < LARGE:
            return None
        return digest_of(self.text.encode())


@frozen
class Record:
    """What is stored for one id.

    Attributes:
        id: Of the job.
        job: ``None`` for a removed one that is still held. Its revision 0 means: the sequence that
            this record gets when it is written.
        definition: Of the job.
        hold: Who has it.
        ended: Token and worker of the newest settled claim: by it a repeated settle is known.
        released: See there.
        schedule: The generation that the server may still have a schedule of.
        closed: The highest number of this incarnation that has a final line.
    """

    id: str
    job: Job | None
    definition: Definition | None = None
    hold: Hold | None = None
    ended: tuple[int, str] | None = None
    released: Released | None = None
    schedule: str | None = None
    closed: int = 0


def with_hold(record: Record, hold: Hold | None, released: Released | None, closed: int) -> Record:
    """Return the record with another hold. Three times as fast as ``evolve``, once in each run."""
    return Record(
        record.id,
        record.job,
        record.definition,
        hold,
        record.ended,
        released,
        record.schedule,
        closed,
    )


def with_schedule(record: Record, schedule: str | None) -> Record:
    """Return the record with another generation; as above."""
    return Record(
        record.id,
        record.job,
        record.definition,
        record.hold,
        record.ended,
        record.released,
        schedule,
        record.closed,
    )


def with_revision(record: Record, sequence: int) -> Record:
    """Return the record as it is stored: an open revision is its sequence; as above."""
    job = record.job
    if job is None or job.revision:
        return record
    return Record(
        record.id,
        Job(job.spec, job.uid, job.declared, job.anchor, job.standing, sequence),
        record.definition,
        record.hold,
        record.ended,
        record.released,
        record.schedule,
        record.closed,
    )


def record_of(job: Job) -> Record:
    """Return the record of a job that nobody holds."""
    return Record(job.spec.id, job, definition_of(job.spec))


def digest_of(text: bytes) -> str:
    """Return what names a definition that lies apart."""
    return hashlib.blake2b(text, digest_size=12).hexdigest()


def held_claim(record: Record) -> Claim | None:
    """Return the claim of the hold, its job as it was claimed as far as ledger lines show it."""
    hold, job = record.hold, record.job
    if hold is None:
        return None
    was = hold.was
    if was is not None:
        spec = JobSpec(
            record.id,
            Once(was.scheduled_at or hold.claimed_at),
            policy=Policy(keep_executions=was.keep),
        )
        standing = Standing(
            State.ACTIVE,
            was.number,
            None if was.manual else was.scheduled_at,
            None,
            triggered_at=was.scheduled_at if was.manual else None,
            attempts=was.attempts,
            manual=was.manual,
        )
        job = Job(spec, was.uid, False, hold.claimed_at, standing)
    if job is None:
        return None
    return Claim(job, hold.token, hold.worker, hold.claimed_at, hold.until, hold.lost)


def remember(record: Record) -> Hold | None:
    """Return the hold for a record whose job is about to change: it remembers what it holds."""
    hold, job = record.hold, record.job
    if hold is None or hold.was is not None or job is None:
        return hold
    standing = job.standing
    scheduled_at, manual = pending(standing)
    was = Held(
        job.uid,
        standing.number,
        standing.attempts,
        scheduled_at,
        manual,
        job.spec.policy.keep_executions,
    )
    return evolve(hold, was=was)


# -- to bytes ----------------------------------------------------------------

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_moment = codec.encode_moment


def definition_of(spec: JobSpec) -> Definition:
    """Return the definition that a user gave."""
    parts = [f'"schedule":{codec.encode_schedule(spec.schedule)}']
    if spec.name is not None:
        parts.append(f'"name":{_dump(spec.name)}')
    if spec.group is not None:
        parts.append(f'"group":{_dump(spec.group)}')
    if spec.metadata:
        parts.append(f'"metadata":{codec.encode_metadata(spec.metadata)}')
    if policy := codec.encode_policy(spec.policy):
        parts.append(f'"policy":{policy}')
    return Definition(codec.tag_of(spec.schedule), "{" + ",".join(parts) + "}")


def encode(record: Record) -> bytes:
    """Return the bytes of a record."""
    job, definition = record.job, record.definition
    tag = definition.tag if job is not None and definition is not None else "gone"
    text = ""
    body: dict[str, Any] = {"format": codec.FORMAT, "tag": tag, "id": record.id}
    if job is not None and definition is not None:
        body["uid"] = job.uid
        if job.declared:
            body["declared"] = True
        body["anchor"] = _moment(job.anchor)
        if job.revision:
            body["revision"] = job.revision
        body["standing"] = _encode_standing(job.standing)
        apart = definition.apart
        if apart is None:
            text = definition.text
        else:
            body["apart"] = apart
    hold = record.hold
    if hold is not None:
        body["hold"] = _encode_hold(hold)
    if record.ended is not None:
        body["ended"] = record.ended
    if record.released is not None:
        released = record.released
        body["released"] = [released.uid, released.number, *_encode_lost(released.lost)]
    if record.schedule is not None:
        body["schedule"] = record.schedule
    if record.closed:
        body["closed"] = record.closed
    return f"{_dump(body)}\n{text}".encode() if text else _dump(body).encode()


_MOMENTS = (
    "triggered_at",
    "skipped_run",
    "paused_until",
    "last_scheduled_at",
    "last_finished_at",
    "expires_at",
    "paused_at",
)


def _encode_standing(standing: Standing) -> dict[str, Any]:
    body: dict[str, Any] = {"state": standing.state.value, "number": standing.number}
    if standing.next_run is not None:
        body["next_run"] = _moment(standing.next_run)
    if standing.due_at is not None:
        body["due_at"] = _moment(standing.due_at)
    for name in _MOMENTS:
        moment = getattr(standing, name)
        if moment is not None:
            body[name] = _moment(moment)
    if standing.attempts:
        body["attempts"] = standing.attempts
    if standing.failures:
        body["failures"] = standing.failures
    if standing.pause_reason is not None:
        body["pause_reason"] = standing.pause_reason
    if standing.last_status is not None:
        body["last_status"] = standing.last_status.value
    if standing.manual:
        body["manual"] = True
    backlog = standing.backlog
    if backlog is not None:
        body["backlog"] = [
            _moment(backlog.until),
            backlog.folded,
            _optional(backlog.folded_from),
            _optional(backlog.folded_until),
        ]
    return body


def _encode_hold(hold: Hold) -> dict[str, Any]:
    body: dict[str, Any] = {
        "token": hold.token,
        "worker": hold.worker,
        "at": _moment(hold.claimed_at),
        "until": _moment(hold.until),
    }
    if hold.lost is not None:
        body["lost"] = _encode_lost(hold.lost)
    was = hold.was
    if was is not None:
        keep = None if was.keep is None else codec.encode_duration(was.keep)
        at = _optional(was.scheduled_at)
        body["was"] = [was.uid, was.number, was.attempts, at, was.manual, keep]
    return body


def _encode_lost(lost: LostClaim) -> list[Any]:
    return [lost.count, lost.worker, _optional(lost.claimed_at)]


def _optional(moment: datetime | None) -> str | None:
    return None if moment is None else _moment(moment)


# -- from bytes --------------------------------------------------------------

_HEAD = re.compile(
    rb'\{"format":(?P<format>\d{1,9}),"tag":(?P<tag>"(?:[^"\\]|\\.)*"),"id":(?P<id>"(?:[^"\\]|\\.)*")'
)


def apart_of(body: bytes) -> str | None:
    """Return the digest of the definition that a record's reader must fetch, if any."""
    if b"\n" in body or b'"apart":"' not in body or not _HEAD.match(body):
        return None
    try:
        found = json.loads(body).get("apart")
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def decode(
    body: bytes, sequence: int, job_id: str | None, definition: bytes | None = None
) -> Record | Undecodable:
    """Return what a message of the bucket says.

    Args:
        body: Of the message.
        sequence: Of the message: the revision where the record leaves it open.
        job_id: As the subject says it; ``None`` where only the record knows.
        definition: What lies apart, if anything does.
    """
    head = _HEAD.match(body)
    if head is None:
        foreign = "this is no record of a job; somebody else wrote it"
        return Undecodable(job_id or "", foreign, 0, body)
    try:
        number, tag = int(head["format"]), json.loads(head["tag"])
        named: str = json.loads(head["id"])
        named.encode()  # or no subject can be its own
    except ValueError as error:
        return Undecodable(job_id or "", f"the record's header is malformed: {error}", 0, body)
    reason = codec.readable(number, tag) if tag != "gone" else codec.readable(number, "once")
    if reason is not None:
        return Undecodable(named, reason, number, body, tag)
    try:
        return _decode(body, sequence, tag, named, definition)
    except Malformed as error:
        return Undecodable(named, str(error), number, body)
    except Exception as error:  # noqa: BLE001 -- whatever foreign bytes make of the parts
        reason = f"the record is malformed: {type(error).__name__}: {error}"
        return Undecodable(named, reason[:500], number, body)


_KNOWN = frozenset(
    (
        *("format", "tag", "id", "uid", "declared", "anchor", "revision", "standing", "apart"),
        *("hold", "ended", "released", "schedule", "closed"),
    )
)


def _decode(body: bytes, sequence: int, tag: str, job_id: str, apart: bytes | None) -> Record:
    first, _, text = body.partition(b"\n")
    fields = json.loads(first)
    if not fields.keys() <= _KNOWN:
        raise ValueError(f"unknown: {sorted(fields.keys() - _KNOWN)}")
    hold = fields.get("hold")
    ended = fields.get("ended")
    released = fields.get("released")
    job = definition = None
    if tag != "gone":
        if "apart" in fields:
            text = b"" if apart is None or digest_of(apart) != fields["apart"] else apart
        definition = Definition(tag, text.decode())
        job = Job(
            _spec(job_id, tag, definition.text),
            _exactly(str, fields["uid"]),
            _exactly(bool, fields.get("declared", False)),
            codec.decode_moment(fields["anchor"]),
            _decode_standing(fields["standing"]),
            _exactly(int, fields.get("revision", sequence)),
        )
    return Record(
        job_id,
        job,
        definition,
        None if hold is None else _decode_hold(hold),
        None if ended is None else (_exactly(int, ended[0]), _exactly(str, ended[1])),
        None if released is None else _decode_released(released),
        _maybe(str, fields.get("schedule")),
        _exactly(int, fields.get("closed", 0)),
    )


def _exactly(kind: type[T], value: Any) -> T:
    """Refuse what only fails later, on the way of some other job."""
    if type(value) is not kind:
        raise TypeError(f"must be {kind.__name__}, not {value!r}")
    return value


def _maybe(kind: type[T], value: Any) -> T | None:
    return None if value is None else _exactly(kind, value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MOST:
        raise ValueError(f"nobody has counted to {value!r}")
    return value


@lru_cache(maxsize=4096)
def _spec(job_id: str, tag: str, text: str) -> JobSpec:
    try:
        fields = json.loads(text)
        schedule = codec.decode_schedule(tag, _dump(fields["schedule"]))
        policy = codec.decode_policy(_dump(fields["policy"])) if "policy" in fields else Policy()
        metadata = fields.get("metadata", {})
        return JobSpec(job_id, schedule, fields.get("name"), metadata, policy, fields.get("group"))
    except Malformed:
        raise
    except (LookupError, TypeError, ValueError) as error:
        problem = f"the definition is malformed: {type(error).__name__}: {error}"
        raise Malformed(problem[:500]) from error


_STATES = {state.value: state for state in State}
_STATUSES = {status.value: status for status in Status}
_STANDING = frozenset(
    (
        *("state", "number", "next_run", "due_at", "attempts", "failures", "pause_reason"),
        *("last_status", "manual", "backlog", *_MOMENTS),
    )
)


def _decode_standing(fields: dict[str, Any]) -> Standing:
    if not fields.keys() <= _STANDING:
        raise ValueError(f"unknown: {sorted(fields.keys() - _STANDING)}")
    known = fields.get
    backlog, status = known("backlog"), known("last_status")
    return Standing(
        _STATES[fields["state"]],
        _count(fields["number"]),
        _moment_of(known("next_run")),
        _moment_of(known("due_at")),
        _moment_of(known("triggered_at")),
        _count(known("attempts", 0)),
        _count(known("failures", 0)),
        _moment_of(known("skipped_run")),
        _moment_of(known("paused_until")),
        _maybe(str, known("pause_reason")),
        _moment_of(known("last_scheduled_at")),
        _moment_of(known("last_finished_at")),
        None if status is None else _STATUSES[status],
        _moment_of(known("expires_at")),
        _exactly(bool, known("manual", False)),
        _moment_of(known("paused_at")),
        None
        if backlog is None
        else Backlog(
            codec.decode_moment(backlog[0]),
            _count(backlog[1]),
            _moment_of(backlog[2]),
            _moment_of(backlog[3]),
        ),
    )


def _decode_hold(fields: dict[str, Any]) -> Hold:
    lost, was = fields.get("lost"), fields.get("was")
    held = None
    if was is not None:
        uid, number, attempts, at, manual, keep = was
        keep = None if keep is None else codec.decode_duration(keep)
        held = Held(
            _exactly(str, uid),
            _count(number),
            _count(attempts),
            _moment_of(at),
            _exactly(bool, manual),
            keep,
        )
    return Hold(
        _exactly(int, fields["token"]),
        _exactly(str, fields["worker"]),
        codec.decode_moment(fields["at"]),
        codec.decode_moment(fields["until"]),
        None if lost is None else _decode_lost(lost),
        held,
    )


def _decode_released(values: list[Any]) -> Released:
    uid, number, *lost = values
    return Released(_exactly(str, uid), _count(number), _decode_lost(lost))


def _decode_lost(values: list[Any]) -> LostClaim:
    count, worker, at = values
    return LostClaim(_count(count), _maybe(str, worker), _moment_of(at))


def _moment_of(text: str | None) -> datetime | None:
    return None if text is None else codec.decode_moment(text)
