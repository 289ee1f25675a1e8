"""The packages' own logging: a log call never raises, whatever filters and handlers do.

Otherwise a failing filter of the application, or an exception whose text or notes cannot be read,
would end the code that logs, and with it the scheduler's loop.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Logger:
    """Logs to a logger of the standard library.

    Args:
        name: The name of that logger.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *args: object, **options: Any) -> None:
        """Log at DEBUG."""
        self._log(logging.DEBUG, message, args, options)

    def info(self, message: str, *args: object, **options: Any) -> None:
        """Log at INFO."""
        self._log(logging.INFO, message, args, options)

    def warning(self, message: str, *args: object, **options: Any) -> None:
        """Log at WARNING."""
        self._log(logging.WARNING, message, args, options)

    def error(self, message: str, *args: object, **options: Any) -> None:
        """Log at ERROR."""
        self._log(logging.ERROR, message, args, options)

    def exception(self, message: str, *args: object, **options: Any) -> None:
        """Log at ERROR, with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, message, args, {"exc_info": True, **options})

    def log(self, level: int, message: str, *args: object, **options: Any) -> None:
        """Log at a level of ``logging``."""
        self._log(level, message, args, options)

    def _log(
        self, level: int, message: str, args: tuple[object, ...], options: dict[str, Any]
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        try:
            self._logger.log(level, message, *args, stacklevel=3, **options)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 -- a filter or a handler may raise anything
            _last_resort(message, error)


def _last_resort(message: str, error: BaseException) -> None:
    """Say on stderr that a record was lost, without asking the error for anything."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(f"sched: logging {message!r} failed: {type_name(error)}\n")
        except (OSError, ValueError):
            pass  # stderr is closed: there is no place left to say it


def type_name(error: BaseException) -> str:
    """Return the name of an exception's class, also where a metaclass makes that fail."""
    name = attribute(type, "__name__", type(error))
    return name if isinstance(name, str) else "an exception"


def attribute(owner: type[Any], name: str, of: object) -> Any:
    """Return an attribute as a built-in type stores it, even if a user's class overrides it."""
    return owner.__dict__[name].__get__(of)


def from_user_code(error: BaseException) -> ExcInfo:
    """Return ``exc_info`` whose traceback begins where this package called the user's code."""
    whole: TracebackType | None = attribute(BaseException, "__traceback__", error)
    trace = whole
    while trace is not None and is_ours(trace):
        trace = trace.tb_next
    return type(error), error, trace or whole


_UNINTERESTING = {"sched_core", "anyio", "asyncio", "trio", "outcome"}


def is_ours(trace: TracebackType) -> bool:
    """Say whether a frame is this package's, or the event loop's."""
    module = trace.tb_frame.f_globals.get("__name__")
    return isinstance(module, str) and module.partition(".")[0] in _UNINTERESTING
