"""What a law is: one function whose docstring is the law, in one sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import ModuleType
from typing import Any, TypeVar, overload

from attrs import frozen
from hypothesis.strategies import SearchStrategy

from sched_core import Backend, Capabilities
from sched_testkit._suite.bench import Bench
from sched_testkit._suite.overlap import Round, sweep
from sched_testkit._suite.port import OFFERS, fresh
from sched_testkit.harness import Harness

LawFunction = Callable[[Bench], Awaitable[None]]
ValueCheck = Callable[[Bench, Any], Awaitable[None]]
Needs = Callable[[Capabilities, Harness], str | None]
"""Returns why a law does not apply to a backend, ``None`` if it does."""

TICK = timedelta(microseconds=1)


@frozen
class Law:
    """One law.

    Attributes:
        name: The name of its function.
        text: The law in one sentence.
        check: Asserts it.
        needs: Why it does not apply to a backend, or ``None`` if it does.
        examines: What a backend declares, or what else the certificate tells to be examined.
        elsewhere: Whether another process takes part, where there can be one.
    """

    name: str
    text: str
    check: LawFunction
    needs: Needs
    examines: frozenset[str] = frozenset()
    elsewhere: bool = False


@frozen
class GeneratedLaw:
    """A law that is examined with many generated values.

    Attributes:
        name: The name of its function.
        text: The law in one sentence.
        check: Asserts it for one value.
        values: Returns the strategy.
    """

    name: str
    text: str
    check: ValueCheck
    values: Callable[[], SearchStrategy[Any]]


@frozen
class SeededLaw:
    """A law that is examined with the same long values on every machine.

    Attributes:
        name: The name of its function.
        text: The law in one sentence.
        check: Asserts it for one value.
        values: Returns the value of a seed.
        found: Values that a backend once failed with; examined first.
        shortened: Returns a simpler value that fails, too.
    """

    name: str
    text: str
    check: ValueCheck
    values: Callable[[int], Any]
    found: tuple[Any, ...]
    shortened: Callable[[Any, Callable[[Any], bool]], Any]


AnyLaw = TypeVar("AnyLaw", Law, GeneratedLaw, SeededLaw)


def _nothing(capabilities: Capabilities, harness: Harness) -> str | None:
    return None


def offers(method: str) -> Needs:
    """Applies where the backend has a method that not every version of the port knew."""

    def needs(capabilities: Capabilities, harness: Harness) -> str | None:
        with fresh(harness) as place:
            if hasattr(harness.backend(place), method):
                return None
        return f"{method}() is not offered: the port has it since sched-core {OFFERS[method]}"

    return needs


def several_processes(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where several processes use the data, and the suite can start one."""
    return _elsewhere(harness) if capabilities.shared else "shared is not declared"


def outlives_processes(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where data survives processes, and the suite can start one."""
    return _elsewhere(harness) if capabilities.durable else "durable is not declared"


def hears_others(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where what another process writes wakes at once."""
    return _elsewhere(harness) if capabilities.notified else "notified is not declared"


def _elsewhere(harness: Harness) -> str | None:
    return None if harness.can_fork else "NOT examined: the harness cannot fork a process"


def transactional(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where jobs can be written inside a caller's transaction that the suite can have."""
    if not capabilities.transactions:
        return "transactions is not declared"
    return None if harness.can_connect else "NOT examined: the harness gives no connection"


def durable(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where data survives the process."""
    return None if capabilities.durable else "durable is not declared"


def ordered(capabilities: Capabilities, harness: Harness) -> str | None:
    """Applies where order across jobs is promised."""
    return None if capabilities.ordered else "ordered is not declared"


def _able(flag: str, what: str) -> Needs:
    def needs(capabilities: Capabilities, harness: Harness) -> str | None:
        return None if getattr(harness, flag) else f"the harness cannot {what}"

    return needs


cuttable = _able("can_cut", "cut the connection")
lockable = _able("can_lock", "lock a record")
spoilable = _able("can_spoil", "make a record unreadable")
spoilable_execution = _able("can_spoil_execution", "make an execution unreadable")
stallable = _able("can_stall", "make the store silent")
refusing = _able("can_refuse_writes", "make the store refuse writes")
newer = _able("can_make_newer", "make the store one of a newer version")


@overload
def law(check: LawFunction) -> Law: ...
@overload
def law(
    *, needs: Needs = ..., examines: str = ..., elsewhere: bool = ...
) -> Callable[[LawFunction], Law]: ...
def law(
    check: LawFunction | None = None,
    *,
    needs: Needs = _nothing,
    examines: str = "",
    elsewhere: bool = False,
) -> Law | Callable[[LawFunction], Law]:
    """Make a law of a function."""

    def make(function: LawFunction) -> Law:
        found = frozenset(examines.split()) | ({"ordered"} if needs is ordered else set())
        return Law(*_named(function), function, needs, found, elsewhere)

    return make if check is None else make(check)


def law_of_overlap(check: Round) -> Law:
    """Make a law of a function that plays and judges one round of two calls at once."""

    async def sweeps(bench: Bench) -> None:
        await sweep(bench, check)

    return Law(*_named(check), sweeps, _nothing, frozenset({"overlap"}), elsewhere=True)


def law_of_values(
    values: Callable[[], SearchStrategy[Any]],
) -> Callable[[ValueCheck], GeneratedLaw]:
    """Make a law of a function that takes a value of the strategy, too."""
    return lambda check: GeneratedLaw(*_named(check), check, values)


def law_of_seeds(
    values: Callable[[int], Any],
    *,
    found: tuple[Any, ...],
    shortened: Callable[[Any, Callable[[Any], bool]], Any],
) -> Callable[[ValueCheck], SeededLaw]:
    """Make a law of a function that takes the value of a seed, too; see :class:`SeededLaw`."""
    return lambda check: SeededLaw(*_named(check), check, values, found, shortened)


def _named(function: Callable[..., object]) -> tuple[str, str]:
    text = " ".join((function.__doc__ or "").split())
    return getattr(function, "__name__", ""), text


def laws_of(module: ModuleType, kind: type[AnyLaw]) -> list[AnyLaw]:
    """Return the laws of one kind of a module, in the order of the file."""
    return [value for value in vars(module).values() if isinstance(value, kind)]


def granular(backend: Backend) -> timedelta:
    """Return the shortest time that makes a difference to the backend."""
    return max(backend.capabilities.granularity, TICK)
