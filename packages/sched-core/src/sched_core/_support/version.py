"""The version of this package."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """Return the version of sched-core; empty where it is not installed."""
    try:
        return metadata.version("sched-core")
    except metadata.PackageNotFoundError:
        return ""
