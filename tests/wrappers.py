"""The base of backends that tests put in front of another one."""

from __future__ import annotations

from typing import Any

from sched_core import Backend


class HandsOn:
    """A backend that hands every call on to another one; a subclass changes some of the calls."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)
