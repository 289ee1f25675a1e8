"""The command line: importing the commands puts them into the application."""

from __future__ import annotations

from sched_cli import activity, checks, inspection, operations, records, runs, service
from sched_cli.application import app

__all__ = [
    "activity",
    "checks",
    "inspection",
    "main",
    "operations",
    "records",
    "runs",
    "service",
]


def main() -> None:
    """Run the command line."""
    app()
