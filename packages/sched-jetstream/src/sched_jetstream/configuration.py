"""``mode = "jetstream"``: the backend that a section of a configuration describes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from attrs import asdict, frozen

from sched_core._support.redaction import without_password
from sched_core.errors import InvalidDefinition
from sched_core.settings import Section, setting
from sched_jetstream.backend import JetStreamBackend

DEFAULT = "nats://127.0.0.1:4222"
"""The server where none is named."""


@frozen
class Retrying:
    """The table ``publishRetry``: how a write that was certainly not stored is tried again."""

    attempts: int | None = None
    backoff: timedelta | None = setting(None, aliases=("initial_backoff",))


@frozen
class JetStreamSettings:
    """The section ``scheduler.jetstream``, also ``scheduler.nats``.

    What is unset is the backend's own; see :class:`~sched_jetstream.Options` for what each does.

    Attributes:
        url: The address of the server, or of several: a list, or one text with commas.
        token, user, password, credentials: The login; the last one names a file.
        publish_retry: How a write that was certainly not stored is tried again.
    """

    url: tuple[str, ...] = setting((DEFAULT,), aliases=("servers", "urls", "address"), secret=True)
    token: str | None = setting(None, aliases=("auth_token",), secret=True)
    user: str | None = None
    password: str | None = setting(None, secret=True)
    credentials: str | None = setting(None, aliases=("user_credentials", "credentials_file"))
    domain: str | None = None
    job_bucket: str | None = None
    execution_bucket: str | None = setting(None, aliases=("exec_bucket",))
    subject_prefix: str | None = None
    consumer_name: str | None = None
    replicas: int | None = None
    storage: str | None = None
    lease: timedelta | None = None
    ack_wait: timedelta | None = None
    max_ack_pending: int | None = None
    timeout: timedelta | None = None
    publish_retry: Retrying = Retrying()
    add_job_retry_budget: timedelta | None = None
    startup_timeout: timedelta | None = setting(None, aliases=("startup_stream_ready_timeout",))
    reconcile_interval: timedelta | None = setting(None, aliases=("reconciler_interval",))
    reconcile_grace: timedelta | None = setting(None, aliases=("reconciler_grace_period",))
    reconcile_rate: int | None = None
    outbox: timedelta | None = None
    durability: str | None = None
    stream_name: str | None = None
    duplicates_window: timedelta | None = None
    once_key: str | None = None
    load_concurrency: int | None = setting(None, aliases=("load_jobs_concurrency",))
    async_publish_timeout: timedelta | None = setting(
        None, aliases=("load_jobs_async_publish_timeout",)
    )
    phase_timeout: timedelta | None = setting(None, aliases=("start_phase_timeout",))
    jet_stream_ready_timeout: timedelta | None = None
    """Accepted; ``startup_timeout`` says all that is said about the start."""


_LOGIN = {
    "token": "token",
    "user": "user",
    "password": "password",
    "credentials": "user_credentials",
}


def open_jetstream(section: Section) -> JetStreamBackend:
    """Return the backend that the section describes, not open yet.

    Raises:
        InvalidDefinition: A key is unknown, or its value cannot be.
    """
    settings = section.read(JetStreamSettings)
    values: dict[str, Any] = {
        name: value
        for name, value in asdict(settings, recurse=False).items()
        if value is not None and name not in {"url", "publish_retry", "jet_stream_ready_timeout"}
    }
    login = {_LOGIN[name]: values.pop(name) for name in list(values) if name in _LOGIN}
    retry = settings.publish_retry
    if retry.attempts is not None:
        values["publish_retry_attempts"] = retry.attempts
    if retry.backoff is not None:
        values["publish_retry_backoff"] = retry.backoff
    try:
        return JetStreamBackend(settings.url, nats=login, create=section.create, **values)
    except InvalidDefinition as error:
        raise InvalidDefinition(
            section.where(error.field), without_password(error.problem)
        ) from None
