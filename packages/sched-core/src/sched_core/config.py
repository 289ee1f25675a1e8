"""Opens the scheduler that a file, a mapping or the environment describes.

``mode`` names an entry point of the group ``sched.backends``: a function that takes the
:class:`~sched_core.settings.Section` of that mode and returns a backend that is not open yet. The
environment wins over the file: ``SCHEDULER_MODE``, ``SCHEDULER_SQL_URL``,
``SCHEDULER_NATS_PUBLISH_RETRY__ATTEMPTS``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from sched_core._runtime.observers import Observer
from sched_core._support.redaction import without_password
from sched_core.clock import Clock
from sched_core.errors import InvalidDefinition, ModeNotConfigured, StoreNotFound
from sched_core.handlers import Handler
from sched_core.memory import MemoryBackend
from sched_core.ports import Backend
from sched_core.scheduler import Scheduler
from sched_core.settings import Section, nearest, plain

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "sched.backends"
PREFIX = "SCHEDULER_"
TABLE = "scheduler"

Source = Mapping[str, Any] | str | os.PathLike[str]

_KNOWN = {
    "memory": ("sched-core", None),
    "sql": ("sched-sql", "sql"),
    "gorm": ("sched-sql", "sql"),
    "jetstream": ("sched-jetstream", "jetstream"),
    "nats": ("sched-jetstream", "jetstream"),
}
"""Modes of this family: the package, and the extra of sched-core that brings it."""
_SAME = ({"sql", "gorm"}, {"jetstream", "nats"})

_KUBERNETES = re.compile(r"(.*_)?(SERVICE_(HOST|PORT.*)|PORT|PORT_\d+_(TCP|UDP).*)")
"""Variables that Kubernetes sets for a service named scheduler, or scheduler-nats."""


@frozen
class General:
    """The settings of a scheduler that are not its backend's.

    Attributes:
        mode: The name of the backend's kind, for example ``sql``.
        worker: A name for people; see :class:`~sched_core.Scheduler`.
        max_concurrency: The most handlers that run at a time.
    """

    mode: str | None = None
    worker: str | None = None
    max_concurrency: int = 100


@frozen
class Config:
    """A configuration that has been read; no store is open yet.

    Attributes:
        general: The settings that are not the backend's.
        section: The backend's part. Its ``repr`` names keys and no values.
        source: Where the configuration comes from, for people.
    """

    general: General
    section: Section
    source: str


def open_scheduler(
    config: Source | None = None,
    *,
    handler: Handler | None = None,
    clock: Clock | None = None,
    observers: Sequence[Observer] = (),
    worker: str | None = None,
    max_concurrency: int | None = None,
    environ: Mapping[str, str] | None = None,
    create: bool = True,
) -> Scheduler:
    """Return the scheduler that a configuration describes; ``async with`` opens it.

    Args:
        config: The path of a TOML file with a table ``[scheduler]`` (in a ``pyproject.toml``,
            ``[tool.scheduler]``), or a mapping of the same shape. Without it, the file that the
            variable ``SCHEDULER_CONFIG`` names, and without that the environment alone.
        handler, clock, observers: See :class:`~sched_core.Scheduler`.
        worker, max_concurrency: See there; they win over the configuration.
        environ: The environment, by default that of the process. It wins over ``config``.
        create: Whether to create the store if there is none, and to upgrade an older one. False is
            for programs that only look and operate: if the store is missing, opening raises
            :class:`~sched_core.errors.StoreNotFound`, and if it is older, a
            :class:`~sched_core.errors.BackendError`.

    Raises:
        InvalidDefinition: A key is unknown or its value is wrong; the message names the key.
        ModeNotConfigured: The package of the mode, or a package that it needs, is missing.
        OSError: The file cannot be read.
    """
    found = read_config(config, environ=environ)
    backend = open_backend(found, create=create)
    general = found.general
    return Scheduler(
        backend,
        handler=handler,
        clock=clock,
        worker=general.worker if worker is None else worker,
        max_concurrency=general.max_concurrency if max_concurrency is None else max_concurrency,
        observers=observers,
    )


def open_backend(config: Config, *, create: bool = True) -> Backend:
    """Return the backend of a configuration, not open yet.

    Args:
        config: The configuration.
        create: Whether to create or upgrade the store; see :func:`open_scheduler`.

    Raises:
        ModeNotConfigured: The package of the mode, or a package that it needs, is missing.
        InvalidDefinition: A key is unknown or its value is wrong; the message names the key.
    """
    mode = config.general.mode
    if mode is None:
        raise InvalidDefinition(
            f"{TABLE}.mode",
            f"is missing: set it there or as {PREFIX}MODE; there are: {', '.join(_modes())}",
        )
    point = _installed().get(mode)
    if point is None:
        if mode in _KNOWN:
            package, extra = _KNOWN[mode]
            wanted = "sched-core" if extra is None else f"sched-core[{extra}]"
            raise ModeNotConfigured(
                mode, f"the package {package} is not installed: pip install '{wanted}'"
            )
        shown = "an address" if "://" in mode else repr(without_password(mode))
        raise InvalidDefinition(f"{TABLE}.mode", f"{shown} is no mode: {nearest(mode, _modes())}")
    try:
        opening: Callable[[Section], Backend] = point.load()
    except ImportError as error:
        raise ModeNotConfigured(
            mode, f"{point.value} cannot be imported: {error}; install what is missing"
        ) from error
    return opening(config.section if create else config.section.existing())


def read_config(
    config: Source | None = None, *, environ: Mapping[str, str] | None = None
) -> Config:
    """Read a configuration, then the environment, which wins; see :func:`open_scheduler`.

    Raises:
        InvalidDefinition: A key is unknown or its value is wrong.
        OSError: The file cannot be read.
    """
    environ = os.environ if environ is None else environ
    if config is None:
        config = environ.get(f"{PREFIX}CONFIG") or {}
    table, source = _table(config)

    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    sources = {}
    for field in ("mode", "worker", "max_concurrency"):
        text = environ.get(PREFIX + field.upper())
        if text is not None:
            values = {key: each for key, each in values.items() if plain(key) != plain(field)}
            values[field] = text
            sources[plain(field)] = PREFIX + field.upper()
    general = Section(TABLE, values, sources).read(General)
    if general.mode is not None:
        general = evolve(general, mode=general.mode.strip().lower())
    section = _section(general.mode, sections, environ)
    return Config(general, section, source)


def _table(config: Source) -> tuple[Mapping[str, Any], str]:
    """Return the table ``scheduler``, and where it was found."""
    source = "the environment" if config == {} else "a mapping"
    if isinstance(config, Mapping):
        document: Mapping[str, Any] = config
    elif isinstance(config, str | os.PathLike):
        source = os.fspath(config)
        import tomllib  # here: programs that read no file start sooner

        try:
            document = tomllib.loads(Path(config).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidDefinition("config", f"{source} is no TOML file: {error}") from None
    else:
        raise InvalidDefinition("config", f"must be a path or a mapping, not {config!r}")
    for place in (document, document.get("tool", {})):
        if isinstance(place, Mapping) and isinstance(place.get(TABLE), Mapping):
            return place[TABLE], source
    if not isinstance(config, Mapping):
        raise InvalidDefinition("config", f"{source} has no table [{TABLE}]")
    return document, source


def _section(
    mode: str | None, sections: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str]
) -> Section:
    """Return the section of a mode, with the environment's values over it."""
    if mode is None:
        return Section(TABLE, {})
    names = [mode, *sorted(_aliases(mode) - {mode})]
    others = _modes()
    chosen: str | None = None
    for name in sections:
        if plain(name) in map(plain, names):
            if chosen is not None:
                raise InvalidDefinition(
                    f"{TABLE}.{name}", f"is the same section as {TABLE}.{chosen}: keep one of them"
                )
            chosen = name
        elif name not in others and (hint := nearest(name, names)).startswith("did"):
            raise InvalidDefinition(f"{TABLE}.{name}", f"is no section: {hint}")
    values: dict[str, Any] = dict(sections[chosen]) if chosen is not None else {}
    sources: dict[str, str] = {}
    for name in reversed(names):  # the mode's own name wins
        prefix = f"{PREFIX}{name.upper().replace('-', '_')}_"
        for variable, text in environ.items():
            key = variable.removeprefix(prefix)
            if key == variable or _KUBERNETES.fullmatch(key):
                continue
            path = key.lower().lstrip("_").split("__")
            _put(values, path, text, variable)
            sources[".".join(map(plain, path))] = variable
    return Section(f"{TABLE}.{chosen or mode}", values, sources)


def _put(values: dict[str, Any], path: Sequence[str], text: str, variable: str) -> None:
    """Write a value of the environment over the same key in any spelling."""
    key, rest = path[0], path[1:]
    written = next((name for name in values if plain(name) == plain(key)), key)
    if not rest:
        values[written] = text
        return
    inner = values.get(written, {})
    if not isinstance(inner, Mapping):
        raise InvalidDefinition(variable, f"goes into the table {key}, which is no table")
    values[written] = inner = dict(inner)
    _put(inner, rest, text, variable)


def _installed() -> dict[str, EntryPoint]:
    # Here and not at the top: most programs that import this package open no configuration.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _modes() -> list[str]:
    return sorted({*_installed(), *_KNOWN})


def _aliases(mode: str) -> set[str]:
    """Return all names of a mode: entry points that name the same function."""
    installed = _installed()
    point = installed.get(mode)
    found = {mode}.union(*(names for names in _SAME if mode in names))
    if point is not None:
        found |= {name for name, other in installed.items() if other.value == point.value}
    return found


@frozen
class MemorySettings:
    """The section ``scheduler.memory``.

    Attributes:
        lease: How long a claim holds unless the worker renews it.
    """

    lease: timedelta = timedelta(seconds=30)


def open_memory(section: Section) -> Backend:
    """Return the backend of ``mode = "memory"``."""
    if not section.create:
        raise StoreNotFound(
            "mode 'memory' keeps jobs inside the process of the service: no other process sees them"
        )
    return MemoryBackend(lease=section.read(MemorySettings).lease)
