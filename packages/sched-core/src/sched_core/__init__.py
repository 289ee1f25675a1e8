"""A job scheduler as a pure domain core with pluggable backends.

Import what you use from here. For authors of backends there are ``sched_core.ports``, ``.row`` and
``.codec``, for tests ``.testing``, for logging and tracing ``.logs`` and ``.otel``. Modules that
begin with an underscore may change in any release.
"""

from sched_core._model.claim import Claim, Claimed, Hold, Renewal, Room, Settled, Settlement
from sched_core._model.event import JobEvent
from sched_core._model.execution import Execution, Kind, Status
from sched_core._model.job import Job, JobSpec
from sched_core._model.occurrence import Gap, Pause, Pending, Standing, State
from sched_core._model.policy import CatchUp, Coalesce, Drop, Overlap, Policy, Retry
from sched_core._runtime.observers import Health, HealthChange, Observer
from sched_core._service.sync import Synced
from sched_core.clock import Clock, SystemClock
from sched_core.codec import ScheduleKind
from sched_core.config import open_scheduler
from sched_core.errors import (
    BackendError,
    BackendUnavailable,
    ClaimLost,
    GroupConflict,
    HandlerNotSet,
    InvalidDefinition,
    JobAlreadyExists,
    JobNotFound,
    JobUndecodable,
    ModeNotConfigured,
    NoRoute,
    NothingToSkip,
    RevisionConflict,
    SchedError,
    SchedulerForked,
    SchedulerNotStarted,
    SchedulerRunning,
    SchedulerStopped,
    ScheduleWarning,
    SchemaTooNew,
    StoreNotFound,
    WrongEventLoop,
)
from sched_core.handlers import Discard, Dispatcher, Handler, RetryAfter, Snooze
from sched_core.memory import MemoryBackend, MemoryStore
from sched_core.ports import (
    Backend,
    Capabilities,
    ExecutionQuery,
    JobQuery,
    JobStore,
    Page,
    Undecodable,
    UndecodableExecution,
)
from sched_core.router import JobRouter
from sched_core.schedule import (
    AnyOf,
    Between,
    Countable,
    Cron,
    DstRule,
    Excluding,
    FixedDelay,
    Interval,
    Once,
    Schedule,
    StartAtInterval,
    dst_warnings,
    upcoming,
)
from sched_core.scheduler import Scheduler

__all__ = [
    "AnyOf",
    "Backend",
    "BackendError",
    "BackendUnavailable",
    "Between",
    "Capabilities",
    "CatchUp",
    "Claim",
    "ClaimLost",
    "Claimed",
    "Clock",
    "Coalesce",
    "Countable",
    "Cron",
    "Discard",
    "Dispatcher",
    "Drop",
    "DstRule",
    "Excluding",
    "Execution",
    "ExecutionQuery",
    "FixedDelay",
    "Gap",
    "GroupConflict",
    "Handler",
    "HandlerNotSet",
    "Health",
    "HealthChange",
    "Hold",
    "Interval",
    "InvalidDefinition",
    "Job",
    "JobAlreadyExists",
    "JobEvent",
    "JobNotFound",
    "JobQuery",
    "JobRouter",
    "JobSpec",
    "JobStore",
    "JobUndecodable",
    "Kind",
    "MemoryBackend",
    "MemoryStore",
    "ModeNotConfigured",
    "NoRoute",
    "NothingToSkip",
    "Observer",
    "Once",
    "Overlap",
    "Page",
    "Pause",
    "Pending",
    "Policy",
    "Renewal",
    "Retry",
    "RetryAfter",
    "RevisionConflict",
    "Room",
    "SchedError",
    "Schedule",
    "ScheduleKind",
    "ScheduleWarning",
    "Scheduler",
    "SchedulerForked",
    "SchedulerNotStarted",
    "SchedulerRunning",
    "SchedulerStopped",
    "SchemaTooNew",
    "Settled",
    "Settlement",
    "Snooze",
    "Standing",
    "StartAtInterval",
    "State",
    "Status",
    "StoreNotFound",
    "Synced",
    "SystemClock",
    "Undecodable",
    "UndecodableExecution",
    "WrongEventLoop",
    "dst_warnings",
    "open_scheduler",
    "upcoming",
]
