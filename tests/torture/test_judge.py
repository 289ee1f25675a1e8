"""The judge of the torture, shown hand-made evidence: guilty in one way, and its innocent twin.

What is planted in real processes (``test_planted``) shows that the torture provokes what it looks
for; this shows that each invariant can be broken at all, and what does not break it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from attrs import evolve

from sched_core import Execution, Interval, Job, JobSpec, Kind, Pending, Policy, Standing, Status
from sched_testkit import torture
from sched_testkit.torture.commands import Command
from sched_testkit.torture.evidence import Evidence, Rules
from sched_testkit.torture.faults import ABSENT, MEDDLED, STARVED, InjectedFault
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.invariants import check
from sched_testkit.torture.processes import Exit

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=2)
Entry: TypeAlias = dict[str, Any]
Change: TypeAlias = Callable[[Evidence], Evidence]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def execution(number: int, attempt: int, token: int, claimed: float, **changes: Any) -> Execution:
    job_id, uid = changes.pop("job_id", "a"), changes.pop("uid", "u")
    plain = Execution(
        id=f"{uid}:{number}:{attempt}",
        job_id=job_id,
        uid=uid,
        number=number,
        attempt=attempt,
        kind=Kind.SCHEDULED,
        scheduled_at=at(10 * number),
        status=Status.SUCCEEDED,
        final=True,
        token=token,
        worker="w2-x",
        claimed_at=at(claimed),
        started_at=at(claimed),
        finished_at=at(claimed + 0.01),
    )
    return evolve(plain, **changes)


def entry(what: str, of: Execution, seconds: float, **changes: Any) -> Entry:
    found = re.match(r"w(\d+)-", of.worker)
    assert found is not None
    plain = {
        "what": what,
        "at": at(seconds).isoformat(),
        "mono": seconds,
        "worker": int(found[1]),
        "id": of.job_id,
        "key": f"{of.uid}:{of.number}",
        "attempt": of.attempt,
        "token": of.token,
    }
    if what == "start":
        plain |= {"scheduled_at": of.scheduled_at.isoformat(), "version": "0"}
    return plain | changes


def ran(of: Execution, **changes: Any) -> list[Entry]:
    """Return what the handler wrote that ran for such an execution."""
    seconds = (of.claimed_at - START).total_seconds()
    return [entry("start", of, seconds + 0.001, **changes), entry("end", of, seconds + 0.01)]


def fault(
    what: str,
    worker: int,
    began: float,
    ended: float,
    *,
    store: bool = False,
    costly: bool = True,
) -> InjectedFault:
    return InjectedFault(what, worker, at(began), at(ended), store, costly)


def command(what: str, seconds: float, **changes: Any) -> Command:
    changing = what in {"update", "reschedule", "ensure", "submit", "remove"}
    plain = Command(what, "b", "ok", at(seconds), at(seconds + 0.1), changes=changing)
    return evolve(plain, **changes)


SPEC = JobSpec("a", Interval(seconds=10), None, {"kind": "quick"})
JOB = Job(SPEC, "u", False, START, Standing(4, Pending(4, at(40), at(40)), at(40)))
FIRST = execution(1, 1, 1, 10.0, worker="w1-x")
LOST = execution(
    2, 1, 2, 20.0, worker="w1-x", status=Status.ABANDONED, final=False, finished_at=at(22.1)
)
AGAIN = execution(2, 2, 3, 22.1)
THIRD = execution(3, 1, 4, 30.0)
READY = {"what": "ready", "at": at(0).isoformat(), "mono": 0.0, "worker": 1}
EDITED = JobSpec("b", Interval(seconds=7), None, {"kind": "slow", "version": "5"})
B = Job(EDITED, "v", False, START, Standing(2, Pending(2, at(40), at(40)), at(40)))
RUN_OF_B = execution(1, 1, 1, 30.0, job_id="b", uid="v")


def sound() -> Evidence:
    """Return a run in which a process is killed, and all goes as it must."""
    return Evidence(
        rules=Rules(
            lease=LEASE,
            recovery=timedelta(seconds=5),
            dead_are_free=False,
            store_faults=False,
            clocks=False,
            stopped_may_lock=False,
        ),
        jobs=[JOB],
        executions=[FIRST, LOST, AGAIN, THIRD],
        entries=[READY, *ran(FIRST), entry("start", LOST, 20.001), *ran(AGAIN), *ran(THIRD)],
        commands=[command("submit", 0, job_id="a")],
        injected=[fault("kill", 1, 20.005, 20.05), fault("terminate", 0, 39, 39.2)],
        exits=[Exit(1, -9, at(20.04), ""), Exit(2, 0, at(39.1), "")],
        hanging=[],
        rested=at(39),
        resting=[JOB],
    )


def executions(*of: Execution) -> Change:
    return lambda evidence: evolve(evidence, executions=list(of))


def entries(*of: Entry) -> Change:
    return lambda evidence: evolve(evidence, entries=[READY, *of])


def exchanged(old: Execution, **changes: Any) -> Change:
    """Change an execution, as the history has it."""

    def change(evidence: Evidence) -> Evidence:
        new = [evolve(one, **changes) if one is old else one for one in evidence.executions]
        return evolve(evidence, executions=new)

    return change


def without(what: str, of: Execution) -> Change:
    """Leave out what a handler wrote."""

    def is_meant(one: Entry) -> bool:
        return bool(one["what"] == what and one.get("token") == of.token)

    return lambda evidence: evolve(
        evidence, entries=[one for one in evidence.entries if not is_meant(one)]
    )


def with_faults(*more: InjectedFault) -> Change:
    return lambda evidence: evolve(evidence, injected=[*evidence.injected, *more])


def rules(**changes: Any) -> Change:
    return lambda evidence: evolve(evidence, rules=evolve(evidence.rules, **changes))


def commanded(*more: Command, job: Job | None = B, runs: Sequence[Execution] = ()) -> Change:
    """Let there be a job ``b``, what it was commanded, and how it ran."""

    def change(evidence: Evidence) -> Evidence:
        new = [entry for run in runs for entry in ran(run, version=VERSIONS.get(run.token, "0"))]
        return evolve(
            evidence,
            jobs=[*evidence.jobs, *([job] if job else [])],
            commands=[*evidence.commands, *more],
            executions=[*evidence.executions, *runs],
            entries=[*evidence.entries, *new],
        )

    return change


VERSIONS = {1: "4", 2: "5"}
"""The version of ``b`` that a run was given, by token."""


def standing(number: int = 4, due: float = 40) -> Job:
    one = Pending(number, at(due), at(due))
    return evolve(JOB, standing=Standing(number, one, at(due)))


def same(evidence: Evidence) -> Evidence:
    return evidence


def both(*changes: Change) -> Change:
    def change(evidence: Evidence) -> Evidence:
        for one in changes:
            evidence = one(evidence)
        return evidence

    return change


def exits(*more: Exit) -> Change:
    return lambda evidence: evolve(evidence, exits=[*evidence.exits, *more])


def resting(job: Job) -> Change:
    return lambda evidence: evolve(evidence, resting=[job])


def jobs(job: Job) -> Change:
    return lambda evidence: evolve(evidence, jobs=[job])


UPDATED = command("update", 20, version=5)
SET = command("ensure", 10, version=4, schedule=EDITED.schedule)
REMOVED = command("remove", 20, uid="v")
TRIGGERED = evolve(RUN_OF_B, kind=Kind.TRIGGERED, claimed_at=at(5))
LATER = execution(2, 1, 2, 31.0, job_id="b", uid="v")
TAKEN = evolve(LOST, finished_at=at(21))
LOCKED = fault("row locked", 0, 19.5, 22, store=True, costly=False)
SLOW = fault("black hole", 0, 22.2, 24.5, store=True)
STOPPED = fault("stop", 3, 20.5, 22)

WHOLE = [*ran(FIRST), entry("start", LOST, 20.001), *ran(AGAIN)]
"""What handlers wrote before the third occurrence."""
PUT_OFF = [entry("start", THIRD, 30.001), entry("snoozed", THIRD, 30.01, wait=0.3)]
CALLED_AGAIN = evolve(THIRD, token=5, claimed_at=at(30.4), snoozes=1)
REFUSED = evolve(THIRD, status=Status.FAILED)


def put_off(again: Execution, *, most: int = 100) -> Change:
    """Let the handler of the third occurrence snooze, and be called again."""
    job = evolve(JOB, spec=evolve(SPEC, policy=Policy(max_snoozes=most)))
    return both(
        executions(FIRST, LOST, AGAIN, again), entries(*WHOLE, *PUT_OFF, *ran(again)), jobs(job)
    )


def ended(how: str, execution: Execution, *, most: int = 100) -> Change:
    """Let the handler of the third occurrence end like this, and have that execution."""
    job = evolve(JOB, spec=evolve(SPEC, policy=Policy(max_snoozes=most)))
    end = entry(how, execution, 30.01, wait=0.3)
    return both(
        executions(FIRST, LOST, AGAIN, execution),
        entries(*WHOLE, entry("start", execution, 30.001), end),
        jobs(job),
    )


CANCEL = command("cancel", 5, key="v:1")
ENDED = evolve(RUN_OF_B, attempt=0, started_at=None, status=Status.CANCELLED, claimed_at=at(5.2))
ASK = command("ask", 5, key="v:1", name="x", args={"n": "1"})
NAMED = evolve(
    RUN_OF_B,
    kind=Kind.TRIGGERED,
    args={"n": "1"},
    claimed_at=at(5.2),
    finished_at=at(5.3),
)
ASK_AGAIN = command("ask", 6, key="v:2", name="x", args={"n": "1"})
NAMED_AGAIN = evolve(NAMED, id="v:2:1", number=2, token=2, claimed_at=at(6.2))
BACKFILL = command("backfill", 5, since=at(1), until=at(2))


def cancelled(*runs: Execution, more: Sequence[Command] = ()) -> Change:
    """Let the first occurrence of ``b`` be cancelled, with these executions."""
    return commanded(CANCEL, *more, runs=runs)


def backfilled(*seconds: float, commands: Sequence[Command] = (BACKFILL,)) -> Change:
    """Let moments of ``b`` be backfilled, with executions of these."""
    plain = evolve(RUN_OF_B, kind=Kind.BACKFILLED)
    runs = [
        evolve(
            plain,
            id=f"v:{number}:1",
            number=number,
            token=number,
            scheduled_at=at(moment),
            claimed_at=at(5 + number / 10),
        )
        for number, moment in enumerate(seconds, 1)
    ]
    return commanded(*commands, runs=runs)


CASES: list[tuple[str, Change, Change]] = [
    ("run after its cancel", cancelled(evolve(RUN_OF_B, claimed_at=at(6))), cancelled(ENDED)),
    (
        "run after its cancel",
        cancelled(evolve(RUN_OF_B, claimed_at=at(6))),
        cancelled(evolve(RUN_OF_B, claimed_at=at(4.9), status=Status.CANCELLED)),
    ),
    (
        "cancel ignored",
        cancelled(evolve(RUN_OF_B, claimed_at=at(4.9), status=Status.FAILED)),
        cancelled(evolve(RUN_OF_B, claimed_at=at(4.9))),  # it had returned before
    ),
    (
        "cancel ignored",
        cancelled(evolve(RUN_OF_B, claimed_at=at(4.9), status=Status.FAILED)),
        cancelled(
            evolve(RUN_OF_B, claimed_at=at(4.9), status=Status.FAILED),
            more=[command("remove", 5.5, uid="v")],
        ),
    ),
    ("cancel lost", cancelled(), cancelled(ENDED)),
    ("cancel lost", cancelled(), cancelled(more=[command("remove", 20, uid="v")])),
    ("request lost", commanded(ASK), commanded(ASK, runs=[NAMED])),
    ("request lost", commanded(ASK), commanded(ASK, command("pause", 20))),
    (
        "asked for twice",  # the first one has not ended
        commanded(ASK, ASK_AGAIN, runs=[evolve(NAMED, finished_at=at(8)), NAMED_AGAIN]),
        commanded(ASK, ASK_AGAIN, runs=[NAMED, NAMED_AGAIN]),
    ),
    (
        "arguments lost",
        commanded(ASK, runs=[evolve(NAMED, args=None)]),
        commanded(ASK, evolve(ASK, args={"n": "2"}), runs=[NAMED]),  # it is the same one
    ),
    ("backfill lost", backfilled(1), backfilled(1, 2)),
    ("backfill lost", backfilled(1), backfilled(1, commands=[evolve(BACKFILL, outcome="fail")])),
    ("backfilled too often", backfilled(1, 2, 2), backfilled(1, 2)),
    (
        "backfilled too often",
        backfilled(1, 2, 2),
        backfilled(1, 2, 2, commands=[BACKFILL, evolve(BACKFILL, outcome="info")]),
    ),
    ("called too early", put_off(evolve(CALLED_AGAIN, claimed_at=at(30.1))), put_off(CALLED_AGAIN)),
    (
        "snooze forgotten",
        both(executions(FIRST, LOST, AGAIN), entries(*WHOLE, *PUT_OFF)),
        both(executions(FIRST, LOST, AGAIN), entries(*WHOLE, *PUT_OFF), jobs(standing(3, 30.31))),
    ),
    ("snoozes miscounted", put_off(evolve(CALLED_AGAIN, snoozes=0)), put_off(CALLED_AGAIN)),
    ("snoozed too often", put_off(CALLED_AGAIN, most=0), put_off(CALLED_AGAIN, most=1)),
    ("snooze not granted", ended("snoozed", REFUSED), ended("snoozed", REFUSED, most=0)),
    (
        "discarded and retried",
        ended("discarded", evolve(REFUSED, final=False)),
        ended("discarded", REFUSED),
    ),
    (
        "doubled",
        entries(*WHOLE, *ran(THIRD), *ran(CALLED_AGAIN)),  # though it was not put off
        put_off(CALLED_AGAIN),
    ),
    ("token not growing", exchanged(THIRD, token=3), same),
    ("two final executions", exchanged(LOST, final=True), same),
    ("attempts not in order", executions(FIRST, AGAIN, THIRD), same),
    (
        "attempt after the final execution",
        both(exchanged(LOST, final=True), exchanged(AGAIN, final=False)),
        same,
    ),
    (
        "doubled",
        entries(*ran(FIRST), entry("start", LOST, 20.001), *ran(AGAIN), *ran(THIRD), *ran(THIRD)),
        same,
    ),
    ("doubled", exchanged(LOST, final=True), same),
    (
        "run without an execution",
        executions(FIRST, LOST, AGAIN),
        both(executions(FIRST, LOST, AGAIN), with_faults(fault("kill", 2, 31.5, 31.6))),
    ),
    (
        "run without an execution",  # who dies later had time enough to write it
        both(executions(FIRST, LOST, AGAIN), with_faults(fault("kill", 2, 38.9, 39))),
        both(
            executions(FIRST, LOST, AGAIN),
            without("end", THIRD),
            with_faults(fault("kill", 2, 38.9, 39)),
        ),
    ),
    ("execution of another claim", exchanged(THIRD, token=5), same),
    (
        "execution without a run",
        without("start", THIRD),
        both(without("start", THIRD), exchanged(THIRD, attempt=0, status=Status.SKIPPED)),
    ),
    (
        "success without an end",
        without("end", THIRD),
        both(without("end", THIRD), exchanged(THIRD, status=Status.FAILED)),
    ),
    (
        "two at a time",
        entries(
            *ran(FIRST),
            entry("start", LOST, 20.001),
            entry("start", AGAIN, 22.101),
            *ran(THIRD),
            entry("end", AGAIN, 30.05),
        ),
        same,
    ),
    (
        "lost",
        jobs(standing(5, 50)),
        both(
            jobs(standing(5, 50)),
            commanded(command("skip", 1, job_id="a"), job=None),
        ),
    ),
    (
        "chain broken",
        exchanged(THIRD, scheduled_at=at(29)),
        both(  # coalesced
            executions(FIRST, LOST, evolve(AGAIN, coalesced=1, coalesced_until=at(30))),
            entries(*ran(FIRST), entry("start", LOST, 20.001), *ran(AGAIN)),
            jobs(standing(3)),
        ),
    ),
    (
        "early",
        entries(
            *ran(FIRST), entry("start", LOST, 20.001), *ran(AGAIN), entry("start", THIRD, 29.999)
        ),
        same,
    ),
    (
        "job vanished",
        commanded(UPDATED, job=None),
        commanded(UPDATED, command("remove", 21, outcome="info"), job=None),
    ),
    (
        "resurrected",
        commanded(REMOVED),
        commanded(REMOVED, command("ensure", 21, outcome="info", version=5)),
    ),
    (
        "edit reverted",
        commanded(evolve(UPDATED, version=6)),
        commanded(UPDATED, command("update", 21, outcome="info", version=6)),
    ),
    (
        "edit reverted",
        commanded(
            SET,
            command("reschedule", 20, version=5, schedule=Interval(seconds=8)),
        ),
        commanded(SET, UPDATED),
    ),
    ("edit reverted", commanded(UPDATED, runs=[RUN_OF_B]), commanded(UPDATED, runs=[LATER])),
    (
        "edit reverted",  # what was claimed before ran with what was before
        commanded(UPDATED, runs=[RUN_OF_B]),
        commanded(evolve(UPDATED, began=at(29.95), ended=at(30.05)), runs=[RUN_OF_B]),
    ),
    (
        "claimed in a pause",
        commanded(command("pause", 20), runs=[RUN_OF_B]),
        commanded(command("pause", 20, until=at(30)), runs=[RUN_OF_B]),
    ),
    (
        "claimed in a pause",
        commanded(command("pause", 20), command("resume", 30.5), runs=[RUN_OF_B]),
        commanded(command("pause", 20), command("resume", 29), runs=[RUN_OF_B]),
    ),
    (
        "claimed in a pause",
        commanded(command("pause", 20), runs=[RUN_OF_B]),
        commanded(command("pause", 20), runs=[evolve(RUN_OF_B, kind=Kind.TRIGGERED)]),
    ),
    (
        "trigger lost",
        commanded(command("trigger", 1, key="v:2"), runs=[RUN_OF_B]),
        commanded(command("trigger", 1, key="v:1"), runs=[evolve(RUN_OF_B, kind=Kind.TRIGGERED)]),
    ),
    (
        "trigger lost",
        commanded(command("trigger", 1, key="v:1")),
        commanded(command("trigger", 1, key="v:1"), command("pause", 20)),
    ),
    (
        "content changed",
        entries(
            *ran(FIRST),
            entry("start", LOST, 20.001, coalesced=1, coalesced_until=at(30).isoformat()),
            *ran(AGAIN),
            *ran(THIRD),
        ),
        same,
    ),
    (
        "number given twice",
        commanded(runs=[RUN_OF_B, evolve(RUN_OF_B, id="v:1:2", attempt=2, kind=Kind.TRIGGERED)]),
        commanded(runs=[RUN_OF_B]),
    ),
    (
        "trigger lost",
        commanded(command("trigger", 1, key="v:1")),
        commanded(command("trigger", 1, key="v:1"), command("remove", 20), job=None),
    ),
    (
        "trigger lost",  # though there were processes for all of the 30 s but one
        both(commanded(command("trigger", 1, key="v:1")), with_faults(fault(ABSENT, 0, 2, 3))),
        both(commanded(command("trigger", 1, key="v:1")), with_faults(fault(ABSENT, 0, 2, 20))),
    ),
    (
        "trigger lost",  # two reasons at the same time are one
        both(
            commanded(command("trigger", 1, key="v:1")),
            with_faults(fault(ABSENT, 0, 2, 8), fault(STARVED, 0, 2, 8)),
        ),
        both(
            commanded(command("trigger", 1, key="v:1")),
            with_faults(fault(ABSENT, 0, 2, 8), fault(STARVED, 0, 8, 14)),
        ),
    ),
    (
        "trigger lost",  # it got the key of a run that was under way
        commanded(command("trigger", 5.2, key="v:1"), runs=[TRIGGERED]),
        commanded(command("trigger", 5.05, key="v:1"), runs=[TRIGGERED]),
    ),
    (
        "trigger lost",  # its claim was written when its store let it, and told of a moment before
        commanded(command("trigger", 5.2, key="v:1"), runs=[TRIGGERED]),
        both(
            commanded(command("trigger", 5.2, key="v:1"), runs=[TRIGGERED]),
            lambda evidence: evolve(
                evidence,
                entries=[
                    *(e for e in evidence.entries if e.get("key") != "v:1"),
                    entry("start", TRIGGERED, 5.4),
                    entry("end", TRIGGERED, 5.5),
                ],
            ),
        ),
    ),
    (
        "left without an end",
        commanded(runs=[evolve(RUN_OF_B, final=False, status=Status.FAILED)]),
        commanded(
            job=evolve(B, standing=Standing(2, Pending(1, at(10), at(40)), at(40))),
            runs=[evolve(RUN_OF_B, final=False, status=Status.FAILED)],
        ),
    ),
    (
        "claimed after its removal",
        commanded(REMOVED, job=None, runs=[RUN_OF_B]),
        commanded(evolve(REMOVED, ended=at(30.5)), job=None, runs=[RUN_OF_B]),
    ),
    (
        "no end after its removal",
        commanded(REMOVED, job=None, runs=[evolve(RUN_OF_B, final=False, claimed_at=at(19))]),
        commanded(REMOVED, job=None, runs=[evolve(RUN_OF_B, claimed_at=at(19))]),
    ),
    (
        "interrupted without a stop",
        exchanged(LOST, status=Status.INTERRUPTED),
        both(
            exchanged(LOST, status=Status.INTERRUPTED),
            with_faults(fault("terminate", 1, 20.5, 21)),
        ),
    ),
    (
        "taken over without a fault",
        lambda evidence: evolve(evidence, injected=evidence.injected[1:], exits=evidence.exits[1:]),
        same,
    ),
    (
        "taken over without a fault",  # by a stop of another process
        lambda evidence: evolve(evidence, injected=[evidence.injected[1], STOPPED]),
        both(
            lambda evidence: evolve(evidence, injected=[evidence.injected[1], STOPPED]),
            rules(stopped_may_lock=True),
        ),
    ),
    (
        "taken over without a fault",  # of the store, and none that costs a claim
        lambda evidence: evolve(evidence, injected=[evidence.injected[1], LOCKED]),
        lambda evidence: evolve(
            evidence, injected=[evidence.injected[1], evolve(LOCKED, costly=True)]
        ),
    ),
    (
        "taken over without a fault",  # after its own handler meddled with the store
        lambda evidence: evolve(
            evidence, injected=[evidence.injected[1], fault(MEDDLED, 1, 20.1, 20.1)]
        ),
        with_faults(fault(MEDDLED, 1, 20.1, 20.1)),
    ),
    ("taken over early", executions(FIRST, TAKEN, AGAIN, THIRD), same),
    (
        "taken over early",
        executions(FIRST, TAKEN, AGAIN, THIRD),
        both(executions(FIRST, TAKEN, AGAIN, THIRD), rules(dead_are_free=True)),
    ),
    (
        "left behind by a stop",
        lambda evidence: evolve(
            evidence,
            entries=[*evidence.entries, entry("stopped", LOST, 20.5)],
            injected=[fault("terminate", 1, 20.4, 20.9), evidence.injected[1]],
        ),
        lambda evidence: evolve(
            evidence,
            entries=[*evidence.entries, entry("stopped", LOST, 20.5)],
            injected=[
                fault("terminate", 1, 20.4, 20.9),
                fault("black hole", 0, 20.3, 22, store=True),
                evidence.injected[1],
            ],
        ),
    ),
    (
        "left behind by a stop",  # its machine was busy with others, and wrote nothing in time
        stopped_early := lambda evidence: evolve(
            evidence,
            entries=[*evidence.entries, entry("stopped", LOST, 20.5)],
            injected=[fault("terminate", 1, 20.4, 20.9), evidence.injected[1]],
        ),
        both(stopped_early, with_faults(fault(STARVED, 0, 19.3, 22))),
    ),
    (
        "taken over late",
        exchanged(LOST, finished_at=at(29.9)),
        both(exchanged(LOST, finished_at=at(29.9)), with_faults(fault("stop", 3, 23, 29))),
    ),
    (
        "late",
        both(
            executions(FIRST, LOST, AGAIN, late := evolve(THIRD, claimed_at=at(37))),
            entries(*ran(FIRST), entry("start", LOST, 20.001), *ran(AGAIN), *ran(late)),
        ),
        both(
            executions(FIRST, LOST, AGAIN, late),
            entries(*ran(FIRST), entry("start", LOST, 20.001), *ran(AGAIN), *ran(late)),
            with_faults(fault("black hole", 0, 29, 31, store=True)),
        ),
    ),
    (
        "late",  # a handler that meddles keeps no other waiting
        both(
            executions(FIRST, LOST, AGAIN, late),
            entries(*ran(FIRST), entry("start", LOST, 20.001), *ran(AGAIN), *ran(late)),
            with_faults(fault(MEDDLED, 2, 29, 31)),
        ),
        both(
            executions(FIRST, LOST, AGAIN, late),
            entries(*ran(FIRST), entry("start", LOST, 20.001), *ran(AGAIN), *ran(late)),
            with_faults(evolve(LOCKED, began=at(29), ended=at(31))),
        ),
    ),
    ("slow to recover", with_faults(SLOW), with_faults(evolve(SLOW, ended=at(25.5)))),
    (
        "slow to recover",  # and a process was there that could have run something
        both(with_faults(SLOW), with_faults(fault(ABSENT, 0, 23, 24.4))),
        both(with_faults(SLOW), with_faults(fault(ABSENT, 0, 24, 26, costly=False))),
    ),
    (
        "slow to recover",  # also from what costs no claim
        with_faults(evolve(SLOW, costly=False)),
        with_faults(evolve(SLOW, costly=False, ended=at(25.5))),
    ),
    (
        "slow to recover",
        both(with_faults(SLOW), with_faults(fault("stop", 3, 24, 26))),
        both(
            with_faults(SLOW), with_faults(fault("stop", 3, 24, 26)), rules(stopped_may_lock=True)
        ),
    ),
    (
        "left lying",
        resting(standing(4, 32)),
        resting(standing(4, 34)),
    ),
    ("died on its own", exits(Exit(3, 1, at(15), "")), exits(Exit(3, 0, at(39.1), ""))),
    (
        "died on its own",  # before it was told to
        exits(Exit(3, 0, at(15), "")),
        both(exits(Exit(3, 0, at(15), "")), with_faults(fault("terminate", 3, 14.9, 15.4))),
    ),
    ("died on its own", exits(Exit(3, -9, at(15), "")), exits(Exit(1, -9, at(20.2), ""))),
    ("does not stop", lambda evidence: evolve(evidence, hanging=[2]), same),
    ("vacuous", rules(store_faults=True), both(rules(store_faults=True), with_faults(SLOW))),
    ("vacuous", executions(FIRST, AGAIN, THIRD), same),
    *(
        (
            name,
            lambda evidence, name=name: evolve(evidence, broken=[Finding(name, "", START)]),
            same,
        )
        for name in ("fault failed", "command failed")
    ),
]


def names(change: Change) -> set[str]:
    return check(change(sound())).names()


def test_what_is_sound_is_not_accused() -> None:
    assert names(same) == set()


@pytest.mark.parametrize(
    ("name", "guilty", "innocent"),
    CASES,
    ids=[f"{number}-{case[0]}" for number, case in enumerate(CASES)],
)
def test_each_invariant_can_be_broken(name: str, guilty: Change, innocent: Change) -> None:
    assert name in names(guilty)
    assert name not in names(innocent)


def test_none_is_left_out() -> None:
    """Every name by which the judge accuses is among the cases."""
    source = "".join(path.read_text() for path in Path(torture.__path__[0]).rglob("*.py"))
    assert set(re.findall(r'Finding\(\s*"([^"]+)"', source)) == {name for name, *_ in CASES}
