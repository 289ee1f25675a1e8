# ruff: noqa: TRY004 -- one kind of error for every value that cannot be read; its text is the message
"""Settings: values from a file, a mapping or the environment, with types.

A settings class is an attrs class; its fields are the keys. You may write a key in any of the usual
ways: ``stream_name``, ``streamName``, ``stream-name``, ``STREAM_NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import attrs

from sched_core._support.redaction import without_password
from sched_core.errors import InvalidDefinition

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["Section", "duration", "nearest", "plain", "setting", "without_password"]

T = TypeVar("T")

_ALIASES, _SECRET = "sched_core.aliases", "sched_core.secret"
_UNITS = {
    "us": timedelta(microseconds=1),
    "µs": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(us|µs|ms|s|m|h|d|w)", re.ASCII)


def setting(
    default: Any = attrs.NOTHING, *, aliases: tuple[str, ...] = (), secret: bool = False
) -> Any:
    """Return a field of a settings class; only a secret one or one with aliases needs this.

    Args:
        default: The value if the key is missing.
        aliases: Other names of the key.
        secret: Whether to keep the value out of messages and of the ``repr``.
    """
    return attrs.field(
        default=default, repr=not secret, metadata={_ALIASES: aliases, _SECRET: secret}
    )


def duration(value: object) -> timedelta:
    """Return a duration: ``"30s"``, ``"5m"``, ``"1h30m"``, ``"24h"``, or a number of seconds.

    The units are ``us``, ``ms``, ``s``, ``m``, ``h``, ``d`` and ``w``.

    Raises:
        ValueError: The value is no duration, or is negative.
    """
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    try:
        if not isinstance(value, bool) and re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
            return timedelta(seconds=float(text))
        if isinstance(value, str) and _AMOUNT.sub("", text) == "" and text:
            parts = [float(amount) * _UNITS[unit] for amount, unit in _AMOUNT.findall(text)]
            return sum(parts, timedelta(0))
    except OverflowError:
        pass
    raise ValueError("must be a duration such as '30s', '5m' or '24h', or a number of seconds")


def nearest(name: str, known: list[str]) -> str:
    """Return a hint at what was meant: the nearest name, or all there are."""
    from difflib import get_close_matches  # here: a start without mistakes does not need it

    spellings = {plain(each): _spelt_like(name, each) for each in known}
    close = get_close_matches(plain(name), spellings, n=1, cutoff=0.6)
    if close:
        return f"did you mean {spellings[close[0]]!r}?"
    return f"there are: {', '.join(spellings.values())}" if known else "there are none"


def _spelt_like(example: str, name: str) -> str:
    """Return a key in the style of another one: camelCase where that has capitals inside."""
    if "_" in example or example[1:].islower() or not example[:1].islower():
        return name
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


class Section(Mapping[str, Any]):
    """The part of a configuration that is a backend's, with its keys as they were written.

    Args:
        name: The section's name in messages, for example ``scheduler.nats``.
        values: The values by key.
        sources: The names of the variables of keys that came from the environment.
        create: Whether the backend may create its store if there is none.
    """

    def __init__(
        self,
        name: str,
        values: Mapping[str, Any],
        sources: Mapping[str, str] | None = None,
        *,
        create: bool = True,
    ) -> None:
        self.name = name
        self.create = create
        self._values = dict(values)
        self._sources = dict(sources or {})

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Section {self.name}: {', '.join(self._values) or 'empty'}>"

    def existing(self) -> Section:
        """Return the same section for a store that must exist."""
        return Section(self.name, self._values, self._sources, create=False)

    def with_value(
        self, key: str, value: object, *, source: str, instead_of: Sequence[str] = ()
    ) -> Section:
        """Return the section with another value.

        Args:
            key: The key of the value.
            value: The value.
            source: Where the value comes from, for messages.
            instead_of: Other names of the key, whose values are left out.
        """
        names = {plain(name) for name in (key, *instead_of)}
        values = {name: each for name, each in self._values.items() if plain(name) not in names}
        sources = {name: each for name, each in self._sources.items() if name not in names}
        values[key], sources[plain(key)] = value, source
        return Section(self.name, values, sources, create=self.create)

    def where(self, key: str) -> str:
        """Return the name of a key for messages."""
        source = self._sources.get(plain(key))
        path = f"{self.name}.{key}"
        return path if source is None else f"{path} (from {source})"

    def read(self, cls: type[T]) -> T:
        """Return the section as an instance of a settings class.

        Text is converted if nothing is lost, since the environment holds text only: ``"5"`` is a
        number, ``"true"`` a truth value, ``"24h"`` a duration. Tables are nested settings classes.

        Raises:
            InvalidDefinition: A key is unknown, given twice, missing, or its value cannot be read.
        """
        hints = get_type_hints(cls)
        fields = _fields(cls)
        names = {plain(name): name for name in fields}
        for field in fields.values():
            names.update({plain(alias): field.name for alias in field.metadata.get(_ALIASES, ())})

        found: dict[str, Any] = {}
        for key, value in self._values.items():
            name = names.get(plain(key))
            if name is None:
                raise InvalidDefinition(
                    self.where(key), f"is no key of this section: {nearest(key, _keys(fields))}"
                )
            if name in found:
                raise InvalidDefinition(self.where(key), "is given twice, in two spellings")
            secret = bool(fields[name].metadata.get(_SECRET))
            found[name] = self._value(key, value, hints[name], secret=secret)
        for name, field in fields.items():
            if field.default is attrs.NOTHING and name not in found:
                raise InvalidDefinition(self.where(name), "is missing")
        try:
            return cls(**found)
        except InvalidDefinition as error:
            path = error.field if error.field.startswith(self.name) else self.where(error.field)
            raise InvalidDefinition(path, without_password(error.problem)) from None

    def _value(self, key: str, value: object, hint: Any, *, secret: bool) -> Any:
        if attrs.has(hint):
            if not isinstance(value, Mapping):
                raise InvalidDefinition(self.where(key), "must be a table")
            prefix = f"{plain(key)}."
            sources = {
                name.removeprefix(prefix): source
                for name, source in self._sources.items()
                if name.startswith(prefix)
            }
            return Section(f"{self.name}.{key}", value, sources).read(hint)
        try:
            return _converter().structure(value, hint)
        except Exception as error:  # noqa: BLE001 -- cattrs raises whatever a hook raises
            shown = "" if secret else f", not {without_password(repr(value))}"
            says = isinstance(error, ValueError) and str(error).startswith("must")
            reason = str(error) if says else "cannot be read"
            raise InvalidDefinition(self.where(key), reason + shown) from None


def _fields(cls: type) -> dict[str, attrs.Attribute[Any]]:
    return {field.name: field for field in attrs.fields(cls) if field.init}


def _keys(fields: Mapping[str, attrs.Attribute[Any]]) -> list[str]:
    return [
        key for name, field in fields.items() for key in (name, *field.metadata.get(_ALIASES, ()))
    ]


def plain(name: str) -> str:
    """Return a key in the form in which all its spellings are the same."""
    return name.replace("_", "").replace("-", "").lower()


@cache
def _converter() -> Converter:
    """Return the converter of single values; imported late, as in ``codec``."""
    from cattrs import Converter

    converter = Converter(detailed_validation=False)
    converter.register_structure_hook(timedelta, lambda value, _: duration(value))
    converter.register_structure_hook(str, lambda value, _: _text(value))
    converter.register_structure_hook_func(
        lambda hint: hint == tuple[str, ...], lambda value, _: _texts(value)
    )
    converter.register_structure_hook(bool, lambda value, _: _truth(value))
    converter.register_structure_hook(int, lambda value, _: _whole(value))
    converter.register_structure_hook(float, lambda value, _: _number(value))
    return converter


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    """Return several texts; one text counts as a list of one."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        raise ValueError("must be text, or a list of texts")
    return tuple(listed)


def _truth(value: object) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError("must be true or false")


def _whole(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip(), re.ASCII):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    return value


def _number(value: object) -> float:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value
