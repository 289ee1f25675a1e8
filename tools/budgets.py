"""Seconds that each part of `./dev test` may take on two cores; more is told, and fails nothing.

`./dev test` must end within ten minutes, also under other load: see :func:`total`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LINT = 30
COLLECTING = 20
"""Starting pytest, and finding the tests."""
TESTS: dict[str, int] = {
    "cli": 85,
    "conformance": 370,
    "core": 300,
    "crash": 45,
    "docs": 110,
    "jetstream": 165,
    "postgres": 230,
    "sql": 130,
    "testkit": 130,
    "torture": 35,
}
"""Seconds by folder of tests/; five processes run them, for some tests wait most of the time."""
PROCESSES = 5
LIMIT = 600

LINT_SPENT = "SCHED_LINT_SECONDS"
"""The variable in which `./dev test` tells pytest what lint took."""
SLOWEST = 3


def total() -> float:
    """Return the seconds that everything may take."""
    return LINT + COLLECTING + sum(TESTS.values()) / PROCESSES


def rows(lint: float, spent: Mapping[str, float]) -> list[str]:
    """Return a line for each part: its seconds and its budget.

    Args:
        lint: The seconds of what comes before the tests.
        spent: The seconds of each file of tests, setup and teardown included, by its path.
    """
    found = [_row("lint", lint, LINT, [])]
    for folder in sorted({folder_of(file) for file in spent}):
        files = {file: took for file, took in spent.items() if folder_of(file) == folder}
        slowest = sorted(files, key=lambda file: -files[file])[:SLOWEST]
        named = [f"{file.rpartition('/')[2]} {files[file]:.0f}" for file in slowest]
        found.append(_row(folder, sum(files.values()), of(slowest[0]), named))
    return found


def folder_of(file: str) -> str:
    """Return the part that a file of tests, or one of its tests, belongs to."""
    return file.split("/")[1]


def of(file: str) -> int:
    """Return the budget of the part that a file of tests, or one of its tests, belongs to."""
    return TESTS.get(folder_of(file), 0)


def _row(name: str, spent: float, budget: int, slowest: Sequence[str]) -> str:
    row = f"{name:<14}{spent:>6.0f} s of {budget:>4}"
    if spent <= budget:
        return row
    return f"{row}   OVER ITS BUDGET by {spent - budget:.0f} s   {', '.join(slowest)}".rstrip()
