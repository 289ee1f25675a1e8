"""Profiles and markers for all tests; `./dev test` runs the short forms, `./dev prove` the long."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, Phase, settings
from tools import budgets

DEEP = os.environ.get("SCHED_DEEP", "") not in {"", "0"}

LEFT_OUT: tuple[tuple[str, set[str]], ...] = (
    ("tests/conformance/test_sqlite.py", {"trio"}),
    ("tests/conformance/test_postgres.py", {"trio"}),
    ("tests/conformance/test_jetstream.py", {"trio"}),  # which it does not declare
    ("tests/core/", {"trio", "sqlite"}),
    ("tests/core/test_handlers.py", {"sqlite"}),  # what they do is asked of no store
)
"""Tests on several loops and stores: the short form leaves out those with all these words."""


settings.register_profile(
    "ci",
    max_examples=40,
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "deep",
    max_examples=5_000,
    stateful_step_count=100,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and what tests start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def deep() -> bool:
    """Whether the long forms are asked for; a test takes its sizes from it."""
    return DEEP


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among what is collected: all of it stays until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let folders that take long begin first, so that processes end at about the same time.

    Leave the tests marked ``deep`` to ``./dev prove``, and count them as deselected; so are those
    on a loop or a store that makes no difference: see :data:`LEFT_OUT`.
    """
    for item in items:
        callspec = getattr(item, "callspec", None)
        chosen = {} if callspec is None else callspec.params
        words = {word for word in chosen.values() if isinstance(word, str)}
        if any(item.nodeid.startswith(where) and those <= words for where, those in LEFT_OUT):
            item.add_marker(pytest.mark.deep)
    items.sort(key=lambda item: -budgets.of(item.nodeid))
    if not DEEP:
        parted: dict[bool, list[pytest.Item]] = {True: [], False: []}
        for item in items:
            parted[item.get_closest_marker("deep") is not None].append(item)
        config.hook.pytest_deselected(items=parted[True])
        items[:] = parted[False]


class Seconds:
    """Tells what each part of ``./dev test`` took, next to its budget."""

    def __init__(self, lint: float) -> None:
        self._lint = lint
        self._spent: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.partition("::")[0]
        self._spent[file] = self._spent.get(file, 0.0) + report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("seconds of each part; tests: of both processes")
        for row in budgets.rows(self._lint, self._spent):
            terminalreporter.write_line(row, red="OVER" in row)


def pytest_configure(config: pytest.Config) -> None:
    told = os.environ.get(budgets.LINT_SPENT)
    if told and not hasattr(config, "workerinput"):  # a process of xdist tells the first one
        config.pluginmanager.register(Seconds(float(told)), "seconds")
