"""Faults planted into the rules: each is one changed line, and dies by the history next to it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType

from attrs import frozen


@frozen
class Planted:
    """A wrong rule.

    Attributes:
        what: The fault in words.
        module: A module of ``sched_core._rules``.
        right: A piece of its text, which is there once.
        wrong: What takes its place.
        scenario: The scenario in which it shows.
        history: The history by which the judge finds it.
    """

    what: str
    module: str
    right: str
    wrong: str
    scenario: str
    history: str


@contextmanager
def plant(fault: Planted) -> Iterator[None]:
    """Make a rule wrong while the context lasts, also in modules that have imported it already."""
    module = importlib.import_module(f"sched_core._rules.{fault.module}")
    text = inspect.getsource(module)
    assert text.count(fault.right) == 1, (
        f"{fault.what}: its text is there {text.count(fault.right)}x"
    )
    changed = ModuleType(module.__name__)
    exec(compile(text.replace(fault.right, fault.wrong), module.__name__, "exec"), vars(changed))
    others = _functions(changed)
    kept = {function: function.__code__ for function in _functions(module).values()}
    for name, function in _functions(module).items():
        function.__code__ = others[name].__code__
    try:
        yield
    finally:
        for function, code in kept.items():
            function.__code__ = code


def _functions(module: ModuleType) -> dict[str, FunctionType]:
    """Return the functions that a module defines, those of its classes included."""
    spaces = [module, *(each for each in vars(module).values() if isinstance(each, type))]
    return {
        each.__qualname__: each
        for space in spaces
        for each in vars(space).values()
        if isinstance(each, FunctionType)
        and each.__module__ == module.__name__
        and not each.__name__.startswith("__")
    }


CANCELLED = "cancel claim:A ok:A"
FAULTS = (
    Planted(
        "a lost claim is not counted",
        "hold",
        "count = min(stored.lost + 1, most)",
        "count = 0",
        "once",
        "t:10 claim:A",
    ),
    Planted(
        "a claim that was lost while others ran ends the occurrence",
        "hold",
        "if 1 < most == count and stored.lost < most and not _was_alone(hold):",
        "if False:",
        "coalesce+skip+0",
        "t:10 die t:7 die t:7 die t:7 die t:7 die t:7 die t:7",
    ),
    Planted(
        "a claim that was lost alone does not end the occurrence",
        "hold",
        "if 1 < most == count and stored.lost < most and not _was_alone(hold):",
        "if 1 < most == count and stored.lost < most:",
        "coalesce+skip+0",
        "t:10 die t:7 die t:7 die t:7 die t:7 die-alone t:7 die t:7 die",
    ),
    Planted(
        "no wait after a lost claim",
        "hold",
        "due_at=max(stored.due_at, instant_after(now, wait)) if wait else stored.due_at,",
        "due_at=stored.due_at,",
        "catchup+cancel+5",
        "trigger die-alone",
    ),
    Planted(
        "a lost claim does not fix the coverage",
        "hold",
        "began_at=stored.began_at or hold.claimed_at,",
        "began_at=stored.began_at,",
        "failing",
        "trigger die t:35 cancel|claim t:35 trigger",
    ),
    Planted(
        "the end of a claim forgets what was edited away",
        "hold",
        "return (*executions, execution_of_hold(hold, one, 0, Status.SUPERSEDED, now))",
        "return executions",
        "drop+cancel+5",
        "trigger:key cancel|claim release:A remove|claim ok:A",
    ),
    Planted(
        "an edit writes the end of what is held",
        "hold",
        "return (execution.uid, execution.number) == (hold.uid, one.number)",
        "return False",
        "drop+cancel+5",
        "t:35 remove|claim ok:A",
    ),
    Planted(
        "a repeat is taken for written by its id alone",
        "hold",
        "(there.token, there.worker, there.status) == (*mine, each.status)",
        "there is not None",
        "drop+cancel+0",
        "trigger:key cancel|claim freeze:A t:10 claim:B fail:A",
    ),
    Planted(
        "a claim ignores requests",
        "standing",
        "if pause is None and not standing.requests:",
        "if pause is None:",
        "drop+cancel+5",
        "trigger:key",
    ),
    Planted(
        "a pause holds nothing that was asked for",
        "standing",
        "return one.is_scheduled or one.origin <= pause.last_number",
        "return one.is_scheduled",
        "limited-all",
        "trigger:key pause:25",
    ),
    Planted(
        "a pause holds what is asked for inside it",
        "standing",
        "return one.is_scheduled or one.origin <= pause.last_number",
        "return True",
        "once",
        "pause trigger:key",
    ),
    Planted(
        "a pause holds what is to be cancelled",
        "standing",
        "if pause is None or standing.is_marked(one.number):",
        "if pause is None:",
        "plain",
        "pause cancel",
    ),
    Planted(
        "no claim is for the end of a pause",
        "standing",
        "return None if ends is not None and (first is None or ends <= first.due_at) else first",
        "return first",
        "coalesce+cancel+5",
        "pause:25 trigger:key t:35 skip|claim",
    ),
    Planted(
        "what is held has not begun",
        "standing",
        "return one.began_at is not None or job.held == one.number",
        "return one.began_at is not None",
        "limited-all",
        "remove t:7 add trigger cancel|claim trigger",
    ),
    Planted(
        "what a pause outlived is forgotten",
        "operate",
        "gaps = with_gap(standing.gaps, Gap(since, end))",
        "gaps = standing.gaps",
        "calendar",
        "pause:25",
    ),
    Planted(
        "a pause takes what was due before it",
        "operate",
        "owed = one.scheduled_at <= since or has_begun(job, one) or marked",
        "owed = has_begun(job, one) or marked",
        "calendar",
        "pause:25",
    ),
    Planted(
        "a pause takes the last moment of a schedule",
        "operate",
        "return standing  # what is owed is the last of all",
        "pass\n        if not owed:\n            return evolve(standing, scheduled=None)",
        "once",
        "pause t:35",
    ),
    Planted(
        "the last moment after a pause is judged by the misfire policy",
        "begin",
        "if judged <= moment or (spare is not None and spare in (moment, one.coalesced_until)):",
        "if judged <= moment:",
        "limited",
        "claim:A ok:A policy pause t:35 t:10 t:7 resume",
    ),
    Planted(
        "what covers the last moment after a pause is judged by the misfire policy",
        "begin",
        "if judged <= moment or (spare is not None and spare in (moment, one.coalesced_until)):",
        "if judged <= moment or moment == spare:",
        "limited",
        "edit edit t:35 t:7 claim:A policy back:12 pause:25",
    ),
    Planted(
        "a paused job is paused again with each command",
        "operate",
        "begun = standing.pause or Pause(now, standing.last_number)",
        "begun = Pause(now, standing.last_number)",
        "coalesce+skip+0",
        "pause t:10 pause",
    ),
    Planted(
        "a plain trigger is the same as one that has begun",
        "request",
        "waits = is_plain and not has_begun(job, one) and not is_held_back(job.standing, one)",
        "waits = is_plain and not is_held_back(job.standing, one)",
        "limited-all",
        "remove t:7 add trigger cancel|claim trigger",
    ),
    Planted(
        "a trigger inside a pause is the same as one that the pause holds",
        "request",
        "waits = is_plain and not has_begun(job, one) and not is_held_back(job.standing, one)",
        "waits = is_plain and not has_begun(job, one)",
        "plain",
        "trigger pause trigger",
    ),
    Planted(
        "a backfill is one moment",
        "grid",
        "return None if moment is None or moment > one.until else Further(moment, ())",
        "return None",
        "drop+skip+0",
        "t:10 t:10 backfill",
    ),
    Planted(
        "the rest of a backfill is a request of its own",
        "finish",
        "origin=one.origin,",
        "origin=job.standing.last_number + 1,",
        "plain",
        "t:35 claim:A ok:A backfill claim:A pause ok:A",
    ),
    Planted(
        "a number is used again",
        "finish",
        "    if next_one is not None:\n        number += 1\n",
        "    if next_one is not None:\n",
        "drop+cancel+0",
        "",
    ),
    Planted(
        "what passed meanwhile is skipped, and what was late before it, too",
        "finish",
        "gaps, known = with_gap(gaps, Gap(max(past, began_at), covered)), None",
        "past, known = covered, None",
        "drop+skip+0",
        "t:10 t:10 claim:A t:7",
    ),
    Planted(
        "what is late before the begin is skipped as if it had passed meanwhile",
        "finish",
        "job, max(past, began_at), number + 1, Status.SKIPPED",
        "job, past, number + 1, Status.SKIPPED",
        "drop+skip+0",
        "t:10 t:10",
    ),
    Planted(
        "what is skipped comes again",
        "finish",
        "gaps, known = with_gap(gaps, Gap(max(past, began_at), covered)), None",
        "known = None",
        "drop+skip+0",
        "t:7 t:10 t:10 die t:10 cancel t:7",
    ),
    Planted(
        "a run that is interrupted does not count as an attempt",
        "finish",
        "again = evolve(one, attempts=start.attempt, due_at=due)\n    elif",
        "again = evolve(one, due_at=due)\n    elif",
        "failing",
        "t:10 claim:A disconnect:A",
    ),
    Planted(
        "a cancelled run fails",
        "finish",
        "if mark is not None:",
        "if False:",
        "limited",
        "cancel|claim discard:A",
    ),
    Planted(
        "what waits for its deadline forgets when its retry is due",
        "finish",
        "return evolve(one, due_at=deadline, retry_at=until)",
        "return evolve(one, due_at=deadline)",
        "coalesce+cancel+0",
        "t:10 claim:A fail:A pause t:10 resume",
    ),
    Planted(
        "a retry whose deadline is none any more runs at once",
        "begin",
        "if one.retry_at is not None and one.retry_at > max(claim.claimed_at, now):",
        "if False:",
        "coalesce+cancel+0",
        "t:10 claim:A fail:A pause t:10 resume",
    ),
    Planted(
        "what is cancelled before its moment counts as run",
        "finish",
        "if not is_ahead and (last is None or last < covered):",
        "if last is None or last < covered:",
        "plain",
        "cancel claim:A ok:A edit",
    ),
    Planted(
        "an edit brings back what is cancelled before its moment",
        "define",
        "gaps=cancelled_ahead(standing.gaps, now),",
        "gaps=(),",
        "calendar",
        f"claim:A ok:A {CANCELLED} {CANCELLED} {CANCELLED} edit",
    ),
    Planted(
        "what is cancelled before its moment looks as if a clock had been ahead",
        "moment",
        "grid = Grid(job.spec.schedule, anchor, cancelled_ahead(standing.gaps, now))",
        "grid = Grid(job.spec.schedule, anchor)",
        "calendar",
        " ".join([CANCELLED] * 9 + ["policy"]),
    ),
    Planted(
        "a mark to cancel starts the run",
        "begin",
        "if standing.is_marked(one.number):",
        "if False:",
        "drop+cancel+5",
        "trigger:key cancel|claim",
    ),
    Planted(
        "the deadline of a late one lies before its start",
        "begin",
        "deadline = next_one if next_one is None or next_one > at else following(job, at)",
        "deadline = next_one",
        "drop+cancel+5",
        "t:7 t:7 t:35 t:35 t:7 t:7 t:35",
    ),
    Planted(
        "every attempt covers what has passed by then",
        "begin",
        "at = one.began_at or claim.claimed_at",
        "at = claim.claimed_at",
        "calendar",
        "die-alone t:10",
    ),
    Planted(
        "what is missed is counted up to now",
        "begin",
        "    until = runs_from - TICK\n",
        "    until = judged\n",
        "drop",
        "t:35",
    ),
    Planted(
        "an edit forgets what was due",
        "define",
        "    if old is not None and is_owed(job, old, now):\n        # What",
        "    if False and old is not None:\n        # What",
        "once",
        "t:35 edit",
    ),
    Planted(
        "an edit forgets what was due behind what is kept",
        "define",
        "return evolve(one, coalesced=whole, coalesced_until=last), standing, ()",
        "return one, standing, ()",
        "skip",
        "t:35 edit",
    ),
    Planted(
        "an edit keeps what the new calendar lacks",
        "define",
        "return requestable_grid(edited, moment - TICK).after(moment - TICK) == moment",
        "return True",
        "calendar",
        "claim:A ok:A t:10 edit",
    ),
    Planted(
        "an edit repeats what has run",
        "define",
        "    if past is not None and first is not None and first <= past:",
        "    if False and past is not None and first is not None:",
        "calendar",
        "claim:A ok:A t:10 claim:A ok:A back:12 edit",
    ),
    Planted(
        "a removal forgets what was due",
        "define",
        "        found += _superseded(job, one, now)\n    for",
        "        pass\n    for",
        "failing",
        "t:7 t:7 remove",
    ),
    Planted(
        "another misfire policy counts again what has begun",
        "define",
        "            edited = evolve(edited, standing=with_fixed_coverage(job))",
        "            pass",
        "catchup",
        "t:35 claim:A ok:A claim:A policy fail:A t:35 claim:A",
    ),
    Planted(
        "a pause takes away what has begun, where the clock was set back",
        "operate",
        "        standing = with_fixed_coverage(job)",
        "        pass",
        "plain",
        "t:35 claim:A fail:A back:12 back:12 pause t:10 resume t:35 claim:A",
    ),
    Planted(
        "pauses are counted twice",
        "grid",
        "            after = max(after, gap.end)",
        "            after = max(after, gap.since)",
        "plain",
        "t:10 pause t:35 resume t:10",
    ),
    Planted(
        "what is inside a gap is the newest",
        "grid",
        "                newest = last_occurrence(self.schedule, since, end, self.anchor).moment",
        "                newest = last_occurrence(self.schedule, since, until, self.anchor).moment",
        "plain",
        "t:35 pause t:35 resume",
    ),
)
