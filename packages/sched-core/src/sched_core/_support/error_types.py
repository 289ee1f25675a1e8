"""Names of exception types, by which a stored policy and a raised error meet without an import."""

from __future__ import annotations

import builtins

from sched_core._support.logger import attribute


def name_of(error_type: type[BaseException]) -> str | None:
    """Return ``"module.QualName"``, the bare name of a built-in one, ``None`` where it has none.

    Only what a user's class cannot override is read.
    """
    try:
        module = attribute(type, "__module__", error_type)
        name = attribute(type, "__qualname__", error_type)
    except AttributeError:
        return None
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    return name if module == "builtins" else f"{module}.{name}"


def names_of(error_type: type[BaseException]) -> tuple[str, ...]:
    """Return the names of a type and of all its bases, itself first."""
    bases = attribute(type, "__mro__", error_type)
    return tuple(name for each in bases if (name := name_of(each)) is not None)


def is_builtin(name: str) -> bool:
    """Say whether it is the name of a built-in exception."""
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)
