"""The example backend is examined as a third party would: from wheels, outside the workspace."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = ROOT / ".dev" / "uv-venv" / "bin" / "uv"
PACKAGES = ("sched-core", "sched-testkit")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    trust = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SCHED_", "HYPOTHESIS_"))}
    kept.pop("VIRTUAL_ENV", None)
    if Path("/dev/shm").is_dir():  # the example syncs a file in every call
        kept["TMPDIR"] = "/dev/shm"
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=trust | kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def outside() -> Iterator[Path]:
    """A folder with an environment in it, made from wheels and from nothing of the workspace."""
    with environment("outside", "trio", "pytest-xdist") as folder:
        yield folder


@pytest.fixture(scope="module")
def bare() -> Iterator[Path]:
    """The same with nothing but sched-testkit, as after `pip install sched-testkit`."""
    with environment("bare") as folder:
        yield folder


@contextmanager
def environment(name: str, *more: str) -> Iterator[Path]:
    """Make a new one where an earlier one was: there Python finds what that one compiled."""
    folder = ROOT / ".dev" / "third-party" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for made in ("wheels", "venv"):
            shutil.rmtree(folder / made, ignore_errors=True)
        fill(folder, more)
        yield folder


def fill(folder: Path, more: Sequence[str]) -> None:
    uv = UV if UV.exists() else Path(shutil.which("uv") or UV)
    for package in PACKAGES:
        source = ROOT / "packages" / package
        done = run(uv, "build", "--wheel", "--out-dir", folder / "wheels", source, cwd=folder)
        assert done.returncode == 0, done.stdout
    wheels = sorted((folder / "wheels").glob("*.whl"))
    assert len(wheels) == len(PACKAGES)
    python = ROOT / ".venv" / "bin" / "python"
    assert run(uv, "venv", "--python", python, folder / "venv", cwd=folder).returncode == 0
    install: tuple[str | Path, ...] = (
        uv,
        "pip",
        "install",
        "--python",
        folder / "venv",
        *wheels,
        *more,
    )
    done = run(*install, "--offline", cwd=folder)
    if done.returncode:  # the cache has not all of it
        done = run(*install, cwd=folder)
    assert done.returncode == 0, done.stdout


def examine(
    where: Path, folder: Path, *options: str, backend: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Examine the example, or a backend that takes its place."""
    for name in ("json_backend.py", "test_json_backend.py"):
        shutil.copy(ROOT / "examples" / name, folder)
    if backend is not None:
        (folder / "json_backend.py").write_text(backend, encoding="utf-8")
    python = where / "venv" / "bin" / "python"
    return run(python, "-m", "pytest", "-q", "-W", "error", *options, cwd=folder)


def example(right: str, wrong: str) -> str:
    """Return the example with a fault in it."""
    text = (ROOT / "examples" / "json_backend.py").read_text(encoding="utf-8")
    changed = text.replace(right, wrong)
    assert changed != text
    return changed


def test_nothing_comes_from_the_workspace(bare: Path) -> None:
    code = "import sched_core, sched_testkit; print(sched_core.__file__, sched_testkit.__file__)"
    shown = run(bare / "venv" / "bin" / "python", "-c", code, cwd=bare).stdout
    assert shown.count(str(bare / "venv")) == 2, shown


UNDECLARED = {
    "bulk_limit is not declared",
    "notified is not declared",
    "transactions is not declared",
    "due_since() is not offered: the port has it since sched-core 0.1",
    "live_workers() is not offered: the port has it since sched-core 0.1",
    "the harness cannot lock a record",
    "the harness cannot make the store one of a newer version",
    "the harness cannot make the store refuse writes",
    "the harness cannot make the store silent",
}
"""Why laws are not examined on the example: nothing of this is in a file of JSON."""


@pytest.mark.deep
def test_the_example_passes(outside: Path, tmp_path: Path) -> None:
    done = examine(outside, tmp_path, "-n", "2", "--sched-certificate", "certificate")
    assert done.returncode == 0, done.stdout
    certificate = json.loads((tmp_path / "certificate.json").read_text(encoding="utf-8"))["json"]
    assert set(certificate["skipped"].values()) == UNDECLARED
    assert "durable: examined" in done.stdout
    assert "shared: examined" in done.stdout
    assert "overlap: examined (one instance, two instances, two processes)" in done.stdout
    assert "NOT examined" not in done.stdout
    assert "the harness cannot lock a record" in done.stdout
    page = (tmp_path / "certificate.md").read_text(encoding="utf-8")
    assert "## json" in page


def test_a_planted_defect_fails_by_name(bare: Path, tmp_path: Path, deep: bool) -> None:
    right = "return data.row(job.id).replace(job, executions, data.next(), data)"
    wrong = f"data.row(job.id).job = job  # whatever was stored\n            {right}"
    chosen = "replace_is_a or replacing or removal_is" if deep else "replace_is_a"
    done = examine(bare, tmp_path, "-k", chosen, backend=example(right, wrong))
    assert done.returncode == 1, done.stdout
    law = "Replacing a job of another revision than the stored one is refused and changes nothing."
    assert f"json breaks the law replace_is_a_compare_and_set: {law}" in done.stdout
    assert "a replace on an old revision was accepted" in done.stdout


@pytest.mark.parametrize(
    "chosen",
    [
        "one_of_two_adds or claimed_once",
        pytest.param(
            "one_of_two or different_jobs or during or meanwhile or removed_run or claimed_once",
            marks=pytest.mark.deep,
        ),
    ],
    ids=["two laws", "all of overlap"],
)
def test_without_its_lock_it_fails_by_name(chosen: str, bare: Path, tmp_path: Path) -> None:
    """Its calls never let others run, so within a process they are atomic by accident.

    They sleep between reading and writing: two processes overlap there on a busy machine, too.
    """
    locked = "                fcntl.flock(lock, fcntl.LOCK_EX)\n"
    read = "                before, data = self._read()\n"
    wrong = example(locked + read, f"{read}                __import__('time').sleep(0.01)\n")
    done = examine(bare, tmp_path, "-k", chosen, backend=wrong)
    assert done.returncode == 1, done.stdout
    assert "(in two processes: they began " in done.stdout
    assert "overlap: FAILED (one instance, two instances, two processes)" in done.stdout


def test_the_example_of_the_readme_needs_no_trio(bare: Path, tmp_path: Path) -> None:
    """Strict fails for that alone: nothing else is wrong."""
    readme = (ROOT / "packages" / "sched-testkit" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?conformance\(.*?)```", readme, flags=re.DOTALL)[:1]
    (tmp_path / "test_mine.py").write_text(code, encoding="utf-8")
    python = bare / "venv" / "bin" / "python"
    assert run(python, "-c", "import trio", cwd=tmp_path).returncode == 1
    chosen = ("-q", "-W", "error", "-k", "harness or claim or order", "test_mine.py")
    done = run(python, "-m", "pytest", "--sched-strict", *chosen, cwd=tmp_path)
    assert " passed" in done.stdout
    assert not re.search(r"\b[1-9]\d* (failed|error)", done.stdout), done.stdout
    unseen = "trio is not installed: NOT examined; pip install trio"
    assert done.stdout.count(unseen) == 2, "once in the certificate, once where strict fails for it"
    assert "loops: asyncio, trio: no" in done.stdout
    assert done.returncode == 1, done.stdout
    assert "--sched-strict: mine: trio: declared, trio is not installed" in done.stdout
    accused = re.findall(r"--sched-strict: .*", done.stdout)
    assert len(accused) == 1, accused
