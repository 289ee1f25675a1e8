"""Pages, docstrings and messages keep the rules of prose that a program can check."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import prose

ROOT = Path(__file__).parents[2]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def area(path: Path) -> str:
    """A package, or a folder of the root: what one person mends at a time."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "packages" else parts[0]


AREAS = sorted({area(path) for path in prose.modules()})


@pytest.mark.parametrize("page", prose.pages(), ids=name)
def test_a_page_keeps_the_rules(page: Path) -> None:
    assert prose.findings(page) == []


@pytest.mark.parametrize("where", AREAS)
def test_code_keeps_the_rules(where: str) -> None:
    paths = [path for path in prose.modules() if area(path) == where]
    assert [each for path in paths for each in prose.findings(path)] == []


# -- the checker itself

LONG = " ".join(["word"] * 36)
AT_MOST = " ".join(["word"] * 35)


def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str) -> list[str]:
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    path = tmp_path / file
    path.write_text(text, encoding="utf-8")
    return [each.removeprefix(f"{file}:") for each in prose.findings(path)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{AT_MOST}.", ""),
        (f"{LONG}.", "1: a sentence of 36 words"),
        (f"Short.\n\n{AT_MOST}\n{LONG}.", "3: a sentence of 71 words"),
        (f"- {AT_MOST}.\n- {AT_MOST}.", ""),
        (f"| a | b |\n|---|---|\n| {AT_MOST} | {LONG} |", "3: a sentence of 36 words"),
        (f"```text\n{LONG}\n```", ""),
        (f"{AT_MOST}. Then `more` of it.", ""),
        ("A line.\nIt runs beside another.", "2: house word: 'beside'"),
        ("It runs by\nitself.", ""),
        ("It runs by itself.", "1: house word: 'by itself'"),
        ("Understanding stands.", "1: house word: 'stands'"),
        ("An understanding, a standard, a standing.", ""),
        ("```python\nbeside = 1\n```", ""),
    ],
)
def test_what_is_found_in_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str
) -> None:
    told = checked(tmp_path, monkeypatch, "page.md", text)
    assert [each[: len(found)] for each in told] == ([found] if found else [])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"""Return it."""', ""),
        ('"""Of the job."""', "1: a docstring begins with a fragment"),
        ('def f():\n    """Where jobs live."""', "2: a docstring begins with a fragment"),
        ("x = 1\n'''What is left.'''\ny = 2\n'''With a reason.'''", "4: a docstring begins"),
        ('"""Return it.\n\nArgs:\n    id: Of the job.\n"""', "4: an entry begins"),
        ('"""Return it.\n\nArgs:\n    id: The job\'s id.\n"""', ""),
        ('"""Return it.\n\nReturns:\n    When it is due.\n"""', ""),
        ("x = 1  # nobody reads it", "1: house word: 'nobody'"),
        ("message = 'it goes on for ever'", "1: house word: 'for ever'"),
        ("holdings = {}", "1: house word: 'holdings'"),
        ("my_holdings_of = {}", "1: house word: 'holdings'"),
        ("outstanding = withstand = 1", ""),
    ],
)
def test_what_is_found_in_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str
) -> None:
    told = checked(tmp_path, monkeypatch, "code.py", text)
    assert [each[: len(found)] for each in told] == ([found] if found else [])


def test_each_house_word_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in prose.HOUSE:
        assert checked(tmp_path, monkeypatch, "page.md", f"It is {word} there.") == [
            f"1: house word: {word!r}"
        ]


def test_pages_and_code_are_those_that_people_read() -> None:
    pages, modules = {name(page) for page in prose.pages()}, prose.modules()
    assert {"README.md", "CONTRIBUTING.md", "docs/explanation/semantics.md"} <= pages
    assert "packages/sched-core/README.md" in pages
    assert sorted(["examples", "tools", *(p.name for p in ROOT.glob("packages/*"))]) == AREAS
    assert len(modules) > 200
