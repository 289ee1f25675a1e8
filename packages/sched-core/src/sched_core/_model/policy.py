"""How a job's occurrences are treated: late ones, overlapping ones, failed ones, lost ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal, get_args

from attrs import frozen

from sched_core.errors import InvalidDefinition, shown
from sched_core.policy import Coalesce, Drop, Retry, _duration, _whole

Overlap = Literal["late", "skip", "cancel"]

KEPT: Final = timedelta(days=30)
"""How long an execution is kept unless the policy says so, or its schedule's gaps are long."""
KEPT_GAPS = 10
"""Of a schedule with long gaps: for how many of them."""


@frozen
class CatchUp:
    """The newest missed occurrences run, oldest first; one ``missed`` execution is for the rest.

    Args:
        limit: How many run at most.
        window: How old one may be and still run; ``None`` for any age.
    """

    limit: int = 100
    window: timedelta | None = None

    def __attrs_post_init__(self) -> None:
        _whole("policy.misfire.limit", self.limit, least=1, most=10_000)
        _duration("policy.misfire.window", self.window, optional=True)


_COALESCE, _ONCE = Coalesce(), Retry()


@frozen
class Policy:
    """How a job's occurrences are treated.

    Args:
        misfire: What happens to what passed before it could begin.
        overlap: What happens to what passes while an occurrence is under way, its retries included:
            it is ``late`` like everything else, or ``skip``ped with one execution for all of it; or
            it ``cancel``s the one under way at its moment.
        retry: What happens to failed ones.
        timeout: After which a run is cancelled and failed.
        jitter: A job is handed out up to this much after its nominal moment.
        max_lost: Lost claims in a row after which the occurrence is ``failed``. Only one that was
            lost while nothing ran beside it counts as the last of them.
        max_snoozes: After so many, one more is a failure.
        pause_after: So many final failures of scheduled occurrences in a row pause the job.
        keep_finished: How long a finished job that was submitted is kept; ``None`` without end.
        keep_executions: How long executions are kept; ``None`` until ``prune``. Unless it is given,
            30 days or ten gaps of the schedule, whichever is longer.
    """

    misfire: Coalesce | CatchUp | Drop = _COALESCE
    overlap: Overlap = "late"
    retry: Retry = _ONCE
    timeout: timedelta | None = None
    jitter: timedelta = timedelta(0)
    max_lost: int = 5
    max_snoozes: int = 100
    pause_after: int | None = None
    keep_finished: timedelta | None = timedelta(days=7)
    keep_executions: timedelta | Literal["default"] | None = "default"

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.misfire, (Coalesce, CatchUp, Drop)):
            raise InvalidDefinition(
                "policy.misfire",
                f"must be Coalesce(), CatchUp(...) or Drop(grace=...), not {shown(self.misfire)}",
            )
        if self.overlap not in get_args(Overlap):
            raise InvalidDefinition(
                "policy.overlap", f"must be 'late', 'skip' or 'cancel', not {shown(self.overlap)}"
            )
        if not isinstance(self.retry, Retry):
            raise InvalidDefinition("policy.retry", f"must be Retry(...), not {shown(self.retry)}")
        _duration("policy.timeout", self.timeout, optional=True)
        _duration("policy.jitter", self.jitter, zero=True)
        _whole("policy.max_lost", self.max_lost, least=1, most=1_000_000)
        _whole("policy.max_snoozes", self.max_snoozes, least=0, most=1_000_000)
        if self.pause_after is not None:
            _whole("policy.pause_after", self.pause_after, least=1, most=1_000_000)
        _duration("policy.keep_finished", self.keep_finished, zero=True, optional=True)
        if self.keep_executions != "default":
            _duration("policy.keep_executions", self.keep_executions, zero=True, optional=True)


DEFAULT: Final = Policy()

__all__ = [
    "DEFAULT",
    "KEPT",
    "KEPT_GAPS",
    "CatchUp",
    "Coalesce",
    "Drop",
    "Overlap",
    "Policy",
    "Retry",
]
