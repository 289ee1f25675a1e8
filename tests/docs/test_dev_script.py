"""The entry script, what CI calls, and what no tracked file may contain."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
