"""Bulk verbs: many jobs, each operated as the single call does it."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import anyio
import pytest
from tests.core.running import Faulty, Make, at_once, run, running, statuses, until

from sched_core import (
    BackendUnavailable,
    BulkInterrupted,
    BulkResult,
    Interval,
    InvalidDefinition,
    JobEvent,
    JobNotFound,
    JobQuery,
    MemoryBackend,
    Page,
    Scheduler,
    State,
    Status,
    Undecodable,
)
from sched_core._service import bulk
from sched_core.testing import FakeClock, RecordingHandler

HOURLY = Interval(hours=1)
HOUR = timedelta(hours=1)


async def ids(scheduler: Scheduler, query: JobQuery | None = None) -> list[str]:
    return [job.id async for job in scheduler.list_jobs(query)]


async def reason_of(scheduler: Scheduler, job_id: str) -> str | None:
    pause = (await scheduler.get_job(job_id)).standing.pause
    return None if pause is None else pause.reason


def test_a_pause_of_a_group_leaves_pauses_that_are_there(
    loop: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over pages; what was paused before keeps its reason, and outlives the end of these pauses."""
    monkeypatch.setattr(bulk, "PAGE", 3)

    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(make(), clock=clock) as scheduler:
            for number in range(8):
                await scheduler.ensure_job(f"job-{number}", HOURLY, group="mail")
            await scheduler.ensure_job("other", HOURLY)
            await scheduler.pause_job("job-3", reason="broken", until=clock.now() + 9 * HOUR)
            mail, deploy = JobQuery(group="mail"), "deploy 7"

            dry = await scheduler.pause_jobs(mail, reason=deploy, dry_run=True)
            assert await ids(scheduler, JobQuery(state=State.PAUSED)) == ["job-3"]
            done = await scheduler.pause_jobs(mail, reason=deploy, actor="ann")
            assert dry == done == BulkResult(8, 7, 1)
            assert await reason_of(scheduler, "job-3") == "broken"
            paused = (await scheduler.get_job("job-4")).standing.pause
            assert paused is not None
            assert (paused.reason, paused.actor) == (deploy, "ann")
            assert await reason_of(scheduler, "other") is None
            assert await scheduler.pause_jobs(mail, reason="x") == BulkResult(8, 0, 8)

            assert await scheduler.resume_jobs(JobQuery(), reason="deploy") == BulkResult(9, 0, 9)
            back = await scheduler.resume_jobs(JobQuery(), reason=deploy, dry_run=True)
            assert back == await scheduler.resume_jobs(JobQuery(), reason=deploy, actor="ann")
            assert back == BulkResult(9, 7, 2)
            assert await ids(scheduler, JobQuery(state=State.PAUSED)) == ["job-3"]
            assert await scheduler.resume_jobs(mail) == BulkResult(8, 1, 7)

    run(loop, main)


def test_a_pause_whose_end_has_come_is_none(loop: str, make: Make) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(make(), clock=clock) as scheduler:
            await scheduler.ensure_job("a", HOURLY)
            until = clock.now() + timedelta(minutes=5)
            await scheduler.pause_jobs(JobQuery(), until=until, reason="first")
            clock.advance(minutes=10)
            for dry_run in (True, False):
                result = await scheduler.pause_jobs(JobQuery(), reason="second", dry_run=dry_run)
                assert result == BulkResult(1, 1, 0)
            assert await reason_of(scheduler, "a") == "second"

    run(loop, main)


def test_a_choice_has_to_be_given_and_arguments_are_checked_once(loop: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(MemoryBackend(), clock=clock) as scheduler:
            await scheduler.ensure_job("a", HOURLY)
            for call in (
                scheduler.pause_jobs,
                scheduler.resume_jobs,
                scheduler.trigger_jobs,
                scheduler.cancel_runs,
                scheduler.remove_jobs,
            ):
                verb: Any = call
                with pytest.raises(TypeError, match="query"):
                    await verb()
                with pytest.raises(InvalidDefinition, match="query: must be a JobQuery, not 'a'"):
                    await verb("a")
                with pytest.raises(InvalidDefinition, match="actor: must not be empty"):
                    await verb(JobQuery(), actor="")
            with pytest.raises(InvalidDefinition, match="until: must be after the present"):
                await scheduler.pause_jobs(JobQuery(), until=clock.now() - HOUR)
            with pytest.raises(InvalidDefinition, match="request_key: must not be empty"):
                await scheduler.trigger_jobs(JobQuery(), request_key="")
            assert await scheduler.resume_jobs(JobQuery(state=State.PAUSED)) == BulkResult()

    run(loop, main)


def test_triggers_of_many_are_requests_of_each(loop: str, make: Make) -> None:
    async def main() -> None:
        handler = RecordingHandler()
        async with Scheduler(make(), handler=handler, clock=FakeClock()) as scheduler:
            for job_id in ("a-1", "a-2", "b-1"):
                await scheduler.ensure_job(job_id, HOURLY, metadata={"kind": job_id[0]})
            query = JobQuery(metadata={"kind": "a"})
            assert await scheduler.trigger_jobs(query, dry_run=True) == BulkResult(2, 2)
            assert await scheduler.run_due() == 0
            given = await scheduler.trigger_jobs(query, args={"day": "1"}, request_key="fix")
            assert given == BulkResult(2, 2)
            again = await scheduler.trigger_jobs(query, args={"day": "2"}, request_key="fix")
            assert again == BulkResult(2, 0, 2)
            assert await scheduler.run_due() == 2
            assert {event.id: event.args for event in handler.events} == {
                "a-1": {"day": "1"},
                "a-2": {"day": "1"},
            }

    run(loop, main)


def test_only_runs_in_flight_are_cancelled(loop: str, make: Make) -> None:
    async def main() -> None:
        begun = list[str]()

        async def handle(event: JobEvent) -> None:
            begun.append(event.id)
            await anyio.sleep_forever()

        async with running(make(), handle, grace=0) as scheduler:
            for job_id in ("a", "b"):
                await scheduler.submit_job(job_id, at_once(), queue="bulk")
            await scheduler.submit_job("later", HOURLY, queue="bulk")
            await scheduler.submit_job("other", at_once())
            await until(lambda: len(begun) == 3)
            query = JobQuery(queue="bulk")
            assert await scheduler.cancel_runs(query, dry_run=True) == BulkResult(3, 2, 1)
            found = await scheduler.cancel_runs(query, reason="too slow", actor="ann")
            assert found == BulkResult(3, 2, 1)

            async def ended() -> bool:
                return [await statuses(scheduler, job_id) for job_id in "ab"] == [
                    [Status.CANCELLED]
                ] * 2

            await until(ended)
            assert await statuses(scheduler, "other") == []
            assert await scheduler.cancel_runs(query) == BulkResult(3, 0, 3)

    run(loop, main)


def test_a_group_is_removed_and_its_runs_with_it(loop: str, make: Make) -> None:
    async def main() -> None:
        begun = anyio.Event()

        async def handle(event: JobEvent) -> None:
            begun.set()
            await anyio.sleep_forever()

        async with running(make(), handle) as scheduler:
            await scheduler.ensure_job("kept", HOURLY)
            await scheduler.ensure_job("a", HOURLY, group="old")
            await scheduler.ensure_job("b", at_once(), group="old")
            await begun.wait()
            query = JobQuery(group="old")
            assert await scheduler.remove_jobs(query, dry_run=True) == BulkResult(2, 2)
            assert await scheduler.remove_jobs(query, cancel=True) == BulkResult(2, 2)
            assert await ids(scheduler) == ["kept"]

            async def cancelled() -> bool:
                return await statuses(scheduler, "b") == [Status.CANCELLED]

            await until(cancelled)
            assert await scheduler.remove_jobs(query) == BulkResult()

    run(loop, main)


class Meanwhile(Faulty):
    """A backend that lists jobs, and lets a test do something before the caller acts on them."""

    def __init__(self, backend: Any, then: Any, extra: tuple[Undecodable, ...] = ()) -> None:
        super().__init__(backend)
        self.then, self.extra = then, extra

    async def jobs(self, query: JobQuery, *, after: str | None, limit: int) -> Page[Any]:
        page = await self.backend.jobs(query, after=after, limit=limit)
        await self.then()
        return Page([*self.extra, *page.items], page.next)


def test_what_changes_meanwhile_is_no_failure_and_the_unreadable_is_told(loop: str) -> None:
    """A removed job, one that has left the group, and a record of a newer version."""

    async def main() -> None:
        store = MemoryBackend()
        unreadable = Undecodable("new", "format 9", 9, b"")

        async def meanwhile() -> None:
            await scheduler.update_job("b", group="other")
            if "c" in [job.id for job in (await store.jobs(JobQuery(), after=None, limit=9)).items]:
                await scheduler.remove_job("c")

        backend = Meanwhile(store, meanwhile, (unreadable,))
        async with Scheduler(backend) as scheduler:
            for job_id in "abc":
                await scheduler.ensure_job(job_id, HOURLY, group="old")
            result = await scheduler.remove_jobs(JobQuery(group="old"))
            assert result == BulkResult(
                4, 1, 2, 1, {"new": "this version cannot read it: format 9"}
            )
            assert (await scheduler.get_job("b")).spec.group == "other"
            with pytest.raises(JobNotFound):
                await scheduler.get_job("a")

    run(loop, main)


def test_the_failure_of_one_stops_no_other(loop: str, make: Make) -> None:
    async def main() -> None:
        async with Scheduler(make(), clock=FakeClock()) as scheduler:
            for job_id in "abc":
                await scheduler.ensure_job(job_id, HOURLY)
            for number in range(16):
                await scheduler.trigger_job("b", request_key=str(number))
            result = await scheduler.trigger_jobs(JobQuery())
            assert (result.matched, result.changed, result.failed) == (3, 2, 1)
            assert "TooManyRequests" in result.failures["b"]

    run(loop, main)


def test_failures_are_named_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST_FAILURES", 2)

    async def nothing() -> None:
        pass

    extra = tuple(Undecodable(f"new-{number}", "format 9", 9, b"") for number in range(5))

    async def main() -> None:
        async with Scheduler(Meanwhile(MemoryBackend(), nothing, extra)) as scheduler:
            result = await scheduler.pause_jobs(JobQuery())
            assert (result.failed, list(result.failures)) == (5, ["new-0", "new-1"])

    anyio.run(main)


def test_a_store_that_is_gone_stops_it_and_the_same_call_goes_on(loop: str, make: Make) -> None:
    async def main() -> None:
        backend = Faulty(make())
        async with Scheduler(backend, clock=FakeClock()) as scheduler:
            for job_id in "abcd":
                await scheduler.ensure_job(job_id, HOURLY)
            await scheduler.pause_job("a", reason="before")
            inner, replaced = backend.backend.replace, 0

            async def replace(*arguments: Any) -> Any:
                nonlocal replaced
                replaced += 1
                if replaced == 3:
                    raise BackendUnavailable("the server is gone")
                return await inner(*arguments)

            vars(backend)["replace"] = replace  # the third write fails
            with pytest.raises(BulkInterrupted, match="stopped after 3 jobs, of which 2") as told:
                await scheduler.pause_jobs(JobQuery(), reason="deploy")
            assert isinstance(told.value, BackendUnavailable)
            again = pickle.loads(pickle.dumps(told.value))
            assert (again.matched, again.changed, again.failed) == (3, 2, 0)
            assert str(again) == str(told.value)
            result = await scheduler.pause_jobs(JobQuery(), reason="deploy")
            assert result == BulkResult(4, 1, 3)

    run(loop, main)


def test_own_records_are_no_jobs(loop: str, make: Make) -> None:
    """The marker of a synced group stays when everything is removed."""

    async def main() -> None:
        backend = make()
        async with Scheduler(backend, clock=FakeClock()) as scheduler:
            await scheduler.sync_jobs([], group="g", version=2)
            await scheduler.ensure_job("a", HOURLY)
            assert await scheduler.remove_jobs(JobQuery()) == BulkResult(1, 1)
            assert (await scheduler.sync_jobs([], group="g", version=1)).superseded_by == "2"

    run(loop, main)
