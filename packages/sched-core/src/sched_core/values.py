"""Values that cannot be changed, and are made as fast as those that can.

The constructor that attrs writes for a frozen class stores each field by a call that goes round the
class's own refusal: for the eighteen fields of an execution that takes four times as long as plain
assignments do, on the way of every run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

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
    fields = attrs.fields(cls)
    unfrozen = attrs.make_class(
        f"Unfrozen{cls.__name__}",
        [each.name for each in fields],
        slots=True,
        weakref_slot=False,
        init=False,
        eq=False,
        repr=False,
    )
    constructor: Any = _constructor(fields, unfrozen, cls)
    constructor.__annotations__ = cls.__init__.__annotations__
    constructor.__qualname__ = cls.__init__.__qualname__
    constructor.__module__ = cls.__module__
    cls.__init__ = constructor
    _NAMES[cls] = tuple((each.name, each.alias or each.name) for each in fields)
    cls.__init_subclass__ = classmethod(_refuse)  # type: ignore[assignment]  # bound when called
    return cls


_NAMES: dict[type, tuple[tuple[str, str], ...]] = {}
"""The fields of the classes that are made quickly: their names, and those of the arguments."""

if TYPE_CHECKING:
    from attrs import evolve as evolve  # noqa: PLC0414 -- by it the arguments are checked
else:

    def evolve(value: Any, **changes: Any) -> Any:
        """Return a copy with changes, of a value that is made quickly: as attrs does it."""
        cls = type(value)
        for name, argument in _NAMES[cls]:
            if argument not in changes:
                changes[argument] = getattr(value, name)
        return cls(**changes)


def _constructor(fields: Iterable[attrs.Attribute[Any]], unfrozen: type, cls: type) -> object:
    """Return the constructor; written as text, as attrs does it, because each call in it counts."""
    scope = {"_become": object.__setattr__, "_unfrozen": unfrozen, "_cls": cls}
    positional, keywords, body = ["self"], ["*"], ['_become(self, "__class__", _unfrozen)']
    for each in fields:
        factory = getattr(each.default, "factory", None)
        takes_more = getattr(each.default, "takes_self", False)
        if takes_more or each.converter or each.validator or not each.init:
            raise TypeError(f"{each.name} is more than stored: leave the class to attrs")
        parameter = value = each.alias or each.name
        if each.default is not attrs.NOTHING:
            default = f"_default_{each.name}"
            scope[default] = each.default
            parameter = f"{value}={default}"
            if factory is not None:
                scope[default], scope[f"_make_{each.name}"] = attrs.NOTHING, factory
                value = f"_make_{each.name}() if {value} is {default} else {value}"
        (keywords if each.kw_only else positional).append(parameter)
        body.append(f"self.{each.name} = {value}")
    parameters = ", ".join(positional + (keywords if len(keywords) > 1 else []))
    lines = "\n    ".join([*body, "self.__class__ = _cls"])
    text = f"def __init__({parameters}):\n    {lines}\n"
    exec(compile(text, f"<constructor of {cls.__name__}>", "exec"), scope)  # noqa: S102 -- ours
    return scope["__init__"]


def _refuse(cls: type[Any]) -> None:
    raise TypeError(f"{cls.__name__}: its instances would be made as those of its base")
