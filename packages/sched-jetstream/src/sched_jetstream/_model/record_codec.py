"""The bytes of a record. Pure.

Two lines of JSON. The first is what runs and claims change. It begins with ``format``, ``tag`` and
``id``, always in this order, so that a version that cannot read the rest can tell what it is. The
second is the definition: written once, carried along as it is, parsed once for each text. One that
is large lies in a message of its own, and the first line has its digest.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from sched_core import Job, JobSpec, Policy, codec
from sched_core.codec import Malformed
from sched_core.ports import Undecodable
from sched_jetstream._model import old_format
from sched_jetstream._model.record import Definition, Record, digest_of
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
from sched_jetstream._model.subjects import DEFAULT

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


# -- to bytes ----------------------------------------------------------------


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
        if job.actor is not None:
            body["actor"] = job.actor
        body["anchor"] = codec.encode_moment(job.anchor)
        if job.spec.queue != DEFAULT:
            body["queue"] = job.spec.queue
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
        body: The body of the message.
        sequence: The sequence of the message: the revision where the record leaves it open.
        job_id: The id, as the subject says it; ``None`` where only the record knows.
        definition: The text of a definition that lies in a message of its own.
    """
    head = _HEAD.match(body)
    if head is None:
        foreign = "this is no record of a job; another program wrote it"
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
        *("hold", "ended", "schedule", "doubtful", "queue", "actor"),
    )
)


def _decode(
    body: bytes, number: int, sequence: int, tag: str, job_id: str, apart: bytes | None
) -> Record:
    first, _, text = body.partition(b"\n")
    fields = json.loads(first)
    is_old_format = number == old_format.FORMAT
    checked(fields, old_format.KNOWN if is_old_format else _KNOWN)
    job = definition = None
    if tag != "gone":
        if "apart" in fields:
            text = b"" if apart is None or digest_of(apart) != fields["apart"] else apart
        definition = Definition(tag, text.decode())
        standing = fields["standing"]
        job = Job(
            _spec(job_id, tag, definition.text, exactly(str, fields.get("queue", DEFAULT))),
            exactly(str, fields["uid"]),
            exactly(bool, fields.get("declared", False)),
            codec.decode_moment(fields["anchor"]),
            old_format.standing_of(fields) if is_old_format else decode_standing(standing),
            exactly(int, fields.get("revision", sequence)),
            actor=maybe(str, fields.get("actor")),
        )
    hold, ended = fields.get("hold"), fields.get("ended")
    if hold is not None:
        read = (
            old_format.hold_of(fields, job_id, job)
            if is_old_format
            else decode_hold(hold, job_id, job)
        )
    return Record(
        job_id,
        job,
        definition,
        None if hold is None else read,
        None if ended is None else (exactly(int, ended[0]), exactly(str, ended[1])),
        maybe(str, fields.get("schedule")),
        old_format.doubtful_of(fields) if is_old_format else count(fields.get("doubtful", 0)),
        number,
    )


@lru_cache(maxsize=4096)
def _spec(job_id: str, tag: str, text: str, queue: str) -> JobSpec:
    try:
        fields = json.loads(text)
        schedule = codec.decode_schedule(tag, _dump(fields["schedule"]))
        policy = codec.decode_policy(_dump(fields["policy"])) if "policy" in fields else Policy()
        metadata = fields.get("metadata", {})
        return JobSpec(
            job_id, schedule, fields.get("name"), metadata, policy, fields.get("group"), queue
        )
    except Malformed:
        raise
    except (LookupError, TypeError, ValueError) as error:
        problem = f"the definition is malformed: {type(error).__name__}: {error}"
        raise Malformed(problem[:500]) from error
