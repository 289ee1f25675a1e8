"""Errors of a server or a stream: each says what was found and what to do."""

from __future__ import annotations

from sched_core.errors import BackendError, BackendUnavailable


class NatsServerTooOld(BackendError):
    """The server lacks what this backend is built on.

    Args:
        found: Its version, as it says itself.
        problem: What is missing or known to be broken in it.
    """

    def __init__(self, found: str, problem: str) -> None:
        super().__init__(
            f"nats-server {found} {problem}: run 2.14.3 or later (2.12.12 at the very least)"
        )
        self.found = found


class StreamUnsuitable(BackendError):
    """A stream of the configured name exists, and this package did not make it.

    Args:
        name: The name of the stream.
        found: What is wrong with it.
    """

    def __init__(self, name: str, found: str) -> None:
        super().__init__(
            f"the stream {name} cannot be used: {found}; choose another job_bucket or "
            "execution_bucket, or delete the stream if it is not needed"
        )
        self.name = name


class StreamLost(BackendError):
    """The stream that held the jobs was deleted while this backend was using it.

    The backend does not make it again: open a new scheduler, and declare the jobs again.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the stream {name} does not exist any more, nor do the jobs in it: restore it from a "
            "backup, or open the scheduler again and declare the jobs again"
        )
        self.name = name


class NatsRefused(BackendError):
    """A server refused the connection, or what this backend needs: waiting does not help.

    Credentials, TLS, an account without JetStream, limits: the message says which, and what to do.
    """


class OutcomeUnknown(BackendUnavailable):
    """A write was sent and no answer came: it may have been stored, now or later."""


class NotSent(BackendUnavailable):
    """The server was out of reach: nothing was sent, and nothing was stored."""


class PermissionDenied(NotSent):
    """The server forbids the user a subject. Nothing was stored.

    Args:
        what: ``publish`` or ``subscribe``.
        subject: The subject that is denied.
    """

    def __init__(self, what: str, subject: str) -> None:
        super().__init__(
            f"the NATS server denies this user the permission to {what} to {subject}: the page on "
            "operations lists the rights that are needed"
        )
        self.what = what
        self.subject = subject
