"""The machine finds what is wrong in the scheduler itself, and tells it as a story."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest
from attrs import evolve
from tests.conformance.harnesses.memory import MemoryHarness
from tests.testkit.test_found_histories import (
    History,
    a_pause_with_a_backlog,
    a_resume_before_the_next_occurrence,
    a_retry_with_jitter,
    a_schedule_with_jitter,
    a_third_pause_takes_away_what_a_lost_claim_had_begun,
    a_trigger_while_a_retry_waits,
    an_edit_after_the_clock_was_set_back,
    an_interruption_before_the_clock_was_set_back,
    judge,
    retries_that_all_fail,
)

from sched_core import Job, Policy, State, Status, lifecycle
from sched_core.leases import Deadlines
from sched_core.threads import HandlerThread
from sched_testkit import world
from sched_testkit.annals import Wrong
from sched_testkit.machine import run_histories

Mutate = Callable[[Any], Any]

folds, finishes, pauses = lifecycle._fold, lifecycle.finish, lifecycle.pause
skips, triggers, resumes = lifecycle.skip_next, lifecycle.trigger, lifecycle.resume
redefines, retires, backs_off = lifecycle.redefine, lifecycle.retire, lifecycle.backoff
calls = HandlerThread.call


def fold_one_less(job: Any, moment: Any, now: Any) -> Any:
    folded, until = folds(job, moment, now)
    return max(folded - 1, 0), until if folded > 1 else None


def retry_forgets_failures(*arguments: Any, **options: Any) -> Any:
    decision = finishes(*arguments, **options)
    if decision.standing is None or decision.standing.failures == 0:
        return decision
    return evolve(decision, standing=evolve(decision.standing, failures=0))


def pause_is_ignored(job: Job, **options: Any) -> Job:
    return job


def settle_reverts_the_edit(claim: Any, start: Any, ended: Any, **options: Any) -> Any:
    stored = options.pop("stored")
    return finishes(claim, start, ended, stored=claim.job if stored else None, **options)


def skip_twice_is_twice(job: Job, *, now: Any) -> Job:
    mark = job.standing.skipped_run
    if mark is None or mark <= now:
        return skips(job, now=now)
    return skips(job, now=mark)


def trigger_is_lost_in_a_run(job: Job, *, now: Any) -> Job:
    due = job.standing.due_at
    return job if due is not None and due <= now else triggers(job, now=now)


def resume_runs_at_once(job: Job, *, at: Any) -> Any:
    after = resumes(job, at=at)
    if after is None or after.standing.state is not State.ACTIVE:
        return after
    return evolve(after, standing=evolve(after.standing, due_at=at))


def resume_forgets_what_was_due(job: Job, *, at: Any) -> Any:
    after = resumes(job, at=at)
    backlog = None if after is None else after.standing.backlog
    if after is None or backlog is None:
        return after
    empty = evolve(backlog, folded=0, folded_from=None, folded_until=None)
    return evolve(after, standing=evolve(after.standing, backlog=empty))


def resume_counts_what_lay_in_the_pause(job: Job, *, at: Any) -> Any:
    after = resumes(job, at=at)
    return after and evolve(after, standing=evolve(after.standing, backlog=None))


def any_edit_moves_the_schedule(job: Job, spec: Any, **options: Any) -> Any:
    change = redefines(job, spec, **options)
    if change is None or change.job.standing.next_run is None:
        return change
    later = change.job.standing.next_run + timedelta(seconds=1)
    moved = evolve(change.job.standing, next_run=later, due_at=later)
    return evolve(change, job=evolve(change.job, standing=moved))


def removal_writes_nothing(job: Job, *, now: Any) -> tuple[()]:
    return ()


def retry_without_a_pause(*arguments: Any) -> timedelta:
    return timedelta(0)


def interruption_forgets_the_attempt(*arguments: Any, **options: Any) -> Any:
    decision = finishes(*arguments, **options)
    interrupted = any(line.status is Status.INTERRUPTED for line in decision.ledger)
    if decision.standing is None or not interrupted:
        return decision
    return evolve(decision, standing=evolve(decision.standing, attempts=0))


def jitter_is_ignored(job: Job, number: int, moment: Any) -> Any:
    return moment


def jitter_of_retries_is_ignored(policy: Policy, *arguments: Any) -> timedelta:
    return backs_off(evolve(policy, retry=evolve(policy.retry, jitter=0.0)), *arguments)


def an_edit_repeats_what_has_run(job: Job, spec: Any, **options: Any) -> Any:
    forgotten = evolve(job, standing=evolve(job.standing, last_scheduled_at=None))
    return redefines(forgotten, spec, **options)


def a_trigger_waits_for_the_retry(job: Job, *, now: Any) -> Job:
    after = triggers(job, now=now)
    if job.standing.attempts == 0:
        return after
    return evolve(after, standing=evolve(after.standing, due_at=job.standing.due_at))


def only_the_first_is_superseded(job: Job, *, now: Any) -> Any:
    return tuple(evolve(line, folded=0, folded_until=None) for line in retires(job, now=now))


def what_returns_in_the_end_has_succeeded(*arguments: Any, **options: Any) -> Any:
    claim, start, ended = arguments
    late = ended.reason is not None and ended.reason.startswith("timeout")
    return finishes(claim, start, lifecycle.SUCCESS if late else ended, **options)


def a_pause_ends_nothing(*arguments: Any, **options: Any) -> tuple[()]:
    return ()


MUTANTS: list[tuple[str, Any, str]] = [
    ("_fold", fold_one_less, "folds"),
    ("pause", pause_is_ignored, "though it was paused"),
    ("finish", settle_reverts_the_edit, "."),
    ("skip_next", skip_twice_is_twice, "skip_next marked|nothing to skip"),
    ("trigger", trigger_is_lost_in_a_run, "was triggered at"),
    ("redefine", any_edit_moves_the_schedule, "moved its standing"),
    ("retire", removal_writes_nothing, "has no (final )?line"),
    ("backoff", retry_without_a_pause, "before its retry was due"),
    ("retire", only_the_first_is_superseded, "folds 0, not"),
    ("finish", what_returns_in_the_end_has_succeeded, "but the handler failed"),
]


SHORT = 3
"""So many of them are searched for in the short form; most of the others have histories below."""


@pytest.mark.parametrize(
    ("name", "mutant", "message"),
    [*MUTANTS[:SHORT], *(pytest.param(*each, marks=pytest.mark.deep) for each in MUTANTS[SHORT:])],
    ids=lambda m: getattr(m, "__name__", ""),
)
def test_the_machine_kills_the_mutant(
    name: str, mutant: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, name, mutant)
    with pytest.raises(Wrong, match=message):
        run_histories(MemoryHarness(), examples=5_000, steps=30, shrink=False)


async def fails_in_silence(self: HandlerThread, *arguments: Any) -> Any:
    try:
        return await calls(self, *arguments)
    except Exception:
        return None


@pytest.mark.deep
def test_the_machine_runs_plain_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandlerThread, "call", fails_in_silence)
    with pytest.raises(Wrong, match="but the handler failed"):
        run_histories(MemoryHarness(), examples=5_000, steps=30, shrink=False)


def test_the_machine_lets_time_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deadlines, "add", lambda *arguments: None)
    monkeypatch.setattr(world, "PATIENCE", 1)
    with pytest.raises(Wrong, match=r"nothing happens, though it is (timed out|deaf)"):
        run_histories(MemoryHarness(), examples=5_000, steps=30, shrink=False)


@pytest.mark.parametrize(
    ("name", "mutant", "history", "message"),
    [
        ("resume", resume_forgets_what_was_due, a_pause_with_a_backlog, "folds 1, not 3"),
        ("resume", resume_counts_what_lay_in_the_pause, a_pause_with_a_backlog, "folds 5, not 3"),
        ("finish", retry_forgets_failures, retries_that_all_fail, "must be the last"),
        (
            "finish",
            interruption_forgets_the_attempt,
            an_interruption_before_the_clock_was_set_back,
            "after attempt|must go on with",
        ),
        ("_jittered", jitter_is_ignored, a_schedule_with_jitter, "its jitter makes it due"),
        ("backoff", jitter_of_retries_is_ignored, a_retry_with_jitter, "before its retry was due"),
        (
            "redefine",
            an_edit_repeats_what_has_run,
            an_edit_after_the_clock_was_set_back,
            "do not count|has had its line|no occurrence there",
        ),
        (
            "trigger",
            a_trigger_waits_for_the_retry,
            a_trigger_while_a_retry_waits,
            "was triggered at",
        ),
        (
            "resume",
            resume_runs_at_once,
            a_resume_before_the_next_occurrence,
            "early|began at|inside|do not count",
        ),
        (
            "left_behind",
            a_pause_ends_nothing,
            a_third_pause_takes_away_what_a_lost_claim_had_begun,
            "has left the occurrence",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_history_kills_the_mutant(
    name: str, mutant: Any, history: History, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    anyio.run(judge, history, MemoryHarness())
    monkeypatch.setattr(lifecycle, name, mutant)
    with pytest.raises(Wrong, match=message):
        anyio.run(judge, history, MemoryHarness())


def test_a_wrong_history_is_told_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "redefine", any_edit_moves_the_schedule)
    with pytest.raises(Wrong, match="moved its standing") as caught:
        run_histories(MemoryHarness(), examples=100, steps=10)
    story = next(note for note in caught.value.__notes__ if "What happened" in note)
    header, *lines = story.strip().splitlines()
    assert header == "What happened:"
    assert lines[0] == "  1. at +0 s: submit job 'a' every 60 s"
    assert [line.split(".")[0].strip() for line in lines] == [
        str(number) for number in range(1, len(lines) + 1)
    ]
    assert re.fullmatch(r" +\d+\. at \+\d+ s: (update|ensure).*", lines[-1])
    assert len(lines) <= 4
