"""What executions tell of a run: its traceback, its log, its progress, the metadata it got."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.running import executions_of, run, running, seconds, until
from tests.core.test_store_failures import Transactional

from sched_core import (
    BackendUnavailable,
    Discard,
    Execution,
    Interval,
    InvalidDefinition,
    JobEvent,
    MemoryBackend,
    MemoryStore,
    Once,
    Policy,
    Progress,
    Retry,
    RetryAfter,
    Scheduler,
    Snooze,
    Status,
)
from sched_core._runtime.notes import LONGEST_LOG, Notes
from sched_core.testing import EPOCH, FakeClock

Handle = Callable[[JobEvent], Any]


async def played(
    handler: Handle, policy: Policy | None = None, metadata: dict[str, str] | None = None
) -> list[Execution]:
    """Run one job for an hour; return its executions, oldest first."""
    clock = FakeClock()
    async with Scheduler(MemoryBackend(), handler=handler, clock=clock) as scheduler:
        await scheduler.submit_job("a", Once(EPOCH), policy=policy, metadata=metadata)
        for _ in range(60):
            await scheduler.run_due()
            clock.advance(minutes=1)
        return await executions_of(scheduler)


def raises(error: BaseException, cause: BaseException | None = None) -> Handle:
    async def handler(event: JobEvent) -> None:
        if cause is not None:
            try:
                raise cause
            except type(cause) as caught:
                raise error from caught
        raise error

    return handler


def first_frame(traceback: str | None) -> str:
    """Return what the first frame of a text says."""
    return next(line for line in (traceback or "").splitlines() if line.startswith("  File "))


# -- the traceback


@pytest.mark.parametrize("plain", [False, True], ids=["async", "in a thread"])
def test_a_failure_says_where_it_was_raised(plain: bool, loop: str) -> None:
    def helper() -> None:
        raise LookupError("no such customer")

    def in_thread(event: JobEvent) -> None:
        helper()

    async def in_loop(event: JobEvent) -> None:
        helper()

    async def main() -> None:
        (failed,) = await played(in_thread if plain else in_loop)
        assert failed.traceback is not None
        assert __file__ in first_frame(failed.traceback)
        assert first_frame(failed.traceback).endswith("in in_thread" if plain else "in in_loop")
        assert "in helper\n" in failed.traceback
        assert failed.traceback.endswith("\nLookupError: no such customer")

    run(loop, main)


def test_each_attempt_has_its_own_and_a_success_none(loop: str) -> None:
    async def handler(event: JobEvent) -> None:
        if event.attempt < 3:
            raise RuntimeError(f"attempt {event.attempt}")

    async def main() -> None:
        one, two, three = await played(handler, Policy(retry=Retry(3)))
        assert str(one.traceback).endswith("RuntimeError: attempt 1")
        assert str(two.traceback).endswith("RuntimeError: attempt 2")
        assert three.traceback is None

    run(loop, main)


@pytest.mark.parametrize(
    ("error", "cause", "ends"),
    [
        (Discard(), KeyError("its cause"), "KeyError: 'its cause'"),
        (RetryAfter(1, "busy"), OSError("refused"), "OSError: refused"),
        (Discard("no cause"), None, "sched_core.handlers.Discard: no cause"),
        (Discard(KeyError("never raised")), None, "sched_core.handlers.Discard: 'never raised'"),
        (ExceptionGroup("tasks", [Discard("in a group")]), None, "Discard: in a group"),
    ],
    ids=repr,
)
def test_what_a_handler_asks_for_has_the_traceback_of_its_cause(
    error: Exception, cause: Exception | None, ends: str, loop: str
) -> None:
    async def main() -> None:
        (failed,) = await played(raises(error, cause))
        traceback = str(failed.traceback)
        assert first_frame(traceback.replace("  |   File", "  File")).endswith("in handler")
        assert ends in traceback
        assert (cause is None) == ("sched_core.handlers." in traceback)

    run(loop, main)


def test_a_timeout_says_where_the_handler_was(loop: str) -> None:
    async def waits_for_the_server() -> None:
        await anyio.sleep_forever()

    async def handler(event: JobEvent) -> None:
        await waits_for_the_server()

    async def main() -> None:
        async with Scheduler(MemoryBackend(), handler=handler) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH), policy=Policy(timeout=seconds(0.02)))
            await scheduler.run_due()
            (failed,) = await executions_of(scheduler)
        assert str(failed.reason).startswith("timeout")
        assert first_frame(failed.traceback).endswith("in handler")
        assert "in waits_for_the_server" in str(failed.traceback)

    run(loop, main)


def test_what_is_no_failure_has_none(loop: str) -> None:
    async def main() -> None:
        (interrupted, *_) = await played(raises(BackendUnavailable("the server has gone")))
        assert (interrupted.status, interrupted.traceback) == (Status.INTERRUPTED, None)
        (snoozed,) = await played(raises(Snooze(1)), Policy(max_snoozes=2))
        assert (snoozed.status, snoozed.traceback) == (Status.FAILED, None)

    run(loop, main)


# -- metadata


def test_metadata_are_those_that_the_run_got(loop: str) -> None:
    async def main() -> None:
        async def edits(event: JobEvent) -> None:
            await scheduler.update_job("a", metadata={"since": "then"})

        clock = FakeClock()
        async with Scheduler(MemoryBackend(), handler=edits, clock=clock) as scheduler:
            await scheduler.ensure_job("a", Interval(hours=1), metadata={"to": "team-a"})
            for _ in range(2):
                clock.advance(hours=1)
                await scheduler.run_due()
            assert [each.metadata for each in await executions_of(scheduler)] == [
                {"to": "team-a"},
                {"since": "then"},
            ]
        (without,) = await played(raises(ValueError()))
        assert without.metadata is None

    run(loop, main)


# -- the log


@pytest.mark.parametrize("plain", [False, True], ids=["async", "in a thread"])
def test_what_a_handler_logs_is_in_its_execution(plain: bool, loop: str) -> None:
    def in_thread(event: JobEvent) -> None:
        event.log("one")
        event.log("two\nthree")
        event.log("")
        event.log("a\0b\ud800c")

    async def in_loop(event: JobEvent) -> None:
        in_thread(event)

    async def main() -> None:
        (execution,) = await played(in_thread if plain else in_loop)
        assert execution.log == "one\ntwo\nthree\n\na\ufffdb\ufffdc"
        assert execution.status is Status.SUCCEEDED

    run(loop, main)


def test_each_attempt_has_its_own_log_however_it_ends(loop: str) -> None:
    async def handler(event: JobEvent) -> None:
        if event.attempt != 2:
            event.log(f"attempt {event.attempt}")
        if event.attempt < 4:
            raise (ValueError(), RetryAfter(1), BackendUnavailable("gone"))[event.attempt - 1]

    async def main() -> None:
        found = await played(handler, Policy(retry=Retry(4)))
        assert [each.log for each in found] == ["attempt 1", None, "attempt 3", "attempt 4"]

    run(loop, main)


def test_a_stopped_handler_keeps_what_it_told(loop: str) -> None:
    started = anyio.Event()

    async def handler(event: JobEvent) -> None:
        event.log("began")
        event.progress(1, 3)
        started.set()
        await anyio.sleep_forever()

    async def main() -> None:
        store = MemoryStore()
        async with running(MemoryBackend(store), handler, grace=0) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH))
            await started.wait()
        async with Scheduler(MemoryBackend(store)) as scheduler:
            (execution,) = await executions_of(scheduler)
        assert execution.status is Status.INTERRUPTED
        assert execution.log == "began"
        assert execution.progress is not None
        assert (execution.progress.done, execution.progress.of) == (1, 3)

    run(loop, main)


def test_lines_from_many_threads_all_arrive(loop: str) -> None:
    def handler(event: JobEvent) -> None:
        def tells(name: int) -> None:
            barrier.wait()
            for number in range(50):
                event.log(f"{name}:{number}")
                event.progress(number, 50)

        barrier = threading.Barrier(8)
        threads = [threading.Thread(target=tells, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async def main() -> None:
        (execution,) = await played(handler)
        lines = str(execution.log).split("\n")
        assert sorted(lines) == sorted(f"{a}:{b}" for a in range(8) for b in range(50))
        for name in range(8):
            mine = [line for line in lines if line.startswith(f"{name}:")]
            assert mine == [f"{name}:{number}" for number in range(50)], "in their order"

    run(loop, main)


def test_what_comes_after_the_run_is_nobodys(loop: str) -> None:
    events: list[JobEvent] = []

    async def handler(event: JobEvent) -> None:
        for earlier in events:
            earlier.log("late")
            earlier.progress(99)
        events.append(event)
        event.log(f"run {len(events)}")

    async def main() -> None:
        clock = FakeClock()
        async with Scheduler(MemoryBackend(), handler=handler, clock=clock) as scheduler:
            await scheduler.ensure_job("a", Interval(hours=1))
            for _ in range(2):
                clock.advance(hours=1)
                await scheduler.run_due()
            events[0].log("later")
            found = await executions_of(scheduler)
        assert [each.log for each in found] == ["run 1", "run 2"]
        assert [each.progress for each in found] == [None, None]

    run(loop, main)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9000), max_size=12))
def test_the_newest_lines_are_kept_within_the_bound(texts: list[str]) -> None:
    notes = Notes()
    for text in texts:
        notes.add(text)
    log = notes.log()
    if not texts:
        assert log is None
        return
    assert log is not None
    assert len(log.encode()) <= LONGEST_LOG
    whole = "\n".join(texts).replace("\0", "\ufffd")
    if "bytes are left out" in log:
        return  # one text alone was too long: see the next test
    mark, _, kept = log.rpartition(" earlier lines are left out …]\n")
    assert whole.endswith(kept)
    dropped = int(mark.removeprefix("[… ")) if mark else 0
    assert dropped + kept.count("\n") == whole.count("\n")
    if mark:
        older = whole[: len(whole) - len(kept) - 1].rpartition("\n")[2]
        assert len((older + "\n" + kept).encode()) > LONGEST_LOG - 64, "one more would have fit"


def test_one_text_that_is_too_long_keeps_both_ends() -> None:
    notes = Notes()
    notes.add("before")
    notes.add("begins " + "é" * 20_000 + " ends")
    log = notes.log()
    assert log is not None
    assert len(log.encode()) <= LONGEST_LOG
    assert "begins é" in log
    assert log.endswith("é ends")


def test_a_handlers_transaction_has_what_was_told_before_it_was_left(loop: str) -> None:
    async def handler(event: JobEvent) -> None:
        event.log("before")
        async with event.transaction():
            event.log("inside")
            event.progress(1, 1)
        event.log("after")
        event.progress(9)

    async def main() -> None:
        backend = Transactional(commits=True)
        backend.unanswered = 0
        async with running(backend, handler) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH), metadata={"of": "then"})
            (execution,) = await until(lambda: executions_of(scheduler))
        assert execution.status is Status.SUCCEEDED
        assert (execution.log, execution.metadata) == ("before\ninside", {"of": "then"})
        assert execution.progress is not None
        assert execution.progress.done == 1

    run(loop, main)


# -- progress


def test_the_newest_progress_is_in_the_execution(loop: str) -> None:
    async def handler(event: JobEvent) -> None:
        event.progress(1)
        event.progress(2, 10, "customers")
        event.progress(2.5, 10, "x" * 5000)

    async def main() -> None:
        (execution,) = await played(handler)
        told = execution.progress
        assert told is not None
        assert (told.done, told.of, told.at) == (2.5, 10, EPOCH)
        assert told.text is not None
        assert told.text.startswith("xxx")
        assert len(told.text.encode()) == 2048

    run(loop, main)


def test_others_see_it_within_seconds(loop: str) -> None:
    """A renewal takes it along five seconds after it was told, however long the lease is."""
    store, clock = MemoryStore(), FakeClock()
    told: dict[str, Callable[..., None]] = {}
    ended = anyio.Event()

    async def handler(event: JobEvent) -> None:
        told["progress"] = event.progress
        await ended.wait()

    async def main() -> None:
        spy = Spied(MemoryBackend(store, lease=timedelta(hours=1)))
        other = MemoryBackend(store, lease=timedelta(hours=1))
        async with (
            Scheduler(other, clock=clock) as elsewhere,
            running(spy, handler, clock=clock) as scheduler,
        ):

            async def seen() -> Progress | None:
                (only,) = [each async for each in elsewhere.list_running()]
                return only.progress

            await scheduler.submit_job("a", Once(EPOCH))
            await until(lambda: told)
            assert await seen() is None
            for number in (1, 2, 3):
                await anyio.to_thread.run_sync(told["progress"], number, 3, "as told")
                at = clock.now()
                clock.advance(seconds(5))

                async def arrived(number: int = number) -> bool:
                    found = await seen()
                    return found is not None and found.done == number

                await until(arrived)
                assert await seen() == Progress(number, 3, "as told", at)
            count = len(spy.renewals)
            for _ in range(5):
                clock.advance(seconds(5))
                await anyio.sleep(0.01)
            assert len(spy.renewals) == count == 3, "nothing new is nothing to renew"
            ended.set()
            await until(lambda: executions_of(scheduler))

    run(loop, main)


class Spied(MemoryBackend):
    """Remembers the renewals that bring progress; fails some of them."""

    def __init__(self, backend: MemoryBackend) -> None:
        super().__init__(backend.store, lease=backend.capabilities.lease)
        self.renewals: list[Progress] = []
        self.fails = False
        self.failed = 0

    async def renew(self, renewals: Any) -> Any:
        if self.fails:
            self.failed += 1
            raise BackendUnavailable("the store cannot be reached")
        self.renewals += [each.progress for each in renewals if each.progress is not None]
        return await super().renew(renewals)


def test_progress_that_could_not_be_brought_is_brought_later(loop: str) -> None:
    clock, ended = FakeClock(), anyio.Event()
    told: list[JobEvent] = []

    async def handler(event: JobEvent) -> None:
        event.progress(7)
        told.append(event)
        await ended.wait()

    async def main() -> None:
        spy = Spied(MemoryBackend())
        async with running(spy, handler, clock=clock) as scheduler:
            await scheduler.submit_job("a", Once(EPOCH))
            spy.fails = True
            await until(lambda: told)
            clock.advance(seconds(5))
            await until(lambda: spy.failed)
            spy.fails = False
            clock.advance(seconds(5))
            await until(lambda: [each.done for each in spy.renewals] == [7])
            ended.set()

    run(loop, main)


# -- arguments, and outside a scheduler


AN_EVENT = JobEvent("a", Once(EPOCH), EPOCH, EPOCH, "u:1")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("1",), "done"),
        ((None,), "done"),
        ((True,), "done"),
        ((-1,), "done"),
        ((float("nan"),), "done"),
        ((float("inf"),), "done"),
        ((10**400,), "done"),
        ((1, "2"), "of"),
        ((1, -2), "of"),
        ((1, 2, 3), "text"),
        ((1, 2, b"three"), "text"),
    ],
)
def test_progress_that_is_none_names_the_argument(arguments: Any, field: str) -> None:
    with pytest.raises(InvalidDefinition, match=f"^{field}: must be a (number|text)"):
        AN_EVENT.progress(*arguments)


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["a"]])
def test_a_log_of_no_text_is_refused(text: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"^text: must be a text, .*: use str"):
        AN_EVENT.log(text)


def test_bad_arguments_fail_the_run_as_any_other_error_does(loop: str) -> None:
    async def handler(event: JobEvent) -> None:
        event.progress("half")  # type: ignore[arg-type]  # refused

    async def main() -> None:
        (failed,) = await played(handler)
        assert failed.status is Status.FAILED
        assert "InvalidDefinition: done: must be a number" in str(failed.reason)

    run(loop, main)


def test_outside_a_scheduler_both_do_nothing() -> None:
    for amount in (0, 0.0, 5, 2**53, 2**60, 1e300):
        AN_EVENT.progress(amount, amount, "text")
    AN_EVENT.log("line")


@pytest.mark.parametrize(("given", "kept"), [(3, 3), (2**53, 2**53), (2**53 + 1, 2.0**53)])
def test_whole_numbers_stay_whole_as_far_as_json_keeps_them(
    given: int, kept: float, loop: str
) -> None:
    async def handler(event: JobEvent) -> None:
        event.progress(given, given)

    async def main() -> None:
        (execution,) = await played(handler)
        assert execution.progress is not None
        assert execution.progress.done == execution.progress.of == kept
        assert type(execution.progress.done) is type(kept)

    run(loop, main)
