"""Every decision, and nothing else: pure functions of values and a given ``now``.

The rules, in the order of this file:

1.  *Admit and edit.* A new job's first occurrence is its schedule's first. Only a changed schedule
    moves the anchor and the next occurrence; it ends the retries of the pending one.
2.  *Operate.* Pause, resume, trigger, skip: each is a new standing, written like an edit.
3.  *Begin.* What a claim means: run, or write down a fate (missed, skipped, lost, a pause's end).
4.  *Finish.* What the end of a run means: the line, and what comes next, computed from the
    occurrence and not from when it ran.

Two kinds of occurrences can be pending at once, a scheduled one (``next_run``) and a manual one
(``triggered_at``). ``number`` belongs to the one that runs next; ``manual`` says which that is.
Every final line moves ``number`` up, so no number ever gets a second one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from attrs import evolve, frozen

from sched_core import policy as policies
from sched_core.clock import LAST, instant_after
from sched_core.errors import InvalidDefinition, NothingToSkip
from sched_core.job import (
    Backlog,
    Claim,
    Execution,
    Job,
    JobSpec,
    Standing,
    State,
    Status,
    bounded,
    line_expiry,
    occurrence_key,
    pending,
    superseded_line,
)
from sched_core.policy import Coalesce, Drop, Policy, Retry, RunAll
from sched_core.schedule import (
    FixedDelay,
    count_occurrences,
    first_occurrence,
    last_occurrence,
    next_occurrence,
    utc,
)

_TICK = timedelta(microseconds=1)


@frozen
class Change:
    """A job to write, and the lines that belong to the same step."""

    job: Job
    ledger: tuple[Execution, ...] = ()


@frozen
class Start:
    """Call the handler for this attempt."""

    number: int
    scheduled_at: datetime
    manual: bool
    attempt: int
    folded: int
    folded_until: datetime | None


@frozen
class Decision:
    """Settle the claim with this; ``None`` leaves the job alone."""

    standing: Standing | None
    ledger: tuple[Execution, ...]


@frozen
class Ended:
    """How a run ended.

    Attributes:
        status: Succeeded, failed or interrupted.
        reason: Of a failure or an interruption.
        by_store: Whether it was interrupted by a failure of the store, and not by a stop: it is
            attempted again after a wait that grows.
    """

    status: Status
    reason: str | None = None
    by_store: bool = False


SUCCESS = Ended(Status.SUCCEEDED)

LONGEST_WAIT = timedelta(minutes=1)
"""Before an attempt that follows one which a failure of the store has interrupted."""
_STORE_FAILED = Policy(
    retry=Retry(backoff=timedelta(seconds=1), factor=2, maximum=LONGEST_WAIT, jitter=0.5)
)


# -- 1. admit and edit -------------------------------------------------------


def admit(spec: JobSpec, *, uid: str, declared: bool, now: datetime) -> Job:
    """Return a new job, anchored at ``now``; one whose schedule has no moment is finished."""
    first = first_occurrence(spec.schedule, now)
    due_at = None if first is None else _shifted(spec.policy, uid, 1, first)
    standing = Standing(state=State.ACTIVE, number=1, next_run=first, due_at=due_at)
    job = Job(spec=spec, uid=uid, declared=declared, anchor=now, standing=standing)
    return job if first is not None else evolve(job, standing=_await_next(job, standing, now))


def announce(spec: JobSpec, *, uid: str, now: datetime) -> Job:
    """Return a new job that is not due before :func:`redefine` has made it so.

    It stands there for others to see while it is found out whether it may be. Nothing but this is
    unfinished and has no occurrence.
    """
    standing = Standing(
        state=State.PAUSED, number=1, next_run=None, due_at=None, pause_reason="being declared"
    )
    return Job(spec=spec, uid=uid, declared=True, anchor=now, standing=standing)


def _is_announced(standing: Standing) -> bool:
    return (
        standing.state is not State.FINISHED
        and standing.next_run is None
        and standing.triggered_at is None
    )


def _activated(job: Job, now: datetime) -> Job:
    """Return a job that was only announced as one that was just admitted."""
    active = evolve(
        job.standing,
        state=State.ACTIVE,
        next_run=first_occurrence(job.spec.schedule, now),
        paused_until=None,
        pause_reason=None,
        paused_at=None,
    )
    job = evolve(job, anchor=now)
    return evolve(job, standing=_await_next(job, active, now))


def redefine(
    job: Job, spec: JobSpec, *, declared: bool | None = None, now: datetime
) -> Change | None:
    """Return the edited job, ``None`` where the definition is the stored one.

    Args:
        job: As stored.
        spec: The new definition; its id is the job's.
        declared: Whether the job is declared from now on; ``None`` leaves that as it is.
        now: The present moment, by the clock that decides.
    """
    declared = job.declared if declared is None else declared
    if _is_announced(job.standing):
        return Change(_activated(evolve(job, spec=spec, declared=declared), now))

    if job.spec == spec:
        if declared == job.declared:
            return None
        standing = evolve(job.standing, expires_at=None if declared else job.standing.expires_at)
        return Change(evolve(job, declared=declared, standing=standing))

    if job.spec.schedule == spec.schedule:
        standing = job.standing
        if standing.state is State.FINISHED:
            standing = evolve(standing, expires_at=_expiry(spec.policy, now, declared=declared))
        return Change(evolve(job, spec=spec, declared=declared, standing=standing))

    stored, job = job, wake(job, now=now)
    edited = evolve(job, spec=spec, declared=declared, anchor=now)
    ledger = left_behind(stored, job, now=now) + _superseded_by_edit(job, now)
    return Change(evolve(edited, standing=_rescheduled(edited, ledger, now)), ledger)


def _rescheduled(edited: Job, ledger: tuple[Execution, ...], now: datetime) -> Standing:
    standing, schedule = edited.standing, edited.spec.schedule
    first = first_occurrence(schedule, now)
    past = standing.last_scheduled_at
    if first is not None and past is not None and first <= past:
        # A clock that was set back must not repeat moments that have run.
        first = next_occurrence(schedule, max(past, now), now)

    _, manual = pending(standing)
    begun = standing.attempts > 0
    keeps_manual = standing.triggered_at is not None and not (manual and begun)
    fresh = evolve(
        standing,
        state=State.PAUSED if standing.state is State.PAUSED else State.ACTIVE,
        next_run=first,
        backlog=None,
        skipped_run=None,
        triggered_at=standing.triggered_at if keeps_manual else None,
        expires_at=None,
    )
    if manual and not begun:
        # The manual occurrence is another one than those of the schedule: it stays what it is.
        if fresh.due_at is not None and fresh.due_at > now:
            fresh = evolve(fresh, due_at=now)  # the clock was set back: it must hold up nothing
        return _renumbered(fresh, ledger) if ledger else fresh
    return _await_next(edited, _renumbered(_numbered_on(fresh), ledger), now)


def _superseded_by_edit(job: Job, now: datetime) -> tuple[Execution, ...]:
    _, manual = pending(job.standing)
    scheduled = _superseded(job, now, manual=False)
    if manual and job.standing.attempts > 0:
        return _superseded(job, now, manual=True) + scheduled
    return scheduled


def retire(job: Job, *, now: datetime) -> tuple[Execution, ...]:
    """Return the lines to write when the job is removed: of what was due or begun."""
    stored, job = job, wake(job, now=now)
    left = left_behind(stored, job, now=now)
    return left + _superseded(job, now, manual=True) + _superseded(job, now, manual=False)


def _superseded(job: Job, now: datetime, *, manual: bool) -> tuple[Execution, ...]:
    standing = job.standing
    moment = standing.triggered_at if manual else standing.next_run
    if moment is None:
        return ()
    is_pending = pending(standing) == (moment, manual)
    begun = is_pending and standing.attempts > 0
    number = standing.number if is_pending else standing.number + 1
    if not begun and not _was_due(job, number, moment, now, manual=manual):
        return ()
    folded, until = (0, None) if manual else _fold(job, moment, now)
    return (
        _fate(
            job,
            number,
            moment,
            Status.SUPERSEDED,
            now,
            manual=manual,
            reason="edited or removed",
            folded=folded,
            folded_until=until,
        ),
    )


def _was_due(job: Job, number: int, moment: datetime, now: datetime, *, manual: bool) -> bool:
    standing = job.standing
    if manual:
        return True  # since it was asked for; its moment may lie a microsecond ahead of the clock
    if standing.state is State.PAUSED:
        return standing.paused_at is not None and _owed(job, min(standing.paused_at, now))
    return _jittered(job, number, moment) <= now


# -- 2. operate --------------------------------------------------------------


def wake(job: Job, *, now: datetime) -> Job:
    """Return the job resumed where its pause has ended by itself, and nobody has noticed yet."""
    until = job.standing.paused_until
    if job.standing.state is State.PAUSED and until is not None and until <= now:
        return resume(job, at=until) or job
    return job


def left_behind(
    before: Job, after: Job, *, now: datetime, claim: Claim | None = None
) -> tuple[Execution, ...]:
    """Return the line of an occurrence that had begun, and that a pause has taken away.

    Only claims that were to end a pause, and were lost, begin what is not yet due.
    """
    standing = before.standing
    moment, manual = pending(standing)
    if moment is None or standing.attempts == 0 or after.standing.number == standing.number:
        return ()
    return (
        _fate(
            before,
            standing.number,
            moment,
            Status.SUPERSEDED,
            now,
            manual=manual,
            reason="inside a pause",
            claim=claim,
        ),
    )


def pause(job: Job, *, until: datetime | None, reason: str | None, now: datetime) -> Job:
    """Return the job paused; a finished one as it is.

    Raises:
        InvalidDefinition: ``until`` is naive or not after ``now``.
    """
    if until is not None:
        until = utc(until, "until")
        if until <= now:
            raise InvalidDefinition(
                "until", f"must be after the present moment, not {until.isoformat()}"
            )
    standing = job.standing
    if standing.state is State.FINISHED:
        return job
    _, manual = pending(standing)
    waits_behind = standing.triggered_at is not None and not manual and standing.attempts == 0
    if waits_behind and not _owed(job, now):
        # The clock was set back meanwhile: what the trigger waits behind lies inside the pause.
        standing = evolve(standing, manual=True, due_at=standing.triggered_at)
    due_at = until
    if standing.triggered_at is not None:
        # A pause does not stop a trigger, nor what it waits behind.
        due_at = standing.due_at
        if due_at is not None and due_at > now and manual and standing.attempts == 0:
            due_at = now  # the clock was set back: it must not outlast the pause
    paused = evolve(
        standing,
        state=State.PAUSED,
        due_at=due_at,
        paused_until=until,
        pause_reason=None if reason is None else bounded(reason),
        paused_at=now if standing.state is State.ACTIVE else standing.paused_at,
    )
    return evolve(job, standing=paused)


def resume(job: Job, *, at: datetime) -> Job | None:
    """Return the job active again, ``None`` where it is not paused.

    Occurrences inside the pause were not due and leave no line, except the schedule's last one:
    that runs now. The first one that was due before the pause is due now; what was due behind it is
    folded into it, and the misfire policy judges it as a late one.

    Args:
        job: As stored.
        at: When the pause ended, unless it had ended by itself before.
    """
    standing = job.standing
    if standing.state is not State.PAUSED:
        return None
    if standing.paused_until is not None and standing.paused_until < at:
        at = standing.paused_until
    if _is_announced(standing):
        return _activated(job, at)
    active = evolve(
        standing, state=State.ACTIVE, paused_until=None, pause_reason=None, paused_at=None
    )
    moment, began = standing.next_run, standing.paused_at
    if moment is None:
        return evolve(job, standing=active)

    _, manual = pending(standing)
    due = _scheduled_due(job, moment)
    owed = began is not None and _owed(job, began)
    if owed or due > at or _is_last(job, moment):
        if owed and began is not None:
            active = evolve(active, backlog=_backlog(job, moment, began, at))
        if not manual:
            active = evolve(active, due_at=max(due, at))
        return evolve(job, standing=active)

    moved = evolve(active, next_run=next_occurrence(job.spec.schedule, at, job.anchor))
    if manual:
        return evolve(job, standing=moved)
    return evolve(job, standing=_await_next(job, _numbered_on(moved), at))


def _backlog(job: Job, moment: datetime, began: datetime, ended: datetime) -> Backlog | None:
    """Return what is owed behind an occurrence that outlives a pause."""
    schedule = job.spec.schedule
    if isinstance(schedule, FixedDelay):
        return None
    folded, last = _fold(job, moment, began)
    earlier = job.standing.backlog
    first = earlier.folded_from if earlier is not None and earlier.folded else None
    if folded and first is None:
        since = moment if earlier is None else max(moment, earlier.until)
        first = next_occurrence(schedule, since, job.anchor)
    return Backlog(ended, folded, first, last)


def _scheduled_due(job: Job, moment: datetime) -> datetime:
    """Return when the scheduled occurrence is or was due, jitter included, retries aside."""
    _, manual = pending(job.standing)
    return _jittered(job, job.standing.number + 1 if manual else job.standing.number, moment)


def _owed(job: Job, began: datetime) -> bool:
    """Whether the scheduled occurrence's moment had come when the pause began.

    Its jitter does not count: the policy may have been edited since.
    """
    moment = job.standing.next_run
    return moment is not None and moment <= began


def _is_last(job: Job, moment: datetime) -> bool:
    """Whether a missed occurrence is owed after a pause: the schedule has no later one to offer."""
    if isinstance(job.spec.schedule, FixedDelay):
        return True
    return next_occurrence(job.spec.schedule, moment, job.anchor) is None


def trigger(job: Job, *, now: datetime) -> Job:
    """Return the job with one extra occurrence at ``now``; the schedule is untouched.

    It runs before a scheduled one that is not yet due, and right after one that is due or begun,
    which neither a pause nor the wait for a retry holds back then.
    A second call before it began is the same one, and while a retry of it waits, it ends the wait.
    One that comes while it runs cannot be told from that here: the moment moves, by which
    :func:`finish` knows that there is another to run.
    """
    if _is_announced(job.standing):
        job = _activated(job, now)
    standing = job.standing
    moment, manual = pending(standing)
    # Claims that were to end a pause, and were lost, begin what is not yet due: it stays that.
    retried = (
        standing.attempts > 0
        and moment is not None
        and (manual or standing.failures > 0 or moment <= now)
    )
    if standing.triggered_at is not None:
        waits = standing.due_at is not None and standing.due_at > now
        if retried and waits:
            # A retry waits, of it or before it: that runs now, under the name that it has.
            return evolve(job, standing=evolve(standing, due_at=now))
        if not manual:
            return job
        moved = now if now != standing.triggered_at else instant_after(now, _TICK)
        return evolve(job, standing=evolve(standing, triggered_at=moved, due_at=now))

    due_at = standing.due_at
    if standing.state is State.PAUSED and standing.paused_at is not None:
        due = _owed(job, standing.paused_at)
        if retried:
            due_at = now
        elif due and standing.next_run is not None:
            due_at = max(now, _scheduled_due(job, standing.next_run))
    else:
        due = due_at is not None and due_at <= now
        if retried and due_at is not None:
            due_at = min(due_at, now)  # a retry that waits is made now
    if standing.next_run is not None and (standing.attempts > 0 or due):
        return evolve(job, standing=evolve(standing, triggered_at=now, due_at=due_at))

    state = State.ACTIVE if standing.state is State.FINISHED else standing.state
    return evolve(
        job,
        standing=evolve(
            standing, state=state, triggered_at=now, manual=True, due_at=now, expires_at=None
        ),
    )


def skip_next(job: Job, *, now: datetime) -> Job:
    """Return the job with its first occurrence after ``now`` marked; twice is once.

    Raises:
        NothingToSkip: There is no such occurrence.
    """
    moment = job.standing.next_run
    if moment is not None and moment <= now:
        moment = next_occurrence(job.spec.schedule, now, job.anchor)
    if moment is None:
        raise NothingToSkip(job.spec.id)
    return evolve(job, standing=evolve(job.standing, skipped_run=moment))


def unskip(job: Job) -> Job:
    """Return the job without a mark."""
    return evolve(job, standing=evolve(job.standing, skipped_run=None))


# -- 3. begin ----------------------------------------------------------------


def begin(claim: Claim, *, now: datetime) -> Start | Decision:
    """Say what a claim means at ``now``: run this attempt, or settle with a fate."""
    job, standing, policy = claim.job, claim.job.standing, claim.job.spec.policy
    moment, manual = pending(standing)
    if claim.lost is not None:
        standing = _with_lost(claim, standing)
        job = evolve(job, standing=standing)

    if moment is None or standing.due_at is None:
        return Decision(evolve(standing, due_at=None), ())
    if standing.due_at > claim.claimed_at and standing.due_at > now:
        return Decision(standing, ())  # handed out early

    paused = standing.state is State.PAUSED and not manual
    if paused and (standing.triggered_at is None or wake(job, now=now) is not job):
        return _pause_ended(claim, job, now)

    if claim.lost is not None and claim.lost.count >= policy.max_lost:
        reason = f"lost: {claim.lost.count} claims in a row were never settled"
        folded, until = (0, None) if manual else _carried(standing)
        line = _fate(
            job,
            standing.number,
            moment,
            Status.FAILED,
            now,
            manual=manual,
            reason=reason,
            claim=claim,
            folded=folded,
            folded_until=until,
        )
        return Decision(_advance(job, standing, line, now), (line,))

    if manual:
        return Start(standing.number, moment, True, claim.attempt, 0, None)

    if standing.skipped_run is not None and _is_skipped(job, moment):
        # Also where it had begun: the clock was set back then, or its claim lost.
        line = _fate(job, standing.number, moment, Status.SKIPPED, now, claim=claim)
        return Decision(_advance(job, standing, line, now), (line,))

    coalesces = type(policy.misfire) is Coalesce
    if claim.attempt == 1 and not coalesces:
        # Jitter is no lateness: it is judged as if there were none.
        passed = _passed_over(claim, moment, now - (_scheduled_due(job, moment) - moment), now)
        if passed is not None:
            return passed

    folded, until = _fold(job, moment, now) if coalesces and now > moment else _carried(standing)
    return Start(standing.number, moment, False, claim.attempt, folded, until)


def _with_lost(claim: Claim, standing: Standing) -> Standing:
    """Return the standing with the attempts that were lost: their lines have their numbers."""
    if claim.lost is None:
        return standing
    return evolve(standing, attempts=standing.attempts + claim.lost.count)


def _pause_ended(claim: Claim, job: Job, now: datetime) -> Decision:
    until = job.standing.paused_until
    if until is None or until > now:
        return Decision(evolve(job.standing, due_at=until), ())
    woken = wake(job, now=now)
    return Decision(woken.standing, left_behind(job, woken, now=now, claim=claim))


def _carried(standing: Standing) -> tuple[int, datetime | None]:
    """Return how many occurrences from before a pause are folded, and the last of them."""
    backlog = standing.backlog
    return (0, None) if backlog is None else (backlog.folded, backlog.folded_until)


def _fold(job: Job, moment: datetime, now: datetime) -> tuple[int, datetime | None]:
    """Return how many occurrences passed behind this one, and the last of them."""
    schedule, anchor, backlog = job.spec.schedule, job.anchor, job.standing.backlog
    folded, until = _carried(job.standing)
    since = moment if backlog is None else max(moment, backlog.until)
    following, now = next_occurrence(schedule, since, anchor), _present(job.standing, now)
    if following is None or following > now or isinstance(schedule, FixedDelay):
        return folded, until
    until = last_occurrence(schedule, since, now, anchor).moment
    return folded + count_occurrences(schedule, since, now, anchor).number, until


def _present(standing: Standing, now: datetime) -> datetime:
    """Return until when occurrences have become due: none does inside a pause."""
    paused = standing.state is State.PAUSED and standing.paused_at is not None
    return min(now, standing.paused_at or now) if paused else now


def _passed_over(
    claim: Claim, moment: datetime, judged: datetime, now: datetime
) -> Decision | None:
    """Return the decision for an occurrence that the misfire policy passes over."""
    job, standing, misfire = claim.job, claim.job.standing, claim.job.spec.policy.misfire
    if judged <= moment:
        return None

    if isinstance(misfire, Drop):
        runs_from = _before(judged, misfire.grace)
        reason = f"later than the grace of {misfire.grace}"
    elif isinstance(misfire, RunAll):
        newest = _newest(job, moment, judged, misfire.limit)
        runs_from = max(_before(judged, misfire.window), newest)
        reason = f"beyond the newest {misfire.limit} within {misfire.window}"
    else:
        return None
    if moment >= runs_from:
        return None

    folded, until = _fold(job, moment, runs_from - _TICK)
    line = _fate(
        job,
        standing.number,
        moment,
        Status.MISSED,
        now,
        reason=reason,
        claim=claim,
        folded=folded,
        folded_until=until,
    )
    return Decision(_advance(job, standing, line, now), (line,))


def _is_skipped(job: Job, moment: datetime) -> bool:
    mark = job.standing.skipped_run
    if mark is None:
        return False
    # The next occurrence of a fixed delay is not known before a run has ended.
    return mark == moment or (isinstance(job.spec.schedule, FixedDelay) and mark <= moment)


def _newest(job: Job, moment: datetime, now: datetime, limit: int) -> datetime:
    """Return the oldest of the newest ``limit`` occurrences in ``[moment, now]``."""
    schedule, anchor, backlog = job.spec.schedule, job.anchor, job.standing.backlog
    since = moment if backlog is None else max(moment, backlog.until)
    now = _present(job.standing, now)
    counted = count_occurrences(schedule, since, now, anchor)
    if counted.number < limit:
        return moment
    if counted.exact and limit > _STEPS:
        return _newest_by_halving(job, since, now, limit) or moment
    oldest, until = moment, now
    for _ in range(limit):
        earlier = last_occurrence(schedule, since, until, anchor).moment
        if earlier is None:
            return moment
        oldest, until = earlier, earlier - _TICK
    return oldest


_STEPS = 64
"""Occurrences that are stepped over one by one; halving a century takes about as many questions."""


def _newest_by_halving(job: Job, since: datetime, now: datetime, limit: int) -> datetime | None:
    schedule, anchor, after, until = job.spec.schedule, job.anchor, since, now
    while until - after > _TICK:
        middle = after + (until - after) / 2
        if count_occurrences(schedule, middle, now, anchor).number < limit:
            until = middle
        else:
            after = middle
    return next_occurrence(schedule, after, anchor)


def _before(now: datetime, by: timedelta) -> datetime:
    try:
        return now - by
    except OverflowError:
        return datetime.min.replace(tzinfo=now.tzinfo)


def postpone(claim: Claim, *, until: datetime, now: datetime, stored: Job | None) -> Decision:
    """Hand the claim back unrun, and the job out again at ``until``; the attempt does not count.

    A job that was edited meanwhile keeps the moment that the edit gave it; an occurrence that was
    edited or removed away ends.
    """
    if stored is None or stored.uid != claim.job.uid:
        return Decision(None, (superseded_line(claim, now),))
    standing = stored.standing
    if standing.number != claim.job.standing.number:
        return Decision(None, (superseded_line(claim, now),))
    if standing.due_at is None or standing.manual != claim.job.standing.manual:
        # Also where nothing changes: an edit that comes in between must not go unnoticed, since
        # it leaves the line of what is held to the claim.
        return Decision(_with_lost(claim, standing), ())
    return Decision(_with_lost(claim, evolve(standing, due_at=max(until, standing.due_at))), ())


# -- 4. finish ---------------------------------------------------------------


def finish(
    claim: Claim,
    start: Start,
    ended: Ended,
    *,
    started_at: datetime,
    now: datetime,
    stored: Job | None,
) -> Decision:
    """Say what the end of a run means for what is stored.

    Args:
        claim: That the run belongs to.
        start: What :func:`begin` said.
        ended: How the run ended.
        started_at: When the handler was called.
        now: When it ended.
        stored: The job to decide on: the claimed one, or after a conflict what is stored now;
            ``None`` if it is gone.
    """
    claimed = claim.job
    policy = claimed.spec.policy if stored is None else stored.spec.policy
    line = Execution(
        f"{claimed.uid}:{start.number}:{start.attempt}",
        claimed.spec.id,
        claimed.uid,
        start.number,
        start.scheduled_at,
        start.manual,
        start.attempt,
        ended.status,
        ended.status is not Status.INTERRUPTED,
        claim.token,
        claim.worker,
        claim.claimed_at,
        started_at,
        now,
        ended.reason,
        start.folded,
        start.folded_until,
        line_expiry(policy, now),
    )

    if stored is None or stored.uid != claimed.uid:
        return Decision(None, _last_words(claim, start, line, now))

    standing = stored.standing
    if standing.number != start.number:
        if line.final and start.manual and pending(standing) == (start.scheduled_at, True):
            # An edit gave the trigger another number while it ran.
            return Decision(_advance(stored, standing, line, now, ran=True), (line,))
        noted = evolve(standing, last_finished_at=now, last_status=ended.status)
        if line.final:
            noted = evolve(noted, last_scheduled_at=_newest_of(standing, line))
        return Decision(noted, _last_words(claim, start, line, now))

    folded, until = _carried(standing)
    if folded > line.folded and not start.manual:
        line = evolve(line, folded=folded, folded_until=until)  # a pause ended while it ran

    if pending(standing)[1] != start.manual:
        # Triggered between the claim's read and its write: the scheduled run gives way.
        consumed = evolve(standing, manual=False)
        after = _advance(stored, consumed, evolve(line, final=True), now, ran=True)
        return Decision(after, _last_words(claim, start, line, now))

    if start.manual and standing.triggered_at != start.scheduled_at:
        # Triggered again while it ran: that one runs next, instead of this one's next attempt.
        after = _advance(stored, standing, line, now, ran=True)
        after = evolve(
            after,
            # A finished job is active until it has run; one that was paused stays paused.
            state=State.ACTIVE if standing.state is State.FINISHED else standing.state,
            triggered_at=standing.triggered_at,
            manual=True,
            due_at=standing.triggered_at,
            expires_at=None,
            paused_until=standing.paused_until,
            pause_reason=standing.pause_reason,
            paused_at=standing.paused_at,
        )
        return Decision(after, _last_words(claim, start, line, now))

    if ended.status is Status.INTERRUPTED:
        line = evolve(line, folded=0, folded_until=None)
        # As early as it was: a clock that is set back must not make it wait.
        due = now if standing.due_at is None else min(now, standing.due_at)
        if ended.by_store:
            key = occurrence_key(claimed.uid, start.number)
            interruptions = max(1, start.attempt - standing.failures)
            due = instant_after(now, backoff(_STORE_FAILED, interruptions, key, start.attempt))
        again = evolve(
            standing,
            attempts=start.attempt,
            due_at=_retry_due(standing, due, now, manual=start.manual),
        )
        return Decision(again, (line,))

    if ended.status is Status.FAILED and stored.anchor == claimed.anchor:
        failures = standing.failures + 1
        if failures < policy.retry.attempts:
            key = occurrence_key(claimed.uid, start.number)
            due = instant_after(now, backoff(policy, failures, key, start.attempt))
            again = evolve(
                standing,
                attempts=start.attempt,
                failures=failures,
                due_at=_retry_due(standing, due, now, manual=start.manual),
            )
            line = evolve(line, final=False, folded=0, folded_until=None)
            return Decision(again, (line,))

    return Decision(_advance(stored, standing, line, now, ran=True), (line,))


def _retry_due(
    standing: Standing, due: datetime, now: datetime, *, manual: bool
) -> datetime | None:
    # A pause does not stop a trigger, nor what it waits behind.
    paused = standing.state is State.PAUSED and not manual and standing.triggered_at is None
    until = standing.paused_until
    return until if paused and (until is None or until > now) else due


def _last_words(
    claim: Claim, start: Start, line: Execution, now: datetime
) -> tuple[Execution, ...]:
    """Return the lines of a run whose job went on without it: nobody attempts it again."""
    if line.final:
        return (line,)
    superseded = _fate(
        claim.job,
        start.number,
        start.scheduled_at,
        Status.SUPERSEDED,
        now,
        manual=start.manual,
        claim=claim,
        folded=line.folded,
        folded_until=line.folded_until,
    )
    return (evolve(line, folded=0, folded_until=None), superseded)


def _advance(
    job: Job, standing: Standing, line: Execution, now: datetime, *, ran: bool = False
) -> Standing:
    """Return the standing after the pending occurrence got its final line."""
    next_run, backlog = standing.next_run, standing.backlog
    triggered_at = standing.triggered_at
    if line.manual:
        triggered_at = None
    elif isinstance(job.spec.schedule, FixedDelay):
        next_run = next_occurrence(job.spec.schedule, now, job.anchor)
    elif backlog is not None and backlog.folded and line.status is Status.SKIPPED:
        next_run, backlog = _unfolded(backlog)
    else:
        past = line.folded_until or line.scheduled_at
        if backlog is not None:
            past, backlog = max(past, backlog.until), None
        next_run = next_occurrence(job.spec.schedule, past, job.anchor)

    mark = standing.skipped_run
    if mark is not None and (
        line.status is Status.SKIPPED
        or next_run is None
        or (mark < next_run and not isinstance(job.spec.schedule, FixedDelay))
    ):
        mark = None

    number = standing.number + 1
    finished = triggered_at is None and next_run is None
    simple = triggered_at is None and next_run is not None and standing.state is State.ACTIVE
    fresh = Standing(
        State.FINISHED if finished else standing.state,
        number,
        next_run,
        _jittered(job, number, next_run) if simple and next_run is not None else None,
        triggered_at,
        0,
        0,
        mark,
        None if finished else standing.paused_until,
        None if finished else standing.pause_reason,
        _newest_of(standing, line),
        now if ran else standing.last_finished_at,
        line.status,
        _expiry(job.spec.policy, now, declared=job.declared) if finished else None,
        triggered_at is not None,
        None if finished else standing.paused_at,
        backlog,
    )
    # Copying once more costs a seventh of the whole run.
    return fresh if simple or finished else _await_next(job, fresh, now)


def _newest_of(standing: Standing, line: Execution) -> datetime:
    past = standing.last_scheduled_at
    return line.scheduled_at if past is None or past < line.scheduled_at else past


def _unfolded(backlog: Backlog) -> tuple[datetime | None, Backlog]:
    """Return the first occurrence that was folded into a skipped one, and what is behind it."""
    left = backlog.folded - 1
    last = backlog.folded_until if left else None
    return backlog.folded_from, Backlog(backlog.until, left, None, last)


def _renumbered(standing: Standing, ledger: tuple[Execution, ...]) -> Standing:
    """Return the standing with a number that none of the lines has."""
    newest = max((line.number for line in ledger), default=0)
    return standing if newest < standing.number else evolve(standing, number=newest + 1)


def _numbered_on(standing: Standing) -> Standing:
    return evolve(
        standing,
        number=standing.number + 1,
        attempts=0,
        failures=0,
        backlog=None,
        manual=standing.triggered_at is not None,
    )


def _await_next(job: Job, standing: Standing, now: datetime) -> Standing:
    """Return the standing with the ``due_at`` of what is pending, finished if nothing is."""
    if standing.triggered_at is not None:
        return evolve(standing, due_at=standing.triggered_at, manual=True)
    if standing.next_run is None:
        return evolve(
            standing,
            state=State.FINISHED,
            due_at=None,
            paused_until=None,
            pause_reason=None,
            paused_at=None,
            expires_at=_expiry(job.spec.policy, now, declared=job.declared),
        )
    if standing.state is State.PAUSED:
        return evolve(standing, due_at=standing.paused_until)
    return evolve(standing, due_at=_jittered(job, standing.number, standing.next_run))


# -- shared arithmetic -------------------------------------------------------


def backoff(policy: Policy, failures: int, key: str, attempt: int) -> timedelta:
    """Return the pause after the given number of failures, the same on every replica."""
    return policies.backoff(policy.retry, failures, f"{key}:{attempt}")


def _jittered(job: Job, number: int, moment: datetime) -> datetime:
    return _shifted(job.spec.policy, job.uid, number, moment)


def _shifted(policy: Policy, uid: str, number: int, moment: datetime) -> datetime:
    jitter = policy.jitter
    if not jitter:
        return moment
    return instant_after(moment, jitter * policies.share(occurrence_key(uid, number)))


def _expiry(policy: Policy, now: datetime, *, declared: bool) -> datetime | None:
    if declared or policy.keep_finished is None:
        return None
    expiry = instant_after(now, policy.keep_finished)
    return None if expiry == LAST else expiry


def _fate(
    job: Job,
    number: int,
    moment: datetime,
    status: Status,
    now: datetime,
    *,
    manual: bool = False,
    reason: str | None = None,
    claim: Claim | None = None,
    folded: int = 0,
    folded_until: datetime | None = None,
) -> Execution:
    """Return the final line of an occurrence that no attempt decided."""
    return Execution(
        id=f"{job.uid}:{number}:0",
        job_id=job.spec.id,
        uid=job.uid,
        number=number,
        scheduled_at=moment,
        manual=manual,
        attempt=0,
        status=status,
        final=True,
        token=claim.token if claim else 0,
        worker=claim.worker if claim else "",
        claimed_at=claim.claimed_at if claim else now,
        started_at=None,
        finished_at=now,
        reason=reason,
        folded=folded,
        folded_until=folded_until,
        expires_at=line_expiry(job.spec.policy, now),
    )
