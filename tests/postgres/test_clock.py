"""The server's clock decides: machines whose clocks are wrong, and a server whose clock is set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from tests.postgres.places import Place

from sched_core import (
    Execution,
    Interval,
    Job,
    JobEvent,
    Once,
    Policy,
    Retry,
    Room,
    Scheduler,
    SystemClock,
)
from sched_core.clock import StoreClock, boot_seconds
from sched_core.testing import history
from sched_sql.postgres.due_index import DueIndex
from sched_sql.postgres.parts import BEGINNING, ClaimResult, DueProbe

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = 1_000_000
LEASE = timedelta(seconds=30)


class SkewedClock:
    """A machine's clock that is off."""

    def __init__(self, by: timedelta) -> None:
        self.by = by

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by

    async def sleep_until(self, moment: datetime) -> None:
        await SystemClock().sleep_until(moment - self.by)


HOUR = timedelta(hours=1)


def test_replicas_whose_clocks_are_off(here: Place) -> None:
    """Nothing early, nothing late, no lease taken, and no moment of a wrong clock stored."""
    starts: list[tuple[str, datetime, datetime, int]] = []

    async def replica(by: timedelta, begin: anyio.Event) -> list[Execution]:
        async def handle(event: JobEvent) -> None:
            starts.append((event.id, event.scheduled_at, datetime.now(UTC), event.attempt))
            if event.id == "slow":
                await anyio.sleep(2.5)
            if event.id == "failing" and event.attempt == 1:
                raise RuntimeError("once")

        clock = SkewedClock(by)
        lease = timedelta(seconds=1)
        async with here.scheduler(handle, clock=clock, lease=lease) as scheduler:
            if by > timedelta(0):
                now = datetime.now(UTC)
                for number in range(60):
                    at = now + timedelta(seconds=1 + number / 20)
                    await scheduler.submit_job(f"once-{number}", Once(at))
                await scheduler.ensure_job("often", Interval(seconds=0.5))
                await scheduler.submit_job("slow", Once(now + timedelta(seconds=1)))
                retry = Policy(retry=Retry(attempts=2, backoff=timedelta(seconds=1)))
                await scheduler.submit_job("failing", Once(now), policy=retry)
                begin.set()
            else:
                await begin.wait()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(scheduler.run_forever)
                await anyio.sleep(5.5)
                health = await scheduler.health()
                assert (health.claims_lost, health.healthy) == (0, True)
                await scheduler.stop()
            return await history(scheduler)

    async def main() -> list[Execution]:
        begin = anyio.Event()
        lines: list[Execution] = []

        async def keep(by: timedelta) -> None:
            found = await replica(by, begin)
            lines[:] = found if len(found) > len(lines) else lines

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep, HOUR)
            tasks.start_soon(keep, -HOUR)
        return lines

    lines = anyio.run(main)
    late = [start - scheduled for job, scheduled, start, attempt in starts if attempt == 1]
    assert len([1 for job, *_ in starts if job.startswith("once")]) == 60
    assert min(late) >= timedelta(0), "something ran early"
    assert max(late) < timedelta(seconds=2), "something ran late"
    assert max(attempt for job, *_, attempt in starts if job != "failing") == 1
    (first, second) = [start for job, _, start, _ in starts if job == "failing"]
    assert timedelta(seconds=0.9) < second - first < timedelta(seconds=3)
    assert len([line for line in lines if line.job_id == "often"]) >= 8
    true = datetime.now(UTC)
    for line in lines:
        for moment in (line.claimed_at, line.started_at, line.finished_at):
            assert moment is None or abs(moment - true) < timedelta(seconds=30)


def test_what_is_told_of_the_time_is_the_servers(here: Place) -> None:
    async def main() -> None:
        seen: list[datetime] = []

        async def handle(event: JobEvent) -> None:
            seen.append(event.started_at)

        async with here.scheduler(handle, clock=SkewedClock(HOUR)) as scheduler:
            job: Job = await scheduler.ensure_job("a", Interval(hours=1))
            assert abs(job.anchor - datetime.now(UTC)) < timedelta(seconds=5)
            await scheduler.trigger_job("a")
            await scheduler.run_due()
            assert abs(seen[0] - datetime.now(UTC)) < timedelta(seconds=5)

    anyio.run(main)


# -- the estimate


def estimate() -> tuple[StoreClock, float]:
    clock, at = StoreClock(SkewedClock(HOUR)), boot_seconds()
    clock.observe(NOW, at - 0.001, at + 0.001)
    return clock, at


def read(clock: StoreClock, at: float) -> float:
    """Return how far the estimate is from what the store's clock said at that time."""
    return (clock.now() - NOW).total_seconds() - (boot_seconds() - at)


def test_before_the_first_reply_the_machine_is_asked() -> None:
    assert StoreClock(SkewedClock(HOUR)).now() > datetime.now(UTC) + timedelta(minutes=59)


def test_slow_replies_do_not_disturb_the_estimate() -> None:
    clock, at = estimate()
    for told in (0, 4, 9):  # seconds into a round trip of ten
        moved = clock.observe(NOW + timedelta(seconds=100 + told), at + 100, at + 110)
        assert moved == timedelta(0)
    assert abs(read(clock, at)) < 0.01


def test_drift_is_followed_and_a_step_is_told() -> None:
    clock, at = estimate()
    drifted = NOW + timedelta(seconds=100.004)
    assert clock.observe(drifted, at + 99.999, at + 100.001) < timedelta(seconds=0.01)
    assert 0.002 < read(clock, at) < 0.006
    stepped = clock.observe(NOW + timedelta(seconds=3800), at + 199.999, at + 200.001)
    assert timedelta(seconds=3599) < stepped < timedelta(seconds=3601)
    assert abs(read(clock, at) - 3600) < 0.1


def test_an_estimate_is_never_behind_a_reply() -> None:
    """What the store has handed out as due is due by the estimate."""
    clock = StoreClock(SystemClock())
    for number in range(200):
        sent = boot_seconds()
        told = NOW + timedelta(seconds=sent + number % 7 / 1000)
        clock.observe(told, sent - 0.01, boot_seconds())
        assert clock.now() >= told - timedelta(microseconds=2)


def test_an_estimate_is_not_ahead_of_the_store() -> None:
    """However slow the first reply was: what is begun by it would be early."""
    clock, at = StoreClock(SystemClock()), boot_seconds()
    clock.observe(NOW, at, at + 5)  # told at once, and five seconds under way
    assert read(clock, at) <= 0


def test_sleeping_ends_when_the_servers_clock_says_so() -> None:
    async def main() -> None:
        clock = StoreClock(SkewedClock(-HOUR))
        at = boot_seconds()
        clock.observe(NOW, at, at)
        with anyio.fail_after(2):
            await clock.sleep_until(NOW + timedelta(seconds=0.2))
        assert clock.now() >= NOW + timedelta(seconds=0.2)

    anyio.run(main)


# -- what a process makes of a server's clock that was set


def queue_with_history() -> DueIndex:
    queue = DueIndex(LEASE)
    queue._ends_from = 0.0  # a lease has passed since the start
    return queue


def test_a_new_process_takes_nothing_over_for_a_lease() -> None:
    asked = DueIndex(LEASE).ask(10, 30 * SECOND, None, 0)
    assert asked is not None
    assert not asked.ends


@pytest.mark.parametrize("seconds", [-3600, -10, 10, 3600])
def test_after_a_step_nothing_is_taken_over(seconds: int, caplog: pytest.LogCaptureFixture) -> None:
    queue = queue_with_history()
    before = queue.ask(10, 30 * SECOND, None, 0)
    assert before is not None
    assert before.ends
    queue.clock_stepped(timedelta(seconds=seconds))
    assert queue.steps == 1
    assert "clock was set" in caplog.text
    after = queue.ask(10, 30 * SECOND, None, 0)
    if seconds > 60:
        assert after is None, "a server's clock far ahead is not believed at once"
    else:
        assert after is not None
        assert not after.ends


def test_a_round_trip_is_no_step() -> None:
    queue = queue_with_history()
    queue.clock_stepped(timedelta(seconds=0.2))
    assert queue.steps == 0


def test_a_claim_is_bounded_to_where_the_servers_clock_is_believed_to_be() -> None:
    asked = queue_with_history().ask(10, 30 * SECOND, None, 1000 * SECOND)
    assert asked is not None
    assert asked.within == (1000 * SECOND - 7_500_000, 1000 * SECOND + 7_500_000)


def test_a_claim_outside_of_its_bounds_takes_nothing(here: Place) -> None:
    async def main() -> None:
        async with here.scheduler() as scheduler:
            await scheduler.submit_job("a", Once(datetime.now(UTC) - HOUR))
            backend = scheduler._backend
            table = backend._table  # type: ignore[attr-defined]  # ours
            claims: list[object] = []
            hour = 3600 * SECOND
            now = int(datetime.now(UTC).timestamp() * SECOND)
            for off in (-hour, hour):
                asked = table._claimant.due_index.ask(10, 30 * SECOND, None, now + off)
                table._lanes["claim"].run(lambda asked=asked: table._claims.claim(claims, asked))
                assert claims == []
            assert len((await backend.claim_due(Room(10))).claims) == 1

    anyio.run(main)


# -- the head of the queue


def swept(queue: DueIndex, cost: float) -> None:
    asked = queue.ask(10, 30 * SECOND, None, 1000 * SECOND)
    assert asked is not None
    queue.claimed(asked, ClaimResult(1000 * SECOND, [], [], None), cost)
    queue.probed(DueProbe(1000 * SECOND, None, False, None), sweep=True, cost=cost)


def test_a_cheap_scan_begins_at_the_beginning_and_a_costly_one_at_the_floor() -> None:
    queue = queue_with_history()
    swept(queue, 0.0001)
    asked = queue.ask(10, 30 * SECOND, None, 1000 * SECOND)
    assert asked is not None
    assert asked.floor == BEGINNING
    swept(queue, 0.5)
    asked = queue.ask(10, 30 * SECOND, None, 1000 * SECOND)
    assert asked is not None
    assert asked.floor == 1000 * SECOND - 200_000
    queue.invalidate()
    asked = queue.ask(10, 30 * SECOND, None, 1000 * SECOND)
    assert asked is not None
    assert asked.floor == BEGINNING


def test_who_never_looks_always_begins_at_the_beginning() -> None:
    """No loop listens under ``run_due``, so anything may have appeared anywhere."""
    queue = queue_with_history()
    first = queue.ask(10, 30 * SECOND, None, 1000 * SECOND)
    assert first is not None
    queue.claimed(first, ClaimResult(1000 * SECOND, [], [], None), 0.5)
    again = queue.ask(10, 30 * SECOND, None, 1000 * SECOND)
    assert again is not None
    assert again.floor == BEGINNING
    # But where there is more than is asked for, the end of it is soon enough.
    queue.claimed(again, ClaimResult(1000 * SECOND, [], [], 990 * SECOND), 0.5)
    further = queue.ask(10, 30 * SECOND, None, 1000 * SECOND)
    assert further is not None
    assert further.floor == 990 * SECOND - 200_000
    assert queue.is_conclusive(further)
    queue.claimed(further, ClaimResult(1000 * SECOND, [], [], None), 0.001)
    assert not queue.is_conclusive(further)


def test_a_lease_that_ends_below_the_floor_is_looked_for() -> None:
    queue = queue_with_history()
    swept(queue, 0.5)
    queue.probed(DueProbe(1000 * SECOND, None, False, 1010 * SECOND), sweep=True, cost=0.5)
    assert not queue.wants_sweep(1009 * SECOND)
    assert queue.wants_sweep(1010 * SECOND)


def test_what_a_costly_sweep_passed_over_is_looked_for_once() -> None:
    """Else a row that was locked would be seen again only after the longest poll."""
    queue = queue_with_history()
    asked = queue.ask(10, 30 * SECOND, None, 1000 * SECOND)
    assert asked is not None
    swept(queue, 0.1)
    assert not queue.looks_everywhere(1000 * SECOND)
    queue.claimed(asked, ClaimResult(1000 * SECOND, [], [], None), 0.1)
    assert not queue.wants_sweep(1000 * SECOND)
    assert queue.looks_everywhere(1000 * SECOND)
    moments = queue.probed(DueProbe(1000 * SECOND, None, True, None), sweep=True, cost=0.1)
    assert moments == [1000 * SECOND + SECOND // 2]
    assert not queue.looks_everywhere(1000 * SECOND)


def test_a_locked_row_is_not_looked_at_in_a_tight_loop() -> None:
    queue = queue_with_history()
    swept(queue, 0.0001)
    found = queue.probed(DueProbe(1000 * SECOND, None, True, None), sweep=True, cost=0.0001)
    assert found == [1000 * SECOND + 100_000]


def test_the_scheduler_is_told_of_no_backend_clock_in_clock_mode(here: Place) -> None:
    async def main() -> None:
        backend = here.backend(time="clock")
        clock = SkewedClock(HOUR)
        assert await backend.open(clock, worker="w") is clock
        assert backend.capabilities.time == "clock"
        await backend.close()
        async with Scheduler(here.backend()) as scheduler:
            assert scheduler._backend.capabilities.time == "store"

    anyio.run(main)
