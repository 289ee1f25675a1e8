"""Verbs that operate runs: cancel, retry, skip, trigger, rerun, backfill; on every local store."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from attrs import evolve
from tests.core.backends import KINDS, LEASE, Open, fresh_store
from tests.core.running import run, running, until, wait_for_executions

from sched_core import (
    CatchUp,
    Cron,
    Drop,
    Execution,
    ExecutionNotFound,
    ExecutionQuery,
    FixedDelay,
    Interval,
    InvalidDefinition,
    JobEvent,
    JobNotFound,
    JobQuery,
    JobSpec,
    Kind,
    MemoryBackend,
    NothingToCancel,
    NothingToRetry,
    NothingToSkip,
    Once,
    Policy,
    Request,
    Retry,
    Room,
    Scheduler,
    Status,
    TooManyRequests,
)
from sched_core.codec import decode_moments, encode_moments
from sched_core.testing import EPOCH, FakeClock, history

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
HOURLY = Interval(hours=1)
RETRY = Policy(retry=Retry(attempts=3, backoff=10 * MINUTE))
FAILED = ExecutionQuery(statuses=frozenset({Status.FAILED}))


NAIVE = EPOCH.replace(tzinfo=None)


class World:
    """A scheduler on a fresh store, whose handler fails for the jobs and moments named."""

    def __init__(self, open_store: Open) -> None:
        self.clock = FakeClock()
        self.events: list[JobEvent] = []
        self.fails: Callable[[JobEvent], bool] = lambda event: False
        self.open_store = open_store
        self.scheduler = Scheduler(open_store(), handler=self.handle, clock=self.clock)

    async def handle(self, event: JobEvent) -> None:
        self.events.append(event)
        if self.fails(event):
            raise ValueError("no")

    async def told(self, job_id: str = "a") -> list[tuple[str, int, str, str | None, str | None]]:
        """Return kind, attempt, status, reason and actor of each execution, oldest first."""
        return [
            (each.kind.value, each.attempt, each.status.value, each.reason, each.actor)
            for each in reversed(await history(self.scheduler, job_id))
        ]

    async def advance(self, by: timedelta) -> None:
        self.clock.advance(by)
        await self.scheduler.run_due()

    def moments(self) -> list[float]:
        """Return for which hours the handler was called, and forget that."""
        found = [(event.scheduled_at - EPOCH) / HOUR for event in self.events]
        self.events.clear()
        return found


Body = Callable[[World], Awaitable[None]]


@pytest.fixture(params=KINDS)
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Body], None]:
    def play(body: Body) -> None:
        async def main() -> None:
            world = World(fresh_store(request.param, tmp_path))
            async with world.scheduler:
                await body(world)

        anyio.run(main)

    return play


Play = Callable[[Body], None]


class TestCancel:
    def test_what_waits_for_its_moment_ends_at_once(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            job = await scheduler.ensure_job("a", HOURLY)
            key = await scheduler.cancel_run(f"{job.uid}:1", reason="not today", actor="ann")
            assert key == f"{job.uid}:1"
            again = await scheduler.cancel_run(key, reason="later", actor="bob")
            assert again == key
            assert await scheduler.run_due() == 0
            assert await world.told() == [("scheduled", 0, "cancelled", "not today", "ann")]
            job = await scheduler.get_job("a")
            assert (job.standing.cancels, job.next_run) == ((), EPOCH + 2 * HOUR)
            with pytest.raises(NothingToCancel, match="has ended"):
                await scheduler.cancel_run(key)

        play(body)

    def test_what_waits_for_a_retry_has_no_further_attempt(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler, world.fails = world.scheduler, lambda event: True
            await scheduler.ensure_job("a", HOURLY, policy=RETRY)
            await world.advance(HOUR)
            assert await scheduler.cancel_run(world.events[0].key) == world.events[0].key
            await scheduler.run_due()
            assert [each[:3] for each in await world.told()] == [
                ("scheduled", 1, "failed"),
                ("scheduled", 0, "cancelled"),
            ]
            assert (await world.told())[-1][3:] == ("cancelled", None)

        play(body)

    def test_inside_a_pause_it_ends_at_once_and_the_pause_goes_on(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a", HOURLY)
            key = await scheduler.trigger_job("a", actor="ann")
            job = await scheduler.pause_job("a", reason="r", actor="bob")
            assert job.standing.pause is not None
            assert (job.standing.pause.reason, job.standing.pause.actor) == ("r", "bob")
            await scheduler.cancel_run(key, job_id="a", actor="cleo")
            assert await scheduler.run_due() == 0
            assert await world.told() == [("triggered", 0, "cancelled", "cancelled", "cleo")]
            assert (await scheduler.get_job("a")).standing.pause == job.standing.pause

        play(body)

    def test_by_the_id_of_a_job_only_what_is_held_is_cancelled(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            job = await scheduler.ensure_job("a", HOURLY)
            with pytest.raises(NothingToCancel, match="'a' is not running: give the key"):
                await scheduler.cancel_run(job_id="a")
            other = world.open_store()
            await other.open(world.clock, worker="other")
            world.clock.advance(HOUR)
            (claim,) = (await other.claim_due(Room(1))).claims
            assert await scheduler.cancel_run(job_id="a", reason="why") == f"{job.uid}:1"
            await other.release([claim])
            await scheduler.run_due()
            assert await world.told() == [("scheduled", 0, "cancelled", "why", None)]
            await other.close()

        play(body)

    def test_the_mark_of_what_was_lost_ends_it_without_a_wait(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a", HOURLY)
            other = world.open_store()
            await other.open(world.clock, worker="other")
            world.clock.advance(HOUR)
            assert (await other.claim_due(Room(1))).claims
            await scheduler.cancel_run(job_id="a", actor="ann")
            await world.advance(LEASE)
            assert [each[2:] for each in await world.told()] == [
                ("abandoned", None, None),
                ("cancelled", "cancelled", "ann"),
            ]
            await other.close()

        play(body)

    def test_what_is_gone_is_told(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            job = await scheduler.submit_job("a", Once(EPOCH))
            await scheduler.run_due()
            for given in ({"key": f"{job.uid}:1"}, {"key": f"{job.uid}:1", "job_id": "a"}):
                with pytest.raises(NothingToCancel) as caught:
                    await scheduler.cancel_run(**given)
                assert caught.value.key == f"{job.uid}:1"
                assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
            await scheduler.remove_job("a")
            with pytest.raises(NothingToCancel, match="or its job was removed"):
                await scheduler.cancel_run(f"{job.uid}:1")
            with pytest.raises(JobNotFound):
                await scheduler.cancel_run(job_id="a")
            await scheduler.ensure_job("a", HOURLY)
            with pytest.raises(NothingToCancel):  # the number of another incarnation
                await scheduler.cancel_run(f"{job.uid}:1", job_id="a")
            assert (await scheduler.get_job("a")).standing.cancels == ()

        play(body)

    @pytest.mark.parametrize("bad", ["", "a", "a:", ":1", "a:b", "a:-1", "a:1\n", "a:\u0661", 7])
    def test_what_is_no_key_is_refused(self, bad: Any) -> None:
        async def main() -> None:
            async with Scheduler(MemoryBackend()) as scheduler:
                for call in (scheduler.cancel_run, scheduler.retry_now):
                    with pytest.raises(InvalidDefinition, match=r"^key: "):
                        await call(bad)

        anyio.run(main)

    def test_other_bad_arguments_are_refused_by_name(self) -> None:
        async def main() -> None:
            async with Scheduler(MemoryBackend(), clock=FakeClock()) as scheduler:
                job = await scheduler.ensure_job("a", HOURLY)
                key, bad = f"{job.uid}:1", cast("Any", 7)
                for field, call in {
                    "key": scheduler.cancel_run,
                    "reason": lambda: scheduler.cancel_run(key, reason=bad),
                    "actor": lambda: scheduler.cancel_run(key, actor=""),
                    "args": lambda: scheduler.trigger_job("a", args={"a": bad}),
                    "request_key": lambda: scheduler.trigger_job("a", request_key="\n"),
                    "moment": lambda: scheduler.skip_next("a", moment=NAIVE),
                    "execution_id": lambda: scheduler.rerun("u:1"),
                    "query": lambda: scheduler.rerun_all(ExecutionQuery(job_id="a")),
                    "only": lambda: scheduler.backfill_job("a", EPOCH, EPOCH, only=bad),
                    "start": lambda: scheduler.backfill_job("a", EPOCH + HOUR, EPOCH),
                    "end": lambda: scheduler.backfill_job("a", EPOCH, NAIVE),
                }.items():
                    with pytest.raises(InvalidDefinition) as caught:
                        await call()  # type: ignore[no-untyped-call]
                    assert caught.value.field == field
                assert await scheduler.get_job("a") == job, "a refused call has changed the job"

        anyio.run(main)

    def test_a_run_in_this_process_is_told_at_once(self, loop: str) -> None:
        clock, told = FakeClock(), list[str]()

        async def handler(event: JobEvent) -> None:
            told.append("begun")
            try:
                await anyio.sleep_forever()
            finally:
                told.append("cancelled" if event.cancelled else "lost")

        async def main() -> None:
            async with running(MemoryBackend(lease=LEASE), handler, clock=clock) as scheduler:
                await scheduler.submit_job("a", Once(EPOCH), policy=RETRY)
                await until(lambda: told)
                key = await scheduler.cancel_run(job_id="a", reason="why", actor="ann")
                (execution,) = await wait_for_executions(scheduler, 1)
                assert (execution.status, execution.final) == (Status.CANCELLED, True)
                assert (execution.reason, execution.actor) == ("why", "ann")
                assert execution.id == f"{key}:1"
                assert told == ["begun", "cancelled"]
                assert (await scheduler.get_job("a")).standing.cancels == ()

        run(loop, main)

    def test_a_removal_may_cancel_the_run(self, loop: str) -> None:
        clock, told = FakeClock(), list[str]()

        async def handler(event: JobEvent) -> None:
            told.append(event.id)
            try:
                await anyio.sleep_forever()
            finally:
                told.append(f"{event.id} cancelled")

        async def main() -> None:
            async with running(MemoryBackend(lease=LEASE), handler, clock=clock) as scheduler:
                for job_id, reason, why in (
                    ("a", None, "cancelled: its job was removed"),
                    ("b", "why", "why"),
                ):
                    await scheduler.ensure_job(job_id, Interval(hours=1, start=clock.now()))
                    await until(lambda: told)
                    await scheduler.remove_job(job_id, cancel=True, reason=reason, actor="ann")
                    (execution,) = await wait_for_executions(scheduler, 1, job_id)
                    assert (execution.status, execution.attempt) == (Status.CANCELLED, 1)
                    assert (execution.reason, execution.actor) == (why, "ann")
                    assert told == [job_id, f"{job_id} cancelled"]
                    told.clear()

        run(loop, main)

    def test_a_removal_says_who_ended_what_was_due(self, play: Play) -> None:
        async def body(world: World) -> None:
            await world.scheduler.ensure_job("a", HOURLY)
            await world.scheduler.trigger_job("a", actor="ann")
            world.clock.advance(2 * HOUR)
            await world.scheduler.remove_job("a", cancel=True, actor="bob")
            assert {each[2:] for each in await world.told()} == {
                ("superseded", "edited or removed", "bob")
            }

        play(body)

    def test_what_an_edit_took_away_can_be_cancelled_with_the_job(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a", Cron("0 * * * *"))
            other = world.open_store()
            await other.open(world.clock, worker="other")
            world.clock.advance(HOUR)
            assert (await other.claim_due(Room(1))).claims
            await scheduler.update_job("a", Cron("30 * * * *"))
            await scheduler.remove_job("a", cancel=True, actor="ann")
            await world.advance(LEASE)
            assert [each[2:] for each in await world.told()] == [
                ("abandoned", None, None),
                ("cancelled", "cancelled: its job was removed", "ann"),
            ]
            await other.close()

        play(body)


class TestRetryNow:
    def test_an_attempt_is_made_at_once_and_says_who_asked(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler, world.fails = world.scheduler, lambda event: event.attempt == 1
            await scheduler.ensure_job("a", HOURLY, policy=RETRY)
            await world.advance(HOUR)
            key = world.events[0].key
            for _ in range(2):  # a second call changes nothing
                job = await scheduler.retry_now(key, actor="ann")
                assert job.standing.due_at == world.clock.now()
            await scheduler.run_due()
            assert [each[2:] for each in await world.told()] == [
                ("failed", "ValueError: no", None),
                ("succeeded", None, "ann"),
            ]
            with pytest.raises(NothingToRetry, match="trigger_job"):
                await scheduler.retry_now(key)

        play(body)

    def test_by_the_id_of_a_job_everything_that_waits(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler, world.fails = world.scheduler, lambda event: event.attempt == 1
            await scheduler.ensure_job("a", HOURLY, policy=RETRY)
            with pytest.raises(NothingToRetry, match="nothing of job 'a' waits"):
                await scheduler.retry_now(job_id="a")
            await world.advance(HOUR)
            await scheduler.trigger_job("a")
            await scheduler.run_due()
            await scheduler.retry_now(job_id="a")
            assert await scheduler.run_due() == 2

        play(body)

    def test_a_pause_holds_it(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler, world.fails = world.scheduler, lambda event: event.attempt == 1
            await scheduler.ensure_job("a", HOURLY, policy=RETRY)
            await world.advance(HOUR)
            await scheduler.pause_job("a")
            await scheduler.retry_now(job_id="a")
            assert await scheduler.run_due() == 0
            await scheduler.resume_job("a", actor="ann")
            assert await scheduler.run_due() == 1

        play(body)


class TestSkip:
    def test_the_moment_given_is_skipped_and_says_by_whom(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a", HOURLY)
            wanted = EPOCH + 2 * HOUR
            for _ in range(2):
                job = await scheduler.skip_next("a", moment=wanted, actor="ann")
                assert (job.standing.skip, job.standing.skip_actor) == (wanted, "ann")
            await world.advance(HOUR)
            job = await scheduler.get_job("a")
            assert (job.standing.skip, job.standing.skip_actor) == (wanted, "ann")
            await world.advance(HOUR)
            assert [each[2:] for each in await world.told()] == [
                ("succeeded", None, None),
                ("skipped", None, "ann"),
            ]
            job = await scheduler.get_job("a")
            assert (job.standing.skip, job.standing.skip_actor) == (None, None)

        play(body)

    @pytest.mark.parametrize("wanted", [EPOCH, EPOCH + HOUR, EPOCH + 2.5 * HOUR])
    def test_a_moment_that_has_passed_or_is_none_skips_no_other(
        self, play: Play, wanted: datetime
    ) -> None:
        async def body(world: World) -> None:
            job = await world.scheduler.ensure_job("a", HOURLY)
            world.clock.advance(HOUR)
            with pytest.raises(NothingToSkip, match="at 2026-01-01T0") as caught:
                await world.scheduler.skip_next("a", moment=wanted)
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
            assert await world.scheduler.get_job("a") == job

        play(body)

    def test_a_fixed_delay_knows_its_next_moment_alone(self, play: Play) -> None:
        async def body(world: World) -> None:
            await world.scheduler.ensure_job("a", FixedDelay(hours=1))
            next_run = (await world.scheduler.get_job("a")).next_run
            assert next_run is not None
            with pytest.raises(NothingToSkip):
                await world.scheduler.skip_next("a", moment=next_run + HOUR)
            await world.scheduler.skip_next("a", moment=next_run)
            assert (await world.scheduler.unskip("a", actor="ann")).standing.skip is None

        play(body)


class TestTrigger:
    def test_the_handler_gets_the_arguments_and_the_history_keeps_them(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler, world.fails = world.scheduler, lambda event: event.attempt == 1
            await scheduler.ensure_job("a", HOURLY, policy=RETRY)
            given = {"day": "2026-01-01", "": "ü"}
            key = await scheduler.trigger_job("a", args=given, actor="ann")
            await scheduler.run_due()
            await world.advance(10 * MINUTE)
            assert [(event.key, dict(event.args)) for event in world.events] == [(key, given)] * 2
            with pytest.raises(TypeError, match="read-only"):
                world.events[0].args["day"] = "x"  # type: ignore[index]
            found = await history(scheduler, "a")
            assert [(each.args, each.actor) for each in found] == [(given, "ann")] * 2
            await world.advance(HOUR)
            assert world.events[-1].args == {}

        play(body)

    def test_the_same_key_is_the_same_request_until_it_has_ended(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a", HOURLY)
            key = await scheduler.trigger_job("a", request_key="k", args={"a": "1"})
            assert await scheduler.trigger_job("a", request_key="k", args={"a": "2"}) == key
            other = await scheduler.trigger_job("a", request_key="l")
            plain = await scheduler.trigger_job("a")
            assert len({key, other, plain}) == 3
            assert await scheduler.trigger_job("a") == plain
            assert await scheduler.trigger_job("a", args={"a": "1"}) not in {key, plain}
            assert await scheduler.run_due() == 4
            assert await scheduler.trigger_job("a", request_key="k") != key

        play(body)

    def test_so_many_requests_wait_and_no_more(self, play: Play) -> None:
        async def body(world: World) -> None:
            await world.scheduler.ensure_job("a", HOURLY)
            for number in range(16):
                await world.scheduler.trigger_job("a", request_key=str(number))
            with pytest.raises(TooManyRequests, match="16 requests of job 'a' wait already"):
                await world.scheduler.trigger_job("a", request_key="more")
            assert await world.scheduler.run_due() == 16

        play(body)


class TestRerun:
    def test_it_has_the_moment_and_the_arguments_of_what_it_repeats(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a", HOURLY)
            await scheduler.trigger_job("a", args={"a": "1"}, actor="ann")
            await scheduler.run_due()
            (first,) = await history(scheduler, "a")
            world.clock.advance(MINUTE)
            key = await scheduler.rerun(first.id, actor="bob")
            assert await scheduler.rerun(first.id, actor="cleo") == key
            await scheduler.run_due()
            event, execution = world.events[-1], (await history(scheduler, "a"))[0]
            assert (event.key, event.args, event.kind) == (key, {"a": "1"}, Kind.RERUN)
            assert event.scheduled_at == first.scheduled_at
            assert (execution.args, execution.actor) == ({"a": "1"}, "bob")
            assert await scheduler.rerun(first.id) != key

        play(body)

    def test_what_has_not_ended_or_is_unknown_is_refused(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler, world.fails = world.scheduler, lambda event: True
            job = await scheduler.ensure_job("a", HOURLY, policy=RETRY)
            await world.advance(HOUR)
            (first,) = await history(scheduler, "a")
            with pytest.raises(InvalidDefinition, match="retry_now"):
                await scheduler.rerun(first.id)
            for unknown in (f"{job.uid}:1:7", "nobody:1:1"):
                with pytest.raises(ExecutionNotFound, match="list_executions") as caught:
                    await scheduler.rerun(unknown)
                assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
            await scheduler.remove_job("a")
            with pytest.raises(ExecutionNotFound):
                await scheduler.rerun(first.id)

        play(body)

    def test_a_paused_job_and_a_finished_one_run_again(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.submit_job("a", Once(EPOCH))
            await scheduler.run_due()
            (first,) = await history(scheduler, "a")
            await scheduler.rerun(first.id)
            assert await scheduler.run_due() == 1
            await scheduler.ensure_job("b", HOURLY)
            await world.advance(HOUR)
            (first,) = await history(scheduler, "b")
            await scheduler.pause_job("b")
            await scheduler.rerun(first.id)
            assert await scheduler.run_due() == 1

        play(body)


class TestRerunAll:
    def test_all_moments_of_a_job_are_one_request_in_order(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            world.fails = lambda event: event.kind is Kind.SCHEDULED
            for job_id in ("a", "b"):
                await scheduler.ensure_job(job_id, HOURLY)
            for _ in range(4):
                await world.advance(HOUR)
            world.moments()
            planned = await scheduler.rerun_all(FAILED, dry_run=True)
            times = (4, EPOCH + HOUR, EPOCH + 4 * HOUR)
            assert sorted((each.job_id, each.key) for each in planned) == [("a", None), ("b", None)]
            assert {(each.moments, each.first, each.last) for each in planned} == {times}
            assert not (await scheduler.get_job("a")).standing.requests
            asked = await scheduler.rerun_all(FAILED, actor="ann")
            assert await scheduler.rerun_all(FAILED) == asked, "the same is asked for twice"
            job = await scheduler.get_job("a")
            (one,) = job.standing.requests
            assert {each.key for each in asked} >= {f"{job.uid}:{one.number}"}
            assert await scheduler.run_due() == 8
            assert sorted(world.moments()) == [1, 1, 2, 2, 3, 3, 4, 4]
            runs = [each for each in await world.told() if each[0] == "rerun"]
            assert runs == [("rerun", 1, "succeeded", None, "ann")] * 4
            assert await scheduler.rerun_all(FAILED) == [], "what has succeeded since is repeated"

        play(body)

    def test_what_is_under_way_is_not_asked_for_a_second_time(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            world.fails = lambda event: event.kind is Kind.SCHEDULED
            await scheduler.ensure_job("a", HOURLY)
            for _ in range(2):
                await world.advance(HOUR)
            query = ExecutionQuery(job_id="a", statuses=FAILED.statuses)
            (first,) = await scheduler.rerun_all(query)
            await scheduler.pause_job("a")
            await scheduler.resume_job("a")
            clock = world.clock
            other = world.open_store()
            await other.open(clock, worker="other")
            (claim,) = (await other.claim_due(Room(1))).claims
            assert await scheduler.rerun_all(query) == [first]
            await other.release([claim])
            await other.close()
            assert await scheduler.run_due() == 2

        play(body)

    def test_different_arguments_are_different_requests(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            world.fails = lambda event: event.kind is Kind.TRIGGERED
            await scheduler.ensure_job("a", HOURLY)
            for number in ("1", "2", "1"):
                await scheduler.trigger_job("a", args={"a": number})
                await scheduler.run_due()
                world.clock.advance(MINUTE)
            asked = await scheduler.rerun_all(FAILED)
            assert sorted(each.moments for each in asked) == [1, 2]
            world.events.clear()
            assert await scheduler.run_due() == 3
            assert sorted(event.args["a"] for event in world.events) == ["1", "1", "2"]

        play(body)

    def test_cancelling_its_key_ends_all_that_is_left(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            world.fails = lambda event: event.kind is Kind.SCHEDULED
            await scheduler.ensure_job("a", HOURLY)
            for _ in range(5):
                await world.advance(HOUR)
            (asked,) = await scheduler.rerun_all(FAILED)
            assert asked.key is not None
            other = world.open_store()
            await other.open(world.clock, worker="other")
            clock, handled = world.clock, world.events
            handled.clear()
            async with Scheduler(world.open_store(), handler=world.handle, clock=clock) as second:

                async def stops(event: JobEvent) -> None:
                    await world.handle(event)
                    if len(handled) == 2:
                        await second.cancel_run(asked.key, reason="enough", actor="ann")

                second.set_handler(stops)
                await second.run_due()
            assert world.moments() == [1, 2]
            found = [each for each in await history(scheduler, "a") if each.kind is Kind.RERUN]
            assert [(each.status.value, each.coalesced) for each in found[::-1]] == [
                ("succeeded", 0),
                ("cancelled", 3),
            ]
            assert found[0].coalesced_until == EPOCH + 5 * HOUR
            assert not (await scheduler.get_job("a")).standing.requests
            await other.close()

        play(body)

    def test_too_many_moments_are_refused_and_a_thousand_come_back(self, play: Play) -> None:
        moments = [EPOCH - 7 * n * n * MINUTE - n * timedelta(microseconds=1) for n in range(1000)]

        async def body(world: World) -> None:
            scheduler = world.scheduler
            job = await scheduler.ensure_job("a", HOURLY)
            template = Execution(
                f"{job.uid}:0:1",
                *("a", job.uid, 0, 1, Kind.SCHEDULED, EPOCH, Status.FAILED, True, 0, "w"),
                *(EPOCH, None, EPOCH),
            )
            await scheduler.backend.replace(
                job,
                [
                    evolve(template, id=f"{job.uid}:{n}:1", number=n, scheduled_at=moment)
                    for n, moment in enumerate(moments, 5)
                ],
            )
            (asked,) = await scheduler.rerun_all(FAILED)
            assert (asked.moments, asked.first) == (1000, moments[-1])
            (one,) = (await scheduler.get_job("a")).standing.requests
            assert (one.scheduled_at, *one.moments) == tuple(sorted(moments))

        play(body)


class TestBackfill:
    def test_a_range_is_one_request_and_can_be_looked_at_first(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a", Cron("0 * * * *"))
            start, end = EPOCH - 3 * HOUR, EPOCH
            planned = await scheduler.backfill_job("a", start, end, dry_run=True)
            assert planned == Request("a", None, 4, start, end)
            assert not (await scheduler.get_job("a")).standing.requests
            asked = await scheduler.backfill_job("a", start, end, actor="ann")
            assert asked is not None
            assert asked.key is not None
            assert (asked.moments, asked.first, asked.last) == (4, start, end)
            assert await scheduler.backfill_job("a", start, end) == asked
            assert await scheduler.run_due() == 4
            assert world.moments() == [-3, -2, -1, 0]
            assert {each[4] for each in await world.told()} == {"ann"}
            again = await scheduler.backfill_job("a", start, end)
            assert again is not None
            assert again.key != asked.key

        play(body)

    def test_only_what_was_missed(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a", HOURLY, policy=Policy(misfire=Drop(MINUTE)))
            await world.advance(HOUR)
            await world.advance(4 * HOUR + 2 * MINUTE)  # 2 to 5 are missed
            await world.advance(58 * MINUTE)
            assert world.moments() == [1, 6]
            day = (EPOCH + 3 * HOUR, EPOCH + 6 * HOUR)
            asked = await scheduler.backfill_job("a", *day, only="missed")
            assert asked is not None
            assert (asked.moments, asked.first, asked.last) == (3, day[0], EPOCH + 5 * HOUR)
            assert await scheduler.backfill_job("a", *day, only="missed") == asked
            await scheduler.run_due()
            assert world.moments() == [3, 4, 5]
            assert await scheduler.backfill_job("a", *day, only="missed") is None
            rest = await scheduler.backfill_job("a", EPOCH, day[1], only="missed", dry_run=True)
            assert rest == Request("a", None, 1, EPOCH + 2 * HOUR, EPOCH + 2 * HOUR)

        play(body)

    def test_only_what_failed_and_not_what_a_trigger_did(self, play: Play) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            world.fails = lambda event: event.kind in {Kind.SCHEDULED, Kind.TRIGGERED}
            await scheduler.ensure_job("a", HOURLY, policy=Policy(misfire=CatchUp(limit=9)))
            await world.advance(3 * HOUR)
            await scheduler.trigger_job("a")
            await world.advance(MINUTE)
            world.moments()
            now = world.clock.now()
            asked = await scheduler.backfill_job("a", EPOCH + 2 * HOUR, now, only="failed")
            assert asked is not None
            await scheduler.run_due()
            assert world.moments() == [2, 3]
            assert await scheduler.backfill_job("a", EPOCH + 2 * HOUR, now, only="failed") is None

        play(body)

    @pytest.mark.parametrize("only", [None, "failed"])
    def test_a_range_without_a_moment_is_refused(self, play: Play, only: Any) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            await scheduler.ensure_job("a", HOURLY)
            await scheduler.ensure_job("b", FixedDelay(hours=1))
            for job_id, end in (("a", HOUR), ("a", -HOUR), ("b", 0 * HOUR)):
                with pytest.raises(InvalidDefinition, match="start") as caught:
                    await scheduler.backfill_job(job_id, EPOCH - 2 * HOUR, EPOCH + end, only=only)
                assert caught.value.field == "start"
            with pytest.raises(JobNotFound):
                await scheduler.backfill_job("c", EPOCH - HOUR, EPOCH, only=only)

        play(body)


def test_jobs_can_be_listed_by_their_incarnation(play: Play) -> None:
    async def body(world: World) -> None:
        jobs = [await world.scheduler.ensure_job(name, HOURLY) for name in ("a", "b", "c")]
        found = [job async for job in world.scheduler.list_jobs(JobQuery(uid=jobs[1].uid))]
        assert found == [jobs[1]]
        assert [job async for job in world.scheduler.list_jobs(JobQuery(uid="x"))] == []

    play(body)


def test_moments_are_stored_in_a_few_bytes() -> None:
    hours = tuple(EPOCH + n * HOUR for n in range(10_000))
    assert len(encode_moments(hours)) < 100
    sparse = tuple(EPOCH + n * (n + 1) // 2 * HOUR for n in range(500))
    odd = (EPOCH, EPOCH, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))
    for moments in (hours, sparse, odd, odd[:1], ()):
        assert decode_moments(encode_moments(moments)) == moments
    for bad in (7, "x", "2026-01-01T00:00:00Z 1 1*10000", "2026-01-01T00:00:00Z 1", "a b c d"):
        with pytest.raises(ValueError):
            decode_moments(bad)


class TestWhoDefinesJobs:
    def test_a_job_says_who_wrote_it_and_what_changes_nothing_names_no_one(
        self, play: Play
    ) -> None:
        async def body(world: World) -> None:
            scheduler = world.scheduler
            assert (await scheduler.ensure_job("a", HOURLY, actor="ann")).actor == "ann"
            assert (await scheduler.ensure_job("a", HOURLY, actor="bob")).actor == "ann"
            assert (await scheduler.pause_job("a", actor="bob")).actor == "ann"
            await scheduler.resume_job("a")
            job = await scheduler.update_job("a", metadata={"a": "1"}, actor="cleo")
            assert (job.actor, (await scheduler.get_job("a")).actor) == ("cleo", "cleo")
            await world.advance(HOUR)
            assert (await scheduler.get_job("a")).actor == "cleo", "a run has forgotten it"
            assert (await scheduler.update_job("a", metadata={})).actor is None
            submitted = await scheduler.submit_jobs([JobSpec("b", HOURLY)], actor="dan")
            assert [each.actor for each in submitted] == ["dan"]
            specs = [JobSpec("c", HOURLY, group="g"), JobSpec("d", HOURLY, group="g")]
            await scheduler.sync_jobs(specs, group="g", actor="eve")
            assert [(await scheduler.get_job(each)).actor for each in ("c", "d")] == ["eve"] * 2
            await scheduler.sync_jobs([evolve(specs[0], name="n")], group="g", actor="fay")
            assert (await scheduler.get_job("c")).actor == "fay"

        play(body)

    def test_what_is_declared_before_the_opening_says_it_too(self) -> None:
        async def main() -> None:
            scheduler = Scheduler(MemoryBackend(), clock=FakeClock())
            assert (await scheduler.ensure_job("a", HOURLY, actor="ann")).actor == "ann"
            await scheduler.submit_job("b", HOURLY, actor="bob")
            async with scheduler:
                for job_id, actor in (("a", "ann"), ("b", "bob")):
                    assert (await scheduler.get_job(job_id)).actor == actor

        anyio.run(main)
