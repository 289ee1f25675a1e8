"""Handlers' transactions: what a handler writes commits together with its settlement."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import anyio.from_thread
import anyio.to_thread
from attrs import define, evolve, field

from sched_core import Backend, Claim, ClaimLost, Job, SchedError, Settlement, Status
from sched_core.ports import JobStore, Transactional
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law, transactional
from sched_testkit.laws.transactions import RolledBack, refused, rolled_back
from sched_testkit.laws.wakeups import a_wait


@define
class Handled:
    """A handler's transaction, and what was asked and told at its end."""

    bench: Bench
    backend: Backend
    claim: Claim
    settlement: Settlement | None
    """What is decided; ``None`` to raise."""
    outside: Callable[[], Coroutine[Any, Any, object]] | None = None
    """Looked at when the commit is told, where that can wait: in a thread."""
    decided: list[Job | None] = field(factory=list)
    committed: list[Settlement] = field(factory=list)
    found: list[object] = field(factory=list)

    async def run(
        self, kind: str, body: Callable[[JobStore], Awaitable[None]] | None = None
    ) -> None:
        """Enter it as a handler of that kind does; the body gets what writes within it."""
        backend = cast(Transactional, self.backend)
        transaction = backend.transaction(self.claim, self._decide, self._told)

        async def inside(connection: Any) -> None:
            if body is not None:
                await body(backend.within(connection))

        def in_thread() -> None:
            with transaction as connection:
                anyio.from_thread.run(inside, connection)

        if kind == "thread":
            await anyio.to_thread.run_sync(in_thread)
        else:
            async with transaction as connection:
                await inside(connection)

    def _decide(self, stored: Job | None) -> Settlement:
        self.decided.append(stored)
        if self.settlement is None:
            raise RolledBack
        return self.settlement

    def _told(self, settlement: Settlement) -> None:
        self.committed.append(settlement)
        if self.outside is not None:
            self.found.append(anyio.from_thread.run(self.outside))

    def expect_nothing_written(self, why: str) -> None:
        """Expect that no waiting call was told of a commit."""
        assert not self.committed, f"{why}, and the commit was told"


async def _get(backend: Backend, job_id: str) -> object:
    return await backend.get(job_id)


def kinds(bench: Bench) -> tuple[str, ...]:
    """Return how handlers may enter: in a thread anywhere, in the loop on the first of them.

    A driver need not run on each loop; what it does in threads, it does on all.
    """
    return ("thread", "loop") if bench.whole else ("thread",)


@law(needs=transactional, examines="transactions")
async def a_handlers_commit_settles(bench: Bench) -> None:
    """A handler's transaction commits what it wrote and its settlement in one step, and not before.

    What commits it is told once, and afterwards.
    """
    backend, other = await bench.open(), await bench.open()
    for kind in kinds(bench):
        await bench.added(backend, bench.job(kind))
        claim = await bench.claim(backend)
        settlement = bench.settlement(claim)
        handled = Handled(bench, backend, claim, settlement)
        if kind == "thread":
            handled.outside = functools.partial(_get, other, "thread")

        async def body(store: JobStore, kind: str = kind) -> None:
            await store.add([bench.job(f"{kind}-next", due=None)])
            assert await other.get(f"{kind}-next") is None, "seen before the commit"

        await handled.run(kind, body)
        held = bench.held(claim.job, claim)
        assert handled.decided == [held], f"decide was called with {handled.decided}"
        assert handled.committed == [settlement], f"told as committed: {handled.committed}"
        stored = await bench.stored(other, kind)
        assert stored.standing == settlement.standing, "the settlement was not written"
        assert handled.found in ([], [stored]), "the commit was told before it"
        assert await other.get(f"{kind}-next") is not None, "the handler's writes were lost"
        assert await bench.history(other, job_id=kind) == list(settlement.executions)
        assert not await bench.renew(backend, [claim]), "a settled claim is still held"
        assert (await bench.settle(other, settlement)).outcome == "written", "no repeat"
        assert len(await bench.history(other, job_id=kind)) == 1


@law(needs=transactional, examines="transactions")
async def a_handlers_settlement_is_decided_on_what_is_stored(bench: Bench) -> None:
    """Decide gets the job as it is stored at the end of the block: as edited, None if removed."""
    backend, other = await bench.open(), await bench.open()
    for kind in kinds(bench):
        await bench.added(backend, bench.job(f"{kind}-edited"), bench.job(f"{kind}-gone"))
        for claim in await bench.due(backend, 10):
            execution = bench.execution(claim)
            handled = Handled(bench, backend, claim, Settlement(claim, None, None, (execution,)))
            stored: list[Job | None] = [None]

            async def body(
                _: JobStore, claim: Claim = claim, stored: list[Job | None] = stored
            ) -> None:
                held = bench.held(claim.job, claim)
                if claim.job.id.endswith("edited"):
                    stored[0] = await other.replace(bench.put_off(bench.moved(held), None))
                else:
                    await other.remove(held)

            await handled.run(kind, body)
            assert handled.decided == stored, f"decide got {handled.decided}, not {stored}"
            freed = stored[0] and evolve(stored[0], held=None, held_at=None)
            assert await other.get(claim.job.id) == freed, "an edit or a removal was undone"
            assert await bench.history(other, job_id=claim.job.id) == [execution]
            assert not await bench.renew(backend, [claim]), "a settled claim is still held"


@law(needs=transactional, examines="transactions")
async def an_exception_takes_the_settlement_back(bench: Bench) -> None:
    """An exception in the block or in decide comes out, rolls all back, and the claim is held."""
    backend, other = await bench.open(), await bench.open()

    for kind in kinds(bench):
        (job,) = await bench.added(backend, bench.job(kind))
        claim = await bench.claim(backend)
        for where in ("block", "decide"):
            decided = None if where == "decide" else bench.settlement(claim)
            handled = Handled(bench, backend, claim, decided)

            async def body(store: JobStore, where: str = where) -> None:
                await store.add([bench.job("never", due=None)])
                if where == "block":
                    raise RolledBack

            await rolled_back(functools.partial(handled.run, kind, body))
            handled.expect_nothing_written(f"the {where} raised")
            assert where == "decide" or not handled.decided, "the block raised, and it was decided"
            assert await other.get("never") is None, "what the handler wrote was not rolled back"
            held = bench.held(job, claim)
            assert await bench.stored(other, kind) == held, "the settlement was not rolled back"
            assert not await bench.history(other, job_id=kind), "its execution was not rolled back"
            assert not await bench.due(other, 10), "the claim was freed"
        assert len(await bench.renew(backend, [claim])) == 1, "the claim is not held any more"
        assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"


@law(needs=transactional, examines="transactions")
async def a_lost_claim_commits_nothing(bench: Bench) -> None:
    """A claim that is lost when a handler's block ends raises ClaimLost, and nothing is written."""
    backend, other = await bench.open(), await bench.open()
    for kind in kinds(bench):
        for how in ("taken", "released", "settled", "forged"):
            name = f"{kind}-{how}"
            await bench.added(backend, bench.job(name))
            claim = await bench.claim(backend)
            ended = bench.settlement(claim)
            if how == "forged":
                claim = evolve(claim, worker="stranger")
            settlement = Settlement(
                claim, None, None, (bench.execution(claim, Status.FAILED, attempt=7),)
            )
            handled = Handled(bench, backend, claim, settlement)

            async def body(
                store: JobStore,
                how: str = how,
                name: str = name,
                claim: Claim = claim,
                ended: Settlement = ended,
            ) -> None:
                if how == "taken":
                    await bench.take_over(other, name)
                elif how == "released":
                    await other.release([claim])
                elif how == "settled":
                    assert (await bench.settle(other, ended)).outcome == "written"
                await store.add([bench.job("never", due=None)])

            await refused(
                ClaimLost,
                functools.partial(handled.run, kind, body),
                f"a claim that was {how}",
            )
            handled.expect_nothing_written("the claim was lost")
            assert await other.get("never") is None, "what the handler wrote was not rolled back"
            statuses = [execution.status for execution in await bench.history(other, job_id=name)]
            assert Status.FAILED not in statuses, "its execution was written"
            await bench.remove(other, name)


@law(needs=transactional, examines="transactions")
async def a_refused_settlement_takes_the_transaction_back(bench: Bench) -> None:
    """A settlement that would be a conflict is no commit: it raises, and nothing is written."""
    backend, other = await bench.open(), await bench.open()
    for kind in kinds(bench):
        await bench.added(backend, bench.job(kind))
        claim = await bench.claim(backend)
        edited = await other.replace(bench.held(claim.job, claim))
        stale = bench.settlement(claim)  # of the revision that was claimed
        handled = Handled(bench, backend, claim, stale)

        async def body(store: JobStore) -> None:
            await store.add([bench.job("never", due=None)])

        await refused(
            SchedError,
            functools.partial(handled.run, kind, body),
            "a settlement on an old revision",
        )
        handled.expect_nothing_written("the settlement was refused")
        assert await other.get("never") is None, "what the handler wrote was not rolled back"
        assert await bench.stored(other, kind) == edited
        assert not await bench.history(other, job_id=kind)
        assert len(await bench.renew(backend, [claim])) == 1, "the claim is not held any more"
        await bench.remove(backend, kind)


@law(needs=transactional, examines="transactions")
async def a_handlers_commit_wakes_who_waits(bench: Bench) -> None:
    """A handler's transaction after which its job is due at once wakes a waiting call."""
    backend = await bench.open()
    for kind in kinds(bench):
        await bench.added(backend, bench.job(kind))
        claim = await bench.claim(backend)
        again = bench.settlement(claim, due=bench.clock.now())
        handled = Handled(bench, backend, claim, again)
        async with a_wait(bench, backend, "a handler's commit ended no wait", begins_within=0.05):
            await handled.run(kind)
        claim = await bench.claim(backend)
        assert (claim.job.id, bench.pending(claim).number) == (kind, 2)


@law(needs=transactional, examines="transactions")
async def a_handlers_settlement_ends_what_was_edited_away(bench: Bench) -> None:
    """A handler's commit writes the `superseded` end of what was edited away, like a settlement."""
    backend, other = await bench.open(), await bench.open()
    for kind in kinds(bench):
        await bench.added(backend, bench.job(kind))
        claim = await bench.claim(backend)
        moved = bench.put_off(bench.moved(bench.held(claim.job, claim)), None)
        await other.replace(moved, [bench.owed(claim, Status.SUPERSEDED)])
        failed = bench.execution(claim, Status.INTERRUPTED)
        handled = Handled(bench, backend, claim, Settlement(claim, None, None, (failed,)))
        await handled.run(kind)
        end = bench.owed(claim, Status.SUPERSEDED)
        assert await bench.history(other, job_id=kind) == [end, failed]


@law(needs=transactional, examines="transactions")
async def a_handler_ends_nothing_that_is_still_pending(bench: Bench) -> None:
    """A handler's settlement without standing and with the end of what is pending is no commit."""
    backend, other = await bench.open(), await bench.open()
    for kind in kinds(bench):
        (job,) = await bench.added(backend, bench.job(kind))
        claim = await bench.claim(backend)
        alone = Settlement(claim, None, None, (bench.execution(claim),))
        handled = Handled(bench, backend, claim, alone)
        await refused(
            SchedError, functools.partial(handled.run, kind), "the end of what is pending"
        )
        handled.expect_nothing_written("the settlement was refused")
        assert await bench.stored(other, kind) == bench.held(job, claim)
        assert not await bench.history(other, job_id=kind)
        await bench.remove(other, kind)
