"""What a failed law says: the law first, then what went wrong, from the author's code on."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import TracebackType

from sched_testkit._suite.watchdog import HeldUp

MACHINERY = frozenset(
    {
        "_pytest",
        "anyio",
        "asyncio",
        "concurrent",
        "contextlib",
        "hypothesis",
        "outcome",
        "pluggy",
        "sched_testkit",
        "threading",
        "trio",
    }
)
"""Packages whose frames explain nothing to an author."""


class LawBroken(AssertionError):
    """A law that a backend breaks. Its text begins with the law."""


LawBroken.__module__ = "sched_testkit"


def broken(harness: str, law: str, text: str, error: Exception) -> LawBroken:
    """Return what to raise instead of an error that came out of a law."""
    found = innermost(error)
    frames = list(_frames(found.__traceback__))
    begin = next((n for n, frame in enumerate(frames) if _is_foreign(frame)), None)
    if begin is None:  # all of it is ours: the law itself asserts
        begin = next((n for n, frame in enumerate(frames) if _is_law(frame)), 0)
    said = f"{harness} breaks the law {law}: {text}\n\n{_said(found)}"
    calls = [frame for frame in frames[:begin] if _is_law(frame)]
    if calls:
        said += f"\n  raised where the law says: {_line(calls[-1])}"
    failure = LawBroken(said)
    failure.__cause__ = found.__cause__
    for note in getattr(found, "__notes__", ()):
        failure.add_note(note)
    return failure.with_traceback(_chain(frames[begin:]))


def innermost(error: BaseException) -> BaseException:
    """Unpack the groups that task groups make of one error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _said(error: BaseException) -> str:
    if type(error) in {AssertionError, HeldUp}:
        return str(error) or "the law does not hold"
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _module(frame: TracebackType) -> str:
    return str(frame.tb_frame.f_globals.get("__name__", ""))


def _is_foreign(frame: TracebackType) -> bool:
    return _module(frame).partition(".")[0] not in MACHINERY


def _is_law(frame: TracebackType) -> bool:
    return _module(frame).startswith("sched_testkit.laws.") and not _module(frame).endswith(".law")


def _line(frame: TracebackType) -> str:
    (summary,) = traceback.extract_tb(frame, limit=1)
    return f"{summary.line} ({_module(frame)}, line {summary.lineno})"


def _chain(frames: list[TracebackType]) -> TracebackType | None:
    """Return a traceback of these frames alone."""
    chained = None
    for frame in reversed(frames):
        chained = TracebackType(chained, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return chained
