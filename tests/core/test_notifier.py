"""Notifiers on a real scheduler: what is told, once or more, in order, by one worker."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve
from tests.core.notified import Told, told_of_all
from tests.core.running import Make, run, running, until
from tests.wrappers import HandsOn

from sched_core import (
    CursorExpired,
    Drop,
    Execution,
    Interval,
    InvalidDefinition,
    JobEvent,
    JobRouter,
    JobSpec,
    MemoryBackend,
    MemoryStore,
    Once,
    Policy,
    Retry,
    Scheduler,
    SchedulerNotStarted,
    Status,
)
from sched_core._service.reserved import reserved_id
from sched_core.contrib.notify import Notice, Notifier, Refused, Webhook
from sched_core.contrib.notify import notifier as module
from sched_core.scheduler import running_scheduler
from sched_core.testing import FakeClock, history

MINUTE = timedelta(minutes=1)


class World:
    """A scheduler on a clock of its own, with one job that fails as long as the test says so."""

    def __init__(
        self, backend: Any, sink: Any, *, policy: Policy | None = None, **options: Any
    ) -> None:
        self.clock = FakeClock()
        self.fails: set[str] = set()
        self.router = JobRouter()
        self.policy = policy
        self.notifier = Notifier("ops", sink, **options)
        self.notifier.declare(self.router)
        self.scheduler = Scheduler(backend, handler=self.router, clock=self.clock)

    def job(self, id: str) -> None:
        @self.router.job(id, Interval(minutes=1), policy=self.policy)
        async def work(event: JobEvent) -> None:
            if event.id in self.fails:
                raise ValueError("broken")

    async def pass_by(self, by: timedelta = MINUTE) -> None:
        """Let time pass in steps in which the notifier looks."""
        end = self.clock.now() + by
        while self.clock.now() < end:
            self.clock.advance(min(timedelta(seconds=10), end - self.clock.now()))
            await self.scheduler.run_due()


def test_failures_and_recoveries_are_told_in_order_and_each_once(make: Make, loop: str) -> None:
    async def main() -> None:
        told = Told()
        world = World(make(), told)
        world.job("backup")
        world.fails.add("backup")
        async with world.scheduler:
            await world.pass_by(3 * MINUTE)
            world.fails.clear()
            await world.pass_by(3 * MINUTE)
            executions = {one.id: one for one in await history(world.scheduler, "backup")}
        failed, recovered = ("failed", "backup"), ("recovered", "backup")
        assert told.said in ([failed, failed, failed, recovered], [failed, failed, recovered])
        assert len({one.id for one in told.notices}) == len(told.notices)
        for one in told.notices:
            execution = executions[one.execution_id or ""]
            assert one.id == f"{one.kind}:{execution.id}"
            assert one.key == f"{execution.uid}:{execution.number}"
            assert (one.scheduled_at, one.at) == (execution.scheduled_at, execution.finished_at)
            assert (one.reason, one.worker) == (execution.reason, execution.worker)
            assert one.text.startswith("backup ")
        assert "ValueError: broken" in told.notices[0].text

    run(loop, main)


def test_it_begins_with_what_is_written_from_its_first_run_on(make: Make) -> None:
    async def main() -> None:
        backend, clock, told = make(), FakeClock(), Told()

        async def fails(event: JobEvent) -> None:
            raise ValueError

        async with Scheduler(backend, handler=fails, clock=clock) as scheduler:
            await scheduler.ensure_job("old", Interval(minutes=1))
            clock.advance(MINUTE)
            await scheduler.run_due()
            assert (await scheduler.counts()).executions == {Status.FAILED: 1}
        world = World(make(), told)
        world.clock.jump(clock.now())
        world.job("new")
        world.fails.add("new")
        async with world.scheduler:
            await world.pass_by(2 * MINUTE)
        assert set(told.said) == {("failed", "new")}

    run("asyncio", main)


def test_a_retry_that_follows_is_no_failure(make: Make) -> None:
    async def main() -> None:
        told = Told()
        policy = Policy(retry=Retry(attempts=3, backoff=timedelta(seconds=5)))
        world = World(make(), told, policy=policy)
        world.job("a")
        world.fails.add("a")
        async with world.scheduler:
            await world.pass_by(timedelta(seconds=90))
        assert [(one.kind, one.attempt) for one in told.notices] == [("failed", 3)]

    run("asyncio", main)


@pytest.mark.parametrize("fails", [1, 2, 5])
def test_a_sink_that_fails_gets_what_it_missed_and_no_notice_twice(make: Make, fails: int) -> None:
    async def main() -> None:
        told = Told()
        world = World(make(), told)
        for id in "abcd":
            world.job(id)
        world.fails.update("abcd")
        async with world.scheduler:
            await world.pass_by(timedelta(seconds=59))
            told.fails = fails
            await world.pass_by(timedelta(seconds=11))
            world.fails.clear()
            await world.pass_by(2 * MINUTE)
            assert told.fails == 0
            runs = await history(world.scheduler, world.notifier.specs[0].id)
        assert sorted(told.said[:4]) == [("failed", id) for id in "abcd"]
        assert sorted(told.said[4:]) == [("recovered", id) for id in "abcd"]
        assert [one.reason for one in runs if one.status is Status.FAILED] == [
            "ConnectionError: away"
        ] * fails
        assert not any(one.final for one in runs if one.status is Status.FAILED)

    run("asyncio", main)


def test_what_was_delivered_before_a_failure_is_not_delivered_again(make: Make) -> None:
    async def main() -> None:
        attempts: list[str] = []

        async def third_fails(notice: Notice) -> None:
            attempts.append(notice.job_id or "")
            if len(attempts) in {3, 4}:
                raise ConnectionError

        world = World(make(), third_fails)
        for id in "abcd":
            world.job(id)
        world.fails.update("abcd")
        async with world.scheduler:
            await world.pass_by(timedelta(seconds=110))
        third = attempts[2]
        assert attempts[2:5] == [third] * 3
        assert sorted([*attempts[:2], *attempts[4:]]) == list("abcd")

    run("asyncio", main)


def test_a_plain_function_is_a_sink_too(make: Make, loop: str) -> None:
    async def main() -> None:
        told: list[Notice] = []
        world = World(make(), told.append)
        world.job("a")
        world.fails.add("a")
        async with world.scheduler:
            await world.pass_by(timedelta(seconds=80))
        assert [one.kind for one in told] == ["failed"]

    run(loop, main)


def test_a_storm_is_summed_up_and_recovers_after_it_was_told(make: Make) -> None:
    async def main() -> None:
        told = Told()
        world = World(make(), told, most=5)
        ids = [f"job-{number:02}" for number in range(20)]
        for id in ids:
            world.job(id)
        world.fails.update(ids)
        async with world.scheduler:
            await world.pass_by(timedelta(seconds=75))
            world.fails.clear()
            await world.pass_by(timedelta(seconds=60))
        counts = [(one.kind, one.count) for one in told.notices]
        assert counts == [
            *[("failed", 1)] * 5,
            ("failed", 15),
            *[("recovered", 1)] * 5,
            ("recovered", 15),
        ]
        assert told.notices[5].job_id is None
        assert len({one.id for one in told.notices}) == 12

    run("asyncio", main)


def test_missed_and_overlapped_runs_are_told(make: Make) -> None:
    async def main() -> None:
        told = Told()
        world = World(make(), told, policy=Policy(misfire=Drop(timedelta(seconds=30))))
        world.job("late")
        async with world.scheduler:
            await world.pass_by()
            world.clock.advance(5 * MINUTE)
            await world.pass_by()
        assert told.said == [("missed", "late")]
        assert "more moments until" in told.notices[0].text

    run("asyncio", main)


def test_a_run_that_its_successor_cancels_is_told() -> None:
    async def main() -> None:
        told, store = Told(), MemoryStore()
        router = JobRouter()
        Notifier("ops", told, every=timedelta(milliseconds=100)).declare(router)

        @router.job("slow", Interval(milliseconds=300), policy=Policy(overlap="cancel"))
        async def slow(event: JobEvent) -> None:
            await anyio.sleep(60)

        async with running(MemoryBackend(store), router, grace=0):
            await until(lambda: ("overlap", "slow") in told.said)

    run("asyncio", main)


def test_a_job_that_failures_have_paused_is_told_with_the_reason(make: Make) -> None:
    async def main() -> None:
        told = Told()
        world = World(make(), told, policy=Policy(pause_after=2))
        world.job("a")
        world.fails.add("a")
        async with world.scheduler:
            await world.pass_by(5 * MINUTE)
            await world.scheduler.resume_job("a")
            await world.scheduler.pause_job("a", reason="by hand")
            await world.pass_by(2 * MINUTE)
        assert told.kinds_told == ["failed", "failed", "paused"]
        assert told.notices[2].reason == "ValueError: broken"

    run("asyncio", main)


def test_what_has_not_begun_is_told_once_and_for_its_moment(make: Make) -> None:
    async def main() -> None:
        told = Told()
        world = World(make(), told)
        async with world.scheduler:
            policy = Policy(overdue=timedelta(minutes=5))
            await world.scheduler.ensure_job("elsewhere", Interval(hours=1), policy=policy)
            await world.scheduler.ensure_job("paused", Interval(hours=1), policy=policy)
            await world.scheduler.pause_job("paused")
            moment = (await world.scheduler.get_job("elsewhere")).next_run
            await world.pass_by(timedelta(minutes=64))
            assert told.said == []
            await world.pass_by(timedelta(minutes=10))
            assert told.said == [("overdue", "elsewhere")]
            assert told.notices[0].scheduled_at == moment
            assert told.notices[0].key == told.notices[0].id.partition(":")[2]
            await world.scheduler.trigger_job("paused")
            await world.pass_by(timedelta(minutes=6))
        assert told.said == [("overdue", "elsewhere"), ("overdue", "paused")]

    run("asyncio", main)


def test_an_occurrence_that_is_cut_off_again_and_again_is_told_once(make: Make) -> None:
    async def main() -> None:
        told, clock = Told(), FakeClock()
        for _ in range(7):
            router = JobRouter()
            Notifier("ops", told, interrupted_after=2).declare(router)

            @router.job("long", Interval(minutes=1))
            async def hangs(event: JobEvent) -> None:
                await anyio.sleep_forever()

            async with (
                Scheduler(make(), handler=router, clock=clock) as scheduler,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(lambda: scheduler.run_forever(signals=False))
                await scheduler.wait_until_running()
                clock.advance(minutes=1)
                await until(lambda: scheduler.snapshot().executing)  # type: ignore[union-attr]
                await anyio.sleep(0.1)
                await scheduler.stop(0)
        assert told.said == [("interrupted", "long")]
        assert told.notices[0].text.startswith("long is cut off again and again")
        assert "3 times by now" in told.notices[0].text

    run("asyncio", main)


def test_a_part_that_was_deleted_unread_is_a_notice_and_the_rest_is_told() -> None:
    class Expired(HandsOn):
        expires = False
        expired: str | None = None

        async def follow(self, after: str | None, *, limit: int) -> Any:
            if self.expires and after:
                self.expires, self.expired = False, after
            if after and after == self.expired:
                raise CursorExpired("gone")
            return await self.backend.follow(after, limit=limit)

    async def main() -> None:
        told, backend = Told(), Expired(MemoryBackend())
        world = World(backend, told)
        world.job("a")
        world.fails.add("a")
        async with world.scheduler:
            await world.pass_by(timedelta(seconds=80))
            assert told.said == [("failed", "a")]
            backend.expires = True
            told.fails = 1
            await world.pass_by(MINUTE)
        assert told.said[1] == ("gap", None)
        assert "deleted before it had read them" in told.notices[1].text
        # From the oldest that is left: what was told before is told again, under the same id.
        assert [one.id for one in told.notices[2:3]] == [told.notices[0].id]
        assert told.said[2:] == [("failed", "a"), ("failed", "a")]

    run("asyncio", main)


def test_a_record_that_was_copied_to_another_store_is_a_gap() -> None:
    class Strange(HandsOn):
        strange = False

        async def follow(self, after: str | None, *, limit: int) -> Any:
            if self.strange and after:
                self.strange = False
                raise InvalidDefinition("after", "is no cursor of this store")
            return await self.backend.follow(after, limit=limit)

    async def main() -> None:
        told, backend = Told(), Strange(MemoryBackend())
        world = World(backend, told)
        world.job("a")
        async with world.scheduler:
            await world.pass_by()
            backend.strange = True
            await world.pass_by()
            world.fails.add("a")
            await world.pass_by(timedelta(seconds=80))
        assert told.said == [("gap", None), ("failed", "a")]

    run("asyncio", main)


def test_a_notice_that_is_refused_for_too_long_is_left_out(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        told: list[Notice] = []
        refused = 0

        async def refuses_a(notice: Notice) -> None:
            nonlocal refused
            if notice.job_id == "a" and notice.kind == "failed":
                refused += 1
                raise Refused("the answer is 400")
            told.append(notice)

        world = World(make(), refuses_a, give_up=timedelta(minutes=5))
        for id in "ab":
            world.job(id)
        world.fails.update("ab")
        async with world.scheduler:
            await world.pass_by(timedelta(seconds=70))
            world.fails.clear()
            await world.pass_by(timedelta(minutes=4))
            assert not any(one.job_id == "a" for one in told)
            await world.pass_by(timedelta(minutes=4))
            runs = await history(world.scheduler, world.notifier.specs[0].id)
        # No recovery of a failure that was not told.
        assert sorted((one.kind, one.job_id) for one in told) == [
            ("failed", "b"),
            ("recovered", "b"),
        ]
        assert refused > 2
        assert [one for one in runs if one.log and "left out: the answer is 400" in one.log]
        assert [one.levelname for one in caplog.records if "left out" in one.message] == ["ERROR"]

    run("asyncio", main)


def test_only_the_jobs_and_kinds_that_are_wanted_are_told(make: Make) -> None:
    async def main() -> None:
        told = Told()
        world = World(make(), told, jobs=["billing-*"], kinds={"failed", "succeeded"})
        for id in ("billing-1", "billing-2", "other"):
            world.job(id)
        world.fails.update(["billing-1", "other"])
        async with world.scheduler:
            await world.pass_by(timedelta(seconds=80))
        assert sorted(told.said) == [("failed", "billing-1"), ("succeeded", "billing-2")]

    run("asyncio", main)


def test_notifiers_do_not_hold_each_other_up(make: Make) -> None:
    async def main() -> None:
        told, dead = Told(), Told(fails=1_000_000)
        world = World(make(), dead)
        Notifier("other", told).declare(world.router)
        world.job("a")
        world.fails.add("a")
        async with world.scheduler:
            await world.pass_by(timedelta(minutes=3, seconds=30))
            record = await history(world.scheduler, "notify:ops")
        assert told.said == [("failed", "a")] * 3
        assert dead.notices == []
        assert not any(one.final and one.status is Status.FAILED for one in record)

    run("asyncio", main)


def test_its_record_is_not_listed(make: Make) -> None:
    async def main() -> None:
        world = World(make(), Told())
        async with world.scheduler:
            await world.pass_by()
            assert [job.id async for job in world.scheduler.list_jobs()] == ["notify:ops"]

    run("asyncio", main)


def test_two_replicas_tell_each_notice_once(tmp_path: Path) -> None:
    from sched_sql import SqlBackend

    async def main() -> None:
        told, at_once, most_at_once = Told(), 0, 0

        async def sink(notice: Notice) -> None:
            nonlocal at_once, most_at_once
            at_once += 1
            most_at_once = max(most_at_once, at_once)
            await anyio.sleep(0.02)
            await told(notice)
            at_once -= 1

        def router() -> JobRouter:
            made = JobRouter()
            Notifier("ops", sink, every=timedelta(milliseconds=50)).declare(made)

            @made.job("bad", Interval(milliseconds=40))
            async def bad(event: JobEvent) -> None:
                raise ValueError

            return made

        path = tmp_path / "jobs.db"
        async with running(SqlBackend(path), router()) as first:
            async with running(SqlBackend(path), router()) as second:
                await until(lambda: len(told.notices) > 20)
                workers = {
                    one.worker
                    async for one in second.list_executions("notify:ops")
                    if isinstance(one, Execution)
                }
                assert len(workers) > 1
            await first.pause_job("bad")
            await until(lambda: first.snapshot().executing == 0)  # type: ignore[union-attr]
            written = [one.id for one in await history(first, "bad")][::-1]
            await until(lambda: told.notices[-1].execution_id == written[-1])
        assert most_at_once == 1
        ids = [one.execution_id for one in told.notices]
        # Some may have been written before the notifier's first run.
        assert ids == written[-len(ids) :]


def test_ten_thousand_failures_make_a_hundred_and_one_notices() -> None:
    async def main() -> None:
        told = Told()
        world = World(MemoryBackend(), told)

        @world.router.route("storm-*")
        async def fails(event: JobEvent) -> None:
            raise ValueError

        async with world.scheduler:
            await world.pass_by(timedelta(seconds=10))
            at = world.clock.now()
            specs = [JobSpec(f"storm-{number}", Once(at)) for number in range(10_000)]
            await world.scheduler.submit_jobs(specs, atomic=False)
            await world.scheduler.run_due()
            await world.pass_by(timedelta(seconds=20))
        assert [one.count for one in told.notices] == [*[1] * 100, 9900]
        assert told.notices[-1].text.startswith("9900 more: failed")

    run("asyncio", main)


def test_a_newer_version_s_record_is_left_alone() -> None:
    async def main() -> None:
        backend = MemoryBackend()
        world = World(backend, Told())
        async with world.scheduler:
            await world.pass_by(timedelta(seconds=10))
            id = reserved_id("notify", "ops")
            stored: Any = await backend.get(id)
            spec = evolve(stored.spec, metadata={"format": "99"})
            await backend.replace(evolve(stored, spec=spec))
            await world.pass_by(timedelta(seconds=10))
            runs = await history(world.scheduler, "notify:ops")
            assert runs[0].status is Status.FAILED
            assert "run the newer version" in str(runs[0].reason)
            kept: Any = await backend.get(id)
            assert kept.spec.metadata == {"format": "99"}

    run("asyncio", main)


def test_outside_a_scheduler_it_says_so() -> None:
    notifier = Notifier("ops", Told())
    event = JobEvent("notify:ops", Interval(hours=1), FakeClock().now(), FakeClock().now(), "key:1")
    with pytest.raises(SchedulerNotStarted, match="handlers of a running scheduler"):
        anyio.run(lambda: notifier(event))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": ""}, "name"),
        ({"sink": 3}, "sink"),
        ({"kinds": "failed"}, "kinds"),
        ({"kinds": ["faild"]}, "kinds"),
        ({"kinds": 3}, "kinds"),
        ({"kinds": ["recovered"]}, "kinds"),
        ({"jobs": "billing-*"}, "jobs"),
        ({"jobs": []}, "jobs"),
        ({"jobs": [3]}, "jobs"),
        ({"most": -1}, "most"),
        ({"most": True}, "most"),
        ({"interrupted_after": 1.5}, "interrupted_after"),
        ({"give_up": 5}, "give_up"),
        ({"queue": "*"}, "queue"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options: dict[str, Any], field: str) -> None:
    given = {"name": "ops", "sink": print, **options}
    with pytest.raises(InvalidDefinition, match=f"^{field}"):
        Notifier(given.pop("name"), given.pop("sink"), **given)


def test_people_are_told_in_real_time(make: Make, loop: str) -> None:
    run(loop, lambda: told_of_all(make))


def test_a_long_search_for_what_is_overdue_is_not_made_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic_seconds", lambda: now)
    notifier = Notifier("ops", Told())
    assert notifier.may_search()
    notifier.note_search(now - 0.1)
    assert notifier.may_search()
    notifier.note_search(now - 3)
    assert not notifier.may_search()
    now += 59
    assert not notifier.may_search()
    now += 1
    assert notifier.may_search()


def test_a_receiver_that_hangs_delays_no_other_job_and_no_stop(
    make: Make, short_flush: None
) -> None:
    ran: list[str] = []

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            router = JobRouter()
            sink = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=3600)
            Notifier("ops", sink, every=timedelta(milliseconds=50)).declare(router)

            @router.job("fails", Interval(milliseconds=100))
            async def fails(event: JobEvent) -> None:
                ran.append(event.id)
                raise ValueError

            async with running(make(), router, grace=0):
                server.settimeout(10)
                connection = await anyio.to_thread.run_sync(server.accept)
                count = len(ran)
                await until(lambda: len(ran) > count + 3)
            connection[0].close()

    run("asyncio", main)


def test_a_handler_finds_the_scheduler_that_has_called_it(make: Make, loop: str) -> None:
    async def main() -> None:
        found: dict[str, Any] = {}

        async def in_the_loop(event: JobEvent) -> None:
            found[event.id] = running_scheduler()

        def in_a_thread(event: JobEvent) -> None:
            found[event.id] = running_scheduler()

        at = FakeClock().now()
        one = Scheduler(MemoryBackend(), handler=in_the_loop, clock=FakeClock())
        other = Scheduler(make(), handler=in_a_thread, clock=FakeClock())
        async with one, other:
            await one.submit_job("one", Once(at))
            await other.submit_job("other", Once(at))
            await one.run_due()
            await other.run_due()
            with pytest.raises(SchedulerNotStarted):
                running_scheduler()
        assert found == {"one": one, "other": other}

    run(loop, main)


def test_a_notifier_of_an_included_router_keeps_its_queue() -> None:
    part, whole = JobRouter(), JobRouter(group="shop")
    Notifier("ops", Told(), queue="alerts").declare(part)
    whole.include(part)
    (spec,) = whole.specs
    assert (spec.id, spec.queue, spec.group) == ("notify:ops", "alerts", "shop")


def test_what_waits_for_the_end_of_maintenance_is_not_overdue(make: Make) -> None:
    async def main() -> None:
        told = Told()
        world = World(make(), told)
        async with world.scheduler:
            policy = Policy(overdue=timedelta(minutes=5))
            await world.scheduler.ensure_job("a", Interval(hours=1), policy=policy, queue="bulk")
            await world.scheduler.start_maintenance(queue="bulk")
            await world.pass_by(timedelta(minutes=80))
            assert told.said == []
            await world.scheduler.end_maintenance(queue="bulk")
            await world.pass_by(timedelta(seconds=20))
        assert told.said == [("overdue", "a")]

    run("asyncio", main)
