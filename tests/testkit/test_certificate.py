"""The suite as an author runs it: in a pytest of its own, with whatever plugins are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sched_testkit._suite.certificate import read_verdicts, verdict

FILE = '''
from contextlib import contextmanager
from sched_core import Capabilities, MemoryBackend, MemoryStore
from sched_testkit import Harness, conformance
from attrs import evolve

class Sound(Harness):
    name = "sound"

    @contextmanager
    def place(self):
        yield MemoryStore()

    def backend(self, place):
        return MemoryBackend(place)

class Promising(MemoryBackend):
    """Says that it is durable and in order, and is not."""

    def __init__(self, store):
        super().__init__(store)
        self._capabilities = evolve(
            self._capabilities, durable=True, loops=frozenset({"asyncio"}), bulk_limit=10
        )

    async def jobs(self, query, *, after, limit):
        page = await super().jobs(query, after=after, limit=limit)
        return evolve(page, items=page.items[::-1])

class Wrong(Sound):
    name = "promises too much"

    def backend(self, place):
        return Promising(place)

    async def crash(self, backend):
        backend.store.rows.clear()

TestSound = conformance(Sound())
TestWrong = conformance(Wrong())
'''

PLUGINS = {
    "plain": ("-p", "no:asyncio", "-p", "no:anyio", "-p", "no:xdist"),
    "xdist": ("-n", "2", "-p", "no:asyncio"),
    "asyncio-auto": ("-o", "asyncio_mode=auto"),
}


def run(folder: Path, *options: str, file: str = FILE) -> tuple[int, str]:
    (folder / "test_mine.py").write_text(file, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    command += (
        ["-o", "asyncio_default_fixture_loop_scope=function"]
        if "no:asyncio" not in str(options)
        else []
    )
    done = subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "plugins",
    ["plain", *(pytest.param(name, marks=pytest.mark.deep) for name in list(PLUGINS)[1:])],
)
def test_it_tells_what_was_declared_passed_skipped_and_failed(plugins: str, tmp_path: Path) -> None:
    chosen = "harness or id_order or reopening or only_what or unreachable"
    where = tmp_path / "out" / "certificate"
    code, shown = run(
        tmp_path, *PLUGINS[plugins], "-k", chosen, "--sched-certificate", f"{where}.json"
    )
    assert code == 1, shown

    found = json.loads(where.with_suffix(".json").read_text(encoding="utf-8"))
    assert sorted(found) == ["promises too much", "sound"]
    sound, wrong = found["sound"], found["promises too much"]
    assert sound["capabilities"]["ordered"] is True
    assert sound["capabilities"]["durable"] is False
    assert sound["capabilities"]["loops"] == ["asyncio", "trio"]
    assert wrong["capabilities"]["bulk_limit"] == 10

    # What is not declared is skipped by name, and what is declared and not kept fails.
    assert sound["failed"] == {}
    assert sound["skipped"]["everything_survives_reopening[trio]"] == "durable is not declared"
    reason = "the harness cannot cut the connection"
    assert sound["skipped"]["an_unreachable_store_is_said_to_be[asyncio]"] == reason
    assert "the_harness_is_fit" in sound["passed"]
    assert "only_what_is_due_is_claimed[trio]" in sound["passed"]
    reason = "trio is not declared in capabilities.loops"
    assert wrong["loops"] == {"asyncio": "", "trio": reason}
    assert "only_what_is_due_is_claimed[trio]" not in wrong["skipped"], "said once, for the loop"
    assert sorted(wrong["failed"]) == [
        "everything_survives_reopening[asyncio]",
        "jobs_come_in_id_order[asyncio]",
    ]

    page = where.with_suffix(".md").read_text(encoding="utf-8")
    for text in (shown, page):
        assert "jobs_come_in_id_order[asyncio]" in text
        assert f"{len(sound['passed'])} passed, {len(sound['skipped'])} skipped, 0 failed" in text
    assert "promises too much breaks the law jobs_come_in_id_order: " in shown
    assert "Jobs are listed in the order of their ids by code point." in shown


UNSEEN = "durable: declared, NOT examined: the harness cannot fork a process"
TRUSTING = """
import test_mine
from sched_testkit import conformance

class Trusting(test_mine.Wrong):
    name = 'trusting'
    can_fork = False

    def backend(self, place):
        backend = test_mine.MemoryBackend(place)
        backend._capabilities = test_mine.evolve(backend._capabilities, durable=True)
        return backend

TestTrusting = conformance(Trusting())
"""


def test_what_was_not_seen_comes_first_and_strict_fails_for_it(tmp_path: Path) -> None:
    """And the verdict of the torture is a line of it."""
    (tmp_path / "test_trusting.py").write_text(TRUSTING, encoding="utf-8")
    trusting, sound = "test_trusting.py", "test_mine.py::TestSound"
    chosen = ("-p", "no:asyncio", "-k", "order or claimed_once or killed or only")

    verdicts = {"sound": verdict("sound", 2, 7, 0), "other": verdict("other", 0.5, 8, 2)}
    assert read_verdicts(verdicts.values())["other"].startswith("0.5 min, seed 8, 2 findings (")
    options = [*chosen, "--sched-strict"]
    for name, text in verdicts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        options += ["--sched-torture", str(tmp_path / name)]
    code, shown = run(tmp_path, *options, trusting)
    assert code == 1, shown
    lines = shown[shown.index("trusting: ") :].splitlines()
    assert lines[1].strip() == UNSEEN
    assert f"--sched-strict: trusting: {UNSEEN}" in shown
    assert shown.count("torture: not run") == 1
    code, shown = run(tmp_path, *options, sound)
    assert code == 0, "nothing is left unseen, and it failed"
    assert "torture: 2 min, seed 7, no finding (sched-testkit" in shown


@pytest.mark.deep
def test_what_was_not_seen_fails_nothing_that_is_not_strict(tmp_path: Path) -> None:
    (tmp_path / "test_trusting.py").write_text(TRUSTING, encoding="utf-8")
    chosen = ("-p", "no:asyncio", "-k", "order or claimed_once or killed or only")
    code, shown = run(tmp_path, *chosen, "test_trusting.py", "test_mine.py::TestSound")
    assert code == 0, shown
    lines = shown[shown.index("trusting: ") :].splitlines()
    assert lines[1].strip() == UNSEEN
    assert shown.count("torture: not run") == 2


@pytest.mark.parametrize(
    "file",
    [
        pytest.param("def test_something_else(): pass", id="none there"),
        pytest.param(FILE, id="none chosen", marks=pytest.mark.deep),
    ],
)
def test_a_run_without_an_exam_says_nothing(file: str, tmp_path: Path) -> None:
    code, shown = run(tmp_path, "-p", "no:asyncio", "-k", "no_such_law", file=file)
    assert code == 5
    assert "certificate" not in shown
