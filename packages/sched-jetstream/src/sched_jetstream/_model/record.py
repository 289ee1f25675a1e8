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
from functools import lru_cache
from typing import Any

from attrs import frozen

from sched_core import Hold, Job, JobSpec, Policy, codec
from sched_core.codec import Malformed
from sched_core.ports import Undecodable
from sched_core.row import with_hold
from sched_jetstream._model import old_format
from sched_jetstream._model.standing import (
    checked,
    count,
    decode_hold,
    decode_standing,
    encode_hold,
    encode_standing,
    exactly,
    maybe,
)

LARGE = 2048
"""Bytes from which on a definition lies apart, so that a run does not write it again and again."""


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
        hold: The claim that has not ended.
        ended: Token and worker of the newest settled claim: by it a repeated settle is known.
        schedule: The generation that the server may still have a schedule of.
        doubtful: Up to this number, executions may be stored that the standing gives no account of:
            of a further one it is to be found out whether it is stored already. No decision of the
            core makes a number doubtful.
        format: That it was read in; it is written in this version's.
    """

    id: str
    job: Job | None
    definition: Definition | None = None
    hold: Hold | None = None
    ended: tuple[int, str] | None = None
    schedule: str | None = None
    doubtful: int = 0
    format: int = codec.FORMAT

    def read(self) -> Job | None:
        """Return the job as it is to be read: with what is held of it."""
        return None if self.job is None else with_hold(self.job, self.hold)


def with_claim(record: Record, hold: Hold | None) -> Record:
    """Return the record with another hold. Three times as fast as ``evolve``, once in each run."""
    return Record(
        record.id,
        record.job,
        record.definition,
        hold,
        record.ended,
        record.schedule,
        record.doubtful,
    )


def with_schedule(record: Record, schedule: str | None) -> Record:
    """Return the record with another generation; as above."""
    return Record(
        record.id,
        record.job,
        record.definition,
        record.hold,
        record.ended,
        schedule,
        record.doubtful,
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
        record.schedule,
        record.doubtful,
    )


def record_of(job: Job) -> Record:
    """Return the record of a job that nobody holds."""
    return Record(job.spec.id, job, definition_of(job.spec))


def digest_of(text: bytes) -> str:
    """Return what names a definition that lies apart."""
    return hashlib.blake2b(text, digest_size=12).hexdigest()


# -- to bytes ----------------------------------------------------------------

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


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
        body["anchor"] = codec.encode_moment(job.anchor)
        if job.revision:
            body["revision"] = job.revision
        body["standing"] = encode_standing(job.standing)
        apart = definition.apart
        if apart is None:
            text = definition.text
        else:
            body["apart"] = apart
    if record.hold is not None:
        body["hold"] = encode_hold(record.hold, job)
    if record.ended is not None:
        body["ended"] = record.ended
    if record.schedule is not None:
        body["schedule"] = record.schedule
    if record.doubtful:
        body["doubtful"] = record.doubtful
    return f"{_dump(body)}\n{text}".encode() if text else _dump(body).encode()


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
    # Of the format before, only the standing and the hold are told otherwise.
    as_now = codec.FORMAT if number == old_format.FORMAT else number
    reason = codec.readable(as_now, "" if tag == "gone" else tag)
    if reason is not None:
        return Undecodable(named, reason, number, body, tag)
    try:
        return _decode(body, number, sequence, tag, named, definition)
    except Malformed as error:
        return Undecodable(named, str(error), number, body)
    except Exception as error:  # noqa: BLE001 -- whatever foreign bytes make of the parts
        reason = f"the record is malformed: {type(error).__name__}: {error}"
        return Undecodable(named, reason[:500], number, body)


_KNOWN = frozenset(
    (
        *("format", "tag", "id", "uid", "declared", "anchor", "revision", "standing", "apart"),
        *("hold", "ended", "schedule", "doubtful"),
    )
)


def _decode(
    body: bytes, number: int, sequence: int, tag: str, job_id: str, apart: bytes | None
) -> Record:
    first, _, text = body.partition(b"\n")
    fields = json.loads(first)
    is_former = number == old_format.FORMAT
    checked(fields, old_format.KNOWN if is_former else _KNOWN)
    job = definition = None
    if tag != "gone":
        if "apart" in fields:
            text = b"" if apart is None or digest_of(apart) != fields["apart"] else apart
        definition = Definition(tag, text.decode())
        standing = fields["standing"]
        job = Job(
            _spec(job_id, tag, definition.text),
            exactly(str, fields["uid"]),
            exactly(bool, fields.get("declared", False)),
            codec.decode_moment(fields["anchor"]),
            old_format.standing_of(fields) if is_former else decode_standing(standing),
            exactly(int, fields.get("revision", sequence)),
        )
    hold, ended = fields.get("hold"), fields.get("ended")
    if hold is not None:
        read = (
            old_format.hold_of(fields, job_id, job) if is_former else decode_hold(hold, job_id, job)
        )
    return Record(
        job_id,
        job,
        definition,
        None if hold is None else read,
        None if ended is None else (exactly(int, ended[0]), exactly(str, ended[1])),
        maybe(str, fields.get("schedule")),
        old_format.doubtful_of(fields) if is_former else count(fields.get("doubtful", 0)),
        number,
    )


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
