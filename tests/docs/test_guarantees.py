"""What backs each promise is there: no law is named in the guarantees that is not examined."""

from __future__ import annotations

import re
from pathlib import Path

from sched_testkit.laws import GENERATED_LAWS, LAWS, SEEDED_LAWS

GUARANTEES = Path(__file__).parents[2] / "docs" / "explanation" / "guarantees.md"


def test_every_promise_names_laws_that_are_examined() -> None:
    text = GUARANTEES.read_text("utf-8")
    _, _, table = text.partition("| promise | laws |")
    rows = [line.split("|") for line in table.split("\n\n")[0].splitlines()[2:]]
    named = [re.findall(r"`(\w+)`", row[2]) for row in rows]
    known = {law.name for law in LAWS} | {law.name for law in GENERATED_LAWS}
    known |= {law.name for law in SEEDED_LAWS}
    assert len(rows) > 8
    assert all(named), "a promise without a law"
    assert [name for names in named for name in names if name not in known] == []
