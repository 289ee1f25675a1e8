"""The state machine of a run: what its table allows, and what the page on architecture shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import anyio
import pytest

from sched_core import (
    BackendUnavailable,
    Claim,
    Job,
    JobSpec,
    Kind,
    Once,
    Pending,
    Settlement,
    Standing,
    Status,
)
from sched_core._model.claim import SUCCESS, Decision, Ended, Start
from sched_core._runtime.outcomes import Postponed, cancelled_outcome, failure
from sched_core._runtime.runs import TABLE, Phase, Run, Step, WorkerTask

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


def a_run(*steps: Step) -> Run:
    standing = Standing(1, Pending(1, NOW, NOW), NOW)
    job = Job(JobSpec("job", Once(NOW)), "uid", False, NOW, standing, 1)
    run = Run(Claim(job, 1, "worker", NOW, NOW + timedelta(seconds=30)))
    for step in steps:
        take(run, step)
    return run


def take(run: Run, step: Step) -> None:
    if step == "queue":
        run.queue(Start(1, NOW, Kind.SCHEDULED, 1))
    elif step == "call":
        run.call(WorkerTask(), NOW, in_thread=True)
    elif step == "commit":
        run.commit(Settlement(run.claim, None, None, ()))
    elif step == "decide":
        run.decide(Decision(None, ()), None)
    else:
        run.let_go()


WAYS: dict[Phase, tuple[Step, ...]] = {
    "claimed": (),
    "queued": ("queue",),
    "running": ("queue", "call"),
    "committed": ("queue", "call", "commit"),
    "ended": ("queue", "call", "decide"),
    "over": ("queue", "call", "let go"),
}


@pytest.mark.parametrize("phase", get_args(Phase))
@pytest.mark.parametrize("step", get_args(Step))
def test_what_the_table_allows_and_nothing_else(phase: Phase, step: Step) -> None:
    async def main() -> None:
        run = a_run(*WAYS[phase])
        assert run.phase == phase
        if step in TABLE[phase]:
            take(run, step)
            assert run.phase == TABLE[phase][step]
            return
        before = {name: getattr(run, name) for name in Run.__slots__}
        with pytest.raises(RuntimeError, match=f"{phase} cannot {step}"):
            take(run, step)
        assert run.phase == phase
        after = {name: getattr(run, name) for name in Run.__slots__}
        assert after == before

    anyio.run(main)


def test_the_page_on_architecture_shows_the_table() -> None:
    folder = Path(__file__).parents[2] / "docs" / "explanation"
    page = folder.joinpath("architecture.md").read_text(encoding="utf-8")
    shown = {
        tuple(cell.strip() for cell in line.strip("|\n").split("|"))
        for line in page.splitlines()
        if line.startswith("| `")
    }
    for phase, steps in TABLE.items():
        for step, following in steps.items():
            assert (f"`{phase}`", step, f"`{following}`") in shown, (phase, step, following)
    rows = [row for row in shown if len(row) == 3 and row[0].strip("`") in TABLE]
    assert len(rows) == sum(map(len, TABLE.values()))


@pytest.mark.parametrize(
    ("told", "stays"),
    [
        (["timeout"], "timeout"),
        (["stop", "timeout"], "stop"),
        (["timeout", "stop"], "timeout"),
        (["timeout", "lost"], "lost"),
        (["lost", "stop"], "lost"),
    ],
)
def test_the_first_reason_stays_and_a_lost_claim_outweighs_all(told: list[str], stays: str) -> None:
    async def main() -> None:
        run = a_run("queue", "call")
        for why in told:
            run.cancel(why)  # type: ignore[arg-type]  # the words of CancelReason
        assert run.cancel_reason == stays
        assert run.cancellation.requested

    anyio.run(main)


@pytest.mark.parametrize("phase", ["committed", "ended", "over"])
def test_what_is_decided_is_not_told_to_stop(phase: Phase) -> None:
    async def main() -> None:
        run = a_run(*WAYS[phase])
        run.cancel("stop")
        assert run.cancel_reason is None
        assert not run.cancellation.requested

    anyio.run(main)


def raised(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


STORE = BackendUnavailable("the server has gone")
IN_CONTEXT = ValueError("of the job, while the store's was being handled")
IN_CONTEXT.__context__ = STORE


@pytest.mark.parametrize(
    ("error", "by_store"),
    [
        (STORE, True),
        (raised(RuntimeError("wrapped"), STORE), True),
        (raised(RuntimeError("twice"), raised(ValueError("x"), STORE)), True),
        (ExceptionGroup("tasks", [STORE, raised(ValueError("x"), STORE)]), True),
        (ExceptionGroup("tasks", [STORE, ValueError("of the job")]), False),
        (IN_CONTEXT, False),
        (ValueError("of the job"), False),
        (SystemExit(1), False),
    ],
    ids=repr,
)
def test_whose_failure_it_is(error: BaseException, by_store: bool) -> None:
    ended = failure(error)
    assert ended.by_store == by_store
    assert ended.status is (Status.INTERRUPTED if by_store else Status.FAILED)


def test_a_failure_of_the_store_is_one_also_when_the_handler_was_told_to_stop() -> None:
    store, limit = failure(STORE), timedelta(seconds=1)
    assert cancelled_outcome("timeout", store, limit) is store
    assert cancelled_outcome("stop", SUCCESS, None).status is Status.INTERRUPTED  # type: ignore[union-attr]
    assert cancelled_outcome("timeout", SUCCESS, limit).status is Status.FAILED  # type: ignore[union-attr]
    assert cancelled_outcome(None, SUCCESS, None) is SUCCESS
    postponed = Postponed(NOW)
    assert cancelled_outcome("stop", postponed, None) is postponed


def test_an_exception_that_is_its_own_cause_ends_the_search() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    names = ("ValueError", "Exception", "BaseException", "object")
    assert failure(one) == Ended(Status.FAILED, "ValueError: one", error_types=names)
