"""Every sentence of the port's docstrings has a law, or a reason why it needs none.

A sentence that is new, or says something else than before, is not in sentences.toml: then this
fails. Write the law first, and then its name here; where there is none, the sentence goes.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sched_core import ports
from sched_testkit.laws import GENERATED_LAWS, LAWS

TABLE = tomllib.loads(Path(__file__).with_name("sentences.toml").read_text("utf-8"))
SENTENCES: dict[tuple[str, str], list[str] | str] = {
    (where, sentence): laws for where, found in TABLE.items() for sentence, laws in found.items()
}
NAMES = {law.name for law in LAWS} | {law.name for law in GENERATED_LAWS}
VALUES = (ports.Page, ports.JobQuery, ports.ExecutionQuery, ports.ClaimQuery, ports.Followed)
HEADING = re.compile(r"^(Args|Attributes|Raises|Returns):$")
END = re.compile(r"(?<=\.)\s+(?=[A-Z`])")


def sentences(text: str) -> list[str]:
    """Return the sentences of a docstring, without its headings and line breaks."""
    found: list[str] = []
    words: list[str] = []
    listing = table = False
    for line in [*inspect.cleandoc(text).splitlines(), ""]:
        entry = listing and re.match(r"^    \S", line) is not None
        edge = re.match(r"^=+ +=+$", line) is not None
        table ^= edge
        entry |= table and line.startswith("``")
        if not line.strip() or entry or edge or HEADING.match(line):
            found += END.split(" ".join(words)) if words else []
            words = []
        if HEADING.match(line):
            listing = True
        elif line.strip() and not edge:
            words += line.split()
    return found


def documented() -> Iterator[tuple[str, str]]:
    """Return the place of each sentence of the port, and the sentence."""
    protocols = (ports.JobStore, ports.Backend, ports.Probed, ports.Transactional)
    for kind in (*VALUES, *protocols):
        yield from ((kind.__name__, each) for each in sentences(kind.__doc__ or ""))
    for protocol in protocols:
        for name, method in vars(protocol).items():
            if not name.startswith("_") and inspect.isfunction(method):
                yield from ((name, each) for each in sentences(method.__doc__ or ""))


def test_every_sentence_of_the_port_is_in_the_table() -> None:
    unknown = [entry for entry in documented() if entry not in SENTENCES]
    assert unknown == [], "no law is named for these: see the first lines of this file"


def test_the_table_quotes_what_is_written() -> None:
    assert sorted(SENTENCES.keys() - set(documented())) == []


@pytest.mark.parametrize("entry", SENTENCES, ids=lambda entry: f"{entry[0]}: {entry[1][:40]}")
def test_the_named_laws_exist(entry: tuple[str, str]) -> None:
    laws = SENTENCES[entry]
    if isinstance(laws, str):
        assert laws in {"explains", "free", "proven elsewhere"}
    else:
        assert laws
        assert set(laws) - NAMES == set()


def test_sentences_are_found() -> None:
    text = """Do this. ``never`` that:
    neither here nor there.

    Raises:
        Wrong: It is. Nothing was
            written.
        Other: No.

    ====  ======
    ``a`` one
          two
    ``b`` three
    ====  ======

    Afterwards.
    """
    assert sentences(text) == [
        "Do this.",
        "``never`` that: neither here nor there.",
        "Wrong: It is.",
        "Nothing was written.",
        "Other: No.",
        "``a`` one two",
        "``b`` three",
        "Afterwards.",
    ]
