"""The maintenance switch: what it covers does not begin, and runs when it is over."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from attrs import evolve
from tests.core.running import (
    Faulty,
    Make,
    at_once,
    now,
    run,
    running,
    seconds,
    statuses,
    until,
)

from sched_core import (
    BackendUnavailable,
    Claimed,
    Execution,
    ExecutionQuery,
    Interval,
    InvalidDefinition,
    Job,
    JobEvent,
    JobQuery,
    JobSpec,
    JobUndecodable,
    Maintenance,
    MemoryBackend,
    Once,
    Room,
    Scheduler,
    Standing,
    Status,
    Undecodable,
    UnderMaintenance,
)
from sched_core._model.maintenance import RECORD, as_metadata, from_metadata
from sched_core._runtime import reporting, switches
from sched_core._runtime.switches import Switches
from sched_core.testing import FakeClock, RecordingHandler, history

HOURLY = Interval(hours=1)


class Ran:
    """A handler that notes what it was called for; ids that begin with "long" wait for a gate."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.gate = anyio.Event()

    async def __call__(self, event: JobEvent) -> None:
        self.ids.append(event.id)
        if event.id.startswith("long"):
            await self.gate.wait()


async def submit(scheduler: Scheduler, *ids: str, **fields: Any) -> None:
    await scheduler.submit_jobs([JobSpec(job_id, at_once(), **fields) for job_id in ids])


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than users are promised."""
    monkeypatch.setattr(reporting, "LOOKS", seconds(0.1))


@pytest.fixture
def slow_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look so rarely that what this process switches itself cannot be seen by a look."""
    monkeypatch.setattr(reporting, "LOOKS", seconds(600))


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("queues", [None, {"default": 5, "*": 5}])
def test_two_workers_begin_nothing_and_go_on_when_it_is_over(
    loop: str, make: Make, queues: dict[str, int] | None
) -> None:
    """A run in flight settles meanwhile; what is submitted meanwhile waits, and runs after it."""

    async def main() -> None:
        one, other = Ran(), Ran()
        async with running(make(), one, queues=queues) as mine, running(make(), other) as yours:
            await submit(mine, "long")
            await until(lambda: one.ids or other.ids)
            begun = await mine.start_maintenance(reason="moving disks", actor="ann")
            assert (begun.of_store, begun.reason, begun.actor) == (True, "moving disks", "ann")
            for scheduler in (mine, yours):
                await until(partial(notices, scheduler))
                (notice,) = notices(scheduler)
                assert notice.startswith("maintenance: the whole store since 20")
                assert notice.endswith("by ann: moving disks")
            await submit(mine, *(f"a-{number}" for number in range(5)))
            await submit(yours, *(f"b-{number}" for number in range(5)), queue="bulk")
            one.gate.set()
            other.gate.set()
            await until(lambda: statuses(yours, "long"))
            await anyio.sleep(0.4)
            assert one.ids + other.ids == ["long"]
            found = mine.snapshot()
            assert found is not None
            assert found.healthy
            assert found.full_since is None
            assert await yours.list_maintenance() == (begun,)
            assert await yours.end_maintenance() == begun
            await until(lambda: len(one.ids + other.ids) == 11)
            await until(lambda: not notices(mine) and not notices(yours))
            assert await mine.list_maintenance() == ()

    run(loop, main)


def notices(scheduler: Scheduler) -> list[str]:
    found = scheduler.snapshot()
    assert found is not None
    return [text for text in found.notices if text.startswith("maintenance")]


@pytest.mark.usefixtures("slow_looks")
@pytest.mark.parametrize("scope", [{}, {"queue": "bulk"}, {"group": "mail"}])
@pytest.mark.parametrize("queues", [None, {"bulk": 5}, {"bulk": 5, "*": 5}])
def test_what_this_process_ends_runs_at_once(
    loop: str, make: Make, scope: dict[str, Any], queues: dict[str, int] | None
) -> None:
    """It waits for no poll of the store and for no look."""

    async def main() -> None:
        ran = Ran()
        async with running(make(), ran, queues=queues) as scheduler:
            await scheduler.start_maintenance(**scope)
            await submit(scheduler, "a", "b", queue="bulk", group="mail")
            await anyio.sleep(0.3)
            assert ran.ids == []
            await scheduler.end_maintenance(**scope)
            await until(lambda: sorted(ran.ids) == ["a", "b"], within=2)

    run(loop, main)


@pytest.mark.usefixtures("quick_looks")
def test_its_end_comes_by_itself(loop: str, make: Make) -> None:
    async def main() -> None:
        ran = Ran()
        async with running(make(), ran) as mine, running(make(), None) as yours:
            await yours.start_maintenance(until=now() + seconds(1), reason="short")
            await until(lambda: notices(mine))
            await submit(mine, "a")
            await until(lambda: ran.ids, within=4)
            assert notices(mine) == []
            assert await mine.list_maintenance() == ()
            await mine.trigger_job("a")
            assert await mine.end_maintenance() is None

    run(loop, main)


def test_the_end_of_a_switch_wakes_a_worker_that_looks_no_more(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look comes when the first switch ends, however long the time between two looks is."""
    monkeypatch.setattr(reporting, "LOOKS", seconds(600))

    async def main() -> None:
        ran = Ran()
        store = MemoryBackend()
        async with Scheduler(store) as first:
            await first.start_maintenance(queue="bulk", until=now() + seconds(0.7))
        async with running(store, ran) as scheduler:
            await submit(scheduler, "a", queue="bulk")
            await submit(scheduler, "b")
            await until(lambda: ran.ids == ["b"])
            await until(lambda: ran.ids == ["b", "a"], within=3)

    run(loop, main)


def test_run_due_obeys(loop: str, make: Make) -> None:
    async def main() -> None:
        clock, handler = FakeClock(), RecordingHandler()
        async with (
            Scheduler(make(), handler=handler, clock=clock) as worker,
            Scheduler(make(), clock=clock) as operator,
        ):
            for group in ("mail", "disk"):
                for number in range(150):
                    await worker.submit_job(f"{group}-{number}", Once(clock.now()), group=group)
            await operator.start_maintenance()
            assert await worker.run_due() == 0
            await operator.end_maintenance()
            await operator.start_maintenance(group="mail")
            clock.advance(seconds=1)
            assert await worker.run_due() == 150
            assert {event.id.split("-")[0] for event in handler.events} == {"disk"}
            assert await worker.run_due() == 0
            await operator.start_maintenance(queue="default")
            await operator.end_maintenance(group="mail")
            assert await worker.run_due() == 0
            clock.advance(hours=1)
            await operator.end_maintenance(queue="default")
            assert await worker.run_due() == 150
            assert {event.attempt for event in handler.events} == {1}

    run(loop, main)


def test_what_was_late_is_treated_as_after_any_downtime(loop: str, make: Make) -> None:
    async def main() -> None:
        clock, handler = FakeClock(), RecordingHandler()
        async with Scheduler(make(), handler=handler, clock=clock) as scheduler:
            await scheduler.ensure_job("a", HOURLY)
            await scheduler.start_maintenance()
            clock.advance(hours=5)
            assert await scheduler.run_due() == 0
            assert await history(scheduler) == []
            await scheduler.end_maintenance()
            assert await scheduler.run_due() == 1
            assert [event.coalesced for event in handler.events] == [4]

    run(loop, main)


class Counting(Faulty):
    """A backend that counts what was claimed and given back."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.claimed = self.released = self.asked = 0

    async def claim_due(self, room: Room) -> Claimed:
        found: Claimed = await self.backend.claim_due(room)
        self.asked += 1
        self.claimed += len(found.claims)
        return found

    async def release(self, claims: Any) -> None:
        self.released += len(claims)
        await self.backend.release(claims)


@pytest.mark.usefixtures("quick_looks")
def test_a_group_of_many_jobs_does_not_spin(loop: str, make: Make) -> None:
    """Each job is claimed and given back once; jobs of other groups behind them run."""

    async def main() -> None:
        ran = Ran()
        backend = Counting(make())
        async with running(backend, ran) as scheduler:
            await scheduler.start_maintenance(group="mail", reason="x")
            await submit(scheduler, *(f"mail-{number}" for number in range(500)), group="mail")
            before = await scheduler.get_job("mail-0")
            await submit(scheduler, "other")
            await until(lambda: ran.ids == ["other"])
            await until(lambda: backend.released == 500)
            asked = backend.asked
            await anyio.sleep(0.5)
            assert backend.claimed == 501
            assert backend.asked <= asked + 2
            after = await scheduler.get_job("mail-0")
            assert after.standing == before.standing
            assert list(snapshot(scheduler).problems) == []
            await scheduler.end_maintenance(group="mail")
            await until(lambda: len(ran.ids) == 501)
            found = await history(scheduler, ExecutionQuery())
            assert {(one.status, one.attempt) for one in found} <= {(Status.SUCCEEDED, 1)}

    run(loop, main)


def snapshot(scheduler: Scheduler) -> Any:
    found = scheduler.snapshot()
    assert found is not None
    return found


def test_more_jobs_than_can_be_remembered_do_not_spin(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switches, "REMEMBERED", 5)

    async def main() -> None:
        backend = Counting(MemoryBackend())
        async with running(backend, Ran(), max_concurrency=10) as scheduler:
            await scheduler.start_maintenance(group="mail")
            await submit(scheduler, *(f"mail-{number}" for number in range(50)), group="mail")
            await until(lambda: backend.claimed)
            await anyio.sleep(0.5)
            assert backend.asked < 10
        async with Scheduler(backend, handler=RecordingHandler()) as scheduler:
            assert await scheduler.run_due() == 0

    run(loop, main)


@pytest.mark.usefixtures("slow_looks")
def test_a_run_that_is_queued_here_does_not_begin(loop: str, make: Make) -> None:
    """Claims made before the switch are given back: no attempt was made of them."""

    async def main() -> None:
        ran = list[str]()
        spec = JobSpec(RECORD, Once(now()), metadata=as_metadata([Maintenance("bulk")]))
        record = Job(spec, "uid", True, now(), Standing(1, None, None))

        async def handle(event: JobEvent) -> None:
            if not ran:  # the others are queued behind it, and nothing was awaited
                workers_of(scheduler).switches.take(record)
            ran.append(event.id)

        async with running(make(), handle, max_concurrency=20) as scheduler:
            await submit(scheduler, *(f"job-{number}" for number in range(10)), queue="bulk")
            await until(lambda: ran)
            await anyio.sleep(0.3)
            assert len(ran) == 1
            found = snapshot(scheduler)
            assert (found.executing, found.unsettled, found.completed) == (0, 0, 1)
            assert await scheduler.end_maintenance() is None  # the store has none
            await until(lambda: len(ran) == 10)
            await until(lambda: snapshot(scheduler).completed == 10)
            executions: list[Execution] = await history(scheduler)
            assert {one.attempt for one in executions} == {1}

    run(loop, main)


def workers_of(scheduler: Scheduler) -> Any:
    opened = scheduler._opened
    assert opened is not None
    return opened.workers


def test_further_runs_are_refused_by_name(loop: str, make: Make) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(make(), handler=RecordingHandler(), clock=clock) as scheduler:
            await scheduler.ensure_job("a", HOURLY, group="mail", queue="bulk")
            await scheduler.ensure_job("b", HOURLY)
            clock.advance(hours=1)
            await scheduler.run_due()
            (one,) = await history(scheduler, "a")
            scopes: list[dict[str, Any]] = [{}, {"queue": "bulk"}, {"group": "mail"}]
            for scope in scopes:
                await scheduler.start_maintenance(**scope, reason="new disk", actor="ann")
                with pytest.raises(UnderMaintenance, match=r"job 'a' is under.*ann: new disk") as e:
                    await scheduler.trigger_job("a", actor="bob")
                again = pickle.loads(pickle.dumps(e.value))
                assert (again.job_id, again.reason, again.actor) == ("a", "new disk", "ann")
                assert str(again) == str(e.value)
                with pytest.raises(UnderMaintenance):
                    await scheduler.rerun(one.id)
                with pytest.raises(UnderMaintenance):
                    await scheduler.rerun_all(
                        ExecutionQuery(job_id="a", statuses=frozenset({Status.SUCCEEDED}))
                    )
                with pytest.raises(UnderMaintenance):
                    await scheduler.backfill_job("a", one.scheduled_at, one.scheduled_at)
                if scope:
                    await scheduler.trigger_job("b")
                    result = await scheduler.trigger_jobs(JobQuery())
                    assert list(result.failures) == ["a"]
                await scheduler.end_maintenance(**scope)
            assert await scheduler.trigger_job("a")

    run(loop, main)


def test_switches_of_several_scopes_are_apart(loop: str, make: Make) -> None:
    """A second call for the same gives another end and reason, and keeps since."""

    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(make(), clock=clock) as one, Scheduler(make(), clock=clock) as other:
            first = await one.start_maintenance(queue="a", reason="1", actor="ann")
            await other.start_maintenance(group="a", reason="2")
            clock.advance(minutes=1)
            end = clock.now() + timedelta(hours=1)
            again = await other.start_maintenance(queue="a", reason="3", until=end)
            assert again == evolve(first, reason="3", until=end, actor=None)
            assert {(each.queue, each.group) for each in await one.list_maintenance()} == {
                ("a", None),
                (None, "a"),
            }
            assert await one.end_maintenance() is None
            assert await one.end_maintenance(queue="a", actor="ann") == again
            assert [each.group for each in await other.list_maintenance()] == ["a"]
            assert await other.end_maintenance(group="a")
            assert await one.list_maintenance() == ()
            assert await one.backend.get(RECORD) is None
            assert [job async for job in one.list_jobs()] == []
            await one.start_maintenance(queue="a")  # the record can be made again
            assert len(await other.list_maintenance()) == 1

    run(loop, main)


def test_switches_at_once_lose_none(loop: str, make: Make) -> None:
    async def main() -> None:
        async with Scheduler(make()) as one, Scheduler(make()) as other:
            async with anyio.create_task_group() as tasks:
                for number in range(6):
                    scheduler = (one, other)[number % 2]
                    start = scheduler.start_maintenance
                    tasks.start_soon(partial(start, queue=f"q-{number}"))
            found = await one.list_maintenance()
            assert sorted(str(each.queue) for each in found) == [f"q-{n}" for n in range(6)]

    run(loop, main)


def test_what_cannot_be_is_refused_by_name(loop: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(MemoryBackend(), clock=clock) as scheduler:
            with pytest.raises(InvalidDefinition, match="group: must not be given with a queue"):
                await scheduler.start_maintenance(queue="a", group="b")
            with pytest.raises(InvalidDefinition, match="queue: must be a queue's own name"):
                await scheduler.end_maintenance(queue="*")
            with pytest.raises(InvalidDefinition, match="until: must be after"):
                await scheduler.start_maintenance(until=clock.now())
            with pytest.raises(InvalidDefinition, match="actor: must not be empty"):
                await scheduler.start_maintenance(actor="")
            with pytest.raises(InvalidDefinition, match="reason: is too long: the "):
                for number in range(100):
                    await scheduler.start_maintenance(queue=f"q-{number}", reason="x" * 5000)
            assert 20 < len(await scheduler.list_maintenance()) < 40

    run(loop, main)


# -- what cannot be read


async def store_record(backend: Any, metadata: dict[str, str]) -> None:
    stored = await backend.get(RECORD)
    spec = JobSpec(RECORD, Once(datetime(1970, 1, 1, tzinfo=UTC)), metadata=metadata)
    if stored is not None:
        await backend.replace(evolve(stored, spec=spec))
    else:
        await backend.add([Job(spec, "uid", True, now(), Standing(1, None, None))])


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"format": "2", "switches": "[]"},
        {"format": "1"},
        {"format": "1", "switches": "{}"},
        {"format": "1", "switches": "[7]"},
        {"format": "1", "switches": '[{"prefix": "a"}]'},
        {"format": "1", "switches": '[{"queue": 7}]'},
        {"format": "1", "switches": '[{"queue": "a", "group": "b"}]'},
        {"format": "1", "switches": '[{"since": "yesterday"}]'},
        {"format": "1", "switches": '[{"until": "2030-01-01"}]'},
        {"format": "1", "switches": "[" * 60_000},
    ],
)
def test_what_cannot_be_read_lets_all_wait_and_is_told(loop: str, metadata: dict[str, str]) -> None:
    """The worker itself goes on: a run in flight settles, and end_maintenance ends it."""

    async def main() -> None:
        ran = Ran()
        store = MemoryBackend()
        async with running(store, ran) as scheduler:
            await submit(scheduler, "long")
            await until(lambda: ran.ids)
            await store_record(store, metadata)
            await until(lambda: notices(scheduler))
            (notice,) = notices(scheduler)
            assert "cannot read the record 'sched:maintenance', so all jobs wait" in notice
            assert snapshot(scheduler).healthy
            await submit(scheduler, "a")
            ran.gate.set()
            await until(lambda: statuses(scheduler, "long"))
            await anyio.sleep(0.2)
            assert ran.ids == ["long"]
            (told,) = await scheduler.list_maintenance()
            assert told.of_store
            with pytest.raises(UnderMaintenance):
                await scheduler.trigger_job("a")
            with pytest.raises(JobUndecodable):
                await scheduler.start_maintenance(queue="a")
            assert await scheduler.end_maintenance(queue="a") is None
            assert await scheduler.end_maintenance() == told
            await until(lambda: ran.ids == ["long", "a"])

    run(loop, main)


class Newer(Faulty):
    """A backend whose record of maintenance a newer version has written."""

    newer = True

    async def get(self, job_id: str) -> Any:
        if job_id == RECORD and self.newer:
            return Undecodable(job_id, "format 9", 9, b"")
        return await self.backend.get(job_id)


@pytest.mark.usefixtures("quick_looks")
def test_a_record_of_a_newer_version_lets_all_wait(loop: str) -> None:
    async def main() -> None:
        ran = Ran()
        backend = Newer(MemoryBackend())
        async with running(backend, ran) as scheduler:
            await submit(scheduler, "a")
            await until(lambda: notices(scheduler))
            assert "format 9" in notices(scheduler)[0]
            for call in (scheduler.start_maintenance, scheduler.end_maintenance):
                with pytest.raises(JobUndecodable, match="format 9"):
                    await call()
            assert ran.ids == []
            backend.newer = False
            await until(lambda: ran.ids)

    run(loop, main)


@pytest.mark.usefixtures("quick_looks")
def test_a_store_that_cannot_be_read_keeps_what_was_known(loop: str) -> None:
    async def main() -> None:
        ran = Ran()
        store = MemoryBackend()
        backend = Faulty(store)
        async with Scheduler(store) as first:
            await first.start_maintenance(queue="bulk")
        async with running(backend, ran) as scheduler:
            await until(lambda: notices(scheduler))
            backend.failures["get"] = BackendUnavailable("gone")
            await until(lambda: any("gone" in text for text in snapshot(scheduler).problems))
            await scheduler.submit_job("a", at_once(), queue="bulk")
            await scheduler.submit_job("b", at_once())
            await until(lambda: ran.ids)
            await anyio.sleep(0.3)
            assert ran.ids == ["b"]
            assert notices(scheduler)
            del backend.failures["get"]
            await scheduler.end_maintenance(queue="bulk")
            await until(lambda: ran.ids == ["b", "a"])

    run(loop, main)


@pytest.mark.usefixtures("quick_looks")
def test_nothing_is_claimed_before_the_first_look(loop: str) -> None:
    async def main() -> None:
        ran = Ran()
        backend = Faulty(MemoryBackend())
        backend.failures["get"] = BackendUnavailable("gone")
        async with running(backend, ran) as scheduler:
            await submit(scheduler, "a")
            await until(lambda: snapshot(scheduler).problems)
            await anyio.sleep(0.2)
            assert ran.ids == []
            assert "claim_due" not in backend.calls
            del backend.failures["get"]
            await until(lambda: ran.ids)

    run(loop, main)


# -- values


def test_a_switch_is_stored_and_read_back() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    for one in (
        Maintenance(),
        Maintenance("a", None, moment, moment, "wh\u00fd", "ann"),
        Maintenance(None, "g", moment),
    ):
        assert from_metadata(as_metadata([one, one])) == (one, one)
    assert from_metadata(as_metadata([])) == ()


def test_a_look_that_began_before_a_switch_changes_nothing() -> None:
    """The process knows what it has written itself; an older answer comes later."""

    async def main() -> None:
        store = MemoryBackend()
        async with Scheduler(store) as scheduler:
            await scheduler.start_maintenance()
            record = await store.get(RECORD)

            class Slow(Faulty):
                async def get(self, job_id: str) -> Any:
                    known.take(record)
                    return None

            known = Switches(Slow(store), FakeClock(), lambda topic, text: None, lambda: None)
            await known.look()
            assert known.hold_store

    anyio.run(main)


def test_a_job_is_passed_over_for_some_minutes() -> None:
    clock = FakeClock()
    known = Switches(MemoryBackend(), clock, lambda topic, text: None, lambda: None)
    assert not known.pass_some
    known.pass_over(JobSpec("a", HOURLY))
    assert known.accepts("a")
    known.pass_over(JobSpec("a", HOURLY, group="g"))
    assert not known.accepts("a")
    assert known.accepts("b")
    clock.advance(minutes=5)
    assert known.accepts("a")
    assert not known.pass_some
