"""What the torture says of harnesses and command lines that are wrong, and what a seed draws."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from tests.torture.harnesses import Sqlite

from sched_core import JobSpec, Scheduler
from sched_testkit.torture import Fault, TortureHarness, run
from sched_testkit.torture.__main__ import main
from sched_testkit.torture.commands import Commands, workload
from sched_testkit.torture.faults import ABSENT, CLOCK, KILL, MEDDLED, Faults, plan
from sched_testkit.torture.processes import Exit, Processes, Worker

KINDS = ("kill", KILL, "stop", "terminate", "locked", CLOCK)


Tortured = Callable[..., tuple[int | str | None, str, str]]


@pytest.fixture
def tortured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tortured:
    """Run the tool in this process, without suicides or a long rest; return its code and output."""

    def without_suicides(*arguments: Any) -> list[JobSpec]:
        return [spec for spec in workload(*arguments) if "suicide" not in spec.id]

    monkeypatch.setattr(run, "workload", without_suicides)
    monkeypatch.setattr(run, "MAX_POLL", timedelta(0))

    def play(harness: str, *options: str) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["torture", harness, *options])
        code: int | str | None
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        shown = capsys.readouterr()
        for said in shown.err.splitlines():
            if said.startswith("journals and logs are kept in "):
                shutil.rmtree(said.removeprefix("journals and logs are kept in "))
        return code, shown.out, shown.err

    return play


def test_a_seed_draws_the_same_faults() -> None:
    def drawn(seed: int) -> list[object]:
        return list(islice(plan(seed, KINDS, {"locked"}, 2.0, 2.0), 100))

    assert drawn(7) == drawn(7) != drawn(8)


def test_each_kind_of_fault_comes_once_in_a_round() -> None:
    first, *round_ = islice(plan(7, KINDS, {"locked"}, 2.0, 2.0), 1 + len(KINDS))
    assert first.kind == KILL
    assert sorted(planned.kind for planned in round_) == sorted(KINDS)


@pytest.mark.parametrize(
    ("harness", "told"),
    [
        ("bad", "'bad' must be package.module:Class"),
        ("no_such_module:Harness", "'no_such_module' cannot be imported"),
        ("tests.torture.harnesses:Nope", "has no class 'Nope'"),
        ("tests.torture.harnesses:Proxy", "that is a subclass of TortureHarness"),
        ("sched_testkit.torture:TortureHarness", "does not define backend, place"),
    ],
)
def test_what_is_no_harness_is_named(
    harness: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["torture", harness])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--minutes", "--every", "--scale"])
@pytest.mark.parametrize("number", ["0", "-1", "nan", "many"])
def test_a_number_that_is_not_above_zero_is_named(
    option: str,
    number: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["torture", "tests.torture.harnesses:Sqlite", option, number])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"{option}: '{number}' must be a number above 0" in capsys.readouterr().err


def test_workers_that_cannot_start_end_the_run_at_once_with_their_log(tortured: Tortured) -> None:
    code, _, said = tortured("tests.torture.broken:KnowsTheAddressOnlyWhereItWasEntered")
    assert code == 2
    assert "before it looked for work" in said
    assert "AttributeError" in said


def test_a_fault_that_raises_is_a_finding(tortured: Tortured) -> None:
    code, told, _ = tortured("tests.torture.broken:FaultRaises", "--every", "0.2", "--scale", "1")
    assert code == 1
    assert "FAULT FAILED: raises: RuntimeError('the tool for this is not installed')" in told


class Delayed(Sqlite):
    """Its faults do nothing."""

    def faults(self, address: str) -> Mapping[str, Fault]:
        return {"costly": lambda _: None}

    def delays(self, address: str) -> Mapping[str, Fault]:
        return {"cheap": lambda _: None}


def test_delays_are_drawn_like_faults_and_known_to_cost_no_claim(tmp_path: Path) -> None:
    async def play(faults: Faults) -> None:
        async with anyio.create_task_group() as tasks:
            await faults.make(tasks)

    processes = Sleeping("", "", tmp_path, 1, random.Random(1), clocks=False)
    processes.start()
    faults = Faults(Delayed(), "", processes, 7, 0.001)
    drawn = {planned.kind: planned for planned in islice(faults._plan, 30)}
    faults._plan = iter([drawn["cheap"], drawn["costly"]])
    try:
        anyio.run(play, faults)
    finally:
        processes.end()
    made = [(fault.what, fault.store, fault.costly) for fault in faults.injected]
    assert made == [("cheap", True, False), ("costly", True, True)]


def test_a_handler_that_meddles_is_noted_and_excuses_nothing(tmp_path: Path) -> None:
    place = tmp_path / "store"
    place.mkdir()
    (place / "jobs.db").touch()
    assert Sqlite().meddle(str(place / "jobs.db"))
    assert not TortureHarness.meddle(Sqlite(), "")
    faults = Faults(
        Sqlite(), "", Sleeping("", "", tmp_path, 1, random.Random(1), clocks=False), 7, 1
    )
    faults.note([{"what": MEDDLED, "worker": 2, "at": "2026-01-01T00:00:00+00:00"}])
    assert [(fault.worker, fault.excuses) for fault in faults.injected] == [(2, False)]


def test_when_no_process_was_there_is_noted(tmp_path: Path) -> None:
    def at(seconds: int) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    processes = Sleeping("", "", tmp_path, 2, random.Random(1), clocks=False)
    processes.exits += [Exit(number, -9, at(end), "") for number, end in ((1, 5), (2, 9), (3, 30))]
    begun = {1: 0, 2: 1, 3: 20, 4: 29}
    faults = Faults(Sqlite(), "", processes, 7, 1)
    faults.note(
        [{"what": "ready", "worker": n, "at": at(ready).isoformat()} for n, ready in begun.items()]
    )
    (fault,) = faults.injected
    assert (fault.what, fault.began, fault.ended, fault.costly) == (ABSENT, at(9), at(20), False)


class Sleeping(Processes):
    """Their processes do nothing."""

    def start(self) -> Worker:
        log = self.folder / "log"
        log.touch()
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        self.workers.append(Worker(process, len(self.workers) + 1, log, log, None))
        return self.workers[-1]


def test_a_worker_that_a_cancellation_left_out_is_started_later(tmp_path: Path) -> None:
    async def play(processes: Processes) -> None:
        with anyio.move_on_after(1.5):
            await processes.replace_dead()
        assert len(processes.alive()) == 2

    processes = Sleeping("", "", tmp_path, 2, random.Random(1), clocks=False)
    try:
        anyio.run(play, processes)
    finally:
        processes.end()


def test_a_command_that_raises_what_is_no_answer_is_a_finding() -> None:
    class Raises:
        def __getattr__(self, name: str) -> object:
            raise ZeroDivisionError(name)

    commands = Commands(cast("Scheduler", Raises()), random.Random(1), 2)

    async def play() -> None:
        with anyio.move_on_after(2):
            await commands.issue()

    anyio.run(play)
    assert {finding.name for finding in commands.broken} == {"command failed"}
    assert {command.outcome for command in commands.record} == {"info"}
