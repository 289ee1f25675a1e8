"""Tells stories on a backend and on the model, and says where they differ."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve

from sched_core import (
    Backend,
    CancelMark,
    Claim,
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    Kind,
    Page,
    Pause,
    Pending,
    Policy,
    Renewal,
    Room,
    SchedError,
    Settlement,
    Standing,
    State,
    Status,
)
from sched_testkit._stories.difference import same
from sched_testkit._stories.entry import due_of, has_expired, next_of, without
from sched_testkit._stories.filters import picks, selects
from sched_testkit._stories.model import Model
from sched_testkit._stories.stories import IDS, Step, Story
from sched_testkit._suite.bench import SECOND, Bench, whole

KEPT_SHORTLY = Policy(keep_executions=timedelta(minutes=30))


class Teller:
    """Tells a story on a bench and on the model, and compares everything after each step."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.workers = ["", ""]
        self.backends: list[Backend] = []
        self.claims: dict[str, list[Claim]] = {job_id: [] for job_id in IDS}
        self.earlier: dict[str, Job] = {}
        """Jobs as they were before their last edit."""
        self.last: dict[str, Callable[[int], Awaitable[None]]] = {}
        self.cursors: dict[str, tuple[str, Any]] = {}
        self._opened = 0

    async def tell(self, told: Story) -> None:
        """Take each step on both, and expect the same.

        Raises:
            Differs: The backend's answer is not the model's; a note has the story.
        """
        for which in (0, 1):
            self.backends.append(await self._open(which))
        await self.bench.settle_in(self.backends[0])
        self.model = Model(self.bench.lease)
        for place, step in enumerate(told):
            try:
                await getattr(self, f"_{step.does}")(step)
                if step.does not in {"pass", "list", "turn"}:
                    await self._look(self.backends[1 - step.by], step.ids)
            except BaseException as error:
                steps = (f"  {number}. {one}" for number, one in enumerate(told[: place + 1], 1))
                error.add_note("What was done:\n" + "\n".join(steps))
                raise

    async def _open(self, which: int) -> Backend:
        self._opened += 1
        self.workers[which] = f"worker-{self._opened}"
        return await self.bench.open()

    def _now(self) -> datetime:
        return self.bench.clock.now()

    async def _answer(self, call: Awaitable[Any]) -> Any:
        """Return what a call answers, or the error that it raises."""
        try:
            got = await call
        except SchedError as error:
            return error
        return list(got) if isinstance(got, Sequence) else got

    async def _look(self, backend: Backend, ids: Sequence[str]) -> None:
        now, model = self._now(), self.model
        for job_id in ids:
            model.get(job_id, await backend.get(job_id), now)
        listed = self._in_order(await self.bench.jobs(backend, limit=50))
        for job in listed:
            if isinstance(job, Job) and model.job(job.id) is not None:
                model.shown(job)
        same(self._stored(), listed, "all jobs")
        ordered = backend.capabilities.ordered
        model.listed(await self.bench.history(backend, limit=50), now, ordered=ordered)

    # -- values

    def _moment(self, due: str) -> datetime | None:
        now = self._now()
        return {
            "now": now,
            "this second": whole(now),
            "an hour ago": now - 3600 * SECOND,
            "soon": whole(now) + 10 * SECOND,
            "after a lease": now + self.bench.lease + SECOND,
            "never": None,
        }[due]

    def _job(self, job_id: str, due: str) -> Job:
        others: dict[str, Any] = {
            "a": {},
            "b": {"group": "others", "metadata": {"tenant": "8"}, "queue": "bulk"},
            "ab": {"group": None, "name": None, "metadata": {}},
        }
        return self.bench.job(job_id, due=self._moment(due), **others[job_id])

    def _claims(self, step: Step) -> list[Claim]:
        """Return the claims of each job that is meant: its newest, or one before that."""
        made = [self.claims[job_id] for job_id in step.ids]
        return [claims[-1 - step.number] for claims in made if len(claims) > step.number]

    def _end(self, job: Job) -> list[Execution]:
        """Return the last execution of the schedule's occurrence, as an edit writes it."""
        one = job.standing.scheduled
        if one is None:
            return []
        claim = Claim(job, 0, "editor", self._now(), self._now())
        end = self.bench.execution(claim, Status.SUPERSEDED, attempt=0, started_at=None)
        kept: dict[str, Any] = {
            "kind": one.kind,
            "scheduled_at": one.scheduled_at,
            "snoozes": one.snoozes,
        }
        return [evolve(end, id=f"{job.uid}:{one.number}:0", number=one.number, **kept)]

    # -- steps

    async def _add(self, step: Step) -> None:
        limit = self.backends[step.by].capabilities.bulk_limit
        ids = step.ids[:limit]
        if step.how == "twice" and limit not in {1, len(ids)}:
            ids = (*ids, ids[0])
        jobs = [self._job(job_id, step.due) for job_id in ids]

        async def call(by: int) -> None:
            stored = {one.uid for job in jobs if (one := self.model.job(job.id)) is not None}
            if by >= 0 and not stored >= {job.uid for job in jobs}:
                return  # nothing says what a repeat is once the job was removed
            self.model.add(jobs, await self._answer(self.backends[by].add(jobs)))

        self.model.add(jobs, await self._answer(self.backends[step.by].add(jobs)))
        self.last["add"] = call

    async def _replace(self, step: Step) -> None:
        job_id = step.ids[0]
        stored = self.model.job(job_id)
        job = self.earlier.get(job_id) if step.how == "of an old revision" else stored
        if job is None:
            return
        edited = self._edited(job, step)
        executions = self._end(job) if step.how == "next occurrence" else []

        async def call(by: int) -> None:
            got = await self._answer(self.backends[by].replace(edited, executions))
            self.model.replace(edited, executions, got)

        self.last["replace"] = call
        await call(step.by)
        if stored is not None:
            self.earlier[job_id] = stored

    def _edited(self, job: Job, step: Step) -> Job:
        old, moment, now = job.standing, self._moment(step.due), self._now()
        number, later = old.last_number + 1, now + 10 * SECOND
        due = moment or now
        paused = Pause(now, old.last_number, None, "why")
        asked = tuple(
            Pending(number + n, now, due, kind, key=key, origin=number + n)
            for n, (kind, key) in enumerate(((Kind.TRIGGERED, None), (Kind.RERUN, "key")))
        )
        pending = [one.number for one in (old.scheduled, *old.requests) if one is not None]
        marked = (*((job.held,) if job.held is not None else ()), *pending)
        standing = {
            "definition": evolve(old, failing=old.failing + 1, last_finished_at=now),
            "next occurrence": evolve(
                old,
                last_number=number,
                scheduled=Pending(number, due, due),
                pause=None if moment else paused,
            ),
            "due moment": evolve(
                old,
                scheduled=old.scheduled and evolve(old.scheduled, due_at=due),
                pause=None if moment else paused,
            ),
            "pause": evolve(old, pause=paused),
            "pause with an end": evolve(old, pause=evolve(paused, until=later)),
            "expiry": evolve(old, expires_at=now + 5 * SECOND),
            "request": evolve(old, last_number=number, requests=(*old.requests, asked[0])),
            "two requests": evolve(old, last_number=number + 1, requests=(*old.requests, *asked)),
            "cancel": evolve(old, cancels=tuple(map(CancelMark, marked[:1]))),
        }.get(step.how, old)
        edited = evolve(job, standing=evolve(standing, due_at=due_of(standing)))
        if step.how == "definition":
            spec = evolve(job.spec, metadata={"tenant": f"{now}"}, policy=KEPT_SHORTLY)
            return evolve(edited, declared=not job.declared, anchor=now, spec=spec)
        if step.how == "queue":
            other = "default" if job.spec.queue == "bulk" else "bulk"
            return evolve(edited, spec=evolve(job.spec, queue=other))
        if step.how == "as if no claim held it":
            return evolve(edited, held=None, held_at=None)
        return edited

    async def _remove(self, step: Step) -> None:
        job_id = step.ids[0]
        stored = self.model.job(job_id)
        job = self.earlier.get(job_id) if step.how == "of an old revision" else stored
        if job is None:
            return
        if step.how == "as if no claim held it":
            job = evolve(job, held=None, held_at=None)
        executions = self._end(job) if step.how else []

        async def call(by: int) -> None:
            got = await self._answer(self.backends[by].remove(job, executions))
            self.model.remove(job, executions, got)

        self.last["remove"] = call
        await call(step.by)

    async def _claim(self, step: Step) -> None:
        room = _room(step)
        got = await self._answer(self.backends[step.by].claim_due(room))
        self.model.claim_due(room, self._now(), self.workers[step.by], got)
        for claim in got.claims:
            self.claims[claim.job.id].append(claim)

    async def _renew(self, step: Step) -> None:
        renewals = [Renewal(claim, step.how == "alone") for claim in self._claims(step)]

        async def call(by: int) -> None:
            got = await self._answer(self.backends[by].renew(renewals))
            self.model.renew(renewals, self._now(), got)

        self.last["renew"] = call
        await call(step.by)

    async def _release(self, step: Step) -> None:
        claims = self._claims(step)

        async def call(by: int) -> None:
            got = await self._answer(self.backends[by].release(claims))
            self.model.release(claims, self._now(), got)

        self.last["release"] = call
        await call(step.by)

    async def _settle(self, step: Step) -> None:
        settlements = [self._settlement(claim, step) for claim in self._claims(step)]

        async def call(by: int) -> None:
            got = await self._answer(self.backends[by].settle(settlements))
            self.model.settle(settlements, self._now(), got)

        self.last["settle"] = call
        await call(step.by)

    def _settlement(self, claim: Claim, step: Step) -> Settlement:
        bench, how, now = self.bench, step.how, self._now()
        stored, one = self.model.job(claim.job.id), next_of(claim.job.standing)
        if one is None:  # what ends a pause
            return Settlement(claim, claim.job.revision, self._resumed(claim.job.standing), ())
        own = bench.execution(claim)
        done = Settlement(
            claim, claim.job.revision, self._after(claim.job.standing, one, step), (own,)
        )
        if how in {"to retry", "interrupted"}:
            status = Status.FAILED if how == "to retry" else Status.INTERRUPTED
            written = bench.execution(claim, status, final=False, reason="ValueError: ✗")
            return bench.retry(claim, status, due=self._moment(step.due), executions=[written])
        if how == "done, standing still":
            return evolve(bench.retry(claim, due=self._moment(step.due)), executions=(own,))
        if how == "with a missed one" and done.standing is not None:
            number = done.standing.last_number + 1
            missed = bench.execution(
                claim, Status.MISSED, attempt=0, number=number, id=f"{own.uid}:{number}:0"
            )
            counted = evolve(done.standing, last_number=number)
            return evolve(done, standing=counted, executions=(own, missed))
        if how == "asking for more" and done.standing is not None:
            number = done.standing.last_number + 1
            more = bench.request(number, key="more", args={"a": "1"})
            standing = evolve(
                done.standing, last_number=number, requests=(*done.standing.requests, more)
            )
            return evolve(done, standing=evolve(standing, due_at=due_of(standing)))
        if how == "re-decided" and stored is not None:
            there = stored.uid == claim.job.uid and stored.standing.find(one.number)
            noted = evolve(stored.standing, last_finished_at=now)
            standing = self._after(noted, one, step) if there else noted
            return Settlement(claim, stored.revision, standing, (own,))
        interrupted = bench.execution(claim, Status.INTERRUPTED)
        return {
            "freed": Settlement(claim, None, None, ()),
            "last execution only": Settlement(claim, None, None, (own,)),
            "interrupted only": Settlement(claim, None, None, (interrupted,)),
            "without executions": evolve(done, executions=()),
            "blindly": evolve(done, expected=None),
            "by no worker": evolve(done, claim=evolve(claim, worker="stranger")),
            "by a later token": evolve(done, claim=evolve(claim, token=claim.token + 1000)),
        }.get(how, done)

    def _after(self, standing: Standing, one: Pending, step: Step) -> Standing:
        """Return what comes after the end of an occurrence; a schedule goes on when it is due."""
        now, due = self._now(), self._moment(step.due)
        rest = evolve(without(standing, one.number), last_finished_at=now)
        if one.kind is Kind.SCHEDULED and due is not None:
            number = rest.last_number + 1
            rest = evolve(rest, last_number=number, scheduled=Pending(number, due, due))
        over = rest.scheduled is None and not rest.requests
        rest = evolve(rest, expires_at=now + 50 * SECOND if over else None)
        return evolve(rest, due_at=due_of(rest), last_status=Status.SUCCEEDED)

    def _resumed(self, standing: Standing) -> Standing:
        active = evolve(standing, pause=None)
        return evolve(active, due_at=due_of(active))

    async def _again(self, step: Step) -> None:
        """Repeat the last call of a kind, as one does whose reply got lost."""
        call = self.last.get(step.how)
        if call is not None:
            await call(step.by)

    async def _pass(self, step: Step) -> None:
        now, lease = self._now(), self.bench.lease
        spans = {
            "a tick": self.bench.tick,
            "to the next second": whole(now) + SECOND - now,
            "10 s": 10 * SECOND,
            "a lease but a tick": lease - self.bench.tick,
            "a lease": lease,
            "an hour": 3600 * SECOND,
        }
        await self.bench.advance(spans[step.how])

    async def _prune(self, step: Step) -> None:
        now, history = self._now(), self.model.history
        ends = [execution.finished_at for execution in history] or [now]
        before = {
            "an hour old": now - 3600 * SECOND,
            "ended before": ends[len(ends) // 2],
            "ended": now + SECOND,
            "nothing old": now - timedelta(days=1000),
        }[step.how]
        got = await self._answer(self.backends[step.by].prune(before))
        self.model.prune(before, now, got)

    async def _reopen(self, step: Step) -> None:
        """End an instance without a word where its data survives that, and open another."""
        backend = self.backends[step.by]
        self.model.gone.add(self.workers[step.by])
        if backend.capabilities.durable:
            await self.bench.crash(backend)
        else:
            self.bench.backends.remove(backend)
            await backend.close()
        self.backends[step.by] = await self._open(step.by)

    # -- listings

    async def _list(self, step: Step) -> None:
        """List through pages of three, with filters."""
        backend, now, history = self.backends[step.by], self._now(), self.model.history
        if step.how == "jobs":
            asked: dict[str, Any] = (
                {"id_prefix": "a"},
                {"state": State.ACTIVE, "group": "reports"},
                {"metadata": {"tenant": "8"}, "state": State.PAUSED},
                {"id_prefix": "ab", "state": State.FINISHED},
            )[step.number]
            jobs = self._stored()
            expected = [job for job in jobs if selects(JobQuery(**asked), job)]
            same(
                expected,
                self._in_order(await self.bench.jobs(backend, **asked)),
                f"jobs by {[*asked]}",
            )
            return
        middle = history[len(history) // 2].finished_at if history else now
        asked = (
            {"job_id": "a", "until": middle},
            {"final": True, "since": middle},
            {"statuses": frozenset({Status.ABANDONED, Status.FAILED}), "job_id": "b"},
            {"final": False, "since": middle, "job_id": "ab"},
        )[step.number]
        listed = await self.bench.history(backend, **asked)
        if not backend.capabilities.ordered:
            listed.sort(key=history.index, reverse=True)
        kept = [
            execution
            for execution in history
            if execution in listed or not has_expired(execution, now)
        ]
        picked = [
            execution for execution in kept[::-1] if picks(ExecutionQuery(**asked), execution)
        ]
        same(picked, listed, f"executions by {[*asked]}")

    def _stored(self) -> list[Job]:
        return [job for job_id in sorted(IDS) if (job := self.model.job(job_id)) is not None]

    def _in_order(self, jobs: list[Any]) -> list[Any]:
        ordered = self.backends[0].capabilities.ordered
        return jobs if ordered else sorted(jobs, key=lambda job: str(job.id))

    async def _turn(self, step: Step) -> None:
        """Ask for the first page of a listing, or for the next one after other steps."""
        backend, limit = self.backends[step.by], step.number + 1
        if not backend.capabilities.ordered:
            return  # nothing says where the next page goes on
        after, left = self.cursors.pop(step.how, (None, None))
        if step.how == "jobs":
            page: Page[Any] = await backend.jobs(JobQuery(), after=after, limit=limit)
            everybody = {job.id: job for job in (*self._stored(), *self.bench.neighbours.values())}
            names = [name for name in sorted(everybody) if left is None or name > left]
            expected: list[Any] = [everybody[name] for name in names]
        else:
            page = await backend.executions(ExecutionQuery(), after=after, limit=limit)
            executions = self.model.history[::-1]
            expected = [
                execution for execution in executions if left is None or execution.id in left
            ]
        same(expected[:limit], list(page.items), f"a page of {limit} of the {step.how}")
        same(len(expected) > limit, page.next is not None, f"whether more {step.how} come")
        if page.next is not None and page.items:
            last = page.items[-1].id
            rest = {one.id for one in expected[limit:]}
            self.cursors[step.how] = page.next, last if step.how == "jobs" else rest


def _room(step: Step) -> Room:
    """Return what a claim takes."""
    rooms: dict[str, dict[str, Any]] = {
        "of one queue": {"queues": {"bulk": 1}},
        "of all queues": {"queues": {"bulk": 1, "*": 1}},
        "of no queue": {"queues": {}},
        "refusing": {"accepts": lambda job_id: job_id != "a"},
    }
    return Room(step.number, **rooms.get(step.how, {}))
