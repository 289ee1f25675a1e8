"""Every Python block of the documentation runs as it stands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from tests import postgres_server
from tests.nats_shared import shared_server

from sched_core import open_scheduler

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for folder in ("*.md", "packages/*/README.md", "docs/**/*.md")
    for page in ROOT.glob(folder)
    if not page.is_symlink()  # an old address of a page
)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def programs(page: Path) -> list[str]:
    """The programs of a page, padded so that a traceback names the page's lines.

    A block of a README or of the tutorial is a program. The blocks of any other page in docs/ are
    one program together, as they would be typed in one after the other.
    """
    text = page.read_text(encoding="utf-8")
    padded = [
        (text.count("\n", 0, block.start(1)), block.group(1)) for block in BLOCK.finditer(text)
    ]
    if not page.is_relative_to(ROOT / "docs") or page.parent.name == "tutorial":
        return ["\n" * before + code for before, code in padded]
    together = ""
    for before, code in padded:
        together += "\n" * (before - together.count("\n")) + code
    return [together] if together else []


ALL = [
    pytest.param(page, code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, code in enumerate(programs(page), 1)
]


def postgres_environment(database: str) -> dict[str, str]:
    """An empty database, as libpq finds it."""
    server = postgres_server.shared()
    server.admin(f"DROP DATABASE IF EXISTS {database}")
    server.make_database(database)
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "sched",
        "PGPASSWORD": postgres_server.PASSWORD,
        "PGDATABASE": database,
    }


@pytest.mark.parametrize(("page", "code"), ALL)
def test_the_example_runs(page: Path, code: str, tmp_path: Path) -> None:
    program = tmp_path / page.with_suffix(".py").name
    program.write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "examples")}
    if '"postgresql://' in code:
        environment |= postgres_environment(f"docs_{page.stem.lower()}")
    if "NATS_URL" in code:
        environment["NATS_URL"] = shared_server().url
    command = [sys.executable, "-u", "-W", "error", program.name]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        shown = ""
        if "run_forever()" in code:  # Ctrl-C once a job has shown that it ran
            shown = process.stdout.readline()
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        try:
            shown += process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == 0, shown


def test_the_readme_has_an_example_of_about_20_lines() -> None:
    code = programs(ROOT / "README.md")[0]
    assert len(code.strip().splitlines()) <= 25


TOML = [
    pytest.param(block.group(1), id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.finditer(r"^```toml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE), 1
    )
]


@pytest.mark.parametrize("text", TOML)
def test_the_configuration_is_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "scheduler.toml"
    path.write_text(text, encoding="utf-8")
    if "[scheduler]" in text:
        open_scheduler(path, environ={})
    else:
        assert tomllib.loads(text)["project"]["entry-points"]


def test_no_block_is_of_a_kind_that_nobody_runs() -> None:
    """``text`` is for what no Python runs: shell commands, output, other programs."""
    kinds = set()
    for page in PAGES:
        kinds |= set(re.findall(r"^```(\S+)$", page.read_text(), re.MULTILINE))
    assert kinds <= {"python", "toml", "console", "text"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
