"""The order of laws: methods as in docs/how-to/writing-a-backend.md, so a backend grows green.

A law comes with the last method that it calls: where the first ones are written and the others
raise, what fails begins at the first that is missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from sched_testkit._suite.bench import Bench

STEPS: tuple[tuple[str, ...], ...] = (
    ("open", "close", "check"),
    ("add", "get"),
    ("replace", "remove"),
    ("jobs", "executions"),
    ("claim_due",),
    ("renew", "release"),
    ("settle",),
    ("wait_due",),
    ("prune",),
    ("claims",),
    ("execution", "recent"),
    ("counts",),
    ("report", "workers"),
    ("follow",),
    ("wait_cancelled",),
)
"""The rows of the table of methods."""
CALLED_BY = {
    "claims": "ClaimQuery",
    "execution": "found",
    "counts": "CountQuery",
    "report": "WorkerState",
    "workers": "WorkerState",
}
"""What laws name that call a method whose own name they use for other things, too."""


def step_of(check: Callable[..., Any]) -> int:
    """Return the last row of the table that a law calls a method of."""
    names = set(_names(check, set()))
    rows = [{CALLED_BY.get(name, name) for name in methods} for methods in STEPS]
    return max((n for n, row in enumerate(rows) if names & row), default=0)


def _names(function: Any, seen: set[CodeType]) -> Iterator[str]:
    """Yield what a function names, and what the helpers that it calls name, decorated or not."""
    function = inspect.unwrap(function) if callable(function) else function
    if not isinstance(function, FunctionType) or function.__code__ in seen:
        return
    for code in _codes(function.__code__):
        seen.add(code)
        for name in code.co_names:
            yield name
            yield from _names(vars(Bench).get(name), seen)
            helper = function.__globals__.get(name)
            if str(getattr(helper, "__module__", "")).startswith("sched_testkit.laws."):
                yield from _names(helper, seen)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
