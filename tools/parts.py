"""The parts of `./dev prove`: what each one runs, and what its result depends on."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINT: tuple[tuple[str, ...], ...] = (
    ("ruff", "format", "--check"),
    ("ruff", "check"),
    ("mypy",),
    ("lint-imports", "--no-logo"),
)
PYTEST = ("python", "-m", "pytest", "-o", "faulthandler_timeout=3600")  # a long form is no hang
TORTURE = ("--minutes", "10", "--seed", "20260101", "--every", "4", "--scale", "3")


def packages(*names: str) -> tuple[str, ...]:
    """Return what makes up packages of the workspace, without their documentation."""
    return tuple(
        f"packages/sched-{name}/{part}" for name in names for part in ("src", "pyproject.toml")
    )


ALWAYS = ("uv.lock", "pyproject.toml")
HELPERS = "tests/**/*"
"""Files of this pattern that are no test files: any test may import them."""
CODE = packages("cli", "core", "jetstream", "sql", "testkit")
ALL = ("packages", "tests", "examples", "benchmarks", "docs", "tools", "dev", ".ci/run", "*.md")

SQL = packages("core", "sql", "testkit")
JETSTREAM = packages("core", "jetstream", "testkit")
TORTURING = (
    "packages/sched-testkit/src/sched_testkit/_numbers.py",
    "packages/sched-testkit/src/sched_testkit/torture",
    "tests/torture/harnesses.py",
    "tests/*.py",
)
"""What a torture uses in addition to the backend; none of the testkit's laws and histories."""
OCCURRENCES = "tests/core/occurrences"
"""All histories up to a length, more than a million, and long ones at random."""
NARROW: dict[str, tuple[str, ...]] = {
    "occurrences": packages("core", "testkit"),
    "core": (*CODE, "examples"),
    "crash": SQL,
    "jetstream": JETSTREAM,
    "postgres": SQL,
    "sql": SQL,
    "testkit": (*CODE, "examples"),
    "conformance-memory": packages("core", "testkit"),
    "conformance-sqlite": SQL,
    "conformance-postgres": SQL,
    "conformance-pgbouncer": SQL,
    "conformance-jetstream": JETSTREAM,
    "torture-judge": CODE,
    "torture-planted": SQL,
}
"""What tests depend on, besides their own files and the helpers; others depend on everything."""

TORTURED = {
    "Sqlite": packages("core", "sql"),
    "Postgres": packages("core", "sql"),
    "JetStream": packages("core", "jetstream"),
    "JetStreamCluster": packages("core", "jetstream"),
}
"""The harnesses, and what each one depends on."""

PROMISES = (
    ("cron_rate",),
    ("budget", "cpu"),
    ("budget", "burst"),
    ("budget", "start"),
)
"""Benchmarks that measure without peers; one that finds a promise broken exits non-zero."""


@dataclass(frozen=True)
class Part:
    """A piece of the proof that passes or fails on its own.

    Attributes:
        name: What people call it.
        commands: Programs of the environment with their arguments, run one after the other.
        uses: Files, folders and patterns below the root on which the result depends.
        figures: A regular expression; matching lines of the output are kept with the result.
        alone: Nothing else runs meanwhile, for it measures time.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    uses: tuple[str, ...]
    figures: str = r"^=+ .*(passed|failed|error|no tests ran)"
    alone: bool = False

    def digest(self) -> str:
        """Name the state of everything that the result depends on."""
        python = (platform.python_version(), platform.platform())
        found = hashlib.sha256(repr((self.commands, python)).encode())
        for path in sorted({file for use in (*ALWAYS, *self.uses) for file in files(use)}):
            found.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
            found.update(hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()


def files(use: str) -> Iterator[Path]:
    """Yield the files that a name or pattern means, without what Python leaves."""
    for path in ROOT.glob(use):
        for each in path.rglob("*") if path.is_dir() and use != HELPERS else [path]:
            is_test = use == HELPERS and each.name.startswith("test_")
            if each.is_file() and each.suffix != ".pyc" and not is_test:
                yield each


def parts() -> dict[str, Part]:
    """Return all parts by name, in the order in which they begin: what takes long goes first."""
    found = [Part("lint", LINT, ALL, figures=r"^(Success|Contracts|All checks)")]
    found += [torture(harness, uses) for harness, uses in TORTURED.items()]
    found += [tests("torture-planted", "tests/torture/test_planted.py")]
    for folder in sorted(path for path in (ROOT / "tests").iterdir() if path.is_dir()):
        scripts = [path.relative_to(ROOT).as_posix() for path in sorted(folder.rglob("test_*.py"))]
        if folder.name == "conformance":
            found += [
                tests(f"conformance-{each.rpartition('test_')[2].removesuffix('.py')}", each)
                for each in scripts
            ]
        elif folder.name == "core":
            others = [each for each in scripts if not each.startswith(OCCURRENCES)]
            found += [tests("occurrences", OCCURRENCES), tests("core", *others)]
        elif folder.name == "torture":
            others = [each for each in scripts if each != "tests/torture/test_planted.py"]
            found += [tests("torture-judge", *others)]
        elif scripts:
            found += [tests(folder.name, f"tests/{folder.name}")]
    found += [benchmark(*promise) for promise in PROMISES]
    return {part.name: part for part in found}


def tests(name: str, *paths: str) -> Part:
    """Return the part that runs these files and folders of tests in their long form."""
    return Part(name, ((*PYTEST, *paths),), (*NARROW.get(name, ALL), *paths, HELPERS))


def torture(harness: str, uses: tuple[str, ...]) -> Part:
    """Return the part that tortures a backend for ten minutes."""
    module = ("python", "-m", "sched_testkit.torture", f"tests.torture.harnesses:{harness}")
    return Part(
        f"torture-{harness.lower()}",
        ((*module, *TORTURE),),
        (*uses, *TORTURING),
        figures="findings:",
    )


def benchmark(script: str, *args: str) -> Part:
    """Return the part that runs a benchmark and needs its promises kept."""
    return Part(
        "-".join((script, *args)),
        (("python", "-m", f"benchmarks.{script}", *args),),
        (*CODE, HELPERS, "benchmarks"),
        figures=r"\d",
        alone=True,
    )
