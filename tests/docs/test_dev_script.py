"""The entry script, what CI calls, and what no tracked file may contain."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.torture import harnesses
from tools import budgets
from tools.parts import NARROW, TORTURED, Part, files, parts
from tools.proof import run

from sched_testkit.torture import TortureHarness

ROOT = Path(__file__).parents[2]
VERBS = ["demo", "test", "prove", "lint", "format", "bench", "setup", "help"]


def dev(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "dev"), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize("args", [[], ["help"], ["--help"]])
def test_help_lists_every_verb_with_one_line(args: list[str]) -> None:
    done = dev(*args)

    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    assert done.returncode == 0
    assert [verb for verb, _ in lines] == VERBS
    assert all(text.endswith(".") for _, text in lines)


def test_an_unknown_verb_is_refused_and_the_verbs_are_named() -> None:
    done = dev("tset")

    assert done.returncode == 2
    assert "no verb 'tset'" in done.stderr
    assert all(verb in done.stderr for verb in VERBS)


def test_an_old_python_can_read_the_script_and_say_that_it_is_too_old() -> None:
    ast.parse((ROOT / "dev").read_text(encoding="utf-8"), feature_version=(3, 7))


def test_ci_calls_the_test_verb_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    commands = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert commands == [
        "set -euo pipefail",
        'cd "$(dirname "${BASH_SOURCE[0]}")/.."',
        "exec ./dev test",
    ]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert os.access(ROOT / "dev", os.X_OK)


# -- the parts of prove


def test_a_part_that_is_not_there_is_refused_and_the_parts_are_named() -> None:
    done = dev("prove", "lnit")

    assert done.returncode == 2
    assert "no part lnit" in done.stderr
    assert all(name in done.stderr for name in parts())


def test_each_file_of_tests_is_run_by_one_part() -> None:
    run = [
        file
        for part in parts().values()
        for command in part.commands
        for word in command
        if word.startswith("tests/")
        for file in sorted(
            (ROOT / word).rglob("test_*.py") if (ROOT / word).is_dir() else [ROOT / word]
        )
    ]

    assert sorted(run) == sorted((ROOT / "tests").rglob("test_*.py"))


def test_each_harness_is_tortured_by_a_part() -> None:
    found = {
        name
        for name, value in vars(harnesses).items()
        if isinstance(value, type) and value.__module__ == harnesses.__name__
        if issubclass(value, TortureHarness)
    }

    assert found == set(TORTURED)


@pytest.mark.parametrize("name", sorted(NARROW))
def test_a_part_depends_on_the_packages_that_its_tests_import(name: str) -> None:
    part = parts()[name]
    used = {file for use in part.uses for file in files(use)}
    own = [file for file in used if file.name.startswith("test_")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in own)
    imported = set(re.findall(r"^ *(?:from|import) sched_(\w+)", text, re.MULTILINE))

    assert own
    for package in imported:
        source = ROOT / "packages" / f"sched-{package}" / "src"
        assert set(source.rglob("*.py")) <= used, f"{name} does not depend on sched_{package}"


@pytest.mark.parametrize("name", ["torture-sqlite", "conformance-postgres", "sql", "budget-cpu"])
def test_a_change_of_documentation_leaves_a_result_valid(name: str) -> None:
    used = {file for use in parts()[name].uses for file in files(use)}

    assert ROOT / "packages/sched-sql/src/sched_sql/backend.py" in used
    assert [file for file in used if file.suffix == ".md"] == []


class Checkout:
    """A part that uses `here.txt`, in a checkout of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.write("here.txt", "1")
        self.write("there.txt", "1")

    def write(self, name: str, text: str) -> None:
        (self._root / name).write_text(text, encoding="utf-8")

    def runs(self) -> int:
        return len(list(self._root.glob("ran-*")))

    @staticmethod
    def _script(then: str) -> str:
        return f"import time; open(f'ran-{{time.time_ns()}}', 'x'); print('7 apples'); {then}"

    def prove(self, then: str = "", *, again: bool = False) -> None:
        script = self._script(then)
        part = Part("sample", (("python", "-c", script),), ("here.txt",), figures="apples")
        run([part], again=again, jobs=1)

    def interrupted(self, then: str) -> subprocess.CompletedProcess[str]:
        """Prove it in another process, to which the part may send a signal."""
        script = self._script(then)
        code = (
            "import signal; from pathlib import Path; from tools import parts, proof; "
            "signal.signal(signal.SIGINT, signal.default_int_handler); "
            f"parts.ROOT = proof.ROOT = Path({str(self._root)!r}); "
            "proof.KEPT = parts.ROOT / '.dev' / 'prove'; "
            f"part = parts.Part('sample', (('python', '-c', {script!r}),), ('here.txt',)); "
            "proof.run([part], again=False, jobs=1)"
        )
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    kept = tmp_path / ".dev" / "prove"
    kept.mkdir(parents=True)
    monkeypatch.setattr("tools.parts.ROOT", tmp_path)
    monkeypatch.setattr("tools.proof.ROOT", tmp_path)
    monkeypatch.setattr("tools.proof.KEPT", kept)
    return Checkout(tmp_path)


def test_what_passed_is_not_run_again_and_its_figures_are_told(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.prove()
    capsys.readouterr()
    checkout.prove()

    said = capsys.readouterr().out
    assert checkout.runs() == 1
    assert "sample: passed (20" in said
    assert "7 apples" in said
    assert "begins" not in said


def test_what_passed_runs_again_when_a_file_of_its_changes_or_it_is_asked_for(
    checkout: Checkout,
) -> None:
    checkout.prove()
    checkout.write("there.txt", "2")
    checkout.prove()
    assert checkout.runs() == 1

    checkout.write("here.txt", "2")
    checkout.prove()
    assert checkout.runs() == 2

    checkout.prove(again=True)
    assert checkout.runs() == 3


def test_what_failed_shows_its_output_and_runs_again(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            checkout.prove("raise SystemExit('pears')")
        assert ended.value.code == 1
        said = capsys.readouterr()
        assert "pears" in said.out
        assert "failed: sample" in said.err

    assert checkout.runs() == 2


def test_what_was_interrupted_runs_again(checkout: Checkout) -> None:
    """In a process of its own, as when a user presses Ctrl-C."""
    stop = "import os, signal; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    interrupted = checkout.interrupted(stop)
    assert interrupted.returncode == -signal.SIGINT, interrupted.stderr
    assert "KeyboardInterrupt" in interrupted.stderr
    checkout.prove(stop.partition(";")[0])

    assert checkout.runs() == 2


def test_what_changed_while_it_ran_is_not_kept_as_passed(checkout: Checkout) -> None:
    with pytest.raises(SystemExit):
        checkout.prove("open('here.txt', 'a').write('2')")
    checkout.prove("pass")

    assert checkout.runs() == 2


# -- the budgets of test


def test_each_folder_of_tests_has_a_budget_and_all_together_end_within_ten_minutes() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}

    assert set(budgets.TESTS) == folders
    assert budgets.total() < budgets.LIMIT == 600


def test_a_part_over_its_budget_is_told_with_its_slowest_files() -> None:
    spent = {"tests/sql/test_a.py": 1.0, "tests/sql/test_b.py": 900.0, "tests/core/test_c.py": 1.0}
    lint, core, sql = budgets.rows(10.0, spent)

    assert "OVER" not in lint + core
    assert f"sql              901 s of {budgets.TESTS['sql']:>4}   OVER ITS BUDGET" in sql
    assert "test_b.py 900, test_a.py 1" in sql


def test_the_seconds_of_each_part_are_told_before_the_closing_line(tmp_path: Path) -> None:
    for folder in ("core", "sql"):
        test = tmp_path / "tests" / folder / "test_one.py"
        test.parent.mkdir(parents=True)
        test.write_text("def test_it(): pass", encoding="utf-8")
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    command = [sys.executable, "-m", "pytest", "--import-mode=importlib", "tests"]
    told = {**os.environ, budgets.LINT_SPENT: "12.3", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=told
    )

    lines = done.stdout.splitlines()
    rows = [tuple(line.split()[:2]) for line in lines if " s of " in line]
    assert rows == [("lint", "12"), ("core", "0"), ("sql", "0")]
    assert "2 passed" in lines[-1]


# -- what no tracked file may contain


def tracked() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path.name != "uv.lock"]


def test_no_file_names_a_machine_path_or_a_registry_host() -> None:
    """A checkout works anywhere: what a machine needs is asked of the machine."""
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"))]
    path = re.compile(r"(?<![\w.~:/}-])/(?:work|root|opt|home|Users)/\w")

    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in tracked()
        for number, line in enumerate(
            file.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        if path.search(line) or any(host in line for host in hosts)
    ]
    assert found == []
