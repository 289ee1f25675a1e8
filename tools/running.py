"""The checkout's folders, programs of the environment, and messages to people."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
OWN = ROOT / ".dev"
VENV = ROOT / ".venv"
BIN = VENV / "bin"


def keep_bytecode() -> None:
    """Let the programs find the bytecode that earlier ones left, as what is installed does.

    The tests start hundreds of processes. Where ``PYTHONDONTWRITEBYTECODE`` is set, each of them
    compiles everything that it imports, which is half of the processor time of many tests.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(OWN / "bytecode"))


def step(program: str, *args: str) -> float:
    """Run a program of the environment and return its seconds; if it fails, end with its code."""
    name = shlex.join([program, *args])
    say(name)
    began = time.monotonic()
    code = subprocess.call([BIN / program, *args], cwd=ROOT)
    took = time.monotonic() - began
    if code:
        fail(f"{name} failed after {took:.1f} s", code=code if code > 0 else 128 - code)
    say(f"{name}: ok, {took:.1f} s")
    return took


@contextmanager
def meanwhile(program: str, *args: str) -> Iterator[None]:
    """Run a program of the environment while the block runs; its output is not shown."""
    command: list[str | Path] = [BIN / program, *args]
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdout=silent, stderr=silent) as process:
        try:
            yield
            process.wait()
        finally:
            process.kill()


def become(program: str, *args: str) -> NoReturn:
    """Turn into a program of the environment: signals and the terminal are its own."""
    os.chdir(ROOT)
    flush()
    os.execv(BIN / program, [program if program != "python" else str(BIN / program), *args])


def say(text: str) -> None:
    print(f"· {text}", flush=True)


def flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def fail(text: str, *, code: int = 1) -> NoReturn:
    flush()
    print(f"dev: {text}", file=sys.stderr)
    sys.exit(code)
