"""The pytest plugin: the certificate, and fixtures for users of the scheduler.

``--sched-certificate FILE`` writes what the terminal shows as JSON and Markdown (``FILE.json`` and
``FILE.md``, or the two beside each other if FILE has one of these endings).
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from sched_testkit.certificate import Certificate, capabilities_as_json
from sched_testkit.conformance import declared
from sched_testkit.fixtures import fake_clock_fixture, fake_scheduler_fixture

__all__ = ["fake_clock_fixture", "fake_scheduler_fixture"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("sched").addoption(
        "--sched-certificate",
        metavar="FILE",
        default=None,
        help="write the conformance certificate as FILE.json and FILE.md",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, so that --strict-markers may stay on."""
    config.addinivalue_line(
        "markers", "sched_law(backend, law, harness): a law of the sched-testkit conformance exam"
    )
    config.stash[_KEY] = Certificate()


_KEY = pytest.StashKey[Certificate]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Attach the law to the report: reports cross processes under pytest-xdist, items do not."""
    report = yield
    marker = item.get_closest_marker("sched_law")
    if marker is not None:
        try:
            declares = capabilities_as_json(declared(marker.kwargs["harness"]))
        except Exception:  # noqa: BLE001 -- whatever the author's code raises: its test says it
            declares = {}
        report.sched_law = {
            "backend": marker.kwargs["backend"],
            "law": marker.kwargs["law"],
            "capabilities": declares,
        }
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the certificate, and write it where asked."""
    certificate = config.stash[_KEY]
    for category in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(category):
            certificate.note(report)
    if not certificate.backends:
        return
    terminalreporter.section("conformance certificate")
    terminalreporter.write_line(certificate.text())
    target = config.getoption("--sched-certificate")
    if target:
        path = Path(target).with_suffix("") if target.endswith((".json", ".md")) else Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        found = json.dumps(certificate.as_json(), indent=2, ensure_ascii=False)
        Path(f"{path}.json").write_text(found + "\n", encoding="utf-8")
        Path(f"{path}.md").write_text(certificate.markdown(), encoding="utf-8")
        terminalreporter.write_line(f"written to {path}.json and {path}.md")
