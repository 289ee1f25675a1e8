"""The port's contract, on every backend alike: what the docstrings of ``ports.py`` promise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from attrs import evolve
from tests.sql.stores import (
    KEEP_FOREVER,
    LEASE,
    MINUTE,
    NOW,
    Store,
    beside,
    done,
    fates,
    job,
    ledger,
    line,
    outcomes,
    run,
    stored,
)

from sched_core.errors import JobAlreadyExists, JobNotFound, RevisionConflict
from sched_core.job import Backlog, Claim, Settlement, State, Status
from sched_core.policy import Coalesce, Drop, Policy, Retry, RunAll
from sched_core.ports import Backend, JobQuery
from sched_core.schedule import Cron, DstRule, FixedDelay, Interval, Once, Schedule

Test = Callable[[Store], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def on_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Test], None]:
    return lambda test: run(test, request.param, tmp_path)


@pytest.fixture(params=["asyncio", "trio"])
def on_loop(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, Test], None]:
    return lambda kind, test: run(test, kind, tmp_path, request.param)


# -- definitions


def test_what_is_added_is_what_is_read(on_store: Callable[[Test], None]) -> None:
    policies = [
        Policy(),
        Policy(
            misfire=RunAll(3, timedelta(hours=2)),
            retry=Retry(4, timedelta(microseconds=1), 1.5, timedelta(days=1), 0.25),
            timeout=timedelta(seconds=1, microseconds=1),
            jitter=timedelta(milliseconds=1),
            max_lost=2,
            keep_finished=None,
            keep_executions=timedelta.max,
        ),
        Policy(misfire=Drop(timedelta(microseconds=1)), keep_executions=None),
        Policy(misfire=Coalesce(), timeout=timedelta.max),
    ]
    schedules: list[Schedule] = [
        Cron("0 3 * * *"),
        Cron("*/7 5 * * 1-5", tz="Europe/Berlin", dst=DstRule("skip", "both")),
        Interval(odd := timedelta(seconds=1, microseconds=1)),
        Interval(odd, start=NOW),
        FixedDelay(minutes=1),
        Once(NOW),
        Once(datetime.max.replace(tzinfo=UTC)),
        Once(datetime.min.replace(tzinfo=UTC)),
    ]

    async def test(store: Store) -> None:
        backend = await store.open()
        jobs = [
            job(
                f"é\U0001f600-{number}-{index}",
                schedule=schedule,
                policy=policy,
                name="Ünï\u0301",
                group="g",
                metadata={"ключ": "значение \0 \"'", "": ""},
            )
            for number, schedule in enumerate(schedules)
            for index, policy in enumerate(policies)
        ]
        standing = jobs[0].standing
        moments = [NOW + timedelta(microseconds=n) for n in range(8)]
        jobs[0] = evolve(
            jobs[0],
            declared=True,
            standing=evolve(
                standing,
                state=State.PAUSED,
                triggered_at=moments[0],
                attempts=2,
                failures=1,
                skipped_run=moments[1],
                paused_until=moments[2],
                pause_reason="weil es „so“ ist",
                last_scheduled_at=moments[3],
                last_finished_at=moments[4],
                last_status=Status.MISSED,
                expires_at=moments[5],
                manual=True,
                paused_at=moments[6],
                backlog=Backlog(moments[7], 2, moments[3], moments[4]),
                due_at=None,
            ),
        )
        added = await backend.add(jobs)
        other = await store.open()
        for before, after in zip(jobs, added, strict=True):
            assert evolve(after, revision=0) == before
            assert await other.get(before.id) == after
        page = await other.jobs(JobQuery(), after=None, limit=1000)
        assert list(page.items) == sorted(added, key=lambda one: one.id)

    on_store(test)


def test_adding_twice_collides_and_repeating_does_not(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        first = job()
        (added,) = await backend.add([first])
        assert list(await backend.add([first])) == [added]
        with pytest.raises(JobAlreadyExists, match="'a'"):
            await backend.add([job()])
        assert await backend.get("a") == added

    on_store(test)


def test_bulk_is_all_or_nothing(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("c")])
        with pytest.raises(JobAlreadyExists, match="'c'"):
            await backend.add([job("a"), job("b"), job("c"), job("d")])
        with pytest.raises(JobAlreadyExists, match="'e'"):
            await backend.add([job("e"), job("e")])
        assert [await backend.get(one) for one in "abde"] == [None] * 4
        many = [job(f"many-{number}") for number in range(2000)]
        added = await backend.add(many)
        assert len({one.revision for one in added}) == 2000
        assert list(await backend.add(many)) == list(added)

    on_store(test)


def test_replace_is_a_compare_and_set(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend, other = await store.open(), await store.open()
        (added,) = await backend.add([job()])
        edited = evolve(added, spec=evolve(added.spec, name="new"))
        replaced = await other.replace(edited)
        assert replaced.revision > added.revision
        assert replaced == evolve(edited, revision=replaced.revision)
        with pytest.raises(RevisionConflict):
            await backend.replace(edited)
        assert await backend.get("a") == replaced
        with pytest.raises(JobNotFound):
            await backend.replace(job("b"))

    on_store(test)


def test_remove_says_whether_there_was_one(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        (added,) = await backend.add([job()])
        with pytest.raises(RevisionConflict):
            await backend.remove("a", expected=added.revision + 1)
        assert await backend.remove("a", expected=added.revision)
        assert not await backend.remove("a")
        assert await backend.get("a") is None
        (again,) = await backend.add([job()])
        assert again.revision > added.revision

    on_store(test)


def test_an_edit_writes_its_lines_but_none_about_what_is_held(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("a"), job("b", NOW + MINUTE)])
        (claim,) = await backend.claim_due(10)
        superseded = line(claim, status=Status.SUPERSEDED, attempt=0)
        replaced = await backend.replace(claim.job, [superseded])
        assert await ledger(backend) == []
        assert await backend.remove("a", [superseded], expected=replaced.revision)
        assert await ledger(backend) == []

        free = await stored(backend, "b")
        about_b = evolve(
            superseded, id=f"{free.uid}:1:0", uid=free.uid, job_id="b", token=0, worker=""
        )
        await backend.replace(evolve(free, standing=evolve(free.standing, number=2)), [about_b])
        await backend.remove("b", [about_b])
        assert await ledger(backend) == [about_b]

    on_store(test)


# -- claims


def test_claims_are_due_jobs_oldest_first(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        due = {"a": 0, "b": -3, "c": -1, "d": 1, "e": -2}
        await backend.add([job(one, NOW + timedelta(microseconds=us)) for one, us in due.items()])
        await backend.add([job("never", None)])
        first = await backend.claim_due(2)
        assert [claim.job.id for claim in first] == ["b", "e"]
        assert [claim.job.id for claim in await backend.claim_due(10)] == ["c", "a"]
        assert await backend.claim_due(10) == []
        assert await backend.claim_due(0) == []
        store.clock.advance(timedelta(microseconds=1))
        (last,) = await backend.claim_due(10)
        assert last.job == await backend.get("d")
        assert (last.worker, last.attempt, last.lost) == ("worker-1", 1, None)
        assert last.expires_at == last.claimed_at + LEASE == store.clock.now() + LEASE
        assert last.token > first[0].token

    on_store(test)


def test_two_instances_never_hold_the_same_job(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backends = [await store.open(), await store.open()]
        await backends[0].add([job(f"{number:03}") for number in range(200)])
        taken: list[str] = []

        async def take(backend: Backend) -> None:
            while claims := await backend.claim_due(7):
                taken.extend(claim.job.id for claim in claims)

        async with anyio.create_task_group() as tasks:
            for backend in backends:
                tasks.start_soon(take, backend)
        assert len(taken) == len(set(taken)) == 200

    on_store(test)


def test_a_takeover_writes_the_abandoned_line_and_counts(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        first, second = await store.open(), await store.open()
        await first.add([job(policy=KEEP_FOREVER)])
        (lost,) = await first.claim_due(10)
        store.clock.advance(LEASE - timedelta(microseconds=1))
        assert await second.claim_due(10) == []
        store.clock.advance(timedelta(microseconds=1))
        (taken,) = await second.claim_due(10)
        assert taken.token > lost.token
        assert taken.attempt == 2
        assert taken.lost is not None
        assert (taken.lost.count, taken.lost.worker) == (1, "worker-1")
        assert taken.lost.claimed_at == NOW
        (abandoned,) = await ledger(first)
        assert abandoned == evolve(
            line(lost, store.clock.now(), Status.ABANDONED, final=False), started_at=None
        )
        store.clock.advance(LEASE)
        (again,) = await first.claim_due(10)
        assert again.lost is not None
        assert (again.lost.count, again.lost.worker, again.attempt) == (2, "worker-2", 3)
        assert outcomes(await second.settle([done(taken)])) == ["claim_lost"]
        assert outcomes(await first.settle([done(again)])) == ["written"]
        assert await fates(first) == [
            (1, 1, "abandoned", False),
            (1, 2, "abandoned", False),
            (1, 3, "succeeded", True),
        ]

    on_store(test)


def test_a_settled_attempt_starts_the_count_of_lost_ones_anew(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        await backend.claim_due(1)
        store.clock.advance(LEASE)
        (claim,) = await backend.claim_due(1)
        failed = line(claim, status=Status.FAILED, final=False)
        standing = evolve(claim.job.standing, attempts=claim.attempt, failures=1)
        await backend.settle([Settlement(claim, claim.job.revision, standing, (failed,))])
        (claim,) = await backend.claim_due(1)
        assert (claim.attempt, claim.lost) == (3, None)

    on_store(test)


def test_a_released_takeover_keeps_the_numbers_of_its_attempts(
    on_store: Callable[[Test], None],
) -> None:
    """Or the line of the next attempt would be taken for the abandoned one's repeat."""

    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        await backend.claim_due(1)
        store.clock.advance(LEASE)
        (claim,) = await backend.claim_due(1)
        await backend.release([claim])
        (claim,) = await backend.claim_due(1)
        assert claim.attempt == 2
        await backend.release([claim])
        edited = await stored(backend)
        await backend.replace(evolve(edited, spec=evolve(edited.spec, name="n")))
        (claim,) = await backend.claim_due(1)
        assert claim.attempt == 2
        assert outcomes(await backend.settle([done(claim, next_run=NOW)])) == ["written"]
        (claim,) = await backend.claim_due(1)
        assert (claim.attempt, claim.lost) == (1, None)
        assert [fate[2] for fate in await fates(backend)] == ["abandoned", "succeeded"]

    on_store(test)


@pytest.mark.parametrize("how", ["edited", "removed", "re-added"])
def test_a_lost_claim_of_what_moved_on_ends_superseded(
    on_store: Callable[[Test], None], how: str
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        (lost,) = await backend.claim_due(1)
        if how == "edited":
            moved = evolve(lost.job.standing, number=2)
            await backend.replace(
                evolve(lost.job, standing=moved, spec=evolve(lost.job.spec, policy=KEEP_FOREVER))
            )
        else:
            await backend.remove("a")
        if how == "re-added":
            await backend.add([job()])
        assert await backend.claim_due(1) == []
        store.clock.advance(LEASE)
        claims = await backend.claim_due(1)
        assert len(claims) == (0 if how == "removed" else 1)
        assert all((claim.attempt, claim.lost) == (1, None) for claim in claims)
        abandoned, superseded = await ledger(backend)
        now = store.clock.now()
        assert abandoned == evolve(line(lost, now, Status.ABANDONED, final=False), started_at=None)
        assert superseded == evolve(line(lost, now, Status.SUPERSEDED, attempt=0), started_at=None)
        assert outcomes(await backend.settle([done(lost)])) == ["claim_lost"]

    on_store(test)


def test_renewing_extends_what_is_still_held(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        first, second = await store.open(), await store.open()
        await first.add([job("a"), job("b"), job("c")])
        a, b, c = await first.claim_due(3)
        await first.settle([done(c)])
        store.clock.advance(LEASE)
        (taken,) = await second.claim_due(1)
        assert taken.job.id == "a"
        renewed = await first.renew([a, b, c])
        assert [claim.job.id for claim in renewed] == ["b"]
        assert renewed[0].expires_at == store.clock.now() + LEASE
        assert renewed[0].token == b.token
        assert await second.claim_due(5) == []
        assert outcomes(await first.settle([done(b)])) == ["written"]

    on_store(test)


def test_a_released_job_is_due_again_and_its_attempt_the_same(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        first, second = await store.open(), await store.open()
        await first.add([job()])
        (claim,) = await first.claim_due(1)
        await first.release([claim])
        assert outcomes(await first.settle([done(claim)])) == ["claim_lost"]
        (again,) = await second.claim_due(1)
        assert (again.attempt, again.lost) == (1, None)
        assert again.token > claim.token
        assert again.job.revision == claim.job.revision
        await first.release([claim])
        assert await first.claim_due(1) == []
        assert await ledger(first) == []

    on_store(test)


@pytest.mark.parametrize("how", ["edited", "removed", "re-added"])
def test_releasing_what_moved_on_writes_its_line(
    on_store: Callable[[Test], None], how: str
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        (claim,) = await backend.claim_due(1)
        if how == "edited":
            moved = evolve(claim.job.standing, number=2)
            await backend.replace(evolve(claim.job, standing=moved))
        else:
            await backend.remove("a")
        if how == "re-added":
            await backend.add([job()])
        await backend.release([claim])
        assert await fates(backend) == [(1, 0, "superseded", True)]
        assert (await backend.get("a") is None) == (how == "removed")
        assert len(await backend.claim_due(1)) == (0 if how == "removed" else 1)

    on_store(test)


# -- settling


def test_settling_writes_the_standing_and_the_lines(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("a"), job("b")])
        claims = await backend.claim_due(2)
        settlements = [done(claim, next_run=NOW + MINUTE) for claim in claims]
        assert outcomes(await backend.settle(settlements)) == ["written", "written"]
        for settlement in settlements:
            after = await stored(backend, settlement.claim.job.id)
            assert after.standing == settlement.standing
            assert after.revision > settlement.claim.job.revision
        assert await ledger(backend) == [one.ledger[0] for one in settlements]
        assert await backend.claim_due(2) == []
        store.clock.advance(MINUTE)
        assert len(await backend.claim_due(2)) == 2
        assert await backend.settle([]) == []

    on_store(test)


@pytest.mark.parametrize("meanwhile", ["nothing", "claimed", "settled", "removed", "pruned"])
def test_a_repeated_settlement_is_written_once(
    on_store: Callable[[Test], None], meanwhile: str
) -> None:
    async def test(store: Store) -> None:
        first, second = await store.open(), await store.open()
        await first.add([job()])
        (claim,) = await first.claim_due(1)
        settlement = done(claim, next_run=NOW)
        assert outcomes(await first.settle([settlement])) == ["written"]
        if meanwhile in {"claimed", "settled"}:
            (other,) = await second.claim_due(1)
            if meanwhile == "settled":
                await second.settle([done(other, next_run=NOW)])
        if meanwhile == "removed":
            await second.remove("a")
        if meanwhile == "pruned":
            assert await second.prune(NOW + MINUTE) == 1
        before = await first.get("a")
        repeated = [settlement, settlement]
        assert outcomes(await first.settle(repeated)) == ["written", "written"]
        assert await first.get("a") == before
        lines = [one for one in await ledger(first) if one.token == claim.token]
        assert lines == ([] if meanwhile == "pruned" else list(settlement.ledger))

    on_store(test)


def test_a_repeated_settlement_without_lines_is_written(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        first, second = await store.open(), await store.open()
        await first.add([job()])
        (claim,) = await first.claim_due(1)
        settlement = Settlement(claim, claim.job.revision, claim.job.standing, ())
        assert outcomes(await first.settle([settlement])) == ["written"]
        assert outcomes(await first.settle([settlement])) == ["written"]
        (other,) = await second.claim_due(1)
        assert outcomes(await first.settle([settlement])) == ["written"]
        assert other.attempt == 1
        assert outcomes(await second.settle([done(other)])) == ["written"]

    on_store(test)


def test_a_stale_claim_writes_nothing(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        first, second = await store.open(), await store.open()
        await first.add([job()])
        (stale,) = await first.claim_due(1)
        store.clock.advance(LEASE)
        (claim,) = await second.claim_due(1)
        assert outcomes(await first.settle([done(stale)])) == ["claim_lost"]
        assert outcomes(await first.settle([beside(stale)])) == ["claim_lost"]
        assert await first.renew([stale]) == []
        await first.release([stale])
        assert outcomes(await second.settle([done(claim)])) == ["written"]
        assert outcomes(await first.settle([done(stale)])) == ["claim_lost"]
        forged = evolve(claim, worker="worker-1")
        assert outcomes(await first.settle([done(forged)])) == ["claim_lost"]

    on_store(test)


def test_an_expired_claim_that_nobody_took_is_still_good(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        (claim,) = await backend.claim_due(1)
        store.clock.advance(LEASE * 10)
        assert outcomes(await backend.settle([done(claim)])) == ["written"]

    on_store(test)


def test_an_edit_makes_a_conflict_and_a_ledger_only_settlement_follows(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        (claim,) = await backend.claim_due(1)
        moved = evolve(claim.job.standing, number=2, next_run=NOW + MINUTE, due_at=NOW + MINUTE)
        replaced = await backend.replace(evolve(claim.job, standing=moved))
        (settled,) = await backend.settle([done(claim)])
        assert (settled.outcome, settled.job) == ("conflict", replaced)
        assert await ledger(backend) == []
        assert outcomes(await backend.settle([beside(claim)])) == ["written"]
        assert await backend.get("a") == replaced
        assert outcomes(await backend.settle([beside(claim)])) == ["written"]
        assert await fates(backend) == [(1, 1, "succeeded", True)]
        store.clock.advance(MINUTE)
        (following,) = await backend.claim_due(1)
        assert following.attempt == 1

    on_store(test)


def test_a_final_line_may_not_leave_its_occurrence_pending(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        (claim,) = await backend.claim_due(1)
        edited = await backend.replace(evolve(claim.job, spec=evolve(claim.job.spec, name="n")))
        (settled,) = await backend.settle([beside(claim)])
        assert (settled.outcome, settled.job) == ("conflict", edited)
        assert await ledger(backend) == []
        decided_anew = evolve(done(claim), expected=edited.revision)
        assert outcomes(await backend.settle([decided_anew])) == ["written"]
        assert (await stored(backend)).spec.name == "n"

    on_store(test)


def test_a_second_final_line_is_refused(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        (claim,) = await backend.claim_due(1)
        standing = claim.job.standing  # does not leave the occurrence behind: a caller's mistake
        first = Settlement(claim, claim.job.revision, standing, (line(claim),))
        assert outcomes(await backend.settle([first])) == ["written"]
        (claim,) = await backend.claim_due(1)
        wrong = Settlement(
            claim,
            claim.job.revision,
            evolve(standing, number=2),
            (line(claim, status=Status.FAILED, attempt=2),),
        )
        before = await backend.get("a")
        (settled,) = await backend.settle([wrong])
        assert (settled.outcome, settled.job) == ("conflict", before)
        assert await fates(backend) == [(1, 1, "succeeded", True)]

    on_store(test)


def test_a_line_written_early_by_an_edit_is_not_written_twice(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        (added,) = await backend.add([job()])
        early = line(Claim(added, 0, "", NOW, NOW))
        early = evolve(early, id=f"{added.uid}:2:0", number=2, attempt=0)
        replaced = await backend.replace(added, [early])
        (claim,) = await backend.claim_due(1)
        assert claim.job == replaced
        assert outcomes(await backend.settle([done(claim, next_run=NOW)])) == ["written"]
        (claim,) = await backend.claim_due(1)
        assert outcomes(await backend.settle([done(claim, next_run=NOW)])) == ["conflict"]

    on_store(test)


def test_what_is_removed_while_it_runs_gets_its_line_and_is_gone(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        (claim,) = await backend.claim_due(1)
        assert await backend.remove("a")
        assert not await backend.remove("a")
        assert await backend.get("a") is None
        assert (await backend.jobs(JobQuery(), after=None, limit=10)).items == []
        with pytest.raises(JobNotFound):
            await backend.replace(claim.job)
        (settled,) = await backend.settle([done(claim)])
        assert (settled.outcome, settled.job) == ("conflict", None)
        assert outcomes(await backend.settle([beside(claim)])) == ["written"]
        assert outcomes(await backend.settle([beside(claim)])) == ["written"]
        assert await fates(backend) == [(1, 1, "succeeded", True)]
        store.clock.advance(LEASE)
        assert await backend.claim_due(1) == []

    on_store(test)


def test_what_is_added_again_waits_for_the_old_run(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job()])
        (claim,) = await backend.claim_due(1)
        await backend.remove("a")
        (added,) = await backend.add([job(name="new")])
        assert added.revision > claim.job.revision
        assert await backend.claim_due(1) == []
        assert len(await backend.renew([claim])) == 1
        (settled,) = await backend.settle([done(claim)])
        assert (settled.outcome, settled.job) == ("conflict", added)
        assert outcomes(await backend.settle([beside(claim)])) == ["written"]
        (fresh,) = await backend.claim_due(1)
        assert (fresh.job, fresh.attempt, fresh.lost) == (added, 1, None)
        assert fresh.token > claim.token
        assert [one.uid for one in await ledger(backend)] == [claim.job.uid]

    on_store(test)


def test_each_settlement_of_a_batch_has_its_own_outcome(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        first, second = await store.open(), await store.open()
        await first.add([job(one) for one in "abcdefg"])
        held = {claim.job.id: claim for claim in await first.claim_due(10)}
        await first.release([held["b"]])
        await second.claim_due(1)
        edited = await first.replace(held["c"].job)
        await first.remove("d")
        assert outcomes(await first.settle([done(held["e"])])) == ["written"]
        ill = evolve(done(held["f"]), ledger=(line(held["f"], reason="\ud800\0" + "x" * 9999),))
        batch = [done(held["a"]), done(held["b"]), done(held["c"]), done(held["d"])]
        batch += [done(held["e"]), ill, beside(held["g"], NOW, line(held["g"], final=False))]
        settled = await first.settle(batch)
        assert outcomes(settled) == [
            "written",
            "claim_lost",
            "conflict",
            "conflict",
            "written",
            "written",
            "written",
        ]
        assert [one.job for one in settled[2:4]] == [edited, None]
        assert sorted(one.job_id for one in await ledger(first)) == ["a", "e", "f", "g"]

    on_store(test)


# -- waiting


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
def test_waiting_ends_when_something_is_due(
    on_loop: Callable[[str, Test], None], kind: str
) -> None:
    async def test(store: Store) -> None:
        backend, other = await store.open(), await store.open()
        finished = anyio.Event()

        async def wait() -> None:
            await backend.wait_due(10)
            finished.set()

        async def woken_by(what: Callable[[], Awaitable[object]]) -> None:
            nonlocal finished
            finished = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.sleep(0.05)
                assert not finished.is_set()
                await what()
                await finished.wait()

        async def advance(by: timedelta) -> None:
            store.clock.advance(by)

        await woken_by(lambda: advance(timedelta(seconds=5)))
        await backend.add([job("soon", store.clock.now() + timedelta(seconds=2))])
        await woken_by(lambda: advance(timedelta(seconds=2)))
        (claim,) = await backend.claim_due(1)
        await woken_by(lambda: backend.add([job("now", store.clock.now())]))
        await backend.claim_due(1)
        await woken_by(lambda: other.add([job("theirs", store.clock.now())]))
        await other.claim_due(1)
        await woken_by(lambda: backend.release([claim]))
        await backend.wait_due(1)
        await backend.claim_due(1)
        store.clock.advance(LEASE - timedelta(seconds=1))
        await woken_by(lambda: advance(timedelta(seconds=1)))

    on_loop(kind, test)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_job_due_later_does_not_wake(kind: str, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job("soon", NOW + timedelta(seconds=2))])
        async with anyio.create_task_group() as tasks:
            ended = anyio.Event()

            async def wait() -> None:
                await backend.wait_due(1)
                ended.set()

            tasks.start_soon(wait)
            while backend._sleeps_until is None:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await anyio.sleep(0.01)  # until it sleeps, everything that is written wakes it
            await backend.add([job("later", NOW + timedelta(seconds=3))])
            await anyio.sleep(0.4)
            assert not ended.is_set()
            tasks.cancel_scope.cancel()

    run(test, kind, tmp_path)


# -- pages, expiry


def test_jobs_are_listed_by_code_point_in_pages(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        ids = ["Z", "a", "a b", "a!", "ab", "é", "\uffee", "\U0001f600", "a\U0010ffff", "b"]
        await backend.add([job(one) for one in ids])
        found: list[str] = []
        after = None
        while True:
            page = await backend.jobs(JobQuery(), after=after, limit=3)
            found += [one.id for one in page.items]
            after = page.next
            if after is None:
                break
            assert len(page.items) == 3
        assert found == sorted(ids)
        page = await backend.jobs(JobQuery(id_prefix="a"), after="a", limit=10)
        assert [one.id for one in page.items] == ["a b", "a!", "ab", "a\U0010ffff"]
        assert page.next is None
        page = await backend.jobs(JobQuery(id_prefix="a%"), after=None, limit=10)
        assert page.items == []
        page = await backend.jobs(JobQuery(id_prefix="a\U0010ffff"), after=None, limit=10)
        assert [one.id for one in page.items] == ["a\U0010ffff"]

    on_store(test)


def test_jobs_are_filtered(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add(
            [
                job("a", group="g", metadata={"kind": "reminder", "é": '"x"'}),
                job("b", group="h", metadata={"kind": "reminder"}),
                job("c", state=State.PAUSED, metadata={"kind": "report"}),
                job("d", state=State.FINISHED),
                job("e", metadata={"": "\0", "kind": "\0a"}),
            ]
        )

        async def found(query: JobQuery) -> list[str]:
            return [one.id for one in (await backend.jobs(query, after=None, limit=10)).items]

        assert await found(JobQuery(state=State.PAUSED)) == ["c"]
        assert await found(JobQuery(group="g")) == ["a"]
        assert await found(JobQuery(group="g", state=State.PAUSED)) == []
        assert await found(JobQuery(metadata={"kind": "reminder"})) == ["a", "b"]
        assert await found(JobQuery(metadata={"kind": "reminder", "é": '"x"'})) == ["a"]
        assert await found(JobQuery(metadata={"kind": "Reminder"})) == []
        assert await found(JobQuery(metadata={"": "\0"})) == ["e"]
        assert await found(JobQuery(metadata={"kind": "\0b"})) == []

    on_store(test)


def test_the_ledger_is_listed_newest_first_and_filtered(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.add([job(one) for one in "abc"])
        for minute in range(4):
            at = NOW + minute * MINUTE
            claims = await backend.claim_due(10)
            await backend.settle([done(claim, at, next_run=NOW) for claim in claims])
        (claim, *_) = await backend.claim_due(10)
        failed = line(claim, NOW, Status.FAILED, final=False, reason="ValueError: é")
        standing = evolve(claim.job.standing, attempts=1)
        await backend.settle([Settlement(claim, claim.job.revision, standing, (failed,))])

        everything = await ledger(backend)
        assert len(everything) == 13
        assert everything[-1] == failed
        assert [one.number for one in await ledger(backend, "b")] == [1, 2, 3, 4]
        assert await ledger(backend, claim.job.id, final=False) == [failed]
        assert await ledger(backend, statuses=frozenset({Status.FAILED})) == [failed]
        assert await ledger(backend, "nobody") == []
        since = await ledger(backend, since=NOW + MINUTE, until=NOW + 3 * MINUTE)
        assert [one.finished_at for one in since] == [NOW + MINUTE] * 3 + [NOW + 2 * MINUTE] * 3

    on_store(test)


def test_pruning_deletes_old_and_expired_lines_and_jobs(
    on_store: Callable[[Test], None],
) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        short = Policy(keep_executions=timedelta(seconds=10))
        await backend.add([job("a", policy=short), job("b", policy=KEEP_FOREVER)])
        for minute in range(3):
            at = NOW + minute * MINUTE
            claims = await backend.claim_due(10)
            await backend.settle([done(claim, at, next_run=NOW) for claim in claims])
        await backend.add(
            [
                job("gone", None, expires_at=NOW),
                job("kept", None, expires_at=NOW + timedelta(microseconds=1)),
                job("held", NOW - MINUTE, expires_at=NOW),
            ]
        )
        (claim,) = await backend.claim_due(1)
        assert claim.job.id == "held"
        assert await backend.prune(datetime.min.replace(tzinfo=UTC)) == 1
        assert await backend.get("gone") is None
        assert await backend.get("kept") is not None
        assert await backend.get("held") is not None
        assert await backend.prune(NOW + MINUTE) == 2
        assert [one.job_id for one in await ledger(backend)] == ["a", "b", "a", "b"]
        store.clock.advance(MINUTE + timedelta(seconds=10))
        assert await backend.prune(NOW) == 2
        assert [(one.job_id, one.number) for one in await ledger(backend)] == [
            ("b", 2),
            ("a", 3),
            ("b", 3),
        ]
        assert await backend.prune(NOW + 10 * MINUTE) == 3
        assert await backend.prune(NOW + 10 * MINUTE) == 0

    on_store(test)


def test_checking_and_closing(on_store: Callable[[Test], None]) -> None:
    async def test(store: Store) -> None:
        backend = await store.open()
        await backend.check()
        assert backend.capabilities.time == "clock"
        assert backend.capabilities.lease == LEASE
        await backend.close()
        await backend.close()

    on_store(test)
