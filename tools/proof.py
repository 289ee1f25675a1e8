"""`./dev prove`: everything in its long form, in parts; a part that passed is not run again.

The result of each part is kept below `.dev/prove/` with a digest of what it depends on: the part
counts as passed until one of those files changes. A part that failed, or was interrupted, runs
again. What a part prints goes to a file next to its result.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import signal
import subprocess
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tools.environment import ensure
from tools.parts import Part, parts
from tools.running import BIN, OWN, ROOT, fail, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEPT = OWN / "prove"
TAIL = 40
"""Lines that are shown of the output of a part that failed."""


def prove(args: Sequence[str]) -> None:
    """Run the parts that are asked for, or all, unless they passed as they are."""
    known = parts()
    parser = argparse.ArgumentParser(prog="./dev prove", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(known))
    parser.add_argument("--list", action="store_true", help="say what is known of each; run none")
    parser.add_argument("--again", action="store_true", help="also run what passed as it is")
    parser.add_argument("--jobs", type=int, default=2, help="parts at a time (default: 2)")
    wanted = parser.parse_args(args)
    if unknown := [name for name in wanted.parts if name not in known]:
        fail(f"no part {', '.join(unknown)}; there are: {', '.join(known)}", code=2)
    chosen = [part for part in known.values() if part.name in (wanted.parts or known)]
    if wanted.list:
        show(chosen)
        return
    ensure("bench")
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail("another ./dev prove runs in this checkout")
        for sign in (signal.SIGINT, signal.SIGTERM):  # also where a shell has it ignored
            signal.signal(sign, signal.default_int_handler)
        run(chosen, again=wanted.again, jobs=max(wanted.jobs, 1))


def show(chosen: Sequence[Part]) -> None:
    """Say what is known of parts, and what those took that need not run."""
    states = [(part, *state(part)) for part in chosen]
    for part, known, found in states:
        tell(part, known, found)
    passed = [found["seconds"] for _, known, found in states if known == "passed"]
    say(f"{len(passed)} of {len(chosen)} parts passed as they are, in {sum(passed):,.0f} s")


def run(chosen: Sequence[Part], *, again: bool, jobs: int) -> None:
    """Run parts, some at a time; end with exit code 1 if one of them failed."""
    waiting: list[Part] = []
    running: list[Running] = []
    failed: list[str] = []
    for part in chosen:
        known, found = state(part)
        if known == "passed" and not again:
            tell(part, known, found)
        else:
            waiting.append(part)
    try:
        while waiting or running:
            while waiting and has_room(waiting[0], running, jobs):
                running.append(Running(waiting.pop(0)))
            for each in [each for each in running if each.has_ended()]:
                running.remove(each)
                known, found = each.keep()
                tell(each.part, known, found)
                if known != "passed":
                    failed.append(each.part.name)
                    print("\n".join(each.output()[-TAIL:]), flush=True)
            time.sleep(0.1)
    finally:
        for each in running:
            each.end()
    if failed:
        fail(f"prove: failed: {', '.join(failed)}; the output is in {KEPT.relative_to(ROOT)}/")
    say(f"prove: passed ({len(chosen)} parts)")


def has_room(part: Part, running: Sequence[Running], jobs: int) -> bool:
    if part.alone or any(each.part.alone for each in running):
        return not running
    return len(running) < jobs


class Running:
    """A part under way."""

    def __init__(self, part: Part) -> None:
        say(f"{part.name}: begins")
        self.part = part
        self._digest, self._began = part.digest(), time.monotonic()
        self._left = list(part.commands)
        write(part, {"state": "interrupted", "at": moment()})  # until it has ended
        self._log = log_of(part).open("w")
        self._child = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        program, *args = self._left.pop(0)
        settings = {"HYPOTHESIS_PROFILE": "deep", **os.environ, "SCHED_DEEP": "1"}
        command = [str(BIN / program), *args]
        return subprocess.Popen(
            command, cwd=ROOT, env=settings, stdout=self._log, stderr=subprocess.STDOUT
        )

    def has_ended(self) -> bool:
        """Return whether the last command has ended, or one has failed; begin the next one."""
        if self._child.poll() is None:
            return False
        if self._child.returncode == 0 and self._left:
            self._child = self._start()
            return False
        self._log.close()
        return True

    def keep(self) -> tuple[str, dict[str, Any]]:
        """Write down how it ended; return that."""
        known = "passed" if self._child.returncode == 0 else "failed"
        if self.part.digest() != self._digest:
            known = f"{known}, but its files changed meanwhile"
        lines = [line.strip("= ") for line in self.output() if re.search(self.part.figures, line)]
        found = {
            "state": known,
            "digest": self._digest,
            "seconds": round(time.monotonic() - self._began, 1),
            "at": moment(),
            "figures": lines,
        }
        write(self.part, found)
        return known, found

    def output(self) -> list[str]:
        text = log_of(self.part).read_text(encoding="utf-8", errors="replace")
        return text.splitlines()

    def end(self) -> None:
        self._child.terminate()
        self._child.wait()
        self._log.close()


# ------------------------------------------------------------------------------------ what is kept


def log_of(part: Part) -> Path:
    return KEPT / f"{part.name}.log"


def write(part: Part, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1)
    (KEPT / f"{part.name}.json").write_text(text, encoding="utf-8")


def state(part: Part) -> tuple[str, dict[str, Any]]:
    """Return what is known of a part as it is now, and what was written down."""
    try:
        found = json.loads((KEPT / f"{part.name}.json").read_bytes())
    except (OSError, ValueError):
        return "not run", {}
    if found["state"] == "passed" and found["digest"] != part.digest():
        return "changed since it passed", found
    return found["state"], found


def tell(part: Part, known: str, found: dict[str, Any]) -> None:
    seconds = f", {found['seconds']:,.0f} s" if "seconds" in found else ""
    at = f" ({found['at']}{seconds})" if "at" in found else ""
    say(f"{part.name}: {known}{at}")
    for line in found.get("figures", []):
        print(f"    {line}")


def moment() -> str:
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
