"""A notifier: a job that reads the history and hands notices to a sink."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from attrs import evolve

from sched_core._model.event import JobEvent
from sched_core._model.execution import DEFAULT_QUEUE, Execution, Kind, Status
from sched_core._model.job import Job, JobSpec, check_text
from sched_core._model.occurrence import Pause, Pending
from sched_core._model.occurrence import State as JobState
from sched_core._model.policy import Policy, Retry
from sched_core._service.reserved import Reserved, reserved_id
from sched_core._support.logger import Logger
from sched_core.clock import monotonic_seconds
from sched_core.contrib.notify.http import Refused
from sched_core.contrib.notify.notice import DEFAULT_KINDS, Notice, NoticeKind, notice_of_gap
from sched_core.contrib.notify.rules import (
    PREFIX,
    Wanted,
    derive,
    derive_overdue,
    overdue_of,
    summaries,
    without_failures,
)
from sched_core.contrib.notify.sinks import Sink, deliver
from sched_core.contrib.notify.state import State, decode, digest, encode
from sched_core.errors import BackendError, CursorExpired, InvalidDefinition, shown
from sched_core.handlers import Dispatcher, InThread, RetryAfter
from sched_core.ports import Followed, JobQuery, Undecodable
from sched_core.router import JobRouter
from sched_core.schedule import Interval
from sched_core.scheduler import Scheduler, random_id, running_scheduler

PAGE = 200
MOST_PAGES = 1000
"""Parts of the history that one run reads; the next one goes on."""
MOST_OF_A_KIND = 100
"""Notices of a kind that one run delivers one by one, unless the notifier says otherwise."""
LONG_SEARCH = 0.2
"""Seconds from which on a search for overdue occurrences is long."""
REST = 20
"""How many times as long as a long search took, no other one is made by this process."""
KEPT = timedelta(hours=6)
"""How long the notifier's own executions are kept."""
_RETRY = Retry(
    attempts=1_000_000, backoff=timedelta(seconds=1), maximum=timedelta(minutes=1), jitter=0.2
)

logger = Logger("sched_core.notify")


class Notifier(Dispatcher):
    """Tells one receiver what went wrong, as a job ``notify:NAME`` on the scheduler's own store.

    It begins with what is written from its first run on. Each notice is delivered at least once, in
    the order of the history, by one worker of all that share the store; ``Notice.id`` tells of
    repeats. While the receiver is away, the run is tried again, after a minute at the latest, and
    goes on where it was. What a run finds beyond ``most`` notices of a kind is told in one.

    Args:
        name: A name that stays: under it the store keeps how far the history is told. Two notifiers
            of a store have two names.
        sink: The receiver of notices: a function, ``async`` or not, a :class:`Webhook` or its like.
        every: How often it looks.
        kinds: What it tells. Unless given, what the sink wants: all but ``succeeded``, unless the
            sink says otherwise.
        jobs: The ids of the jobs that it tells of, or globs such as ``"billing-*"``; ``None`` for
            all. Notifiers never tell of each other.
        interrupted_after: How many interruptions and lost claims of one occurrence are not told.
        most: How many notices of a kind a run delivers one by one; ``None`` for all.
        give_up: The time for which a receiver may refuse what it gets before notices are left out,
            with an ERROR in the log and a line in the run's execution.
        queue: The queue of its job: a worker that serves it runs the notifier.

    Raises:
        InvalidDefinition: An argument is out of bounds.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        every: timedelta = timedelta(seconds=10),
        kinds: Collection[NoticeKind] | None = None,
        jobs: Iterable[str] | None = None,
        interrupted_after: int = 3,
        most: int | Literal["default"] | None = "default",
        give_up: timedelta = timedelta(minutes=15),
        queue: str = DEFAULT_QUEUE,
    ) -> None:
        check_text("name", name)
        if not callable(sink):
            raise InvalidDefinition("sink", f"must be a function of a notice, not {shown(sink)}")
        wish: Any = getattr(sink, "most", MOST_OF_A_KIND) if most == "default" else most
        if wish is not None:
            _check_number("most", wish)
        _check_number("interrupted_after", interrupted_after)
        if not isinstance(give_up, timedelta) or give_up < timedelta(0):  # type: ignore[redundant-expr]  # callers may not type-check
            raise InvalidDefinition("give_up", f"must be a timedelta, not {shown(give_up)}")
        given: Any = getattr(sink, "kinds", DEFAULT_KINDS) if kinds is None else kinds
        self._wanted = Wanted(name, _kinds(given), _jobs(jobs), interrupted_after, wish)
        self._sink, self._give_up = sink, give_up
        self._spec = JobSpec(
            f"{PREFIX}{name}",
            Interval(every),
            name=f"notifier {name}"[:255],
            policy=Policy(retry=_RETRY, keep_executions=KEPT),
            queue=queue,
        )
        self._search_from = 0.0

    @property
    def name(self) -> str:
        """The notifier's name."""
        return self._wanted.notifier

    @property
    def specs(self) -> Sequence[JobSpec]:
        """The definition of its job."""
        return (self._spec,)

    def knows(self, job_id: str) -> bool:
        """Whether a job is its own."""
        return job_id == self._spec.id

    def declare(self, router: JobRouter) -> None:
        """Add its job to a router; the scheduler that has the router as handler runs it.

        Raises:
            InvalidDefinition: The router has a job of the name already.
        """
        spec = self._spec
        add = router.job(
            spec.id, spec.schedule, name=spec.name, policy=spec.policy, queue=spec.queue
        )
        add(self)

    async def dispatch(self, event: JobEvent, in_thread: InThread) -> None:
        """Tell what there is to tell; the scheduler calls this.

        Raises:
            SchedulerNotStarted: No scheduler has called it.
            BackendError: The notifier's record cannot be read, as one of a newer version.
        """
        run = _Run(self, running_scheduler(), event, in_thread)
        await run.make()

    # -- for its runs

    @property
    def wanted(self) -> Wanted:
        """What it tells."""
        return self._wanted

    @property
    def give_up(self) -> timedelta:
        """The time for which the receiver may refuse notices."""
        return self._give_up

    @property
    def sink(self) -> Sink:
        """The receiver."""
        return self._sink

    def may_search(self) -> bool:
        """Whether to search for overdue occurrences now: a long search is not made often."""
        return monotonic_seconds() >= self._search_from

    def note_search(self, since: float) -> None:
        """Note that a search has ended, which began at these ``monotonic_seconds``."""
        now = monotonic_seconds()
        self._search_from = now + REST * (now - since) if now - since > LONG_SEARCH else now


class _Run:
    """One run of a notifier: steps, each of which delivers notices and then stores the state."""

    def __init__(
        self, notifier: Notifier, scheduler: Scheduler, event: JobEvent, in_thread: InThread
    ) -> None:
        self._notifier, self._wanted = notifier, notifier.wanted
        self._scheduler, self._backend = scheduler, scheduler.backend
        self._event, self._in_thread = event, in_thread
        self._now: datetime = event.started_at
        self._record = Reserved(
            self._backend, reserved_id("notify", notifier.name), name="notifier", new_id=random_id
        )
        self._stored: Job | None = None
        self._state = State("")

    async def make(self) -> None:
        await self._begin()
        for _ in range(MOST_PAGES):
            part = await self._next_part()
            executions = self._readable(part)
            pauses = await self._pauses(executions)
            found = derive(
                self._state, executions, cursor=part.cursor, pauses=pauses, wanted=self._wanted
            )
            await self._step(*found)
            if len(part.executions) < PAGE:
                break
        if "overdue" in self._wanted.kinds and self._notifier.may_search():
            since = monotonic_seconds()
            overdue = await self._overdue()
            self._notifier.note_search(since)
            await self._step(
                *derive_overdue(self._state, overdue, now=self._now, wanted=self._wanted)
            )
        await self._step(*summaries(self._state, self._wanted), last=True)
        await self._save(self._state)

    async def _begin(self) -> None:
        stored = await self._record.read()
        if isinstance(stored, Undecodable):
            raise BackendError(f"the notifier's record cannot be read: {stored.reason}")
        self._stored = stored
        if stored is None:
            part = await self._backend.follow(None, limit=1)
            await self._save(State(part.cursor))
        else:
            self._state = decode(stored.spec.metadata)

    async def _next_part(self) -> Followed:
        """Return the next part of the history; where it is gone, tell that first."""
        cursor, start = self._state.cursor, ""
        try:
            return await self._backend.follow(cursor, limit=PAGE)
        except CursorExpired:
            reason = "executions were deleted before it had read them"
        except InvalidDefinition:  # the record was copied from another store
            reason = "its place in the history is not one of this store"
            start = (await self._backend.follow(None, limit=1)).cursor
        notice = notice_of_gap(digest(cursor), self._wanted.notifier, self._now, reason)
        wanted = [notice] if "gap" in self._wanted.kinds else []
        logger.warning("%s", notice.text)
        await self._step(evolve(self._state, cursor=start), wanted)
        await self._save(self._state)
        return await self._backend.follow(start, limit=PAGE)

    def _readable(self, part: Followed) -> list[Execution]:
        readable = [one for one in part.executions if isinstance(one, Execution)]
        unreadable = len(part.executions) - len(readable)
        if unreadable:
            text = f"{unreadable} executions cannot be read by this version and are not told"
            logger.warning("notifier %s: %s", self._notifier.name, text)
            self._event.log(text)
        return readable

    async def _pauses(self, executions: Sequence[Execution]) -> dict[str, Pause]:
        """Return the pauses that failures have caused, by execution: they began as these ended."""
        if "paused" not in self._wanted.kinds:
            return {}
        failures = [
            one
            for one in executions
            if one.final
            and one.status is Status.FAILED
            and one.kind is Kind.SCHEDULED
            and self._wanted.concerns(one.job_id)
        ]
        newest = {one.job_id: one for one in failures}
        found = {}
        for one in newest.values():
            job = await self._backend.get(one.job_id)
            pause = job.standing.pause if isinstance(job, Job) else None
            if isinstance(job, Job) and pause is not None and job.uid == one.uid:
                by_policy = job.spec.policy.pause_after is not None and pause.actor is None
                if by_policy and pause.since == one.finished_at:
                    found[one.id] = pause
        return found

    async def _overdue(self) -> list[tuple[Job, Pending]]:
        """Return what is overdue. What waits for the end of maintenance is not: people know."""
        switches, found = await self._scheduler.list_maintenance(), []
        for state in (JobState.ACTIVE, JobState.PAUSED):
            query, after = JobQuery(state=state), None
            while True:
                page = await self._backend.jobs(query, after=after, limit=PAGE)
                for job in page.items:
                    if not isinstance(job, Job) or not self._wanted.concerns(job.id):
                        continue
                    if not any(switch.covers(job.spec) for switch in switches):
                        found += [(job, one) for one in overdue_of(job, self._now)]
                if (after := page.next) is None:
                    break
        return found

    # -- delivering

    async def _step(self, after: State, notices: Sequence[Notice], *, last: bool = False) -> None:
        """Deliver notices, and remember what is to be remembered once all are delivered.

        Whatever fails, what was delivered by then is stored, so that it is not delivered again.
        """
        before = self._state
        refused: list[Notice] = []
        for notice in notices:
            if notice.kind == "recovered" and any(_is_failure_of(notice, one) for one in refused):
                continue
            mark = digest(notice.id)
            done = self._state.handled.get(mark)
            if done is None:
                try:
                    done = await self._deliver(notice)
                except Exception:
                    await self._save(self._state)
                    raise
                handled = {**self._state.handled, mark: done}
                self._state = evolve(self._state, handled=handled)
            if not done:
                refused.append(notice)
        after = evolve(
            without_failures(before, after, refused),
            handled={} if last else self._state.handled,
            refused_since=self._state.refused_since,
        )
        if notices:
            await self._save(after)
        else:
            self._state = after

    async def _deliver(self, notice: Notice) -> bool:
        """Return whether the notice was delivered: False once it was refused for too long."""
        since = self._state.refused_since
        try:
            await deliver(self._notifier.sink, notice, self._event, self._in_thread)
        except Refused as refusal:
            since = since or self._now
            self._state = evolve(self._state, refused_since=since)
            if self._now - since < self._notifier.give_up:
                raise
            text = f"the notice {notice.id} was refused, and is left out: {refusal}"
            logger.error("notifier %s: %s", self._notifier.name, text)
            self._event.log(text)
            return False
        if since is not None:
            self._state = evolve(self._state, refused_since=None)
        return True

    async def _save(self, state: State) -> None:
        """Store the state.

        Raises:
            RetryAfter: Another process runs the notifier, too: this one was taken for lost.
        """
        texts = encode(state)
        if self._stored is None or texts != self._stored.spec.metadata:
            stored = await self._record.write(self._stored, texts, now=self._now)
            if stored is None:
                raise RetryAfter(1, "another run has stored the notifier's state")
            self._stored = stored
        self._state = state


def _is_failure_of(recovery: Notice, one: Notice) -> bool:
    return one.kind == "failed" and one.job_id == recovery.job_id


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise InvalidDefinition(
            name, f"must be a whole number from 0 to 1000000, not {shown(value)}"
        )


def _kinds(given: Any) -> frozenset[NoticeKind]:
    known = get_args(NoticeKind)
    try:
        found = frozenset() if isinstance(given, str) else frozenset(given)
    except TypeError:
        found = frozenset()
    if not found or not found <= set(known):
        raise InvalidDefinition("kinds", f"must be some of {', '.join(known)}, not {shown(given)}")
    if "recovered" in found and "failed" not in found:
        raise InvalidDefinition("kinds", "a 'recovered' follows a 'failed': name 'failed', too")
    return found


def _jobs(given: Any) -> tuple[str, ...] | None:
    if given is None:
        return None
    try:
        found = () if isinstance(given, str) else tuple(given)
    except TypeError:
        found = ()
    if not found or not all(isinstance(one, str) for one in found):
        raise InvalidDefinition("jobs", f"must be ids or globs in a list, not {shown(given)}")
    return found
