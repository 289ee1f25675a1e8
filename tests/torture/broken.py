"""Harnesses that are wrong themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from tests.torture.harnesses import Sqlite

from sched_core import Backend
from sched_testkit.torture import Fault


class KnowsTheAddressOnlyWhereItWasEntered(Sqlite):
    processes = 1

    @contextmanager
    def place(self, folder: str) -> Iterator[str]:
        with super().place(folder) as address:
            self.entered = address
            yield address

    def backend(self, address: str) -> Backend:
        return super().backend(self.entered)


class FaultRaises(Sqlite):
    processes = 1
    lease = recovery = timedelta(seconds=1)

    def faults(self, address: str) -> Mapping[str, Fault]:
        def raises(seconds: float) -> None:
            raise RuntimeError("the tool for this is not installed")

        return {"raises": raises}
