"""Names: of streams and subjects, and job ids as tokens of subjects. Pure.

One stream is the bucket of jobs and holds everything that one atomic step must reach::

    $KV.<job_bucket>.<token>        the record of a job
    <prefix>.sched.<token>.<gen>    what the server turns into a fire when its moment comes
    <prefix>.fire.<queue>.<token>   the hint that a job may be due
    <prefix>.def.<token>            a definition too large for its record
    <prefix>.run.<keep>.<token>.<execution>   executions on their way into the other stream
    <prefix>.worker.<worker>        what a worker reports of itself
    <prefix>.check.<worker>, <prefix>.lock.<name>

The other one is the bucket of executions and copies them::

    $KV.<execution_bucket>.<keep>.<token>

What workers tell each other, and no stream keeps::

    <prefix>-signals.cancel.<worker>   a claim of this worker is to be cancelled
    <prefix>-signals.offer, <prefix>-signals.ask   jobs that one worker leaves to the others

No subject has a token for a shard: what is more than one stream can take needs several streams, and
so several buckets, whose name every subject has. Within one bucket it would only change the keys
that people know.
"""

from __future__ import annotations

import base64
import hashlib
import re

from attrs import frozen

from sched_core.errors import InvalidDefinition

DEFAULT = "default"
"""The queue of jobs that name none."""
LONGEST_TOKEN = 200
"""Bytes. A whole subject must stay far below the 4096 bytes of a protocol line."""

_SAFE = frozenset(b"-_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_PLAIN = re.compile(r"[-_0-9A-Za-z]{1,200}\Z")
_BUCKET = re.compile(r"[-_0-9A-Za-z]+\Z")
_PREFIX = re.compile(r"[-_0-9A-Za-z]+(\.[-_0-9A-Za-z]+)*\Z")
_DIGEST = "=="
"""Begins the token of an id that is too long. An escape never begins with two of them."""


def token_of(job_id: str) -> str:
    """Return the id as one token of a subject that is a legal key of a bucket, too.

    Letters, digits, ``-`` and ``_`` stay as they are, every other byte of UTF-8 is ``=XX``.
    What would be longer than 200 bytes is a digest: the id itself is in the record. No two ids
    share a token, and no token can be a wildcard.
    """
    if _PLAIN.match(job_id):
        return job_id
    encoded = job_id.encode()
    token = "".join(chr(byte) if byte in _SAFE else f"={byte:02X}" for byte in encoded)
    if len(token) <= LONGEST_TOKEN:
        return token
    return _DIGEST + _base32(hashlib.blake2b(encoded, digest_size=30).digest())


def id_of(token: str) -> str | None:
    """Return the id of a token, ``None`` where only the record knows it."""
    if "=" not in token:
        return token
    if token.startswith(_DIGEST):
        return None
    try:
        raw = re.sub(
            rb"=([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), token.encode()
        )
        return raw.decode()
    except UnicodeDecodeError:
        return None


def execution_token(execution_id: str) -> str:
    """Return the token of an execution, or of whatever has a name: the same for the same one."""
    return _base32(hashlib.blake2b(execution_id.encode(), digest_size=10).digest())


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


@frozen
class Names:
    """The names of one deployment.

    Args:
        job_bucket: The bucket of records; letters, digits, ``-`` and ``_``.
        execution_bucket: The bucket of executions.
        prefix: The beginning of all other subjects; tokens joined by dots.
        workers: The beginning of the names of the durable consumers, one for each queue, that all
            replicas share.

    Raises:
        InvalidDefinition: One of them cannot be part of a subject.
    """

    job_bucket: str
    execution_bucket: str
    prefix: str
    workers: str

    def __attrs_post_init__(self) -> None:
        for field in ("job_bucket", "execution_bucket", "workers"):
            value = getattr(self, field)
            if not _BUCKET.match(str(value)):
                name = "consumer_name" if field == "workers" else field
                raise InvalidDefinition(
                    name, f"must be letters, digits, - and _ only, not {value!r}"
                )
        if self.job_bucket == self.execution_bucket:
            raise InvalidDefinition("execution_bucket", "must differ from job_bucket")
        if not _PREFIX.match(self.prefix):
            raise InvalidDefinition(
                "subject_prefix", f"must be tokens joined by dots, not {self.prefix!r}"
            )

    @property
    def stream(self) -> str:
        """The stream that is the bucket of jobs."""
        return f"KV_{self.job_bucket}"

    @property
    def history_stream(self) -> str:
        """The stream that is the bucket of executions."""
        return f"KV_{self.execution_bucket}"

    def record(self, token: str) -> str:
        """The record of a job; ``*`` for all of them."""
        return f"$KV.{self.job_bucket}.{token}"

    def record_token(self, subject: str) -> str:
        """The token of a record's subject."""
        return subject[len(self.job_bucket) + 5 :]

    def schedule(self, token: str, generation: str) -> str:
        """What the server turns into a fire."""
        return f"{self.prefix}.sched.{token}.{generation}"

    def consumer(self, queue: str | None = None) -> str:
        """The durable consumer of a queue's hints, or of all hints."""
        return f"{self.workers}-all" if queue is None else f"{self.workers}-queue-{token_of(queue)}"

    @property
    def older_consumers(self) -> list[str]:
        """The consumers of older versions, which acknowledge what these cannot read."""
        return [self.workers, f"{self.workers}-default"]

    def fire(self, token: str, queue: str = DEFAULT) -> str:
        """The hint that a job may be due; ``*`` in place of the token for all of the queue."""
        return f"{self.prefix}.fire.{token_of(queue)}.{token}"

    def fires_of(self, queue: str | None) -> list[str]:
        """The hints of a queue, or all of them.

        What older versions send, or have armed, has no queue: it is of the default one.
        """
        if queue is None:
            return [self.fires]
        found = [self.fire("*", queue)]
        return [*found, f"{self.prefix}.fire.*"] if queue == DEFAULT else found

    @property
    def fires(self) -> str:
        """All hints, also those that older versions send, or have armed: without a queue."""
        return f"{self.prefix}.fire.>"

    def fire_token(self, subject: str) -> str:
        """The token of a hint's subject."""
        return subject.rpartition(".")[2]

    def fire_queue(self, subject: str) -> str | None:
        """The queue of a hint's subject; ``None`` where only the record knows."""
        queue, _, _ = subject[len(self.prefix) + 6 :].rpartition(".")
        return id_of(queue) if queue else DEFAULT

    def definition(self, token: str) -> str:
        """A definition that is too large for the record."""
        return f"{self.prefix}.def.{token}"

    def run(self, keep: str, token: str, execution: str) -> str:
        """An execution on its way; wildcards for many."""
        return f"{self.prefix}.run.{keep}.{token}.{execution}"

    def run_token(self, subject: str) -> str:
        """The token of the job that an execution on its way is of."""
        return subject[len(self.prefix) + 1 :].split(".")[2]

    @property
    def runs(self) -> str:
        """All executions that are on their way."""
        return f"{self.prefix}.run.>"

    def history(self, keep: str, token: str) -> str:
        """The executions of a job in the other stream; wildcards for many."""
        return f"$KV.{self.execution_bucket}.{keep}.{token}"

    def history_token(self, subject: str) -> str:
        """The token of the job that what lies in the other stream is of."""
        return subject.rpartition(".")[2]

    def report(self, worker: str) -> str:
        """What a worker reports of itself."""
        return f"{self.prefix}.worker.{execution_token(worker)}"

    @property
    def reports(self) -> str:
        """What all workers report."""
        return f"{self.prefix}.worker.*"

    def check(self, worker: str) -> str:
        """What a health check writes."""
        return f"{self.prefix}.check.{execution_token(worker)}"

    @property
    def signals(self) -> str:
        """The beginning of what workers tell each other: no subject of a stream."""
        return f"{self.prefix}-signals"

    def cancel(self, worker: str) -> str:
        """What tells a worker that one of its claims may be marked to be cancelled."""
        return f"{self.signals}.cancel.{execution_token(worker)}"

    def lock(self, name: str) -> str:
        """What several replicas agree by."""
        return f"{self.prefix}.lock.{name}"
