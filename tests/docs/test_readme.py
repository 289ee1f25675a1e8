"""Every Python block of the documentation runs as it stands."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.jetstream.servers import shared_server

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("packages/*/README.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def programs(page: Path) -> list[str]:
    """The programs of a page, padded so that a traceback names the page's lines.

    A README's block is a program. The blocks of a page in docs/ are one program together, as they
    would be typed in one after the other.
    """
    text = page.read_text(encoding="utf-8")
    padded = [
        (text.count("\n", 0, block.start(1)), block.group(1)) for block in BLOCK.finditer(text)
    ]
    if page.parent != ROOT / "docs":
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


@pytest.mark.parametrize(("page", "code"), ALL)
def test_the_example_runs(
    page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / page.with_suffix(".py").name
    program.write_text(code, encoding="utf-8")
    command = [sys.executable, "-u", "-W", "error", program.name]
    if "NATS_URL" in code:
        monkeypatch.setenv("NATS_URL", shared_server().url)
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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
    (code,) = programs(ROOT / "README.md")
    assert len(code.strip().splitlines()) <= 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
