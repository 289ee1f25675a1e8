"""Jobs written inside an application's own transaction.

While a caller's transaction is open, the laws only read on other connections, or allow that the
store is busy: some stores let one write at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

from attrs import evolve

from sched_core import (
    Backend,
    BackendUnavailable,
    Claim,
    InvalidDefinition,
    Job,
    JobAlreadyExists,
    JobNotFound,
    RevisionConflict,
    Settlement,
    Status,
)
from sched_core.ports import MAX_POLL, JobStore, Transactional
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law, transactional
from sched_testkit.laws.wakeups import a_wait


@asynccontextmanager
async def callers(bench: Bench, backend: Backend) -> AsyncIterator[JobStore]:
    """Enter a transaction of an application's own; yield what writes inside it."""
    manager: Any = bench.harness.connect(bench.place)
    if hasattr(manager, "__aenter__"):
        async with manager as connection:
            yield cast(Transactional, backend).within(connection)
    else:
        with manager as connection:
            yield cast(Transactional, backend).within(connection)


class RolledBack(Exception):
    """Leaves a block, so that its transaction is rolled back."""


async def rolled_back(block: Callable[[], Awaitable[None]]) -> None:
    """Run a block that raises RolledBack, and expect that it comes out."""
    try:
        await block()
    except RolledBack:
        return
    raise AssertionError("an exception that was raised in a transaction did not come out of it")


async def refused(error: type[Exception], call: Callable[[], Awaitable[object]], why: str) -> None:
    """Expect that a call is refused."""
    try:
        await call()
    except error:
        return
    raise AssertionError(f"{why} did not raise {error.__name__}")


@law(needs=transactional, examines="transactions")
async def what_is_written_within_is_seen_there_alone(bench: Bench) -> None:
    """What is written within a transaction is seen within it at once, and nowhere else before."""
    backend, other = await bench.open(), await bench.open()
    before = await bench.added(backend, bench.job("edited", due=None), bench.job("gone", due=None))
    async with callers(bench, backend) as store:
        edited, _ = await _write(bench, store, before)
        assert await store.get("new") == await store.get("new") is not None
        assert await store.get("edited") == edited, "an edit is not seen within"
        assert await store.get("gone") is None, "a removal is not seen within"
        for outside in (backend, other):
            assert await bench.jobs(outside) == before, "it is listed before the commit"
            assert await outside.get("new") is None, "a job is there before the commit"
            assert await outside.get("edited") == before[0], "an edit is seen before the commit"
            assert await outside.get("gone") == before[1], "a removal is seen before the commit"
            assert not await bench.history(outside), "an execution is listed before the commit"
            try:
                claims = await bench.due(outside, 10)
            except BackendUnavailable:
                continue  # one that lets one write at a time
            assert not claims, "a job was handed out before the commit"


@law(needs=transactional, examines="transactions")
async def a_commit_stores_all_that_was_written_within(bench: Bench) -> None:
    """After the commit all that was written within is stored, with the revisions told there."""
    backend, other = await bench.open(), await bench.open()
    before = await bench.added(backend, bench.job("edited", due=None), bench.job("gone", due=None))
    async with callers(bench, backend) as store:
        edited, new = await _write(bench, store, before)
    for outside in (backend, other):
        assert await bench.jobs(outside) == [edited, new], "it is not what was written within"
        ended = [(execution.job_id, execution.status) for execution in await bench.history(outside)]
        assert sorted(ended) == [("edited", Status.MISSED), ("gone", Status.SUPERSEDED)]
    await refused(RevisionConflict, lambda: other.replace(before[0]), "an edit of what was before")
    again = await other.replace(edited)
    assert again.revision != edited.revision
    assert (await bench.claim(other)).job == new


@law(needs=transactional, examines="transactions")
async def a_rollback_leaves_nothing(bench: Bench) -> None:
    """After a rollback jobs, revisions and history are as they were, and the ids are free."""
    backend, other = await bench.open(), await bench.open()
    before = await bench.added(backend, bench.job("edited", due=None), bench.job("gone"))
    written: list[Job] = []

    async def block() -> None:
        async with callers(bench, backend) as store:
            written.extend(await _write(bench, store, before))
            raise RolledBack

    await rolled_back(block)
    edited, new = written
    for outside in (backend, other):
        assert await bench.jobs(outside) == before, "a rollback left something"
        assert not await bench.history(outside), "a rollback left executions"
    await refused(RevisionConflict, lambda: other.replace(edited), "an edit of what never was")
    await refused(JobNotFound, lambda: other.replace(new), "an edit of what was rolled back")
    await backend.replace(before[0])
    await backend.add([bench.job("new", due=None)])
    assert (await bench.claim(other)).job == before[1], "a removal that was rolled back"


async def _write(bench: Bench, store: JobStore, before: Sequence[Job]) -> tuple[Job, Job]:
    """Add, edit and remove, with executions; return what was edited and what was added."""
    old, gone = before
    missed, superseded = (
        bench.execution(Claim(job, 0, "", bench.clock.now(), bench.clock.now()), status, number=9)
        for job, status in ((old, Status.MISSED), (gone, Status.SUPERSEDED))
    )
    (new,) = await store.add([bench.job("new")])
    renamed = evolve(old, spec=evolve(old.spec, name="another"))
    edited = await store.replace(renamed, [missed])
    assert edited == evolve(renamed, revision=edited.revision), "another job was stored"
    assert edited.revision != old.revision, "an edit within has no new revision"
    await store.remove(gone, [superseded])
    return edited, new


@law(needs=transactional, examines="transactions")
async def a_refusal_within_leaves_the_rest(bench: Bench) -> None:
    """What is refused within writes nothing, and the rest of the transaction goes on."""
    backend = await bench.open()
    (old,) = await bench.added(backend, bench.job("old", due=None))
    job = await backend.replace(old)
    execution = bench.execution(
        Claim(old, 0, "", bench.clock.now(), bench.clock.now()), Status.MISSED
    )
    async with callers(bench, backend) as store:
        await store.add([bench.job("first", due=None)])
        taken = [bench.job("half", due=None), bench.job("old")]
        await refused(JobAlreadyExists, lambda: store.add(taken), "a taken id")
        twice = [bench.job("half", due=None), bench.job("half", due=None)]
        await refused(JobAlreadyExists, lambda: store.add(twice), "an id twice")
        own = [bench.job("half", due=None), bench.job("first")]
        await refused(JobAlreadyExists, lambda: store.add(own), "an id taken within")
        await refused(RevisionConflict, lambda: store.replace(old, [execution]), "an old revision")
        await refused(
            RevisionConflict,
            lambda: store.remove(old, [execution]),
            "a removal of an old revision",
        )
        missing = bench.job("missing")
        await refused(JobNotFound, lambda: store.replace(missing), "an edit of nothing")
        await refused(JobNotFound, lambda: store.remove(missing), "a removal of nothing")
        assert await store.get("half") is None, "a refused bulk add left a job"
        await store.add([bench.job("last", due=None)])
    stored = {each.id for each in await bench.jobs(backend)}
    assert stored == {"first", "last", "old"}, f"stored are {sorted(stored)}"
    assert await bench.stored(backend, "old") == job
    assert not await bench.history(backend), "a refused call left an execution"


@law(needs=transactional, examines="transactions")
async def an_edit_within_is_compared_with_what_is_stored(bench: Bench) -> None:
    """Within a transaction that has read a job, an edit of it by others is seen, or it fails."""
    backend, other = await bench.open(), await bench.open()
    (job,) = await bench.added(backend, bench.job(due=None))
    edited: list[Job] = []

    async def block() -> None:
        async with callers(bench, backend) as store:
            assert await store.get("job") == job
            try:
                edited.append(await other.replace(job))
            except BackendUnavailable:
                return  # it lets one write at a time
            await store.replace(evolve(job, spec=evolve(job.spec, name="another")))

    try:
        await block()
    except Exception:  # noqa: BLE001 -- a commit may fail with an error of the store's driver
        assert edited, "an edit within was refused, and no other call had edited the job"
    else:
        assert not edited, "an edit of an older revision took back what another one had stored"
    assert await bench.stored(other) in (edited or [job])


@law(needs=transactional, examines="transactions")
async def what_others_write_meanwhile_is_kept(bench: Bench) -> None:
    """What others write while a transaction is open is there after its end, be it a rollback."""
    backend, other = await bench.open(), await bench.open()
    await bench.added(backend, bench.job("held"), bench.job("before", due=None))
    kept = {"before", "held"}
    claim = await bench.claim(backend)
    for end in ("commit", "rollback"):

        async def block(end: str = end) -> None:
            async with callers(bench, backend) as store:
                await store.add([bench.job(f"within-{end}", due=None)])
                try:
                    await other.add([bench.job(f"other-{end}", due=None)])
                    kept.add(f"other-{end}")
                    if end == "commit":
                        settled = await bench.settle(other, bench.settlement(claim))
                        assert settled.outcome == "written"
                except BackendUnavailable:
                    pass  # it lets one write at a time
                if end == "rollback":
                    raise RolledBack

        if end == "rollback":
            await rolled_back(block)
        else:
            await block()
            kept.add("within-commit")
    stored = {job.id for job in await bench.jobs(backend)}
    assert stored == kept, f"expected {sorted(kept)}, stored are {sorted(stored)}"
    assert (await bench.settle(backend, bench.settlement(claim))).outcome == "written"
    assert len(await bench.history(backend)) == 1, "a settlement outside the transaction was undone"


@law(needs=transactional, examines="transactions")
async def a_claim_is_kept_by_what_is_written_within(bench: Bench) -> None:
    """An edit or a removal within keeps the claim of a run, and leaves its occurrence to it."""
    backend, other = await bench.open(), await bench.open()
    await bench.added(backend, bench.job("edited"), bench.job("gone"))
    claims = {claim.job.id: claim for claim in await bench.due(backend, 10)}
    async with callers(bench, backend) as store:
        for name, claim in claims.items():
            held, execution = bench.held(claim.job, claim), bench.owed(claim, Status.SUPERSEDED)
            assert await store.get(name) == held, "within it is not told that the job is held"
            if name == "edited":
                edited = await store.replace(held, [execution])
            else:
                await store.remove(held, [execution])
                await store.add([bench.job("gone")])
    assert not await bench.history(other), "an execution about a running occurrence was written"
    assert not await bench.due(other, 10), "a held job was handed out"
    settled = await bench.settle(other, bench.settlement(claims["edited"]))
    assert (settled.outcome, settled.job) == ("conflict", edited)
    answers = await other.settle([Settlement(claim, None, None, ()) for claim in claims.values()])
    assert [answer.outcome for answer in answers] == ["written", "written"]
    assert {claim.job.id for claim in await bench.due(other, 10)} == {"edited", "gone"}


async def _wakes(bench: Bench, poll: timedelta | None) -> None:
    backend = await bench.open()
    await bench.added(backend, bench.job("later", due=bench.clock.now() + timedelta(days=1)))
    otherwise = "what a caller's transaction committed ended no wait"
    async with a_wait(bench, backend, otherwise, begins_within=0.05):
        async with callers(bench, backend) as store:
            await store.add([bench.job()])
        if poll is not None:
            await bench.advance(poll)
    assert (await bench.claim(backend)).job.id == "job"


@law(needs=transactional, examines="transactions")
async def what_was_committed_is_found_by_who_waits(bench: Bench) -> None:
    """A job that a caller's transaction commits ends a wait, by the longest poll at the latest."""
    await _wakes(bench, MAX_POLL)


def _heard(capabilities: Any, harness: Any) -> str | None:
    quiet = None if capabilities.notified else "notified is not declared"
    return transactional(capabilities, harness) or quiet


@law(needs=_heard, examines="transactions")
async def a_commit_is_notified(bench: Bench) -> None:
    """A job committed in a caller's transaction ends a wait at once, where notified is declared."""
    await _wakes(bench, None)


@law(needs=transactional, examines="transactions")
async def what_is_no_connection_is_refused(bench: Bench) -> None:
    """Within refuses what is no connection of the store's driver with InvalidDefinition."""
    backend = cast(Any, await bench.open())
    for odd in (None, "a connection", object()):
        try:
            backend.within(odd)
        except InvalidDefinition:
            continue
        raise AssertionError(f"within({odd!r}) did not raise InvalidDefinition")


@law(needs=transactional, examines="transactions")
async def an_edit_within_conflicts_with_a_claim_made_since(bench: Bench) -> None:
    """Within a transaction, too, replace and remove are refused where the job was claimed since."""
    backend, other = await bench.open(), await bench.open()
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(other)
    async with callers(bench, backend) as store:
        await refused(RevisionConflict, lambda: store.replace(job), "an edit of what was claimed")
        await refused(RevisionConflict, lambda: store.remove(job), "a removal of what was claimed")
        edited = await store.replace(bench.held(job, claim))
        assert edited == bench.held(evolve(job, revision=edited.revision), claim)
    await other.release([claim])
    async with callers(bench, backend) as store:
        await refused(RevisionConflict, lambda: store.replace(edited), "an edit of what was freed")
        await refused(RevisionConflict, lambda: store.remove(edited), "a removal of what was freed")
    assert await bench.stored(other) == evolve(edited, held=None, held_at=None)
