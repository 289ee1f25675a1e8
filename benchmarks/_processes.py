"""Starting what is measured: each figure is made by a process of its own, and told as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OWN = ROOT / ".dev"
PEERS = OWN / "peers"
"""Environments of their own for peers that conflict with ours or are not in the group ``bench``."""

Figures = dict[str, Any]


class Failed(RuntimeError):
    """A process ended in another way than it should."""


def environment(**more: object) -> dict[str, str]:
    """Return the environment of a measured process.

    It finds the bytecode that earlier ones have left, as whatever is installed does: without,
    most of the time of a start would go into compiling.
    """
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    told = {f"BENCH_{key.upper()}": str(value) for key, value in more.items()}
    bytecode = {"PYTHONPYCACHEPREFIX": str(OWN / "bytecode")}
    return {**inherited, **bytecode, "PYTHONPATH": str(ROOT), **told}


class Process:
    """One that runs ``python -m benchmarks._peers.SCRIPT WORKLOAD STORE PLACE N``."""

    def __init__(
        self, script: str, *call: object, python: str = sys.executable, **told: object
    ) -> None:
        command = [python, "-m", f"benchmarks._peers.{script}", *map(str, call)]
        self.name = f"{script} {call[0]} {call[1]}"
        self._child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(began=time.time(), **told),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def figures(self, timeout: float) -> Figures | None:
        """Wait for the end; return what was measured, ``None`` where there is no end in time.

        Raises:
            Failed: It ended with an error.
        """
        try:
            out, errors = self._child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
            return None
        if self._child.returncode:
            raise Failed(f"{self.name}: {errors.strip()[-2000:]}")
        found: Figures = json.loads(out.strip().splitlines()[-1])
        return found


def figures(
    script: str, *call: object, python: str = sys.executable, timeout: float = 240, **told: object
) -> Figures:
    """Run one process to its end; return what it measured.

    Raises:
        Failed: It ended with an error, or not in time.
    """
    process = Process(script, *call, python=python, **told)
    found = process.figures(timeout)
    if found is None:
        raise Failed(f"{process.name}: no end within {timeout} s")
    return found


def interpreter(name: str | None, wanted: Mapping[str, tuple[str, ...]]) -> str:
    """Return the interpreter of an environment; it is made the first time."""
    if name is None:
        return sys.executable
    folder = PEERS / name
    packages = "\n".join(wanted[name])
    inside, stamp = folder / "bin" / "python", folder / "wanted"
    if not stamp.exists() or stamp.read_text() != packages:
        base = sys._base_executable  # type: ignore[attr-defined]  # venv's own name for it  # noqa: SLF001
        subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(inside), "-m", "pip", "install", "--quiet", *wanted[name]]
        subprocess.run(install, check=True)
        stamp.write_text(packages)
    return str(inside)
