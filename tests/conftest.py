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

ON_ONE_LOOP = ("tests/conformance/test_sqlite.py", "tests/conformance/test_postgres.py")
"""The short form examines these on asyncio alone; the backend in memory has every law on both."""
ONE_OR_THE_OTHER = ("tests/core/", {"trio", "sqlite"})
"""Of tests there on each loop and each store, the short form leaves out the pair."""

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

    Leave the tests marked ``deep`` to ``./dev prove``, and count them as deselected; so are laws on
    trio, where a backend calls the same code in the same threads.
    """
    for item in items:
        callspec = getattr(item, "callspec", None)
        chosen = {} if callspec is None else callspec.params
        folder, pair = ONE_OR_THE_OTHER
        words = {word for word in chosen.values() if isinstance(word, str)}
        on_trio = item.nodeid.startswith(ON_ONE_LOOP) and "trio" in words
        if on_trio or (item.nodeid.startswith(folder) and pair <= words):
            item.add_marker(pytest.mark.deep)
    items.sort(key=lambda item: -budgets.of(item.nodeid))
    left_out = [item for item in items if item.get_closest_marker("deep") and not DEEP]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


class Seconds:
    """Tells what each part of ``./dev test`` took, beside its budget."""

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
