"""The command line: importing the commands puts them into the application."""

from __future__ import annotations

from sched_cli import looking, operating, running
from sched_cli.shared import app

__all__ = ["looking", "main", "operating", "running"]


def main() -> None:
    """Run the command line."""
    app()
