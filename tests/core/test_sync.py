"""sync_jobs: a whole set is declared, and an older deployment cannot undo a newer one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.core.backends import KINDS, Open, fresh_store

from sched_core import (
    Cron,
    ExecutionQuery,
    GroupConflict,
    Interval,
    InvalidDefinition,
    Job,
    JobNotFound,
    JobQuery,
    JobRouter,
    JobSpec,
    MemoryBackend,
    MemoryStore,
    Once,
    Policy,
    Schedule,
    Scheduler,
    SchedulerNotStarted,
    State,
    Status,
    Synced,
    Undecodable,
)
from sched_core._rules.define import placeholder
from sched_core._service.marker import marker_id, version_of
from sched_core._service.sync import Sync
from sched_core.testing import FakeClock, RecordingHandler, history

HOUR = timedelta(hours=1)
HOURLY, DAILY = Interval(hours=1), Interval(days=1)


def spec(job_id: str, schedule: Schedule = HOURLY, **rest: Any) -> JobSpec:
    return JobSpec(job_id, schedule, **rest)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return fresh_store(request.param, tmp_path)


async def definitions(scheduler: Scheduler) -> dict[str, Schedule]:
    listed = [job async for job in scheduler.list_jobs()]
    return {job.id: job.spec.schedule for job in listed if isinstance(job, Job)}


# -- one deployment ----------------------------------------------------------


def test_the_group_becomes_what_the_set_says(store: Open) -> None:
    clock = FakeClock()

    async def main() -> None:
        async with Scheduler(store(), clock=clock) as scheduler:
            await scheduler.submit_job("else", Once(clock.now()))
            first = [spec("a"), spec("b"), spec("c", name="C")]
            synced = await scheduler.sync_jobs(first, group="g")
            assert synced == Synced(added=("a", "b", "c"))
            jobs = {job.id: job async for job in scheduler.list_jobs() if isinstance(job, Job)}
            assert {job.spec.group for job in jobs.values()} == {"g", None}
            assert jobs["a"].standing.due_at == clock.now() + HOUR
            assert jobs["a"].declared

            clock.advance(minutes=20)
            second = [spec("a"), spec("b", DAILY), spec("c", name="D"), spec("d")]
            foreseen = await scheduler.sync_jobs(second[:3], group="g", dry_run=True)
            assert foreseen == Synced(changed=("b", "c"), kept=("a",))
            assert await scheduler.get_job("b") == jobs["b"]

            synced = await scheduler.sync_jobs(second, group="g")
            assert synced == Synced(added=("d",), changed=("b", "c"), kept=("a",))
            assert await scheduler.get_job("a") == jobs["a"]
            moved = await scheduler.get_job("c")
            assert moved.standing == jobs["c"].standing
            assert (await scheduler.get_job("b")).next_run == clock.now() + DAILY.every

            synced = await scheduler.sync_jobs(second[1:], group="g", prune=False)
            assert synced == Synced(kept=("b", "c", "d"))
            synced = await scheduler.sync_jobs(second[1:], group="g")
            assert synced == Synced(kept=("b", "c", "d"), removed=("a",))
            assert set(await definitions(scheduler)) == {"b", "c", "d", "else"}
            assert await scheduler.sync_jobs([], group="g") == Synced(removed=("b", "c", "d"))
            assert set(await definitions(scheduler)) == {"else"}

    anyio.run(main)


def test_an_id_that_is_not_the_groups_is_refused_before_anything_is_written(store: Open) -> None:
    clock = FakeClock()

    async def main() -> None:
        async with Scheduler(store(), clock=clock) as scheduler:
            await scheduler.sync_jobs([spec("theirs")], group="other")
            await scheduler.submit_job("submitted", HOURLY)
            for job_id, owner in (("theirs", "other"), ("submitted", None)):
                for dry_run in (True, False):
                    with pytest.raises(GroupConflict) as caught:
                        await scheduler.sync_jobs(
                            [spec("mine"), spec(job_id)], group="g", dry_run=dry_run
                        )
                    assert (caught.value.job_id, caught.value.owner) == (job_id, owner)
            assert set(await definitions(scheduler)) == {"theirs", "submitted"}

            ensured = await scheduler.ensure_job("ensured", HOURLY)
            clock.advance(minutes=10)
            assert await scheduler.sync_jobs([spec("ensured")], group="g") == Synced(
                changed=("ensured",)
            )
            joined = await scheduler.get_job("ensured")
            assert joined.standing == ensured.standing
            assert joined.spec.group == "g"

    anyio.run(main)


def test_the_messages_say_what_to_do() -> None:
    conflict = GroupConflict("a", "mine", "theirs")
    assert str(conflict) == (
        "job 'a' is of the group 'theirs', so the group 'mine' cannot declare it: use another id, "
        "or remove that job first"
    )


@pytest.mark.parametrize(
    ("specs", "options", "field", "remedy"),
    [
        ([spec("a"), spec("a")], {}, "specs", "'a' occurs twice"),
        ([spec("a", group="x")], {}, "specs", "leave its group out"),
        (["a"], {}, "specs", "must be JobSpecs"),
        ([spec("sched:x")], {}, "id", "reserved"),
        ([], {"group": ""}, "group", "must not be empty"),
        ([], {"version": -1}, "version", "grow with every deployment"),
        ([], {"version": True}, "version", "grow with every deployment"),
        ([], {"version": "v1.2"}, "version", "grow with every deployment"),
        ([], {"version": "1..2"}, "version", "grow with every deployment"),
    ],
)
def test_bad_input(specs: Sequence[Any], options: Any, field: str, remedy: str) -> None:
    async def main() -> None:
        async with Scheduler(MemoryBackend()) as scheduler:
            with pytest.raises(InvalidDefinition) as caught:
                await scheduler.sync_jobs(specs, **({"group": "g"} | options))
            assert caught.value.field == field
            assert remedy in str(caught.value)
            assert await definitions(scheduler) == {}

    anyio.run(main)


def test_it_needs_an_open_scheduler() -> None:
    with pytest.raises(SchedulerNotStarted):
        anyio.run(lambda: Scheduler(MemoryBackend()).sync_jobs([], group="g"))


def test_versions_compare_as_numbers() -> None:
    ordered = [None, 0, "0.9", 1, "1.4", "1.4.10", "1.10", 2, 20261125, "20261125.1"]
    versions = [version_of(version) for version in ordered]
    assert versions == sorted(versions)
    assert len(set(versions)) == len(versions)
    assert version_of("1.4.0") == version_of("1.4")
    assert version_of("12") == version_of(12)


def test_the_marker_is_no_job_of_a_user(store: Open) -> None:
    clock, handler = FakeClock(), RecordingHandler()

    async def main() -> None:
        async with Scheduler(store(), handler=handler, clock=clock) as scheduler:
            await scheduler.sync_jobs([spec("a")], group="g" * 255, version=7)
            assert set(await definitions(scheduler)) == {"a"}
            marker = marker_id("g" * 255)
            for call in (
                scheduler.get_job(marker),
                scheduler.remove_job(marker),
                scheduler.trigger_job(marker),
                scheduler.update_job(marker, HOURLY),
            ):
                with pytest.raises(JobNotFound):
                    await call
            for refused in (
                scheduler.ensure_job(marker, HOURLY),
                scheduler.submit_job(marker, HOURLY),
                scheduler.submit_jobs([spec(marker)]),
            ):
                with pytest.raises(InvalidDefinition, match="reserved"):
                    await refused
            clock.advance(days=4000)
            await scheduler.prune(clock.now())
            await scheduler.run_due()
            assert handler.ids == ["a"]
            older = await scheduler.sync_jobs([], group="g" * 255, version=6)
            assert older.superseded_by == "7"

    anyio.run(main)


# -- what a set in the making looks like -------------------------------------


def test_an_announced_job_is_not_due_and_the_next_declaration_finishes_the_work() -> None:
    clock, handler = FakeClock(), RecordingHandler()
    backend = MemoryBackend()

    async def main() -> None:
        async with Scheduler(backend, handler=handler, clock=clock) as scheduler:
            for job_id in ("ensured", "synced", "resumed", "triggered", "left"):
                announced = placeholder(spec(job_id, group="g"), uid=job_id, now=clock.now())
                await backend.add([announced])
            clock.advance(hours=5)
            assert await scheduler.run_due() == 0

            ensured = await scheduler.ensure_job("ensured", HOURLY, group="g")
            resumed = await scheduler.resume_job("resumed")
            for job in (ensured, resumed):
                assert job.state is State.ACTIVE
                assert job.next_run == clock.now() + HOUR
            await scheduler.trigger_job("triggered")
            triggered = await scheduler.get_job("triggered")
            assert triggered.next_run == clock.now() + HOUR
            assert await scheduler.run_due() == 1
            assert handler.ids == ["triggered"]

            synced = await scheduler.sync_jobs([spec("synced")], group="g", prune=False)
            assert synced == Synced(changed=("synced",))
            assert (await scheduler.get_job("synced")).next_run == clock.now() + HOUR
            assert (await scheduler.get_job("left")).standing.due_at is None

    anyio.run(main)


def test_records_that_cannot_be_read_are_left_alone_and_reported() -> None:
    clock, store = FakeClock(), MemoryStore()

    def spoil(job_id: str) -> None:
        """Make a record one that a newer version has written."""
        store.rows[job_id].job = Undecodable(job_id, "format 9 is newer", 9, b"?")

    async def main() -> None:
        async with Scheduler(MemoryBackend(store), clock=clock) as scheduler:
            for job_id in ("newer", "elsewhere"):
                await scheduler.submit_job(job_id, HOURLY)
                spoil(job_id)
            wanted = [spec("a"), spec("newer")]
            for dry_run in (True, False):
                synced = await scheduler.sync_jobs(wanted, group="g", dry_run=dry_run)
                assert synced == Synced(added=("a",), unreadable=("newer",))
            assert await scheduler.sync_jobs([], group="g") == Synced(removed=("a",))

            await scheduler.sync_jobs([], group="h", version=3)
            spoil(marker_id("h"))
            synced = await scheduler.sync_jobs([spec("b")], group="h", version=99)
            assert synced == Synced(superseded_by="unreadable")
            assert {job.id async for job in scheduler.list_jobs()} == {"newer", "elsewhere"}

    anyio.run(main)


# -- deployments -------------------------------------------------------------


OLD: dict[str, Schedule] = {"kept": HOURLY, "changed": HOURLY, "gone": HOURLY}
NEW: dict[str, Schedule] = {"kept": HOURLY, "changed": Cron("30 * * * *"), "fresh": HOURLY}


def specs_of(wanted: Mapping[str, Schedule]) -> list[JobSpec]:
    return [spec(job_id, schedule) for job_id, schedule in wanted.items()]


def test_an_older_deployment_changes_nothing(store: Open, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()

    async def main() -> None:
        async with Scheduler(store(), clock=clock) as scheduler:
            await scheduler.sync_jobs(specs_of(OLD), group="g")  # from before there were versions
            await scheduler.sync_jobs(specs_of(OLD), group="g", version="1.9")
            before = await scheduler.get_job("kept")
            clock.advance(minutes=7)
            synced = await scheduler.sync_jobs(specs_of(NEW), group="g", version="1.10")
            assert synced == Synced(
                added=("fresh",), changed=("changed",), kept=("kept",), removed=("gone",)
            )
            assert (await scheduler.get_job("kept")).standing == before.standing

            stored = {job.id: job async for job in scheduler.list_jobs()}
            with caplog.at_level(logging.WARNING):
                for version in ("1.9", 1, None, "1.9.9"):
                    for dry_run in (False, True):
                        again = await scheduler.sync_jobs(
                            specs_of(OLD), group="g", version=version, dry_run=dry_run
                        )
                        assert again == Synced(superseded_by="1.10")
            assert (
                "group 'g' was synced by version 1.10: version 1.9 changes nothing" in caplog.text
            )
            same = await scheduler.sync_jobs(specs_of(NEW), group="g", version="1.10")
            assert same == Synced(kept=("changed", "fresh", "kept"))
            assert {job.id: job async for job in scheduler.list_jobs()} == stored

            other = await scheduler.sync_jobs([spec("x")], group="other", version=1)
            assert other == Synced(added=("x",))

    anyio.run(main)


def test_five_pods_in_a_rolling_deploy(store: Open) -> None:
    """Old and new pods interleaved, with restarts: the new set wins and stays, nothing is lost."""
    clock = FakeClock()
    begun = clock.now()
    ran: list[tuple[str, str]] = []

    async def boot(version: int, wanted: Mapping[str, Schedule]) -> Synced:
        """One pod starts, declares its set, works for a while, and ends."""
        router = JobRouter()

        async def handle(event: Any) -> None:
            ran.append((event.id, event.key))

        for job_id in wanted:
            router.route(job_id)(handle)
        async with Scheduler(store(), handler=router, clock=clock) as scheduler:
            synced = await scheduler.sync_jobs(specs_of(wanted), group="g", version=version)
            for _ in range(3):
                clock.advance(minutes=5)
                await scheduler.run_due()
            return synced

    async def main() -> None:
        for _ in range(5):
            await boot(1, OLD)
        async with Scheduler(store(), clock=clock) as scheduler:
            kept = await scheduler.get_job("kept")
        for old, new in ((1, 2), (2, 1), (3, 1), (1, 3), (5, 0), (0, 5)):
            for _ in range(new):
                assert (await boot(2, NEW)).superseded_by is None
            for _ in range(old):
                synced = await boot(1, OLD)
                assert synced == Synced(superseded_by="2")

        async with Scheduler(store(), clock=clock) as scheduler:
            assert await definitions(scheduler) == NEW
            after = await scheduler.get_job("kept")
            assert after.uid == kept.uid
            assert after.anchor == kept.anchor
            executions = await history(scheduler, ExecutionQuery(job_id="kept"))
            hours = (clock.now() - begun) // HOUR
            assert sorted(
                execution.scheduled_at for execution in executions if execution.final
            ) == [begun + n * HOUR for n in range(1, hours + 1)]
            assert {execution.status for execution in executions} == {Status.SUCCEEDED}

    anyio.run(main)
    assert len(set(ran)) == len(ran)
    assert {job_id for job_id, _ in ran} == OLD.keys() | NEW.keys()


def test_a_router_with_a_group_syncs_when_the_scheduler_opens(store: Open) -> None:
    clock = FakeClock()

    def router(version: int, wanted: Mapping[str, Schedule], **options: Any) -> JobRouter:
        made = JobRouter(group="g", version=version, **options)
        for job_id, schedule in wanted.items():
            made.job(job_id, schedule)(print)
        return made

    async def main() -> None:
        for version, wanted, expected in ((1, OLD, OLD), (2, NEW, NEW), (1, OLD, NEW)):
            handler = router(version, wanted)
            async with Scheduler(store(), handler=handler, clock=clock) as scheduler:
                assert await definitions(scheduler) == expected
        async with Scheduler(store(), clock=clock) as scheduler:
            late = router(3, {"late": HOURLY})
            scheduler.set_handler(late)
            assert await definitions(scheduler) == NEW
            await scheduler.run_due()
            assert await definitions(scheduler) == {"late": HOURLY}
            late.job("later", HOURLY)(print)
            await scheduler.run_due()
            assert await definitions(scheduler) == {"late": HOURLY, "later": HOURLY}
        handler = router(4, {}, declare=False)
        async with Scheduler(store(), handler=handler, clock=clock) as scheduler:
            await scheduler.run_due()
            assert len(await definitions(scheduler)) == 2

    anyio.run(main)


def test_a_router_without_a_group_ensures_each() -> None:
    router = JobRouter()
    router.job("a", HOURLY, metadata={"x": "y"}, policy=Policy(max_lost=2))(print)

    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=router) as scheduler:
            job = await scheduler.get_job("a")
            assert job.declared
            assert job.spec == router.specs[0]

    anyio.run(main)


# -- every order of steps ----------------------------------------------------


class Turnstile:
    """Lets tasks go on one call at a time, in the order that the test says."""

    def __init__(self) -> None:
        self.waiting: dict[int, anyio.Event] = {}
        self.ended: set[int] = set()

    async def pass_through(self, pod: int) -> None:
        self.waiting[pod] = event = anyio.Event()
        await event.wait()

    async def settle(self, pods: int) -> None:
        """Wait until each pod is about to make its next call, or has ended."""
        while len(self.waiting) + len(self.ended) < pods:
            await anyio.lowlevel.checkpoint()


class Gated:
    """A pod's backend: each call waits for its turn."""

    def __init__(self, backend: MemoryBackend, turnstile: Turnstile, pod: int) -> None:
        self.backend, self.turnstile, self.pod = backend, turnstile, pod

    @property
    def capabilities(self) -> Any:
        return evolve(self.backend.capabilities, bulk_limit=2)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.backend, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            await self.turnstile.pass_through(self.pod)
            return await method(*arguments, **options)

        return call


async def nothing(job_id: str, executions: Sequence[Any]) -> None:
    pass


Segment = tuple[int, int, bool]
"""A pod, how many calls it gets through, and whether it dies then, before its next call."""


async def play(
    versions: list[int], segments: Sequence[Segment], before: Mapping[str, Schedule]
) -> tuple[dict[str, Schedule], dict[int, Synced]]:
    """Let pods sync in the given order of calls; return what may run, and what they were told."""
    clock, backend, turnstile = FakeClock(), MemoryBackend(), Turnstile()
    await backend.open(clock, worker="w")
    told: dict[int, Synced] = {}
    scopes = [anyio.CancelScope() for _ in versions]
    uids = iter(range(10**6))
    sets = {1: OLD, 2: NEW}

    async def sync(through: Any, wanted: Mapping[str, Schedule], version: int | None) -> Synced:
        sync = Sync(
            through,
            clock,
            new_id=lambda: f"u{next(uids)}",
            edited=nothing,
            advise=lambda spec: None,
            group="g",
            version=version_of(version),
            renamed_from={},
        )
        return await sync.run(specs_of(wanted), prune=True, dry_run=False)

    async def pod(number: int) -> None:
        with scopes[number]:
            version = versions[number]
            told[number] = await sync(Gated(backend, turnstile, number), sets[version], version)
        turnstile.ended.add(number)

    async def let_through(number: int) -> bool:
        await turnstile.settle(len(versions))
        event = turnstile.waiting.pop(number, None)
        if event is not None:
            event.set()
        return event is not None

    await sync(backend, before, None)
    async with anyio.create_task_group() as tasks:
        for number in range(len(versions)):
            tasks.start_soon(pod, number)
        for number, calls, dies in segments:
            for _ in range(calls):
                if not await let_through(number):
                    break
            await turnstile.settle(len(versions))
            if dies and turnstile.waiting.pop(number, None) is not None:
                scopes[number].cancel()
        for number in range(len(versions)):
            for _ in range(500):
                if not await let_through(number):
                    break
            else:
                raise AssertionError("it never ends")

    if not any(versions[number] == 2 for number in told):
        await sync(backend, NEW, 2)  # the pod that died starts again
    page = await backend.jobs(JobQuery(group="g"), after=None, limit=100)
    await backend.close()
    jobs = [job for job in page.items if isinstance(job, Job)]
    runs = {job.id: job.spec.schedule for job in jobs if job.standing.due_at is not None}
    return runs, told


def check_newest_set(versions: list[int], segments: Sequence[Segment], before: Any) -> None:
    runs, told = anyio.run(play, versions, segments, before)
    assert runs == NEW
    for number, synced in told.items():
        if versions[number] == 2:
            assert synced.superseded_by is None


BEFORE: list[dict[str, Schedule]] = [{}, OLD, NEW, {"kept": DAILY}]


@pytest.mark.parametrize("before", BEFORE, ids=["empty", "old", "new", "else"])
def test_wherever_an_old_pod_is_held_up_or_dies_the_new_set_holds(
    before: dict[str, Schedule], deep: bool
) -> None:
    """It stops before each of its calls while the new one begins, or does all of its work."""

    async def main() -> None:
        for held_at in range(24):
            for calls in (1, 2, 3, 4, 6, 9, 13, 500) if deep else (1, 3, 9, 500):
                for more in (500, 1, 2) if deep else (500, 1):
                    segments = [(0, held_at, False), (1, calls, False), (0, more, more < 500)]
                    runs, told = await play([1, 2], segments, before)
                    assert runs == NEW, segments
                    assert told[1].superseded_by is None
                # And where the new one dies, and another one finishes its work.
                segments = [(0, held_at, False), (1, calls, True), (2, 500, False)]
                runs, _ = await play([1, 2, 2], segments, before)
                assert runs == NEW, segments

    anyio.run(main)


@given(
    versions=st.lists(st.sampled_from([1, 2]), min_size=2, max_size=5).filter(
        lambda versions: 2 in versions
    ),
    segments=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 20), st.booleans()), max_size=9),
    before=st.sampled_from(BEFORE),
)
def test_in_every_order_of_steps_the_newer_set_holds_in_the_end(
    versions: list[int], segments: list[Segment], before: dict[str, Schedule]
) -> None:
    """Also where several pods die between any two calls: nothing of the older set runs."""
    check_newest_set(versions, segments, before)
