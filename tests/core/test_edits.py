"""Edits win: whatever a run or a worker believes, what was edited meanwhile stands."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.core.backends import KINDS, LEASE, Open, fresh_store
from tests.core.running import Faulty

from sched_core import (
    Backend,
    BackendUnavailable,
    Cron,
    Drop,
    Execution,
    Interval,
    Job,
    JobEvent,
    JobNotFound,
    NoRoute,
    Policy,
    Retry,
    Room,
    Scheduler,
    Settled,
    Settlement,
    State,
    Status,
)
from sched_core.testing import EPOCH, FakeClock, history

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
DUE = EPOCH + HOUR
AT_HALF = Cron("30 * * * *")
POLICY = Policy(retry=Retry(attempts=3, backoff=10 * MINUTE))


class Wire(Faulty):
    """A faulty backend that can lose the replies of settlements, too.

    Attributes:
        lose_replies: So many settles are written, and then reported as of unknown outcome.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.lose_replies = 0
        self.settled: list[Settled] = []

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        outcomes = await self.backend.settle(settlements)
        if self.lose_replies:
            self.lose_replies -= 1
            raise BackendUnavailable("the reply was lost")
        self.settled += outcomes
        return outcomes


class Gate:
    """A handler that cannot be stopped: it ends when it is let go."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.entered = anyio.Event()
        self.let_go = anyio.Event()

    async def __call__(self, event: JobEvent) -> None:
        self.events.append(event)
        self.entered.set()
        with anyio.CancelScope(shield=True):
            await self.let_go.wait()


class Service:
    """One instance: a scheduler on the shared store, and what its handler saw."""

    def __init__(self, open_store: Open, clock: FakeClock) -> None:
        self.wire = Wire(open_store())
        self.gate = Gate()
        self.failures = 0
        self.leaves = 0
        self.events: list[JobEvent] = []
        self.scheduler = Scheduler(cast("Backend", self.wire), clock=clock, handler=self.handle)
        self.holds = False

    async def handle(self, event: JobEvent) -> None:
        if self.leaves:
            self.leaves -= 1
            raise NoRoute(delay=1)
        self.events.append(event)
        if self.holds:
            self.holds = False
            await self.gate(event)
        if self.failures:
            self.failures -= 1
            raise ValueError("as planned")


class World:
    """Two instances on one store, one job that is due, and what must hold in the end."""

    def __init__(self, open_store: Open) -> None:
        self.clock = FakeClock()
        self.one = Service(open_store, self.clock)
        self.two = Service(open_store, self.clock)
        self.revisions: list[int] = []
        self.original = ""

    async def __aenter__(self) -> World:
        await self.one.scheduler.__aenter__()
        await self.two.scheduler.__aenter__()
        job = await self.one.scheduler.submit_job("job", Interval(hours=1), policy=POLICY)
        self.original = job.uid
        self.clock.jump(DUE)
        await self.look()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.two.scheduler.__aexit__(None, None, None)
        await self.one.scheduler.__aexit__(None, None, None)

    async def look(self) -> Job | None:
        """Read the job, and remember its revision."""
        try:
            job = await self.two.scheduler.get_job("job")
        except JobNotFound:
            return None
        if not self.revisions or self.revisions[-1] != job.revision:
            self.revisions.append(job.revision)
        return job

    async def executions(self) -> list[Execution]:
        """Return the history, oldest first."""
        return (await history(self.two.scheduler))[::-1]

    async def told(self) -> list[tuple[int, int, str]]:
        """Return number, attempt and status of the first incarnation's executions, oldest first."""
        executions = await self.executions()
        return [
            (execution.number, execution.attempt, execution.status.value)
            for execution in executions
            if execution.uid == self.original
        ]

    async def check(self) -> None:
        """One final execution for each occurrence that is over, and nothing comes twice."""
        job = await self.look()
        executions = await self.executions()
        finals = [(each.uid, each.number) for each in executions if each.final]
        assert len(finals) == len(set(finals)), executions
        for each in executions:
            pending = job is not None and job.uid == each.uid and job.standing.find(each.number)
            assert ((each.uid, each.number) in finals) != bool(pending), each
        assert self.revisions == sorted(set(self.revisions))
        tokens = [event.token for event in self.one.events + self.two.events]
        assert len(tokens) == len(set(tokens))
        attempts = [(e.key, e.attempt) for e in self.one.events + self.two.events]
        assert len(attempts) == len(set(attempts))

    async def live_on(self, hours: int = 4) -> None:
        """Let the second instance serve for some hours."""
        for _ in range(hours * 6):
            self.clock.advance(10 * MINUTE)
            await self.two.scheduler.run_due()
            await self.look()


async def edit(scheduler: Scheduler) -> None:
    """Give it a calendar that lacks what is due."""
    await scheduler.update_job("job", AT_HALF)


async def stretch(scheduler: Scheduler) -> None:
    """Give it an interval, which takes over what is due."""
    await scheduler.update_job("job", Interval(hours=2))


async def describe(scheduler: Scheduler) -> None:
    await scheduler.update_job("job", metadata={"new": "yes"}, policy=POLICY)


async def pause(scheduler: Scheduler) -> None:
    await scheduler.pause_job("job", reason="stop")


async def trigger(scheduler: Scheduler) -> None:
    await scheduler.trigger_job("job")


async def skip(scheduler: Scheduler) -> None:
    await scheduler.skip_next("job")


async def remove(scheduler: Scheduler) -> None:
    await scheduler.remove_job("job")


async def readd(scheduler: Scheduler) -> None:
    await scheduler.remove_job("job")
    await scheduler.submit_job("job", Interval(hours=1), metadata={"life": "second"}, policy=POLICY)


Edit = Callable[[Scheduler], Awaitable[None]]
EDITS: list[Edit] = [edit, stretch, describe, pause, trigger, skip, remove, readd]
everywhere = pytest.mark.parametrize("kind", KINDS)
whatever = pytest.mark.parametrize("change", EDITS, ids=lambda change: change.__name__)
ON_FILES = {edit, pause, remove}
"""What the short form does in SQLite, too: the others are to a store what the first one is."""
every_edit_everywhere = pytest.mark.parametrize(
    ("kind", "change"),
    [
        pytest.param(
            kind, change, marks=() if kind == "memory" or change in ON_FILES else pytest.mark.deep
        )
        for kind in KINDS
        for change in EDITS
    ],
)


async def check_that_it_stands(world: World, change: Edit) -> None:
    """Check that nothing reverted the edit, right after the run and hours later."""
    job = await world.look()
    if change is remove:
        assert job is None
        return
    assert job is not None
    standing = job.standing
    assert (job.uid != world.original) == (change is readd)
    assert job.state is (State.PAUSED if change is pause else State.ACTIVE)
    if change in {edit, stretch}:
        assert job.spec.schedule == (AT_HALF if change is edit else Interval(hours=2))
    elif change is describe:
        assert job.spec.metadata == {"new": "yes"}
    elif change is pause:
        assert standing.pause is not None
        assert (standing.pause.reason, standing.due_at) == ("stop", None)
    elif change is readd:
        assert job.spec.metadata == {"life": "second"}


@every_edit_everywhere
def test_an_edit_while_the_handler_runs_stands(kind: str, change: Edit, tmp_path: Path) -> None:
    async def main() -> None:
        async with World(fresh_store(kind, tmp_path)) as world:
            world.one.holds = True
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.one.scheduler.run_due)
                await world.one.gate.entered.wait()
                world.clock.advance(seconds=1)
                await change(world.two.scheduler)
                await world.look()
                world.one.gate.let_go.set()
            await world.two.scheduler.run_due()
            await check_that_it_stands(world, change)
            expected = [(1, 1, "succeeded")]
            if change is trigger:
                expected.append((2, 1, "succeeded"))
            assert await world.told() == expected
            await world.live_on()
            await check_that_it_stands(world, change)
            await world.check()
            told = await world.told()
            if change in {remove, readd, pause}:
                assert told == expected
            elif change is skip:
                assert told[1:3] == [(2, 0, "skipped"), (3, 1, "succeeded")]

    anyio.run(main)


@every_edit_everywhere
def test_a_failed_run_does_not_retry_what_was_edited_away(
    kind: str, change: Edit, tmp_path: Path
) -> None:
    async def main() -> None:
        async with World(fresh_store(kind, tmp_path)) as world:
            world.one.holds, world.one.failures = True, 1
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.one.scheduler.run_due)
                await world.one.gate.entered.wait()
                await change(world.two.scheduler)
                world.one.gate.let_go.set()
            await check_that_it_stands(world, change)
            await world.live_on()
            await world.check()
            ended = [
                execution
                for execution in await world.executions()
                if execution.uid == world.original
            ]
            if change in {edit, remove, readd}:
                assert (ended[0].status, ended[0].final) == (Status.FAILED, True)
            else:
                assert (ended[0].status, ended[0].final) == (Status.FAILED, False)

    anyio.run(main)


@every_edit_everywhere
def test_an_edit_while_a_retry_waits_stands(kind: str, change: Edit, tmp_path: Path) -> None:
    async def main() -> None:
        async with World(fresh_store(kind, tmp_path)) as world:
            world.one.failures = 1
            assert await world.one.scheduler.run_due() == 1
            await change(world.two.scheduler)
            await world.look()
            world.clock.advance(10 * MINUTE)
            await world.one.scheduler.run_due()
            await check_that_it_stands(world, change)
            if change in {edit, remove, readd}:
                expected = [(1, 1, "failed"), (1, 0, "superseded")]
            elif change is pause:
                expected = [(1, 1, "failed")]
            else:
                expected = [(1, 1, "failed"), (1, 2, "succeeded")]
                if change is trigger:  # it waits for no retry
                    expected.insert(1, (2, 1, "succeeded"))
            assert await world.told() == expected
            await world.live_on()
            await check_that_it_stands(world, change)
            if change is pause:
                await world.two.scheduler.resume_job("job")
                await world.two.scheduler.run_due()
                assert (await world.told())[1] == (1, 2, "succeeded")
            await world.check()

    anyio.run(main)


@pytest.mark.parametrize(
    ("kind", "renewals"),
    [
        ("memory", "hang"),
        ("memory", "fail"),
        ("sqlite", "hang"),
        pytest.param("sqlite", "fail", marks=pytest.mark.deep),
    ],
)
@whatever
@pytest.mark.parametrize("late", [False, True], ids=["edit-then-takeover", "takeover-then-edit"])
def test_an_edit_stands_when_another_instance_takes_over(
    kind: str, change: Edit, renewals: str, late: bool, tmp_path: Path
) -> None:
    """The first instance's lease runs out while its handler goes on; its end changes nothing."""

    async def main() -> None:
        async with World(fresh_store(kind, tmp_path)) as world:
            world.one.holds = True
            if renewals == "hang":
                world.one.wire.hangs.add("renew")
            else:
                world.one.wire.failures["renew"] = BackendUnavailable("cut")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.one.scheduler.run_due)
                await world.one.gate.entered.wait()
                if not late:
                    await change(world.two.scheduler)
                await world.look()
                for passing in (LEASE, timedelta(seconds=1)):  # what was lost is due a little later
                    world.clock.advance(passing)
                    await world.two.scheduler.run_due()
                    await world.look()
                if late:
                    assert await world.told() == [(1, 1, "abandoned"), (1, 2, "succeeded")]
                    await change(world.two.scheduler)
                    await world.look()
                    await world.two.scheduler.run_due()
                world.one.gate.let_go.set()
            await check_that_it_stands(world, change)
            if late:
                assert "written" not in {settled.outcome for settled in world.one.wire.settled}
            await world.live_on()
            await check_that_it_stands(world, change)
            await world.check()

    anyio.run(main)


@everywhere
def test_a_settle_repeated_after_a_lost_reply_is_written_once(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with World(fresh_store(kind, tmp_path)) as world:
            world.one.wire.lose_replies = 2
            assert await world.one.scheduler.run_due() == 1
            assert [settled.outcome for settled in world.one.wire.settled] == ["written"]
            assert await world.told() == [(1, 1, "succeeded")]
            job = await world.look()
            assert job is not None
            assert job.standing.last_number == 2
            await world.check()

    anyio.run(main)


@every_edit_everywhere
def test_a_settle_repeated_after_an_edit_is_still_written(
    kind: str, change: Edit, tmp_path: Path
) -> None:
    """The reply was lost, the job was edited, and only then the same settlement comes again."""

    async def main() -> None:
        async with World(fresh_store(kind, tmp_path)) as world:
            settle = world.one.wire.settle
            edited: list[bool] = []

            async def edit_in_between(settlements: Sequence[Settlement]) -> Sequence[Settled]:
                if not edited:
                    edited.append(True)
                    world.one.wire.lose_replies = 1
                    with pytest.raises(BackendUnavailable):
                        await settle(settlements)
                    await change(world.two.scheduler)
                    await world.look()
                    raise BackendUnavailable("the reply was lost")
                return await settle(settlements)

            world.one.wire.settle = edit_in_between  # type: ignore[method-assign]  # for this test
            await world.one.scheduler.run_due()
            assert world.one.wire.settled[0].outcome == "written"
            await check_that_it_stands(world, change)
            await world.live_on()
            await world.check()
            finals = [
                execution
                for execution in await world.executions()
                if execution.final and execution.number == 1
            ]
            assert len([execution for execution in finals if execution.uid == world.original]) == 1

    anyio.run(main)


@every_edit_everywhere
def test_an_edit_while_a_decision_is_being_written_stands(
    kind: str, change: Edit, tmp_path: Path
) -> None:
    """Nothing ran, the occurrence is too old: the edit falls between decision and write."""

    async def main() -> None:
        async with World(fresh_store(kind, tmp_path)) as world:
            drop = Policy(misfire=Drop(grace=MINUTE))
            await world.one.scheduler.update_job("job", policy=drop)
            world.clock.advance(30 * MINUTE)
            await world.look()
            settle = world.one.wire.settle
            edited: list[bool] = []

            async def edit_before(settlements: Sequence[Settlement]) -> Sequence[Settled]:
                if not edited:
                    edited.append(True)
                    await change(world.two.scheduler)
                    await world.look()
                return await settle(settlements)

            world.one.wire.settle = edit_before  # type: ignore[method-assign]  # for this test
            await world.one.scheduler.run_due()
            await check_that_it_stands(world, change)
            told = await world.told()
            if change in {edit, remove, readd}:
                assert told == [(1, 0, "superseded")]
            elif change is pause:
                assert told == []
            elif change is describe:  # its new policy runs what is late
                assert told == [(1, 1, "succeeded")]
            else:
                assert told[0] == (1, 0, "missed")
            await world.live_on()
            await check_that_it_stands(world, change)
            await world.check()

    anyio.run(main)


@everywhere
@pytest.mark.parametrize("how", ["released", "no route"])
def test_lost_attempts_keep_their_numbers_when_the_next_claim_is_handed_back(
    kind: str, how: str, tmp_path: Path
) -> None:
    """Or the attempt that succeeds in the end would have the id of the lost one."""

    async def main() -> None:
        open_store = fresh_store(kind, tmp_path)
        async with World(open_store) as world:
            gone = open_store()
            await gone.open(world.clock, worker="gone")
            assert len((await gone.claim_due(Room(1))).claims) == 1
            await gone.close()
            world.clock.advance(LEASE)
            claimed = await world.two.wire.claim_due(Room(1))
            assert [each.status for each in claimed.lapsed] == [Status.ABANDONED]
            world.clock.advance(seconds=1)
            if how == "released":
                (claim,) = (await world.two.wire.claim_due(Room(1))).claims
                await world.two.wire.release([claim])
            else:
                world.two.leaves = 1
                await world.two.scheduler.run_due()
            world.clock.advance(MINUTE)
            await world.one.scheduler.run_due()
            assert await world.told() == [(1, 1, "abandoned"), (1, 2, "succeeded")]
            await world.check()

    anyio.run(main)


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


@pytest.mark.parametrize("claimed_again", [False, True])
def test_a_token_from_before_a_restored_copy_is_refused(
    claimed_again: bool, tmp_path: Path
) -> None:
    """The file is put back under a running worker: tokens repeat, token and worker do not."""
    database, saved = tmp_path / "jobs.db", tmp_path / "saved.db"

    async def main() -> None:
        async with World(fresh_store("sqlite", tmp_path)) as world:
            _copy(database, saved)
            world.one.holds = True
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.one.scheduler.run_due)
                await world.one.gate.entered.wait()
                _copy(saved, database)
                if claimed_again:
                    await world.two.scheduler.run_due()
                    assert world.two.events[0].token == world.one.events[0].token
                    assert await world.told() == [(1, 1, "succeeded")]
                world.one.gate.let_go.set()
            assert world.one.wire.settled[0].outcome == "claim_lost"
            assert await world.told() == [(1, 1, "succeeded")]
            executions = await world.executions()
            assert len(executions) == 1
            job = await world.look()
            assert job is not None
            assert job.standing.last_number == 2
            with closing(sqlite3.connect(database)) as check:
                assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    anyio.run(main)
