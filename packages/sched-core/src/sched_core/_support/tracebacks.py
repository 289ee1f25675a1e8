"""Tracebacks as texts, from the user's code on, bounded, for the history."""

from __future__ import annotations

from itertools import takewhile
from traceback import TracebackException
from types import TracebackType
from typing import Any

from sched_core._support.logger import attribute, is_ours, type_name
from sched_core._support.texts import cut, storable

LONGEST_TRACEBACK = 16 * 1024
"""Bytes of UTF-8 in the traceback of an execution."""


def traceback_of(error: BaseException) -> str:
    """Return an error's traceback, with its causes and what its group holds; it never raises.

    Frames of this package and of the event loop are left out up to the first of the user's code.
    """
    try:
        whole = TracebackException(
            type(error),
            error,
            attribute(BaseException, "__traceback__", error),
            lookup_lines=False,  # lines of frames that are left out need not be read
            compact=True,
        )
        _leave_out_ours(whole, error)
        return cut(storable("".join(whole.format())).rstrip("\n"), LONGEST_TRACEBACK)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 -- a handler's exception may fail at anything, this included
        unread = f"{type_name(error)}: (its traceback could not be read)"
        return cut(storable(unread), LONGEST_TRACEBACK)


def _leave_out_ours(whole: TracebackException, error: BaseException) -> None:
    """Remove the first frames of every error in it, up to the user's."""
    rest: list[tuple[TracebackException | None, Any]] = [(whole, error)]
    while rest:
        part, of = rest.pop()
        if part is None or of is None:
            continue
        ours = sum(1 for _ in takewhile(is_ours, _frames(of)))
        if ours < len(part.stack):  # else no frame is the user's
            del part.stack[:ours]
        rest.append((part.__cause__, attribute(BaseException, "__cause__", of)))
        rest.append((part.__context__, attribute(BaseException, "__context__", of)))
        if part.exceptions is not None:
            held = attribute(BaseExceptionGroup, "exceptions", of)
            rest.extend(zip(part.exceptions, held, strict=True))


def _frames(error: BaseException) -> Any:
    trace: TracebackType | None = attribute(BaseException, "__traceback__", error)
    while trace is not None:
        yield trace
        trace = trace.tb_next
