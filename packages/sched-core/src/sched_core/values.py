"""Values that cannot be changed, and are made as fast as those that can.

The constructor that attrs writes for a frozen class stores each field by a call that goes round the
class's own refusal: for the eighteen fields of an execution that takes four times as long as plain
assignments do, on the way of every run.
"""

from __future__ import annotations

from typing import Any, TypeVar

import attrs

C = TypeVar("C", bound=type[Any])


def quick(cls: C) -> C:
    """Give a frozen attrs class a constructor that stores the fields by plain assignments.

    While it runs, the instance is of another class: of the same fields, and not frozen. No other
    code has the instance yet. All else, equality and ``evolve`` among it, stays as attrs made it::

        @quick
        @frozen(weakref_slot=False)
        class Point:
            x: int
            y: int

    A class that is derived from it is refused. There is no room for weak references because Python
    lets an instance change its class only between two that are laid out alike.
    """

    def begin(self: Any) -> None:
        object.__setattr__(self, "__class__", unfrozen)

    def end(self: Any) -> None:
        self.__class__ = cls

    unfrozen = attrs.make_class(
        f"Unfrozen{cls.__name__}",
        {each.name: _again(each) for each in attrs.fields(cls)},
        class_body={"__attrs_pre_init__": begin, "__attrs_post_init__": end},
        slots=True,
        weakref_slot=False,
        eq=False,
        repr=False,
    )
    constructor: Any = unfrozen.__init__  # type: ignore[misc]  # of a class that nothing is derived from
    constructor.__annotations__ = cls.__init__.__annotations__
    constructor.__qualname__ = cls.__init__.__qualname__
    cls.__attrs_pre_init__, cls.__init__ = begin, constructor
    cls.__init_subclass__ = classmethod(_refuse)  # type: ignore[assignment]  # bound when called
    return cls


def _again(field: attrs.Attribute[Any]) -> Any:
    if field.converter is not None or field.validator is not None or not field.init:
        raise TypeError(f"{field.name} is more than stored: leave the class to attrs")
    return attrs.field(
        default=field.default, alias=field.alias, kw_only=field.kw_only, type=field.type
    )


def _refuse(cls: type[Any]) -> None:
    raise TypeError(f"{cls.__name__}: its instances would be made as those of its base")
