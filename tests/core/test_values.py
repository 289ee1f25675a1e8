"""Values that are made quickly are those that attrs makes."""

from __future__ import annotations

import copy
import inspect
import pickle
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from attrs.exceptions import FrozenInstanceError

from sched_core import Execution, Hold, JobEvent, Kind, Pending, Standing, Status
from sched_core._support.values import evolve, quick
from sched_core.schedule import Once

NOW = datetime(2026, 1, 1, tzinfo=UTC)

PENDING = Pending(1, NOW, NOW)
STANDING = Standing(1, PENDING, NOW)
HOLD = Hold("a", "u", 7, "w", NOW, NOW, NOW, PENDING, None)
EVENT = JobEvent("a", Once(NOW), NOW, NOW, "u:1")
EXECUTION = Execution(
    *("u:1:1", "a", "u", 1, 1, Kind.SCHEDULED, NOW, Status.FAILED, True),
    *(7, "w", NOW, None, NOW, "because"),
)
VALUES = [PENDING, STANDING, HOLD, EVENT, EXECUTION]


@attrs.frozen(weakref_slot=False)
class Plain:
    first: int
    _second: str = "two"
    third: list[int] = attrs.field(factory=list, kw_only=True)


@quick
@attrs.frozen(weakref_slot=False)
class Same:
    first: int
    _second: str = "two"
    third: list[int] = attrs.field(factory=list, kw_only=True)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_cannot_be_changed_once_it_is_made(value: Any) -> None:
    for field in attrs.fields(type(value)):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)
        with pytest.raises(FrozenInstanceError):
            delattr(value, field.name)


@pytest.mark.parametrize(
    "value", [STANDING, HOLD, EXECUTION], ids=["Standing", "Hold", "Execution"]
)
def test_a_value_is_copied_and_pickled_as_what_it_is(value: Any) -> None:
    for other in (copy.copy(value), pickle.loads(pickle.dumps(value)), attrs.evolve(value)):
        assert type(other) is type(value)
        assert other == value
        assert hash(other) == hash(value)
        with pytest.raises(FrozenInstanceError):
            other.worker = "another"


def test_the_constructor_takes_what_attrs_would_have_it_take() -> None:
    assert inspect.signature(Same) == inspect.signature(Plain)
    made = Same(1, second="b", third=[3])
    assert type(made) is Same
    assert attrs.astuple(made) == attrs.astuple(Plain(1, second="b", third=[3]))
    assert attrs.astuple(Same(1)) == (1, "two", [])
    assert Same(1).third is not Same(1).third
    assert repr(made) == repr(Plain(1, second="b", third=[3])).replace("Plain", "Same")


def test_a_copy_with_changes_is_that_of_attrs() -> None:
    for made in (Same(1, second="b", third=[3]), Same(2)):
        assert evolve(made, second="c") == attrs.evolve(made, second="c")
        assert evolve(made) == made
    assert evolve(PENDING, attempts=5) == attrs.evolve(PENDING, attempts=5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'fourth'"):
        evolve(Same(1), fourth=4)  # type: ignore[call-arg]  # what is tried


def test_a_wrong_call_is_refused_in_the_name_of_the_class() -> None:
    with pytest.raises(TypeError, match=r"^Same\.__init__\(\) missing 1 required"):
        Same()  # type: ignore[call-arg]  # what is tried
    with pytest.raises(TypeError, match="unexpected keyword argument 'fourth'"):
        Same(1, fourth=4)  # type: ignore[call-arg]  # what is tried


def test_a_class_derived_from_one_is_refused() -> None:
    with pytest.raises(TypeError, match="Derived: its instances would be made as those of"):
        type("Derived", (Same,), {"__slots__": ()})


@pytest.mark.parametrize(
    "field",
    [
        attrs.field(converter=int),
        attrs.field(validator=attrs.validators.instance_of(int)),
        attrs.field(init=False, default=1),
    ],
    ids=["converter", "validator", "no argument"],
)
def test_a_field_that_is_more_than_stored_is_refused(field: Any) -> None:
    cls = attrs.make_class("More", {"here": field}, frozen=True, weakref_slot=False)
    with pytest.raises(TypeError, match="here is more than stored"):
        quick(cls)
