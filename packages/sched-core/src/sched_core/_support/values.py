"""Frozen values that are made as fast as mutable ones.

The constructor that attrs writes for a frozen class stores each field by a call that bypasses the
class's own refusal. For the nineteen fields of an execution that takes four times as long as plain
assignments, in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

C = TypeVar("C", bound=type[Any])


def quick(cls: C) -> C:
    """Give a frozen attrs class a constructor that stores the fields by plain assignments.

    While it runs, the instance has another class, with the same fields and not frozen. No other
    code has the instance yet. All else, such as equality, stays as attrs made it::

        @quick
        @frozen(weakref_slot=False)
        class Point:
            x: int
            y: int

    Subclasses are refused. There is no slot for weak references because Python lets an instance
    change its class only between two that have the same layout.
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
    _COPIES[cls] = _copier(fields, unfrozen, cls)
    cls.__init_subclass__ = classmethod(_refuse)  # type: ignore[assignment]  # bound when called
    return cls


_COPIES: dict[type, Callable[[Any, dict[str, Any]], Any]] = {}
"""The copying functions of the classes that :func:`quick` has changed."""

if TYPE_CHECKING:
    from attrs import evolve as evolve  # noqa: PLC0414 -- by it the arguments are checked
else:

    def evolve(value: Any, **changes: Any) -> Any:
        """Return a copy with changes, as attrs does; for values of :func:`quick` classes."""
        return _COPIES[type(value)](value, changes)


def _copier(
    fields: Sequence[attrs.Attribute[Any]], unfrozen: type, cls: type
) -> Callable[[Any, dict[str, Any]], Any]:
    """Return a function that copies a value and changes the copy before other code has it."""
    scope: dict[str, Any] = {"_new": object.__new__, "_unfrozen": unfrozen, "_cls": cls}
    scope["_names"] = {each.alias or each.name: each.name for each in fields}
    body = [
        "copy = _new(_unfrozen)",
        *(f"copy.{each.name} = value.{each.name}" for each in fields),
        "for argument, changed in changes.items():",
        "    if argument not in _names:",
        "        raise TypeError(f'{_cls.__name__}: unexpected keyword argument {argument!r}')",
        "    setattr(copy, _names[argument], changed)",
        "copy.__class__ = _cls",
        "return copy",
    ]
    copier: Callable[[Any, dict[str, Any]], Any]
    copier = _compiled("copy", "value, changes", body, scope, f"<copy of {cls.__name__}>")
    return copier


def _constructor(
    fields: Sequence[attrs.Attribute[Any]], unfrozen: type, cls: type
) -> Callable[..., None]:
    """Return the constructor that assigns every field."""
    scope: dict[str, Any] = {
        "_become": object.__setattr__,
        "_unfrozen": unfrozen,
        "_cls": cls,
    }
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
    body.append("self.__class__ = _cls")
    where = f"<constructor of {cls.__name__}>"
    constructor: Callable[..., None] = _compiled("__init__", parameters, body, scope, where)
    return constructor


def _compiled(
    name: str, parameters: str, body: Sequence[str], scope: dict[str, Any], where: str
) -> Any:
    """Return a function from its text, as attrs does, because every call inside it costs time."""
    lines = "\n    ".join(body)
    text = f"def {name}({parameters}):\n    {lines}\n"
    exec(compile(text, where, "exec"), scope)  # noqa: S102 -- ours
    return scope[name]


def _refuse(cls: type[Any]) -> None:
    raise TypeError(f"{cls.__name__}: its instances would be made as those of its base")
