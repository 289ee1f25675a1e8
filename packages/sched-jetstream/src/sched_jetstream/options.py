"""Options: what can be configured, each with its effect and its default."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

from attrs import field, frozen

from sched_core.errors import InvalidDefinition
from sched_jetstream._model.subjects import Names


def _positive(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise InvalidDefinition(
            attribute.name, f"must be a timedelta of more than zero, not {value!r}"
        )


def _count(_: object, attribute: Any, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidDefinition(
            attribute.name, f"must be a whole number of at least 1, not {value!r}"
        )


def _one_of(*choices: str) -> Any:
    def check(_: object, attribute: Any, value: object) -> None:
        if value not in choices:
            raise InvalidDefinition(
                attribute.name, f"must be one of {', '.join(choices)}, not {value!r}"
            )

    return check


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


@frozen(kw_only=True)
class Options:
    """The settings of a :class:`~sched_jetstream.JetStreamBackend`.

    Attributes:
        job_bucket: The bucket of jobs, and so the stream ``KV_<job_bucket>`` that holds everything:
            ``nats kv get <job_bucket> <job>`` shows a record.
        execution_bucket: The bucket of executions: the history, ``KV_<execution_bucket>``.
        subject_prefix: The beginning of all other subjects; ``sched.<job_bucket>`` unless given.
        consumer_name: The beginning of the names of the durable consumers that replicas share:
            ``<consumer_name>-all``, and ``<consumer_name>-queue-<queue>`` for each queue that a
            worker names.
        replicas: How many copies both streams and the consumer have: 3 in production, on three
            nodes.
        storage: ``file``, or ``memory`` for tests.
        lease: How long a claim lives unless it is renewed.
        ack_wait: How long the server waits before it hands a hint to another replica; the lease
            unless given.
        max_ack_pending: Hints at a time that are handed out and not acknowledged, over all
            replicas: those of running jobs and of jobs that another worker holds. More wait.
        time: The clock that decides what is due: ``store`` is the server's, ``clock`` the one given
            to ``open``, for tests on a fake clock.
        timeout: How long the backend waits for an answer; then the outcome is unknown.
        publish_retry_attempts, publish_retry_backoff: How long a write that was certainly not
            stored is tried again: the sum of ``attempts`` pauses, of which the first is half the
            ``backoff`` and each further one is twice as long. That is 5.1 s with the defaults; the
            scheduler tries on after that.
        add_job_retry_budget: How long ``add`` of jobs tries on while the stream has no leader.
        startup_timeout: How long ``open`` waits for the connection and everything that must exist;
            5 s unless given where ``create=False``.
        reconcile_interval: The time between two passes of the reconciler of all replicas together.
        reconcile_grace: How long past due a job must be for the reconciler to send a hint.
        reconcile_rate: Records a second that the reconciler reads, so that it stays unnoticed.
        outbox: How long an execution may wait to be copied. Longer outages of the history's stream
            lose executions; those that were copied are deleted at once.
        durability: What an acknowledged write survives. ``process``: the death of every process.
            ``machine``: power loss, too, but only where the server has ``sync_interval: always``,
            which no client can see.
        stream_name, duplicates_window, once_key, load_concurrency, async_publish_timeout,
        phase_timeout:
            Accepted for services that come from another scheduler, and without effect: the stream
            is the bucket's; nothing here needs message ids; provisioning needs no lock; nothing is
            loaded at the start; every write waits for its answer; each request of the start has its
            ``timeout``, and all of them ``startup_timeout``.
    """

    job_bucket: str = "jobs"
    execution_bucket: str = "executions"
    subject_prefix: str | None = None
    consumer_name: str = "workers"
    replicas: int = field(default=1, validator=_count)
    storage: Literal["file", "memory"] = field(default="file", validator=_one_of("file", "memory"))
    lease: timedelta = field(default=_seconds(30), validator=_positive)
    ack_wait: timedelta | None = None
    max_ack_pending: int = field(default=100_000, validator=_count)
    time: Literal["store", "clock"] = field(default="store", validator=_one_of("store", "clock"))
    timeout: timedelta = field(default=_seconds(5), validator=_positive)
    publish_retry_attempts: int = field(default=10, validator=_count)
    publish_retry_backoff: timedelta = field(default=_seconds(0.01), validator=_positive)
    add_job_retry_budget: timedelta = field(default=_seconds(15), validator=_positive)
    startup_timeout: timedelta = field(default=_seconds(30), validator=_positive)
    reconcile_interval: timedelta = field(default=_seconds(60), validator=_positive)
    reconcile_grace: timedelta = field(default=_seconds(15), validator=_positive)
    reconcile_rate: int = field(default=5000, validator=_count)
    outbox: timedelta = field(default=timedelta(hours=24), validator=_positive)
    durability: Literal["process", "machine"] = field(
        default="process", validator=_one_of("process", "machine")
    )
    stream_name: str | None = None
    duplicates_window: timedelta | None = None
    once_key: str | None = None
    load_concurrency: int | None = None
    async_publish_timeout: timedelta | None = None
    phase_timeout: timedelta | None = None

    @property
    def names(self) -> Names:
        """The names that follow.

        Raises:
            InvalidDefinition: One of them cannot be part of a subject.
        """
        prefix = self.subject_prefix
        return Names(
            self.job_bucket,
            self.execution_bucket,
            f"sched.{self.job_bucket}" if prefix is None else prefix,
            self.consumer_name,
        )

    @property
    def write_budget(self) -> timedelta:
        """How long a write that was not stored is tried again."""
        times: int = 2**self.publish_retry_attempts - 1
        return self.publish_retry_backoff * times / 2

    @property
    def wait_for_ack(self) -> timedelta:
        """How long the server waits before a hint goes to another replica."""
        return self.lease if self.ack_wait is None else self.ack_wait


Servers = str | Sequence[str]
