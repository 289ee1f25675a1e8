"""The exam as an author runs it: in a pytest of its own, beside whatever plugins are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sched_testkit.certificate import read_verdicts, verdict

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


def exam(folder: Path, *options: str) -> tuple[int, str]:
    (folder / "test_mine.py").write_text(FILE, encoding="utf-8")
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
    chosen = "harness or order or reopening or only_what or unreachable"
    where = tmp_path / "out" / "certificate"
    code, shown = exam(
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


def test_what_was_not_seen_stands_first_and_strict_fails_for_it(tmp_path: Path) -> None:
    harness = (
        "import test_mine\nfrom sched_testkit import conformance\n\n"
        "class Trusting(test_mine.Wrong):\n    name = 'trusting'\n    can_fork = False\n\n"
        "    def backend(self, place):\n"
        "        backend = test_mine.MemoryBackend(place)\n"
        "        declared = backend._capabilities\n"
        "        backend._capabilities = test_mine.evolve(declared, durable=True)\n"
        "        return backend\n\nTestTrusting = conformance(Trusting())\n"
    )
    (tmp_path / "test_trusting.py").write_text(harness, encoding="utf-8")
    chosen = ("-p", "no:asyncio", "-k", "Trusting and (order or claimed_once or killed or only)")
    code, shown = exam(tmp_path, *chosen)
    assert code == 0, shown
    lines = shown[shown.index("trusting: ") :].splitlines()
    assert lines[1].strip() == UNSEEN
    code, shown = exam(tmp_path, *chosen, "--sched-strict")
    assert code == 1, shown
    assert f"--sched-strict: trusting: {UNSEEN}" in shown
    kept = ("-p", "no:asyncio", "-k", "TestSound and (order or claimed_once)", "--sched-strict")
    assert exam(tmp_path, *kept)[0] == 0, "nothing is left unseen, and it failed"


def test_the_verdict_of_the_torture_is_a_line_of_it(tmp_path: Path) -> None:
    verdicts = {"sound": verdict("sound", 2, 7, 0), "other": verdict("other", 0.5, 8, 2)}
    assert read_verdicts(verdicts.values())["other"].startswith("0.5 min, seed 8, 2 findings (")
    options = ["-p", "no:asyncio", "-k", "TestSound and only_what"]
    assert "torture: not run" in exam(tmp_path, *options)[1]
    for name, text in verdicts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        options += ["--sched-torture", str(tmp_path / name)]
    assert "torture: 2 min, seed 7, no finding (sched-testkit" in exam(tmp_path, *options)[1]


def test_a_run_without_an_exam_says_nothing(tmp_path: Path) -> None:
    code, shown = exam(tmp_path, "-p", "no:asyncio", "-k", "no_such_law")
    assert code == 5
    assert "certificate" not in shown
