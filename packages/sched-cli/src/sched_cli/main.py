"""The command line: importing the commands puts them into the application."""

from __future__ import annotations

from sched_cli import inspection, operations, service
from sched_cli.application import app

__all__ = ["inspection", "main", "operations", "service"]


def main() -> None:
    """Run the command line."""
    app()
