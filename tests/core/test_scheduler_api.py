"""The single-job operations of ``Scheduler``, on every store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from tests.core.backends import KINDS, Open, fresh_store

from sched_core import (
    BackendUnavailable,
    Capabilities,
    Claimed,
    Cron,
    Execution,
    ExecutionQuery,
    HandlerNotSet,
    HealthChange,
    Interval,
    InvalidDefinition,
    Job,
    JobAlreadyExists,
    JobEvent,
    JobNotFound,
    JobQuery,
    JobSpec,
    MemoryBackend,
    NoRoute,
    Once,
    Policy,
    Retry,
    Room,
    Schedule,
    Scheduler,
    SchedulerNotStarted,
    SchedulerRunning,
    State,
    Status,
)
from sched_core.testing import EPOCH, FakeClock, RecordingHandler, history

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOURLY = Interval(hours=1)
Body = Callable[["World"], Awaitable[None]]


class World:
    """An open scheduler on a fresh store, with a clock and a handler."""

    def __init__(self, open_store: Open) -> None:
        self.open_store = open_store
        self.clock = FakeClock()
        self.handler = RecordingHandler()
        self.seen: list[Execution | HealthChange] = []
        self.scheduler = Scheduler(
            open_store(), handler=self.handler, clock=self.clock, observers=[self.seen.append]
        )

    async def executions(self, query: ExecutionQuery | str | None = None) -> list[Execution]:
        return await history(self.scheduler, query)

    async def ids(self, query: JobQuery | None = None) -> list[str]:
        return [job.id async for job in self.scheduler.list_jobs(query)]


@pytest.fixture(params=KINDS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return fresh_store(request.param, tmp_path)


def play(open_store: Open, body: Body) -> None:
    async def main() -> None:
        world = World(open_store)
        async with world.scheduler:
            await body(world)

    anyio.run(main)


class TestBeforeItIsOpen:
    def test_declarations_queue_and_are_applied_in_order(self, open_store: Open) -> None:
        async def main() -> None:
            scheduler = Scheduler(open_store(), clock=FakeClock())
            await scheduler.ensure_job("a", HOURLY)
            await scheduler.submit_job("b", HOURLY)
            await scheduler.submit_jobs([JobSpec("c", HOURLY), JobSpec("d", HOURLY)])
            job = await scheduler.ensure_job("a", HOURLY, metadata={"the": "last"})
            assert job.spec.metadata == {"the": "last"}
            async with scheduler:
                jobs = [job async for job in scheduler.list_jobs()]
                assert [job.id for job in jobs] == ["a", "b", "c", "d"]
                first = await scheduler.get_job("a")
                assert first.spec.metadata == {"the": "last"}
                assert first.declared
                assert not (await scheduler.get_job("b")).declared

        anyio.run(main)

    def test_the_same_id_submitted_twice_is_refused_at_once(self) -> None:
        async def main() -> None:
            scheduler = Scheduler(MemoryBackend())
            await scheduler.submit_job("a", HOURLY)
            with pytest.raises(JobAlreadyExists):
                await scheduler.submit_job("a", HOURLY)

        anyio.run(main)

    def test_a_submitted_id_that_is_stored_already_fails_the_opening(
        self, open_store: Open
    ) -> None:
        async def main() -> None:
            async with Scheduler(open_store(), clock=FakeClock()) as scheduler:
                await scheduler.submit_job("a", HOURLY, metadata={"old": "yes"})
            late = Scheduler(open_store(), clock=FakeClock())
            await late.submit_job("a", Interval(hours=2))
            with pytest.raises(JobAlreadyExists):
                await late.__aenter__()
            async with Scheduler(open_store(), clock=FakeClock()) as scheduler:
                assert (await scheduler.get_job("a")).spec.metadata == {"old": "yes"}

        anyio.run(main)

    def test_everything_else_needs_an_open_scheduler(self) -> None:
        async def main() -> None:
            scheduler = Scheduler(MemoryBackend(), handler=RecordingHandler())
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: scheduler.get_job("a"),
                lambda: scheduler.update_job("a", HOURLY),
                lambda: scheduler.remove_job("a"),
                lambda: scheduler.pause_job("a"),
                lambda: scheduler.resume_job("a"),
                lambda: scheduler.trigger_job("a"),
                lambda: scheduler.skip_next("a"),
                lambda: scheduler.unskip("a"),
                lambda: scheduler.prune(EPOCH),
                lambda: scheduler.list_jobs().__anext__(),
                lambda: scheduler.list_executions().__anext__(),
                scheduler.run_due,
                scheduler.run_forever,
                scheduler.health,
            ]
            for opened_before in (False, True):
                for call in calls:
                    with pytest.raises(SchedulerNotStarted, match="async with"):
                        await call()
                if not opened_before:
                    async with scheduler:
                        pass

        anyio.run(main)

    def test_one_scheduler_is_opened_once_at_a_time_and_may_be_opened_again(
        self, open_store: Open
    ) -> None:
        async def main() -> None:
            scheduler = Scheduler(open_store(), clock=FakeClock())
            async with scheduler:
                with pytest.raises(SchedulerRunning):
                    await scheduler.__aenter__()
                await scheduler.ensure_job("a", HOURLY)
            async with scheduler:
                await scheduler.ensure_job("b", HOURLY)
                assert (await scheduler.health()).healthy is False  # no handler

        anyio.run(main)


class TestDefinitions:
    def test_submitting_a_stored_id_is_refused_and_harms_nothing(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            job = await world.scheduler.submit_job("a", HOURLY)
            with pytest.raises(JobAlreadyExists) as caught:
                await world.scheduler.submit_job("a", Interval(hours=2))
            assert caught.value.job_id == "a"
            assert await world.scheduler.get_job("a") == job

        play(open_store, body)

    @pytest.mark.parametrize("atomic", [True, False])
    def test_many_jobs_are_added_all_or_none(self, open_store: Open, atomic: bool) -> None:
        async def body(world: World) -> None:
            specs = [JobSpec(f"job-{number:04}", HOURLY) for number in range(1500)]
            await world.scheduler.submit_job("job-1400", HOURLY)
            with pytest.raises(JobAlreadyExists):
                await world.scheduler.submit_jobs(specs, atomic=atomic)
            assert len(await world.ids()) == (1 if atomic else 1001)
            await world.scheduler.submit_jobs([], atomic=atomic)

        play(open_store, body)

    def test_more_than_the_backend_takes_at_once_is_refused_or_goes_in_chunks(self) -> None:
        class Small(MemoryBackend):
            sizes: list[int] = []  # noqa: RUF012 -- one test's own class

            @property
            def capabilities(self) -> Capabilities:
                return Capabilities(
                    durable=False,
                    shared=False,
                    time="clock",
                    granularity=timedelta(microseconds=1),
                    lease=HOUR,
                    bulk_limit=10,
                )

            async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
                self.sizes.append(len(jobs))
                return await super().add(jobs)

        async def main() -> None:
            specs = [JobSpec(f"job-{number}", HOURLY) for number in range(25)]
            backend = Small()
            async with Scheduler(backend, clock=FakeClock()) as scheduler:
                with pytest.raises(InvalidDefinition, match=r"at most 10 jobs.*atomic=False"):
                    await scheduler.submit_jobs(specs)
                jobs = await scheduler.submit_jobs(specs, atomic=False)
                assert [job.id for job in jobs] == [spec.id for spec in specs]
                assert backend.sizes == [10, 10, 5]

        anyio.run(main)

    def test_update_changes_what_is_given_and_keeps_the_rest(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            policy = Policy(retry=Retry(attempts=3))
            before = await world.scheduler.ensure_job(
                "a", HOURLY, name="name", metadata={"a": "b"}, policy=policy, group="g"
            )
            world.clock.advance(minutes=5)
            job = await world.scheduler.update_job("a", metadata={"c": "d"})
            assert job.spec == JobSpec("a", HOURLY, "name", {"c": "d"}, policy, "g")
            assert (job.standing, job.anchor) == (before.standing, before.anchor)
            assert job.revision > before.revision
            job = await world.scheduler.update_job("a", name=None, group=None)
            assert (job.spec.name, job.spec.group, job.spec.metadata) == (None, None, {"c": "d"})
            job = await world.scheduler.update_job("a", Interval(hours=2), policy=Policy())
            assert job.standing.due_at == EPOCH + timedelta(minutes=125)
            assert job.declared
            again = await world.scheduler.update_job("a", Interval(hours=2))
            assert again == job
            assert await world.scheduler.get_job("a") == job

        play(open_store, body)

    def test_what_is_not_there_is_not_found(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            for call in (
                scheduler.get_job,
                scheduler.update_job,
                scheduler.remove_job,
                scheduler.pause_job,
                scheduler.resume_job,
                scheduler.trigger_job,
                scheduler.skip_next,
                scheduler.unskip,
            ):
                with pytest.raises(JobNotFound) as caught:
                    await cast("Any", call)("nowhere")
                assert caught.value.job_id == "nowhere"

        play(open_store, body)

    def test_a_removed_job_is_gone_and_its_history_stays(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            await world.scheduler.submit_job("a", Once(EPOCH))
            await world.scheduler.submit_job("b", Once(EPOCH - HOUR))
            await world.scheduler.remove_job("b")
            assert await world.scheduler.run_due() == 1
            await world.scheduler.remove_job("a")
            assert await world.ids() == []
            assert await world.scheduler.run_due() == 0
            statuses = {
                execution.job_id: execution.status for execution in await world.executions()
            }
            assert statuses == {"a": Status.SUCCEEDED, "b": Status.SUPERSEDED}

        play(open_store, body)

    def test_operations_that_change_nothing_write_nothing(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            job = await world.scheduler.ensure_job("a", HOURLY)
            assert await world.scheduler.resume_job("a") == job
            assert await world.scheduler.unskip("a") == job
            skipped = await world.scheduler.skip_next("a")
            assert await world.scheduler.skip_next("a") == skipped
            unskipped = await world.scheduler.unskip("a")
            assert unskipped.standing == job.standing
            assert unskipped.revision > skipped.revision > job.revision

        play(open_store, body)


class TestListing:
    def test_jobs_come_in_id_order_over_many_pages(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            ids = [f"job-{number:03}" for number in range(450)]
            await world.scheduler.submit_jobs([JobSpec(job_id, HOURLY) for job_id in ids[::-1]])
            assert await world.ids() == ids
            assert await world.ids(JobQuery(id_prefix="job-1")) == ids[100:200]

        play(open_store, body)

    def test_jobs_that_are_added_and_removed_meanwhile_disturb_no_other(
        self, open_store: Open
    ) -> None:
        async def body(world: World) -> None:
            ids = [f"job-{number:03}" for number in range(450)]
            await world.scheduler.submit_jobs([JobSpec(job_id, HOURLY) for job_id in ids])
            seen = []
            async for job in world.scheduler.list_jobs():
                seen.append(job.id)
                if job.id == "job-100":
                    await world.scheduler.remove_job("job-050")
                    await world.scheduler.submit_job("job-050x", HOURLY)
            assert seen == ids

        play(open_store, body)

    def test_jobs_are_chosen_by_state_group_prefix_and_metadata(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a1", HOURLY, group="g", metadata={"k": "v", "x": "y"})
            await scheduler.ensure_job("a2", HOURLY, group="g", metadata={"k": "w"})
            await scheduler.ensure_job("b%", Once(EPOCH), metadata={"k": "v"})
            await scheduler.ensure_job("b_", HOURLY)
            await scheduler.pause_job("a2")
            await scheduler.run_due()
            assert await world.ids(JobQuery(state=State.PAUSED)) == ["a2"]
            assert await world.ids(JobQuery(state=State.FINISHED)) == ["b%"]
            assert await world.ids(JobQuery(group="g")) == ["a1", "a2"]
            assert await world.ids(JobQuery(metadata={"k": "v"})) == ["a1", "b%"]
            assert await world.ids(JobQuery(id_prefix="b%")) == ["b%"]
            assert await world.ids(JobQuery(id_prefix="b_")) == ["b_"]
            assert await world.ids(JobQuery(id_prefix="A")) == []
            assert await world.ids(JobQuery(group="g", metadata={"k": "v"})) == ["a1"]

        play(open_store, body)

    def test_the_history_comes_newest_first_over_many_pages(
        self, open_store: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sched_core.scheduler.PAGE", 20)

        async def body(world: World) -> None:
            await world.scheduler.submit_job("a", Interval(minutes=1))
            for _ in range(45):
                world.clock.advance(minutes=1)
                await world.scheduler.run_due()
            executions = await world.executions("a")
            assert [execution.number for execution in executions] == list(range(45, 0, -1))
            assert await world.executions() == executions

        play(open_store, body)

    def test_lines_are_chosen_by_job_status_finality_and_time(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            async def fail(event: JobEvent) -> None:
                if event.id == "bad":
                    raise ValueError("no")

            world.scheduler.set_handler(fail)
            retry = Policy(retry=Retry(attempts=2, backoff=HOUR))
            await world.scheduler.submit_job("good", Once(EPOCH))
            await world.scheduler.submit_job("bad", Once(EPOCH), policy=retry)
            await world.scheduler.run_due()
            world.clock.advance(HOUR)
            await world.scheduler.run_due()

            async def told(**query: Any) -> list[tuple[str, int]]:
                executions = await world.executions(ExecutionQuery(**query))
                return sorted((execution.job_id, execution.attempt) for execution in executions)

            assert await told(job_id="bad") == [("bad", 1), ("bad", 2)]
            assert await told(final=True) == [("bad", 2), ("good", 1)]
            assert await told(final=False) == [("bad", 1)]
            assert await told(statuses=frozenset({Status.SUCCEEDED})) == [("good", 1)]
            assert await told(since=EPOCH + HOUR) == [("bad", 2)]
            assert await told(until=EPOCH + HOUR) == [("bad", 1), ("good", 1)]
            assert await told(since=EPOCH, until=EPOCH) == []

        play(open_store, body)


class TestRunDue:
    def test_it_counts_attempts_and_returns_when_nothing_is_left(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            specs = [JobSpec(f"job-{number:03}", Once(EPOCH)) for number in range(250)]
            await world.scheduler.submit_jobs([*specs, JobSpec("later", Once(EPOCH + HOUR))])
            assert await world.scheduler.run_due() == 250
            assert await world.scheduler.run_due() == 0
            assert len(set(world.handler.ids)) == 250

        play(open_store, body)

    def test_retries_without_a_pause_are_run_and_counted(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            async def fail(event: JobEvent) -> None:
                raise ValueError("no")

            world.scheduler.set_handler(fail)
            policy = Policy(retry=Retry(attempts=5, backoff=timedelta(0)))
            await world.scheduler.submit_job("a", Once(EPOCH), policy=policy)
            assert await world.scheduler.run_due() == 5
            assert [execution.final for execution in await world.executions()] == [True] + [
                False
            ] * 4

        play(open_store, body)

    def test_what_becomes_due_while_it_runs_is_left_for_the_next_call(
        self, open_store: Open
    ) -> None:
        async def body(world: World) -> None:
            async def slow(event: JobEvent) -> None:
                world.clock.advance(HOUR)

            world.scheduler.set_handler(slow)
            world.clock.jump(EPOCH + HOUR)
            await world.scheduler.submit_job("a", Interval(hours=1, start=EPOCH + HOUR))
            for call in range(1, 4):
                assert await world.scheduler.run_due() == 1
                assert len(await world.executions()) == call
            # What it handed back is neither lost nor counted as an attempt.
            assert {execution.attempt for execution in await world.executions()} == {1}

        play(open_store, body)

    def test_it_needs_a_handler_and_runs_once_at_a_time(self, open_store: Open) -> None:
        async def main() -> None:
            scheduler = Scheduler(open_store(), clock=FakeClock())
            async with scheduler:
                await scheduler.submit_job("a", Once(EPOCH))
                with pytest.raises(HandlerNotSet, match="handler"):
                    await scheduler.run_due()
                refused = []

                async def handle(event: JobEvent) -> None:
                    for call in (scheduler.run_due, scheduler.run_forever):
                        with pytest.raises(SchedulerRunning):
                            await call()
                        refused.append(call)

                scheduler.set_handler(handle)
                assert await scheduler.run_due() == 1
                assert len(refused) == 2

        anyio.run(main)

    def test_a_job_without_a_route_is_handed_back_and_comes_again(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            async def lost(event: JobEvent) -> None:
                raise NoRoute(delay=60)

            await world.scheduler.submit_job("a", Once(EPOCH))
            world.scheduler.set_handler(lost)
            await world.scheduler.run_due()
            assert await world.executions() == []
            assert await world.scheduler.run_due() == 0
            world.clock.advance(minutes=1)
            world.scheduler.set_handler(world.handler)
            assert await world.scheduler.run_due() == 1
            assert [event.attempt for event in world.handler.events] == [1]

        play(open_store, body)

    def test_a_sync_handler_runs_in_a_thread_and_its_event_tells_everything(
        self, open_store: Open
    ) -> None:
        async def body(world: World) -> None:
            events: list[JobEvent] = []
            world.scheduler.set_handler(events.append)
            job = await world.scheduler.submit_job("a", HOURLY, name="n", metadata={"k": "v"})
            world.clock.advance(hours=3, minutes=5)
            await world.scheduler.run_due()
            world.clock.advance(hours=1)
            await world.scheduler.run_due()
            first, second = events
            assert (first.id, first.name, first.metadata) == ("a", "n", {"k": "v"})
            assert first.schedule == HOURLY
            assert (first.scheduled_at, first.started_at) == (EPOCH + HOUR, EPOCH + HOUR * 37 / 12)
            assert first.delay == timedelta(hours=2, minutes=5)
            assert (first.coalesced, first.coalesced_until) == (2, EPOCH + 3 * HOUR)
            assert (first.attempt, first.manual, first.cancelled) == (1, False, False)
            assert first.last_completed_at is None
            assert second.last_completed_at == first.started_at
            assert first.key == f"{job.uid}:1"
            assert second.key == f"{job.uid}:2"
            assert second.token > first.token

        play(open_store, body)


class TestOperating:
    def test_a_pause_with_an_end_ends_on_its_own(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            await world.scheduler.submit_job("a", HOURLY)
            await world.scheduler.pause_job("a", until=EPOCH + 150 * HOUR / 60, reason="r")
            for _ in range(4):
                world.clock.advance(HOUR)
                await world.scheduler.run_due()
            moments = [event.scheduled_at for event in world.handler.events]
            assert moments == [EPOCH + 3 * HOUR, EPOCH + 4 * HOUR]
            job = await world.scheduler.get_job("a")
            assert (job.state, job.standing.pause) == (State.ACTIVE, None)

        play(open_store, body)

    @pytest.mark.parametrize("state", [State.ACTIVE, State.PAUSED, State.FINISHED])
    def test_a_trigger_runs_any_job_once_and_leaves_it_as_it_was(
        self, open_store: Open, state: State
    ) -> None:
        async def body(world: World) -> None:
            schedule: Schedule = Once(EPOCH) if state is State.FINISHED else Interval(days=1)
            await world.scheduler.submit_job("a", schedule)
            if state is State.PAUSED:
                await world.scheduler.pause_job("a")
            await world.scheduler.run_due()
            world.handler.events.clear()
            world.clock.advance(HOUR)
            before = await world.scheduler.get_job("a")
            await world.scheduler.trigger_job("a")
            await world.scheduler.trigger_job("a")
            assert await world.scheduler.run_due() == 1
            assert [event.manual for event in world.handler.events] == [True]
            after = await world.scheduler.get_job("a")
            assert after.state is before.state is state
            assert after.next_run == before.next_run
            assert after.standing.due_at == before.standing.due_at

        play(open_store, body)

    def test_a_trigger_during_a_run_runs_right_after_it(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            async def handle(event: JobEvent) -> None:
                await world.handler(event)
                if len(world.handler.events) < 3:
                    await world.scheduler.trigger_job("a")

            world.scheduler.set_handler(handle)
            await world.scheduler.submit_job("a", Once(EPOCH))
            for _ in range(3):
                await world.scheduler.run_due()
                world.clock.advance(seconds=1)
            assert [event.manual for event in world.handler.events] == [False, True, True]
            assert [execution.number for execution in await world.executions()] == [3, 2, 1]

        play(open_store, body)


class TestObservers:
    def test_they_get_every_line_as_it_is_written(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            await world.scheduler.submit_job("a", HOURLY)
            await world.scheduler.skip_next("a")
            world.clock.advance(2 * HOUR)
            await world.scheduler.run_due()
            world.clock.advance(HOUR)
            await world.scheduler.run_due()
            seen = [execution for execution in world.seen if isinstance(execution, Execution)]
            assert seen == (await world.executions())[::-1]
            assert Status.SKIPPED in {execution.status for execution in seen}

        play(open_store, body)

    def test_they_get_the_lines_that_edits_and_takeovers_write(self, open_store: Open) -> None:
        """What this scheduler wrote in whatever way: nothing of it is silent."""

        async def body(world: World) -> None:
            await world.scheduler.submit_job("a", Once(EPOCH))
            await world.scheduler.remove_job("a")
            assert [execution.status for execution in await world.executions()] == [
                Status.SUPERSEDED
            ]
            seen = [execution for execution in world.seen if isinstance(execution, Execution)]
            assert [execution.status for execution in seen] == [Status.SUPERSEDED]

        play(open_store, body)

    def test_one_that_fails_harms_nothing_and_no_other(self, open_store: Open) -> None:
        async def main() -> None:
            seen: list[object] = []

            def broken(what: object) -> None:
                raise RuntimeError("broken")

            scheduler = Scheduler(
                open_store(),
                handler=RecordingHandler(),
                clock=FakeClock(),
                observers=[broken, seen.append],
            )
            async with scheduler:
                await scheduler.submit_job("a", Once(EPOCH))
                assert await scheduler.run_due() == 1
                assert len(seen) == 1
                assert (await scheduler.health()).healthy

        anyio.run(main)


class _Broken(MemoryBackend):
    """Fails where it is told to."""

    fails: str = ""

    async def check(self) -> None:
        if self.fails == "check":
            raise BackendUnavailable("the disk is full")
        await super().check()


class TestHealth:
    def test_it_tells_what_was_done(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            await world.scheduler.submit_job("a", Once(EPOCH - HOUR))
            await world.scheduler.run_due()
            health = await world.scheduler.health()
            assert health.healthy
            assert health.problems == ()
            assert (health.running, health.executing, health.unsettled) == (False, 0, 0)
            assert (health.completed, health.lateness) == (1, HOUR)
            assert (health.looked_at, health.oldest_due) == (EPOCH, None)
            assert (health.claims_lost, health.backend_errors) == (0, 0)

        play(open_store, body)

    def test_a_missing_handler_is_a_problem_until_there_is_one(self) -> None:
        async def main() -> None:
            seen: list[object] = []
            scheduler = Scheduler(MemoryBackend(), clock=FakeClock(), observers=[seen.append])
            async with scheduler:
                health = await scheduler.health()
                assert not health.healthy
                assert "no handler" in health.problems[0]
                scheduler.set_handler(RecordingHandler())
                assert (await scheduler.health()).healthy
                changes = [change.healthy for change in seen if isinstance(change, HealthChange)]
                assert changes == [False, True]

        anyio.run(main)

    def test_a_store_that_takes_no_write_is_a_problem_and_observers_are_told_once(self) -> None:
        async def main() -> None:
            seen: list[object] = []
            backend = _Broken()
            scheduler = Scheduler(
                backend, clock=FakeClock(), handler=RecordingHandler(), observers=[seen.append]
            )
            async with scheduler:
                assert (await scheduler.health()).healthy
                backend.fails = "check"
                for _ in range(3):
                    health = await scheduler.health()
                    assert health.problems == ("backend: BackendUnavailable: the disk is full",)
                backend.fails = ""
                assert (await scheduler.health()).healthy
            changes = [change for change in seen if isinstance(change, HealthChange)]
            assert [change.healthy for change in changes] == [False, True]
            assert "the disk is full" in changes[0].problems[0]

        anyio.run(main)

    def test_running_and_stalled_are_told_apart(self) -> None:
        async def main() -> None:
            clock = FakeClock()
            scheduler = Scheduler(MemoryBackend(), clock=clock, handler=RecordingHandler())
            async with scheduler, anyio.create_task_group() as tasks:
                tasks.start_soon(scheduler.run_forever)
                await scheduler.wait_until_running()
                assert scheduler.is_running
                await anyio.wait_all_tasks_blocked()
                assert (await scheduler.health()).running
                clock.advance(minutes=1)
                stalled = await scheduler.health()
                assert not stalled.healthy
                assert "has not looked for work" in stalled.problems[0]
                await anyio.wait_all_tasks_blocked()
                assert (await scheduler.health()).healthy
                await scheduler.stop()
                assert not scheduler.is_running

        anyio.run(main)


class TestRetention:
    def test_submitted_jobs_go_when_their_time_has_come_and_declared_ones_stay(
        self, open_store: Open
    ) -> None:
        async def body(world: World) -> None:
            keep = Policy(keep_finished=2 * DAY)
            await world.scheduler.submit_job("submitted", Once(EPOCH), policy=keep)
            await world.scheduler.ensure_job("declared", Once(EPOCH), policy=keep)
            await world.scheduler.submit_job(
                "for-ever", Once(EPOCH), policy=Policy(keep_finished=None)
            )
            assert await world.scheduler.run_due() == 3
            world.clock.advance(2 * DAY - timedelta(seconds=1))
            await world.scheduler.prune(EPOCH)
            assert await world.ids() == ["declared", "for-ever", "submitted"]
            world.clock.advance(seconds=1)
            assert await world.scheduler.prune(EPOCH) == 1
            assert await world.ids() == ["declared", "for-ever"]

        play(open_store, body)

    def test_run_due_deletes_what_has_expired_as_well(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            await world.scheduler.submit_job("a", Once(EPOCH), policy=Policy(keep_finished=DAY))
            await world.scheduler.run_due()
            world.clock.advance(3 * DAY)
            await world.scheduler.run_due()
            assert await world.ids() == []

        play(open_store, body)

    def test_run_due_looks_again_after_a_claim_that_had_to_wait(self) -> None:
        class Slow(MemoryBackend):
            waits = 3

            async def claim_due(self, room: Room) -> Claimed:
                if self.waits:
                    self.waits -= 1
                    clock.advance(self.capabilities.lease / 9)
                    return Claimed()
                return await super().claim_due(room)

        async def main() -> None:
            handler = RecordingHandler()
            async with Scheduler(Slow(), handler=handler, clock=clock) as scheduler:
                await scheduler.submit_job("a", Once(EPOCH))
                assert await scheduler.run_due() == 1
            assert handler.ids == ["a"]

        clock = FakeClock()
        anyio.run(main)

    def test_a_trigger_saves_a_job_that_was_to_be_deleted(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            await world.scheduler.submit_job("a", Once(EPOCH), policy=Policy(keep_finished=DAY))
            await world.scheduler.run_due()
            await world.scheduler.trigger_job("a")
            world.clock.advance(3 * DAY)
            await world.scheduler.prune(EPOCH)
            assert await world.scheduler.run_due() == 1
            assert len(world.handler.events) == 2

        play(open_store, body)

    def test_lines_are_kept_as_long_as_the_policy_says(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            for job_id, keep in (("day", DAY), ("ever", None)):
                await world.scheduler.ensure_job(
                    job_id, Once(EPOCH), policy=Policy(keep_executions=keep)
                )
            await world.scheduler.run_due()
            world.clock.advance(DAY - timedelta(seconds=1))
            assert await world.scheduler.prune(EPOCH) == 0
            world.clock.advance(seconds=1)
            assert await world.scheduler.prune(EPOCH) == 1
            assert [execution.job_id for execution in await world.executions()] == ["ever"]

        play(open_store, body)

    def test_prune_deletes_lines_that_ended_before_the_moment(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            await world.scheduler.ensure_job("a", HOURLY)
            for _ in range(5):
                world.clock.advance(HOUR)
                await world.scheduler.run_due()
            assert await world.scheduler.prune(EPOCH + 3 * HOUR) == 2
            assert [execution.number for execution in await world.executions()] == [5, 4, 3]
            assert await world.ids() == ["a"]

        play(open_store, body)

    def test_no_occurrence_runs_twice_because_its_line_was_pruned(self, open_store: Open) -> None:
        async def body(world: World) -> None:
            await world.scheduler.ensure_job("a", Once(EPOCH))
            await world.scheduler.run_due()
            await world.scheduler.prune(EPOCH + DAY)
            world.clock.advance(DAY)
            assert await world.scheduler.run_due() == 0
            await world.scheduler.trigger_job("a")
            assert await world.scheduler.run_due() == 1
            assert [event.key[-2:] for event in world.handler.events] == [":1", ":2"]

        play(open_store, body)


class _Moody:
    """A third party's schedule that breaks after its first occurrence."""

    def first(self, anchor: datetime) -> datetime | None:
        return anchor + HOUR

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        raise RuntimeError("moody")


def test_a_schedule_that_raises_stops_no_other_job(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        clock, handler = FakeClock(), RecordingHandler()
        async with Scheduler(MemoryBackend(), clock=clock, handler=handler) as scheduler:
            await scheduler.submit_job("moody", _Moody())
            await scheduler.submit_job("good", Cron("0 * * * *"))
            for hour in range(1, 6):
                clock.jump(EPOCH + hour * HOUR)
                await scheduler.run_due()
            assert handler.ids.count("good") == 5
            health = await scheduler.health()
            assert not health.healthy
            assert "moody" in " ".join(health.problems)
            executions = [execution async for execution in scheduler.list_executions("good")]
            assert len(executions) == 5

    anyio.run(main)
    assert "moody" in caplog.text
