"""Authors who use the testkit wrongly are told what to mend."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from attrs import evolve

from sched_core import MemoryBackend, MemoryStore
from sched_testkit import Harness, Unfit, conformance
from sched_testkit._suite.fitness import check_fitness, declared
from sched_testkit._suite.port import METHODS


class Mine(Harness):
    name = "mine"

    def __init__(self, make: Callable[[Any], Any] = MemoryBackend) -> None:
        self.make = make

    @contextmanager
    def place(self) -> Iterator[Any]:
        yield MemoryStore()

    def backend(self, place: Any) -> Any:
        return self.make(place)


def examined(harness: Harness) -> str:
    """What the first test of the suite says."""
    test = conformance(harness)
    with pytest.raises(Unfit) as error:
        test().test_the_harness_is_fit()
    return str(error.value)


def declaring(**changes: Any) -> Harness:
    class Backend(MemoryBackend):
        def __init__(self, store: Any) -> None:
            super().__init__(store)
            self._capabilities = evolve(self._capabilities, **changes)

    return Mine(Backend)


def test_a_fit_harness_is_not_complained_about() -> None:
    anyio.run(check_fitness, Mine())


def test_the_same_data_in_two_fresh_places() -> None:
    store = MemoryStore()

    class Stale(Mine):
        @contextmanager
        def place(self) -> Iterator[Any]:
            yield store

    assert "has the data of an earlier one" in examined(Stale())
    assert "make a new folder, database or store each time" in examined(Stale())


def test_other_data_behind_the_second_backend() -> None:
    harness = Mine(lambda place: MemoryBackend(MemoryStore()))
    assert "a second backend on the same place sees other data" in examined(harness)


def test_the_same_backend_twice() -> None:
    backends: dict[int, MemoryBackend] = {}

    class Once(Mine):
        def backend(self, place: Any) -> Any:
            return backends.setdefault(id(place), MemoryBackend(place))

    assert "returned the same object twice" in examined(Once())


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_is_missing(method: str) -> None:
    backend = type("Partial", (), {name: MemoryBackend.__dict__[name] for name in METHODS})
    delattr(backend, method)
    harness = Mine(lambda place: backend())
    assert f"it misses the method {method}() of the port" in examined(harness)


def test_all_that_is_missing_is_told_at_once() -> None:
    class Partial:
        async def add(self) -> None: ...

        def get(self) -> None: ...

    found = examined(Mine(lambda place: Partial()))
    assert found.startswith("mine: Partial is not the port:\n")
    assert "add()" not in found
    assert "Partial.get must be a coroutine function" in found
    assert "Partial.capabilities must be a Capabilities, not None" in found
    assert found.count("it misses the method ") == len(METHODS) - 2


def test_what_the_port_gained_later_may_be_missing_but_not_be_plain() -> None:
    anyio.run(check_fitness, Mine())  # it has none of them
    plain = type("Plain", (MemoryBackend,), {"due_since": lambda self: None})
    assert "Plain.due_since must be a coroutine function" in examined(Mine(plain))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_is_no_coroutine(method: str) -> None:
    plain = type("Plain", (MemoryBackend,), {method: lambda self, *args, **named: None})
    found = examined(Mine(plain))
    assert f"Plain.{method} must be a coroutine function: write `async def {method}`" in found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lease": timedelta(0)}, "lease must be more than zero"),
        ({"granularity": timedelta(0)}, "granularity must be more than zero"),
        ({"granularity": timedelta(hours=1)}, "granularity must be finer than the lease"),
        ({"bulk_limit": 0}, "bulk_limit must be at least 1, not 0"),
        ({"loops": frozenset()}, "loops must name at least one event loop"),
        ({"loops": frozenset({"asyncio", "twisted"})}, "loops names twisted"),
        ({"time": "store"}, 'build the backend with time="clock"'),
    ],
)
def test_capabilities_that_contradict_each_other(changes: dict[str, Any], expected: str) -> None:
    assert expected in examined(declaring(**changes))


def test_all_contradictions_are_told_at_once() -> None:
    found = examined(declaring(bulk_limit=0, loops=frozenset()))
    assert "bulk_limit" in found
    assert "loops" in found


def test_no_capabilities_at_all() -> None:
    harness = Mine(type("Mute", (MemoryBackend,), {"capabilities": None}))
    assert "Mute.capabilities must be a Capabilities, not None" in examined(harness)


def test_one_test_says_it_and_the_others_skip() -> None:
    partial = type("Partial", (), {})
    test = conformance(Mine(lambda place: partial()))
    with pytest.raises(Unfit, match=r"misses the method add\(\)"):
        test().test_the_harness_is_fit()
    with pytest.raises(pytest.skip.Exception, match="test_the_harness_is_fit says what to mend"):
        test().test_a_taken_id_is_refused("asyncio")


def test_a_law_alone_says_it_too() -> None:
    """Nothing is skipped unless something failed, as with -k, or in a worker of pytest-xdist."""
    partial = type("Partial", (), {})
    test = conformance(Mine(lambda place: partial()))
    with pytest.raises(Unfit, match=r"misses the method add\(\)"):
        test().test_a_taken_id_is_refused("asyncio")
    with pytest.raises(pytest.skip.Exception):
        test().test_histories()
    with pytest.raises(Unfit):
        test().test_the_harness_is_fit()


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_that_is_none(share: float) -> None:
    harness = Mine()
    harness.share = share
    with pytest.raises(Unfit, match="share must be above 0 and at most 1"):
        conformance(harness)


def test_a_harness_without_a_name() -> None:
    class Nameless(Mine):
        name = " "

    with pytest.raises(Unfit, match="Nameless needs a name: set `name = "):
        conformance(Nameless())


def test_a_class_instead_of_a_harness() -> None:
    with pytest.raises(Unfit, match=r"write conformance\(Mine\(\)\)"):
        conformance(Mine)
    with pytest.raises(Unfit, match="subclass Harness"):
        conformance(MemoryBackend())


def test_a_place_that_is_no_context_manager() -> None:
    class Undecorated(Mine):
        def place(self) -> Any:
            yield MemoryStore()

    assert "place() must return a context manager, not generator" in examined(Undecorated())
    assert "write @contextmanager above it" in examined(Undecorated())


def test_a_backend_that_must_be_awaited() -> None:
    class Async(Mine):
        async def backend(self, place: Any) -> Any:  # type: ignore[override]  # what is wrong
            return MemoryBackend(place)

    assert "write `def`, not `async def`" in examined(Async())


def test_what_is_declared_is_asked_once() -> None:
    made = []

    def make(place: Any) -> MemoryBackend:
        made.append(place)
        return MemoryBackend(place)

    harness = Mine(make)
    first = declared(harness)
    assert declared(harness) is first
    assert len(made) == 1


def test_two_exams_share_nothing() -> None:
    """Hypothesis refuses @given methods that several classes inherit."""
    one, two = conformance(Mine()), conformance(Mine(functools.partial(MemoryBackend)))
    name = "test_any_legal_job_survives_a_round_trip"
    assert vars(one)[name] is not vars(two)[name]
