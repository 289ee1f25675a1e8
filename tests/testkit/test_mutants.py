"""Tests of the tests: every law kills a backend that is wrong, and every wrong backend dies."""

from __future__ import annotations

import importlib
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.conformance.harnesses.memory import MemoryHarness
from tests.testkit.mutants import MUTANTS, SOUND, Filed, Mutant, Sound, harness_of

from sched_testkit import laws
from sched_testkit._suite.runner import (
    not_applicable,
    run_generated_law,
    run_law,
    run_seeded_law,
)
from sched_testkit.harness import Harness
from sched_testkit.laws import GENERATED_LAWS, LAWS, SEEDED_LAWS
from sched_testkit.laws.law import GeneratedLaw, Law, SeededLaw, laws_of

BY_NAME = {law.name: law for law in LAWS}
GENERATED = {law.name: law for law in GENERATED_LAWS}
SEEDED = {law.name: law for law in SEEDED_LAWS}
NAMES = [*BY_NAME, *GENERATED, *SEEDED]
SLIPS = re.compile(r"^(AttributeError|NameError|TypeError|UnboundLocalError)\b", re.MULTILINE)
"""What no law says of a backend: a port that has changed under a mutant."""


def outcome(backend: type[Sound], law: str, examples: int = 150, share: float = 1.0) -> str | None:
    """Hold a backend to a law; return what it says, or None if it is content."""
    harness = harness_of(backend)
    harness.share = share
    try:
        if law in GENERATED:
            generated = GENERATED[law]

            @settings(
                max_examples=examples,
                database=None,
                deadline=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(value=generated.values())
            def examine(value: object) -> None:
                run_generated_law(harness, generated, value)

            examine()
        elif law in SEEDED:
            run_seeded_law(harness, SEEDED[law], examples)
        else:
            run_law(harness, BY_NAME[law])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def test_each_mutant_names_a_law_that_there_is() -> None:
    assert {mutant.law for mutant in MUTANTS} <= set(NAMES)


def test_each_file_of_laws_is_in_a_list() -> None:
    """A file that ``laws/__init__.py`` leaves out would be examined by no backend."""
    listed = set(NAMES)
    for path in sorted(Path(laws.__file__).parent.glob("*.py")):
        module = importlib.import_module(f"sched_testkit.laws.{path.stem}")
        found = {
            *(law.name for law in laws_of(module, Law)),
            *(law.name for law in laws_of(module, GeneratedLaw)),
            *(law.name for law in laws_of(module, SeededLaw)),
        }
        assert found <= listed, f"{path.name} has laws that no list has"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_named_law_kills_the_mutant(mutant: Mutant) -> None:
    """One whose calls take real time dies where they meet: within some tries, on any machine."""
    tries = 5 if mutant.name.endswith("FarAway") else 1
    found = next(filter(None, (outcome(mutant.backend, mutant.law) for _ in range(tries))), None)
    assert found is not None, f"{mutant.name} lives: {mutant.text} It should break {mutant.law}"
    assert not SLIPS.search(found), f"{mutant.name} dies of a slip in its own code: {found}"


ELSEWHERE = {law.name for law in LAWS if law.elsewhere}


ASKED: dict[type[Sound], Harness] = {}
"""Each is asked once what it declares."""


def applies(backend: type[Sound], law: str) -> bool:
    if backend not in ASKED:
        ASKED[backend] = harness_of(backend)
    return law not in BY_NAME or not_applicable(ASKED[backend], BY_NAME[law]) is None


EXAMINED = [
    (backend, name)
    for name in NAMES
    for backend in SOUND
    if applies(backend, name)
    and (backend is Sound or not applies(Sound, name) or (backend is Filed and name in ELSEWHERE))
]


def examined_besides(law: str) -> bool:
    """Whether the suite of `MemoryBackend`, which the sound ones are, has the law, too."""
    return law not in BY_NAME or not_applicable(MemoryHarness(), BY_NAME[law]) is None


PLAYED = [
    pytest.param(backend, name, marks=[pytest.mark.deep] if examined_besides(name) else [])
    for backend, name in EXAMINED
]


@pytest.mark.parametrize(("backend", "law"), PLAYED)
def test_the_sound_backends_live(backend: type[Sound], law: str, deep: bool) -> None:
    """Or the mutants would die of something else than what is wrong with them."""
    examples, share = (40, 1.0) if deep else (15, 0.1)
    assert outcome(backend, law, examples=examples, share=share) is None


def test_every_law_examines_a_sound_backend() -> None:
    assert sorted(set(NAMES) - {law for _, law in EXAMINED}) == []


def test_every_law_kills() -> None:
    assert sorted(set(NAMES) - {mutant.law for mutant in MUTANTS}) == []


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 100
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.text.endswith(".") for mutant in MUTANTS)


def killers_of(number: int) -> list[str]:
    """Return the laws that kill a mutant."""
    backend = MUTANTS[number].backend
    return [
        law
        for law in NAMES
        if applies(backend, law) and outcome(backend, law, examples=20) is not None
    ]


@pytest.mark.deep
def test_the_whole_matrix(tmp_path: Path) -> None:
    """Every mutant against every law that applies to it.

    SCHED_MUTANTS names the file that the table is written to.
    """
    with ProcessPoolExecutor(
        3 * (os.cpu_count() or 1), mp_context=get_context("spawn")
    ) as processes:
        found = processes.map(killers_of, range(len(MUTANTS)))
        killers = {mutant.name: laws for mutant, laws in zip(MUTANTS, found, strict=True)}
    table = as_table(killers)
    Path(os.environ.get("SCHED_MUTANTS") or tmp_path / "mutants.md").write_text(
        table, encoding="utf-8"
    )
    sys.stdout.write(table)
    assert [mutant.name for mutant in MUTANTS if not killers[mutant.name]] == []


def as_table(killers: dict[str, list[str]]) -> str:
    lines = [
        f"{len(MUTANTS)} mutants, {len(NAMES)} laws.",
        "",
        "| mutant | what is wrong | named law | other laws that kill it |",
        "|---|---|---|---|",
    ]
    for mutant in MUTANTS:
        others = [law for law in killers[mutant.name] if law != mutant.law]
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        lines.append(f"| {mutant.name} | {mutant.text} | {mutant.law} | {shown} |")
    return "\n".join(lines) + "\n"
