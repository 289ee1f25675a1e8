"""Questions that need a yes."""

from __future__ import annotations

import sys

import anyio
import typer

from sched_cli.application import FAILED, WRONG, fail
from sched_cli.output import printable


def need_answer(*, yes: bool) -> None:
    """End the command where it will have a question, and there is no one to answer."""
    if not yes and not sys.stdin.isatty():
        fail("this needs a yes, and there is no terminal to ask at: pass --yes", code=WRONG)


async def confirm(question: str, *, yes: bool) -> None:
    """Ask; end the command unless the answer is yes."""
    need_answer(yes=yes)
    if yes:
        return
    sys.stdout.write(f"{printable(question)} [y/N]: ")
    sys.stdout.flush()
    # Not by input(), which would keep Ctrl-C from the event loop until there is an answer.
    await anyio.wait_readable(sys.stdin)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise typer.Exit(FAILED)
