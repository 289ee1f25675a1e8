"""The messages of a write: each decision becomes one atomic write. Pure.

The schedule of a job lies under a new subject each time it is armed: a server that is firing a
schedule loses what is written to the same subject meanwhile. The record names the generation that
may still be pending; a write that arms another one removes the old one by a header of the record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil

from attrs import frozen

from sched_core import Execution, codec
from sched_jetstream._model.protocol import StoredRecord, Write
from sched_jetstream._model.record import Record, with_schedule
from sched_jetstream._model.record_codec import encode
from sched_jetstream._model.subjects import Names, execution_token, token_of

LAYOUT = 2
"""The layout of the streams, in their metadata: a newer one is refused, an older one is upgraded.
Before 2, records had format 1, hints had no queue, and one consumer had all of them."""

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
OPERATION = "KV-Operation"
REMOVED = "DEL"
TTL = "Nats-TTL"

SOON = timedelta(seconds=1.5)
"""What is due within it gets its hint at once: the server's timers are coarse close by."""
AHEAD = timedelta(seconds=1)
"""How long before its moment a hint is fired; the worker that gets it waits. Under load the
server fires up to 250 ms late, and a burst of ten thousand takes 100 ms (R1) to 480 ms (R3)."""
FARTHEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Later moments get no schedule: past 2262 the server overflows and fires at once. By then some
reconciler will have come by."""
REMOVED_FOR = timedelta(minutes=10)
"""How long the mark of a removal stays, so that a late twin of an add finds it in its way."""

RETENTION_CLASSES: tuple[tuple[str, timedelta], ...] = (
    ("1h", timedelta(hours=1)),
    ("6h", timedelta(hours=6)),
    ("1d", timedelta(days=1)),
    ("7d", timedelta(days=7)),
    ("30d", timedelta(days=30)),
    ("90d", timedelta(days=90)),
    ("1y", timedelta(days=366)),
    ("5y", timedelta(days=5 * 366)),
)
"""How long executions are kept: each in the shortest class that is long enough. Whole classes are
deleted by time, so that the server need not remember a moment for each execution."""
FOREVER = "ever"


@frozen
class Message:
    """A message to publish.

    Attributes:
        subject: The subject.
        body: The content.
        headers: The headers: what the server does with the message.
    """

    subject: str
    body: bytes
    headers: dict[str, str]


@frozen
class AtomicWrite:
    """The messages of one write; the first one is the record's.

    Attributes:
        messages: All of them.
        record: The record, as it is written.
    """

    messages: list[Message]
    record: Record | None


def retention_class(execution: Execution) -> str:
    """Return the retention class of an execution."""
    if execution.expires_at is None:
        return FOREVER
    wanted = execution.expires_at - execution.finished_at
    return next((name for name, keep in RETENTION_CLASSES if wanted <= keep), FOREVER)


def run_message(names: Names, execution: Execution, ttl: timedelta) -> Message:
    """Return the message that carries an execution."""
    token, own = token_of(execution.job_id), execution_token(execution.id)
    headers = {TTL: str(ceil(ttl.total_seconds()))}
    subject = names.run(retention_class(execution), token, own)
    return Message(subject, codec.encode_execution(execution), headers)


def build_write(
    names: Names,
    found: StoredRecord,
    write: Write,
    now: datetime,
    *,
    new_generation: Callable[[], str],
    outbox_ttl: timedelta,
    expire: bool,
    executions: Sequence[Execution] | None = None,
) -> AtomicWrite:
    """Return the messages of a write.

    Args:
        names: The names of the deployment.
        found: What the write replaces.
        write: What was decided.
        now: The time, by the clock that decides.
        new_generation: Makes the last token of a schedule's subject.
        outbox_ttl: After how long an execution on its way is deleted, copied or not.
        expire: Have the server delete finished jobs: not where a fake clock decides.
        executions: Replaces the write's own, where some are known to be stored.
    """
    executions = write.executions if executions is None else executions
    runs = [run_message(names, execution, outbox_ttl) for execution in executions]
    headers = {EXPECTED: str(found.sequence)}
    old = found.content if isinstance(found.content, Record) else None
    pending = None if old is None else old.schedule
    more: list[Message] = []
    record = write.record
    if record is None:
        headers[OPERATION] = REMOVED
        headers[TTL] = str(ceil(REMOVED_FOR.total_seconds()))
        if pending is not None:
            _cancel(headers, names.schedule(found.token, pending))
        more = _definitions(names, found.token, old, None, headers[TTL])
        first = Message(names.record(found.token), b"", headers)
        return AtomicWrite([first, *more, *runs], None)
    keep = _still_armed(old, record)
    if not keep:
        generation, more = _arm(names, found.token, record, now, new_generation)
        if record.hold is not None and old is not None and old.queue != record.queue:
            # The hint that comes back when its worker dies may be in a queue that no worker serves.
            more = [*more, Message(names.fire(found.token, record.queue), b"", {})]
        record = with_schedule(record, generation)
        if pending is not None:
            _cancel(headers, names.schedule(found.token, pending))
    if record.job is None:
        headers[OPERATION] = REMOVED
    elif record.hold is None:
        standing = record.job.standing
        if expire and standing.expires_at is not None and standing.due_at is None:
            left = standing.expires_at - now
            headers[TTL] = str(max(ceil(left.total_seconds()), 1) + 1)
    more += _definitions(names, found.token, old, record, headers.get(TTL))
    first = Message(names.record(found.token), encode(record), headers)
    return AtomicWrite([first, *more, *runs], record)


def _definitions(
    names: Names, token: str, old: Record | None, new: Record | None, ttl: str | None
) -> list[Message]:
    """Return what must be written of a definition that lies, or lay, apart."""
    before = None if old is None or old.definition is None else old.definition
    after = None if new is None else new.definition
    subject = names.definition(token)
    if after is not None and after.apart is not None:
        if ttl is None and before == after:
            return []
        return [Message(subject, after.text.encode(), {} if ttl is None else {TTL: ttl})]
    if before is not None and before.apart is not None:
        return [Message(subject, b"", {TTL: str(ceil(REMOVED_FOR.total_seconds()))})]
    return []


def _cancel(headers: dict[str, str], schedule: str) -> None:
    headers["Nats-Scheduler"] = schedule
    headers["Nats-Schedule-Next"] = "purge"


def _still_armed(old: Record | None, new: Record) -> bool:
    """Whether the hint or schedule that wakes a worker for the record is there already."""
    if old is not None and old.queue != new.queue:
        return False
    if new.hold is not None and new.job is not None:
        was = None if old is None or old.job is None else old.job.standing.due_at
        if old is not None and old.hold is not None and old.job is None:
            return False  # added over a tombstone
        return was == new.job.standing.due_at
    if new.job is None:
        return False
    due = new.job.standing.due_at
    return (
        old is not None
        and old.job is not None
        and old.job.standing.due_at == due
        and old.hold is None
        and (due is None or old.schedule is not None)
    )


def _arm(
    names: Names,
    token: str,
    record: Record,
    now: datetime,
    new_generation: Callable[[], str],
) -> tuple[str | None, list[Message]]:
    due = None if record.job is None else record.job.standing.due_at
    if due is None:
        return None, []
    if due <= now + SOON:
        if record.hold is not None:
            return None, []  # the hold's own hint comes back, or its end brings a new one
        return None, [Message(names.fire(token, record.queue), b"", {})]
    if due >= FARTHEST:
        return None, []
    generation = new_generation()
    return generation, [schedule_message(names, token, record.queue, generation, due)]


def schedule_message(
    names: Names, token: str, queue: str, generation: str, due: datetime
) -> Message:
    """Return what the server turns into a hint shortly before the moment."""
    return Message(
        names.schedule(token, generation),
        b"",
        {
            "Nats-Schedule": f"@at {codec.encode_moment(due - AHEAD)}",
            "Nats-Schedule-Target": names.fire(token, queue),
            "Nats-Rollup": "sub",
        },
    )
