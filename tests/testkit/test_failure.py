"""What a failed law says to the author of a backend."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from tests.testkit.mutants import MutantHarness, Sound

from sched_core import Claimed
from sched_testkit import LawBroken
from sched_testkit._suite.fitness import HURRY, progress
from sched_testkit._suite.runner import run_law
from sched_testkit.laws import LAWS

BY_NAME = {law.name: law for law in LAWS}
LAW = BY_NAME["a_claim_is_exclusive"]


def failure(
    method: str, call: Callable[..., Any], patience: float = 20
) -> tuple[LawBroken, MutantHarness]:
    harness = MutantHarness(type("Mine", (Sound,), {method: call}))
    harness.patience = patience
    with pytest.raises(LawBroken) as caught:
        run_law(harness, LAW)
    return caught.value, harness


async def raises(self: Any, limit: int) -> Any:
    raise KeyError("token")


async def claims_nothing(self: Any, limit: int) -> Claimed:
    return Claimed()


async def hangs(self: Any, limit: int) -> Any:
    await anyio.sleep_forever()


def test_the_law_comes_first() -> None:
    for call in (raises, claims_nothing):
        said = str(failure("claim_due", call)[0])
        assert said.startswith(f"Mine breaks the law {LAW.name}: {LAW.text}\n\n"), said


def test_an_error_of_the_author_is_shown_from_his_code_on() -> None:
    error, _ = failure("claim_due", raises)
    lines = str(error).splitlines()
    assert lines[2] == "KeyError: 'token'"
    assert (
        "raised where the law says: mine = [claim.job.id for claim in await bench.due" in lines[3]
    )
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    hidden = frames.index("raises")
    assert frames[hidden:] == ["raises"]
    assert set(frames[:hidden]) == {"failure", "run_law", "_run"}, "frames that pytest would show"


def test_an_assertion_is_shown_from_the_law_on() -> None:
    error, _ = failure("claim_due", claims_nothing)
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames[-1] == LAW.name


def test_after_a_call_that_hangs_no_law_waits_so_long_again() -> None:
    error, harness = failure("claim_due", hangs, patience=0.1)
    assert "a call did not return within 0.3 seconds" in str(error)
    assert progress(harness).patience == HURRY
    with pytest.raises(LawBroken, match=r"within 0\.03 seconds"):
        run_law(harness, LAW)
