"""The history in the order in which it was committed, from a cursor on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from attrs import define, evolve, field

from sched_core import (
    Backend,
    BackendUnavailable,
    Claim,
    CursorExpired,
    Execution,
    InvalidDefinition,
    Job,
    Status,
    UndecodableExecution,
)
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit._suite.processes import open_there
from sched_testkit.laws.durability import THERE, other
from sched_testkit.laws.law import law, several_processes, spoilable_execution, transactional
from sched_testkit.laws.lookups import ran
from sched_testkit.laws.queues import add_all
from sched_testkit.laws.transactions import RolledBack, callers, rolled_back

Records = list[Execution | UndecodableExecution]


async def in_order(bench: Bench, backend: Backend) -> Records:
    """Return the history, oldest first."""
    return (await bench.records(backend))[::-1]


async def expect_expired(call: Callable[[], Awaitable[object]], why: str) -> None:
    """Expect that a cursor is refused."""
    try:
        answer = await call()
    except CursorExpired:
        return
    raise AssertionError(f"{why}: expected CursorExpired, got {answer}")


@law
async def follow_returns_the_history_in_its_order(bench: Bench) -> None:
    """Follow returns every execution once, in the order of writing, however it was written."""
    one, two = await bench.open(), await bench.open()
    found, cursor = await bench.followed(one, "")
    assert found == [], "an empty history has executions"
    await ran(bench, one, "a", 3)
    job, gone = await bench.added(two, bench.job("b", due=None), bench.job("c", due=None))
    for each, status in ((job, Status.MISSED), (gone, Status.SUPERSEDED)):
        late = bench.clock.now() - timedelta(days=1)
        written = evolve(bench.execution(_claim(bench, each), status), finished_at=late)
        await (two.replace(each, [written]) if each is job else two.remove(each, [written]))
    await bench.added(one, bench.job("lost"))
    await bench.claim(one)
    await bench.advance(bench.lease)
    await bench.lapse(two)
    await bench.advance(2 * SECOND)
    claim = await bench.claim(two)
    await two.replace(bench.moved(await bench.stored(two, "lost"), bench.clock.now() + SECOND))
    await two.release([claim])
    settlement = bench.settlement(_claim(bench, job))
    await one.settle([settlement])  # holds nothing: it writes nothing
    history = await in_order(bench, one)
    assert len(history) == 7
    for backend in (one, two):
        for start in ("", cursor):
            for limit in (1, 2, 3, 7, 100):
                found, _ = await bench.followed(backend, start, limit)
                names = [each.id for each in found]
                assert found == history, f"in parts of {limit} after {start!r}: {names}"


def _claim(bench: Bench, job: Job) -> Claim:
    return Claim(job, 1, "worker-0", bench.clock.now(), bench.clock.now())


@law
async def follow_begins_at_the_present_end(bench: Bench) -> None:
    """Without a cursor follow returns no executions, and the cursor of what comes from then on."""
    one, two = await bench.open(), await bench.open()
    for turn in range(3):
        part = await two.follow(None, limit=9)
        assert list(part.executions) == [], "without a cursor executions were returned"
        before = len(await bench.history(one))
        await ran(bench, one, f"{turn}", 2)
        found, _ = await bench.followed(two, part.cursor, 1)
        assert found == (await in_order(bench, one))[before:], "not what came since"


@law
async def what_is_written_between_two_parts_comes(bench: Bench) -> None:
    """An execution that is written after a part was returned comes in a later one, once."""
    one, two = await bench.open(), await bench.open()
    await ran(bench, one, "a", 2)
    found: Records = []
    cursor = ""
    for turn in range(8):
        part = await _next_part(bench, two, cursor)
        found += part[0]
        cursor = part[1]
        if turn < 4:
            await ran(bench, one, f"b{turn}")
    rest, _ = await bench.followed(two, cursor, 1)
    assert [*found, *rest] == await in_order(bench, one)


async def _next_part(bench: Bench, backend: Backend, cursor: str) -> tuple[Records, str]:
    part = await backend.follow(cursor, limit=1)
    return list(part.executions), part.cursor


@law
async def a_cursor_stays_good(bench: Bench) -> None:
    """A cursor may be used again, by every backend and opening, and tells the same then."""
    one, two = await bench.open(), await bench.open()
    await ran(bench, one, "a", 3)
    history = await in_order(bench, one)
    first, cursor = await _next_part(bench, one, "")
    assert first == history[:1]
    for backend in (one, two, one):
        assert (await bench.followed(backend, cursor, 1))[0] == history[1:]
    _, end = await bench.followed(one, cursor)
    for backend in (one, two):
        part = await backend.follow(end, limit=5)
        assert list(part.executions) == []
        assert (await bench.followed(backend, part.cursor))[0] == []
    await two.close()
    await two.open(bench.clock, worker="again")
    assert (await bench.followed(two, cursor))[0] == history[1:]
    await ran(bench, two, "b")
    for backend in (one, two):
        (new,), _ = await bench.followed(backend, end)
        assert new.job_id == "b"


@law
async def what_was_deleted_unseen_is_told(bench: Bench) -> None:
    """A cursor after which executions were deleted that it had not returned is expired."""
    one, two = await bench.open(), await bench.open()
    start = (await two.follow(None, limit=1)).cursor
    await ran(bench, one, "a", 2)
    _, seen = await _next_part(bench, two, "")
    await bench.advance(timedelta(hours=1))
    await ran(bench, one, "b", 2)
    assert await one.prune(bench.clock.now()) == 2
    left = await in_order(bench, one)
    for backend in (one, two):
        for cursor in (start, seen):
            await expect_expired(
                partial(backend.follow, cursor, limit=9),
                "executions were deleted before they were returned",
            )
        assert (await bench.followed(backend, "", 1))[0] == left, "not the oldest that is left"
    assert list((await two.follow(None, limit=9)).executions) == []


@law
async def a_deletion_out_of_order_is_told(bench: Bench) -> None:
    """What expired before older executions did has expired a cursor that lies between, for good."""
    one, two = await bench.open(), await bench.open()
    now = bench.clock.now()
    days = {"a": 9, "b": 9, "c": 1, "d": 9}
    cursors: dict[str, str] = {}
    for name, kept in days.items():
        await bench.added(one, bench.job(name))
        claim = await bench.claim(one)
        execution = bench.execution(claim, expires_at=now + timedelta(days=kept))
        await bench.settle(one, bench.settlement(claim, executions=[execution]))
        _, cursors[name] = await bench.followed(two, "")
    await bench.advance(timedelta(days=2))
    assert await one.prune(now - timedelta(days=1)) == 1
    for expired in ("a", "b"):
        await expect_expired(
            partial(two.follow, cursors[expired], limit=9),
            "an execution in the midst was deleted",
        )
    (last,), _ = await bench.followed(two, cursors["c"])
    assert last.job_id == "d"
    history = await in_order(bench, one)
    oldest = history[0]
    assert isinstance(oldest, Execution)
    early = evolve(oldest, id="early", number=99, finished_at=now - timedelta(days=99))
    job = await bench.stored(one, "a")
    await one.replace(job, [early])
    assert await one.prune(now - timedelta(days=90)) == 1, "the newest is the oldest by its end"
    for expired in ("a", "b", "c", "d"):
        await expect_expired(
            partial(two.follow, cursors[expired], limit=9),
            "an execution at the end was deleted",
        )
    await bench.advance(timedelta(days=20))
    assert await one.prune(now - timedelta(days=90)) == 3
    for expired in ("a", "d"):
        await expect_expired(
            partial(two.follow, cursors[expired], limit=9),
            "a later deletion of older executions has hidden an earlier one",
        )
    assert (await bench.followed(two, ""))[0] == []


@law
async def deletions_behind_a_cursor_harm_nothing(bench: Bench) -> None:
    """A cursor stays good whatever is deleted that lies before it, be it everything."""
    one, two = await bench.open(), await bench.open()
    await ran(bench, one, "a", 3)
    _, cursor = await bench.followed(two, "", 1)
    assert (await bench.followed(two, cursor))[0] == []
    end = (await two.follow(None, limit=1)).cursor
    await bench.advance(timedelta(hours=1))
    assert await one.prune(bench.clock.now()) == 3
    for backend in (one, two):
        for each in (cursor, end, ""):
            assert (await bench.followed(backend, each))[0] == []
    await ran(bench, one, "b", 2)
    history = await in_order(bench, one)
    for each in (cursor, end, ""):
        found, again = await bench.followed(two, each, 1)
        assert found == history, "what came after a deletion is left out"
        assert (await bench.followed(one, again))[0] == []


@law
async def what_is_no_cursor_is_refused(bench: Bench) -> None:
    """A text that follow has not returned is refused as InvalidDefinition, and nothing else."""
    backend = await bench.open()
    await ran(bench, backend, times=2)
    for text in (
        "rubbish",
        "None",
        " ",
        "-",
        "\u00e9",
        "\0",
        "1;2",
        "\uff11",
        "1 OR 1=1",
        "k" * 300,
    ):
        try:
            part = await backend.follow(text, limit=9)
        except InvalidDefinition as error:
            named = str(error)
            assert "after" in named, f"the error does not name the argument: {named}"
            continue
        raise AssertionError(f"{text!r} is no cursor, and follow returned {part}")
    assert len((await bench.followed(backend, ""))[0]) == 2


@law(needs=spoilable_execution)
async def an_unreadable_execution_is_followed_in_its_place(bench: Bench) -> None:
    """An execution that cannot be read comes in its place, as it is listed, and stops nothing."""
    backend = await bench.open()
    await ran(bench, backend, "a")
    await ran(bench, backend, "odd")
    # Before the next one: some stores can only write it once more, at the end.
    await bench.harness.spoil_execution(bench.place, "odd")
    await ran(bench, backend, "z")
    records = await in_order(bench, backend)
    assert isinstance(records[1], UndecodableExecution)
    for limit in (1, 2, 3):
        assert (await bench.followed(backend, "", limit))[0] == records


@law
async def a_repeated_settlement_is_followed_once(bench: Bench) -> None:
    """An execution that is written again, by whatever call, comes once, where it came first."""
    one, two = await bench.open(), await bench.open()
    await bench.added(one, bench.job())
    claim = await bench.claim(one)
    settlement = bench.settlement(claim, due=bench.clock.now())
    assert (await bench.settle(one, settlement)).outcome == "written"
    _, cursor = await bench.followed(two, "")
    assert (await bench.settle(two, settlement)).outcome == "written"
    job = await bench.stored(two)
    await two.replace(job, settlement.executions)
    assert (await bench.followed(two, cursor))[0] == [], "a repeat has come again"
    assert (await bench.followed(one, ""))[0] == list(settlement.executions)


# -- across processes and transactions


async def follow_there(bench: Bench, cursor: str) -> tuple[Records, str]:
    """Follow in the other process."""
    return await bench.followed(bench.backends[0], cursor, 2)


async def run_there(bench: Bench, job_id: str) -> None:
    """Add a job in the other process, and let it run."""
    # Each process counts its jobs from 1, and two with one uid would have the same executions.
    await bench.added(bench.backends[0], evolve(bench.job(job_id), uid=f"there-{job_id}"))
    await ran(bench, bench.backends[0], job_id)


@law(needs=several_processes, examines="shared", elsewhere=True)
async def another_process_follows(bench: Bench) -> None:
    """A cursor is good in every process, and what others wrote comes in one order everywhere."""
    backend, there = await bench.open(), other(bench)
    await there.call(open_there, THERE)
    await ran(bench, backend, "0")
    first, cursor = await there.call(follow_there, "")
    assert [one.job_id for one in first] == ["0"]
    for turn in range(1, 5):
        if turn % 2:
            await there.call(run_there, f"{turn}")
        else:
            await ran(bench, backend, f"{turn}")
    here, end = await bench.followed(backend, cursor, 1)
    assert [one.job_id for one in here] == ["1", "2", "3", "4"]
    assert (await there.call(follow_there, cursor))[0] == here
    assert (await there.call(follow_there, end))[0] == []


@define
class Follower:
    """One who follows from the present end on.

    Attributes:
        backend: Where.
        cursor: How far it has come.
        found: What it has got.
    """

    backend: Backend
    cursor: str
    found: Records = field(factory=list)

    async def looks(self, written: Records, otherwise: str) -> None:
        """Follow while a transaction is open: what is kept back is told."""
        for _ in range(len(written) + 1):
            part = await self.backend.follow(self.cursor, limit=1)
            self.found += part.executions
            self.cursor = part.cursor
            if not part.executions and len(self.found) < len(written):
                assert part.waits_since is not None, otherwise

    async def expect(self, bench: Bench, written: Records) -> None:
        """Expect that it gets all that was written, once, in the end."""
        rest, _ = await bench.followed(self.backend, self.cursor, 1)
        names = sorted(one.id for one in (*self.found, *rest))
        assert names == sorted(one.id for one in written), f"followed were {names}"


def _missed(bench: Bench, job: Job) -> Execution:
    return bench.execution(_claim(bench, job), Status.MISSED)


async def _beside(bench: Bench, follower: Follower, jobs: list[Job]) -> Records:
    """Write while a transaction is open: outside of it, and in another one, which commits."""
    plain, late = jobs
    try:
        await follower.backend.replace(plain, [_missed(bench, plain)])
    except BackendUnavailable:
        return []  # it lets one write at a time
    async with callers(bench, follower.backend) as store:
        await store.replace(late, [_missed(bench, late)])
    return [_missed(bench, plain), _missed(bench, late)]


KEPT_BACK = "executions that were committed do not come, and waits_since does not say why"


async def _overtaken(bench: Bench, name: str) -> tuple[Follower, list[Job]]:
    backend = await bench.open()
    jobs = [bench.job(f"{name}{n}", due=None) for n in range(3)]
    stored = await add_all(bench, backend, jobs)
    return Follower(backend, (await backend.follow(None, limit=1)).cursor), stored


@law(needs=transactional, examines="transactions")
async def an_execution_that_was_committed_late_is_not_left_out(bench: Bench) -> None:
    """What commits after later ones comes once, at its end; what that keeps back is told."""
    backend = await bench.open()
    follower, (job, *others) = await _overtaken(bench, "late")
    own: Records = [_missed(bench, job)]
    async with callers(bench, backend) as store:
        await store.replace(job, [_missed(bench, job)])
        written = await _beside(bench, follower, others)
        await follower.looks(written, KEPT_BACK)
        assert own[0] not in follower.found, "an execution comes before its commit"
    await follower.expect(bench, [*own, *written])


@law(needs=transactional, examines="transactions")
async def what_is_rolled_back_is_not_followed(bench: Bench) -> None:
    """What a transaction rolls back never comes, and what others have written meanwhile does."""
    backend = await bench.open()
    follower, (job, *others) = await _overtaken(bench, "undone")
    written: Records = []

    async def block() -> None:
        async with callers(bench, backend) as store:
            await store.replace(job, [_missed(bench, job)])
            written.extend(await _beside(bench, follower, others))
            await follower.looks(written, KEPT_BACK)
            raise RolledBack

    await rolled_back(block)
    await follower.expect(bench, written)
    assert await bench.found(backend, _missed(bench, job).id) is None
