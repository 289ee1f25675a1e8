"""The page on architecture says what is there: files, where a change goes, what is long and why.

The table of a run's phases is compared in tests/core/test_runs.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
SOURCES = {path.parent.parent.name: path for path in ROOT.glob("packages/*/src/sched_*")}
"""The folder of each package's modules, by the package's name."""
LONG = 400
KINDS = 7
CODE = re.compile(r"`([^`]+)`")


def rows(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without the first line and the rule."""
    _, found, below = PAGE.read_text("utf-8").partition(f"\n{heading}\n")
    assert found, f"architecture.md has no heading {heading!r}"
    lines = iter(re.split(r"^#", below, maxsplit=1, flags=re.MULTILINE)[0].splitlines())
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def modules(source: Path) -> set[str]:
    """What a package has, as the page names it: an ``__init__`` or ``__main__`` is its folder."""
    found = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    return {name for name in found if not name.rpartition("/")[2].startswith("__")}


def named(package: str) -> Iterator[str]:
    """The modules that a package's table names: files, and names in the row of a folder."""
    for where, what in rows(f"### {package}"):
        for each in CODE.findall(where):
            if each.endswith("/"):
                yield from (f"{each}{name}.py" for name in CODE.findall(what) if is_module(name))
            else:
                yield each


def is_module(name: str) -> bool:
    return re.fullmatch(r"[a-z][a-z_]*", name) is not None


def found_at(path: str) -> bool:
    """Whether a path of the page is there: below a package's sources, or below the root."""
    return any((folder / path).exists() for folder in (ROOT, *ROOT.glob("packages/*/src")))


@pytest.mark.parametrize("package", sorted(SOURCES))
def test_a_package_s_table_names_each_of_its_modules_once(package: str) -> None:
    there, said = modules(SOURCES[package]), list(named(package))
    assert sorted(there - set(said)) == [], "modules without a place on the page"
    assert sorted(set(said) - there) == [], "places on the page without a module"
    assert len(said) == len(set(said)), "a module has two places"


def test_all_packages_have_a_table() -> None:
    headings = re.findall(r"^### (sched-\w+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(SOURCES)


def test_where_a_change_goes_names_files_that_are_there() -> None:
    table = rows("## Where a change goes")
    paths = [re.findall(r"`(\w[^`\s]*/[^`\s]*)`", " ".join(row)) for row in table]
    assert len(table) == KINDS
    assert all(paths), "a change that goes nowhere"
    assert [path for found in paths for path in found if not found_at(path)] == []


def test_each_kind_of_change_names_a_test_that_tells() -> None:
    silent = [
        row[0] for row in rows("## Where a change goes") if not re.search("test|conf", row[2])
    ]
    assert silent == []


def test_files_are_short_or_the_page_says_why_not() -> None:
    folders = [*ROOT.glob("packages/*/src"), ROOT / "examples", ROOT / "tools"]
    long = {
        (path.relative_to(folder) if folder.name == "src" else path.relative_to(ROOT)).as_posix()
        for folder in folders
        for path in folder.rglob("*.py")
        if len(path.read_text("utf-8").splitlines()) > LONG
    }
    table = rows("## Files of more than 400 lines")
    said = [each for where, _ in table for each in CODE.findall(where)]
    assert all(why for _, why in table)
    assert sorted(long - set(said)) == [], "long files without a reason on the page"
    assert sorted(set(said) - long) == [], "reasons for files that are not long, or not there"


def test_the_page_is_one_page() -> None:
    assert len(PAGE.read_text("utf-8").splitlines()) < 250
