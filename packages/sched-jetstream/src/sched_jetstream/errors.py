"""What can be wrong with a server or a stream, in words that say what was found and what to do."""

from __future__ import annotations

from sched_core.errors import BackendError, BackendUnavailable


class NatsServerTooOld(BackendError):
    """The server cannot do what this backend is made of.

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
    """A stream or consumer of the configured name exists and is none of ours.

    Args:
        name: Of the stream.
        found: What is wrong with it.
    """

    def __init__(self, name: str, found: str) -> None:
        super().__init__(
            f"the stream {name} cannot be used: {found}; choose another job_bucket or "
            "execution_bucket, or delete the stream if nobody needs it"
        )
        self.name = name


class StreamLost(BackendError):
    """The stream that held the jobs was deleted while this backend was using it.

    It is not made again behind anybody's back: open a new scheduler, and declare the jobs again.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the stream {name} does not exist any more, nor do the jobs in it: restore it from a "
            "backup, or open the scheduler again and declare the jobs anew"
        )
        self.name = name


class OutcomeUnknown(BackendUnavailable):
    """A write was sent and no answer came: it may have been stored, now or later."""


class NotSent(BackendUnavailable):
    """The server was out of reach: nothing was sent, and nothing was stored."""
