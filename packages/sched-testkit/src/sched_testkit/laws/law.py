"""What a law is: one function whose docstring is the law, in one sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import ModuleType
from typing import Any, overload

from attrs import frozen
from hypothesis.strategies import SearchStrategy

from sched_core import Backend, Capabilities
from sched_testkit.bench import Bench
from sched_testkit.harness import Harness

LawFunction = Callable[[Bench], Awaitable[None]]
Needs = Callable[[Capabilities, Harness], str | None]
"""Returns why a law does not apply to a backend, ``None`` if it does."""

TICK = timedelta(microseconds=1)


@frozen
class Law:
    """One law.

    Attributes:
        name: Of its function.
        text: The law in one sentence.
        check: Asserts it.
        needs: Why it does not apply to a backend, or ``None`` if it does.
    """

    name: str
    text: str
    check: LawFunction
    needs: Needs


@frozen
class GeneratedLaw:
    """A law that is examined with many generated values.

    Attributes:
        name: Of its function.
        text: The law in one sentence.
        check: Asserts it for one value.
        values: Returns the strategy.
    """

    name: str
    text: str
    check: Callable[[Bench, Any], Awaitable[None]]
    values: Callable[[], SearchStrategy[Any]]


def _nothing(capabilities: Capabilities, harness: Harness) -> str | None:
    return None


def durable(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where data survives the process."""
    return None if capabilities.durable else "durable is not declared"


def ordered(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where order across jobs is promised."""
    return None if capabilities.ordered else "ordered is not declared"


def cuttable(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where the harness can cut the connection."""
    return None if harness.can_cut else "the harness cannot cut the connection"


def spoilable(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where the harness can make a record unreadable."""
    return None if harness.can_spoil else "the harness cannot make a record unreadable"


def lockable(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where the harness can lock a record."""
    return None if harness.can_lock else "the harness cannot lock a record"


def plantable(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where the harness can add an unreadable record to the history."""
    return None if harness.can_plant else "the harness cannot plant a record of the history"


@overload
def law(check: LawFunction) -> Law: ...
@overload
def law(*, needs: Needs) -> Callable[[LawFunction], Law]: ...
def law(
    check: LawFunction | None = None, *, needs: Needs = _nothing
) -> Law | Callable[[LawFunction], Law]:
    """Make a law of a function."""

    def make(function: LawFunction) -> Law:
        text = " ".join((function.__doc__ or "").split())
        return Law(getattr(function, "__name__", ""), text, function, needs)

    return make if check is None else make(check)


def laws_of(module: ModuleType) -> list[Law]:
    """Return the laws of a module, in the order of the file."""
    return [value for value in vars(module).values() if isinstance(value, Law)]


def granular(backend: Backend) -> timedelta:
    """Return the shortest time that makes a difference to the backend."""
    return max(backend.capabilities.granularity, TICK)
