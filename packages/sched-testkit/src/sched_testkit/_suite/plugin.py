"""The pytest plugin: the certificate, and fixtures for users of the scheduler.

``--sched-certificate FILE`` writes what the terminal shows as JSON and Markdown (``FILE.json`` and
``FILE.md``, or both if FILE has one of these endings). ``--sched-strict``
fails a run that examined less than what is declared.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from sched_testkit._suite.certificate import Certificate, read_verdicts
from sched_testkit._suite.fitness import about
from sched_testkit.fixtures import fake_clock_fixture, fake_scheduler_fixture

__all__ = ["fake_clock_fixture", "fake_scheduler_fixture"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("sched")
    group.addoption(
        "--sched-certificate",
        metavar="FILE",
        default=None,
        help="write the conformance certificate as FILE.json and FILE.md",
    )
    group.addoption(
        "--sched-torture",
        metavar="FILE",
        action="append",
        default=[],
        help="a verdict that the torture wrote with --verdict: a line of the certificate",
    )
    group.addoption(
        "--sched-strict",
        action="store_true",
        help="fail if a backend declares what was not examined",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, so that --strict-markers may stay on."""
    config.addinivalue_line(
        "markers",
        "sched_law(backend, law, harness, examines): a law of the sched-testkit conformance suite",
    )
    files = [Path(name) for name in config.getoption("--sched-torture")]
    config.stash[_KEY] = Certificate(
        read_verdicts(path.read_text(encoding="utf-8") for path in files)
    )


_KEY = pytest.StashKey[Certificate]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Attach the law to the report: reports cross processes under pytest-xdist, items do not."""
    report = yield
    marker = item.get_closest_marker("sched_law")
    if marker is not None:
        told = {name: marker.kwargs[name] for name in ("backend", "law", "examines")}
        report.sched_law = told | about(marker.kwargs["harness"])
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Gather what was seen; with --sched-strict, fail for what was not."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of pytest-xdist: the first process gathers
        return
    certificate = config.stash[_KEY]
    for category in ("passed", "failed", "error", "skipped"):
        for report in reporter.getreports(category):
            certificate.note(report)
    if config.getoption("--sched-strict") and session.exitstatus == 0 and certificate.unseen():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the certificate, and write it where asked."""
    certificate = config.stash[_KEY]
    if not certificate.backends:
        return
    terminalreporter.section("conformance certificate")
    terminalreporter.write_line(certificate.text())
    if config.getoption("--sched-strict"):
        for line in certificate.unseen():
            terminalreporter.write_line(f"--sched-strict: {line}", red=True)
    target = config.getoption("--sched-certificate")
    if target:
        path = Path(target).with_suffix("") if target.endswith((".json", ".md")) else Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        found = json.dumps(certificate.as_json(), indent=2, ensure_ascii=False)
        Path(f"{path}.json").write_text(found + "\n", encoding="utf-8")
        Path(f"{path}.md").write_text(certificate.markdown(), encoding="utf-8")
        terminalreporter.write_line(f"written to {path}.json and {path}.md")
