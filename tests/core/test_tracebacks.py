"""The traceback of a failure as text: the user's part of it, bounded, storable, never an error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sched_core._support.texts import cut, storable
from sched_core._support.tracebacks import LONGEST_TRACEBACK, traceback_of


def inside(module: str, text: str = "def call(function):\n    function()\n") -> Callable[..., None]:
    """Return a function whose frame belongs to another module."""
    made = ModuleType(module)
    exec(compile(text, f"/{module}/lies.py", "exec"), made.__dict__)
    call: Callable[..., None] = made.call
    return call


OURS = inside("sched_core._runtime.caller")
THEIRS = inside("a_library.calls")


def raised(function: Callable[[], Any]) -> BaseException:
    """Return what a function raises, called as the scheduler calls handlers."""
    try:
        OURS(function)
    except BaseException as error:
        trace = error.__traceback__
        return error.with_traceback(trace.tb_next if trace else None)  # without this function
    raise AssertionError("it returned")


def fails() -> None:
    raise LookupError("no such customer")


def test_it_begins_with_the_users_first_frame() -> None:
    text = traceback_of(raised(lambda: THEIRS(lambda: OURS(fails))))
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("\nLookupError: no such customer")
    places = [line.split('"')[1] for line in text.splitlines() if line.startswith("  File ")]
    library, ours = "/a_library.calls/lies.py", "/sched_core._runtime.caller/lies.py"
    assert places == [__file__, library, __file__, ours, __file__], "what is ours later is kept"
    assert 'raise LookupError("no such customer")' in text


def test_one_without_frames_of_the_users_is_whole() -> None:
    text = traceback_of(raised("no function"))  # type: ignore[arg-type]  # so that our frame raises
    assert "/sched_core._runtime.caller/lies.py" in text
    assert text.endswith("TypeError: 'str' object is not callable")
    assert traceback_of(ValueError("never raised")) == "ValueError: never raised"


def test_causes_and_contexts_are_in_it_without_our_frames() -> None:
    def wraps() -> None:
        try:
            OURS(fails)
        except LookupError as error:
            raise RuntimeError("wrapped") from error

    def hides() -> None:
        try:
            wraps()
        except RuntimeError:
            raise OSError("while handling") from None

    text = traceback_of(raised(wraps))
    assert "LookupError: no such customer\n\nThe above exception was the direct cause" in text
    assert text.endswith("RuntimeError: wrapped")
    assert "RuntimeError" not in traceback_of(raised(hides))


def test_what_a_group_holds_is_in_it(loop: str) -> None:
    async def part() -> None:
        fails()

    async def handler() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(part)
            tasks.start_soon(part)

    with pytest.raises(ExceptionGroup) as caught:
        anyio.run(handler, backend=loop)
    text = traceback_of(caught.value)
    assert text.count("LookupError: no such customer") == 2
    assert text.count("in part\n") == 2
    members = text.split("---------------- 1 ----------------")[1]
    first = next(line for line in members.splitlines() if "File" in line)
    assert first.endswith("in part"), "frames of the event loop before the user's are left out"


def test_the_middle_goes_where_it_is_too_long() -> None:
    def deep(depth: int) -> None:
        if depth:
            (even if depth % 2 else odd)(depth - 1)
        else:
            raise LookupError("at the bottom: " + "é" * 20_000 + " the end")

    def even(depth: int) -> None:
        deep(depth)

    def odd(depth: int) -> None:
        deep(depth)

    text = traceback_of(raised(lambda: deep(300)))
    size = len(text.encode())
    assert LONGEST_TRACEBACK - 10 <= size <= LONGEST_TRACEBACK
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("é the end")
    assert text.count("bytes are left out …]") == 1


def test_no_store_gets_what_it_cannot_keep() -> None:
    def odd() -> None:
        raise LookupError("a\0b\ud800c")

    assert traceback_of(raised(odd)).endswith("LookupError: a\ufffdb\ufffdc")


class Unreadable(Exception):
    def __str__(self) -> str:
        raise SystemExit("its text")


class Slippery(Exception):
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise RuntimeError("its cause")


class Circle(Exception):
    pass


def test_an_error_whose_parts_raise_still_has_a_text() -> None:
    def odd(error: BaseException) -> str:
        def raises() -> None:
            raise error

        return traceback_of(raised(raises))

    assert "Unreadable" in odd(Unreadable())
    assert "Slippery" in odd(Slippery())
    one, other = Circle("one"), Circle("other")
    one.__cause__, other.__cause__ = other, one
    assert odd(one).endswith("Circle: one")
    assert "ExceptionGroup: nested" in odd(nested(ValueError("inmost"), 50))
    assert odd(KeyError()).endswith("KeyError")
    assert (
        "invalid syntax" in traceback_of(raised(lambda: compile("(a b", "<text>", "exec"))) or True
    )


def nested(error: Exception, depth: int) -> ExceptionGroup[Any]:
    group = ExceptionGroup("nested", [error])
    for _ in range(depth):
        group = ExceptionGroup("nested", [group])
    return group


def test_one_too_deep_for_the_interpreter_has_a_text() -> None:
    def deeper() -> None:
        deeper()

    text = traceback_of(raised(deeper))
    assert "RecursionError: maximum recursion depth exceeded" in text
    assert len(text.encode()) <= LONGEST_TRACEBACK
    chain: BaseException = ValueError("first")
    for _ in range(2 * sys.getrecursionlimit()):
        later = ValueError("later")
        later.__cause__ = chain
        chain = later
    assert len(traceback_of(chain).encode()) <= LONGEST_TRACEBACK
    assert traceback_of(nested(ValueError("inmost"), 2 * sys.getrecursionlimit()))


@given(text=st.text(), most=st.integers(200, 400), times=st.integers(1, 200))
def test_a_cut_text_keeps_both_ends_and_never_exceeds_its_size(
    text: str, most: int, times: int
) -> None:
    whole = storable(text) * times
    short = cut(whole, most)
    assert len(short.encode()) <= most
    assert storable(short) == short
    if len(whole.encode()) <= most:
        assert short == whole
        return
    head, mark, tail = short.partition("\n[… ")
    left_out, _, tail = tail.partition(" bytes are left out …]\n")
    assert mark
    assert whole.startswith(head)
    assert whole.endswith(tail)
    lost = len(whole.encode()) - len(head.encode()) - len(tail.encode())
    assert 0 <= lost - int(left_out) <= 6, "a character that was cut apart is dropped"
    assert len(short.encode()) > most - 20
