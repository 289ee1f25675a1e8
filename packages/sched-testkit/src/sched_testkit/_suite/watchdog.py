"""Ends a law whose backend holds up the event loop: there no time runs out, for nothing else runs.

A wait that sleeps with ``time.sleep``, or asks again and again without an ``await``, would leave
the author with a suite that hangs and says nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class HeldUp(AssertionError):
    """A call did not give the event loop back."""


class _Bark(BaseException):
    """Raised in the midst of the author's code; no ``except Exception`` there swallows it."""


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Raise in the main thread when the block has not ended after so many seconds.

    Nothing is watched where that cannot be done: on Windows, in another thread, and where another
    plugin, such as pytest-timeout, has taken SIGALRM.

    Raises:
        HeldUp: The block did not end in time.
    """
    if not _free():
        yield
        return

    def bark(number: int, frame: Any) -> None:
        raise _Bark

    signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again, where even closing hangs
    try:
        yield
    except BaseException as error:
        found = _bark_in(error)
        if found is None:
            raise
        text = f"a call held up the event loop for {seconds:g} seconds: it blocks without an await"
        raise HeldUp(text).with_traceback(found.__traceback__) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _free() -> bool:
    if not hasattr(signal, "setitimer"):
        return False
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def _bark_in(error: BaseException) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        barks = error.subgroup(_Bark)
        if barks is None:
            return None
        error = barks.exceptions[0]
    return error if isinstance(error, _Bark) else None
