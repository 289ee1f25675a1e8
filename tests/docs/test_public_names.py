"""Nothing is public by accident: what users can import is what a list says."""

from __future__ import annotations

from pathlib import Path

from tools.public_names import listing, names_of

LIST = Path(__file__).with_name("public_names.txt")
RENEW = "python -m tools.public_names > tests/docs/public_names.txt"


def names(text: str) -> set[str]:
    return {
        f"{module}.{name}" if name else module
        for module, _, found in (line.partition(":") for line in text.splitlines())
        for name in found.split() or [""]
    }


def test_public_names_are_those_of_the_list() -> None:
    there, said = listing(), LIST.read_text("utf-8")
    added, gone = sorted(names(there) - names(said)), sorted(names(said) - names(there))
    assert there == said, (
        f"\nnew public names: {added}\nnames that are gone: {gone}\n"
        f"If users may import the new ones, and CHANGELOG.md says what is gone: {RENEW}\n"
        "Otherwise begin the name, or its module's, with an underscore."
    )


def test_names_are_those_that_a_module_defines() -> None:
    text = """
import json
from os import path
T = TypeVar("T")
LIMIT, _HIDDEN = 1, 2
kept: int = 3
class Shown: inner = 4
def _private(): ...
async def call(): ...
if LIMIT:
    ALSO = 5
"""
    assert names_of(text) == {"LIMIT", "kept", "Shown", "call", "ALSO"}


def test_a_module_that_hands_out_names_says_which() -> None:
    assert names_of('from os import path\n__all__ = ["path"]\nmore = 1') == {"path"}
