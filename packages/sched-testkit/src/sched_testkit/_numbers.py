"""Numbers on a command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)
MOST = 1e9


def above_zero(kind: Callable[[str], Number]) -> Callable[[str], Number]:
    """Return what reads an option's number that must be above zero."""

    def read(text: str) -> Number:
        try:
            number = kind(text)
        except ValueError:
            number = kind("0")
        if not 0 < number < MOST:
            raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
        return number

    return read
