"""The conformance suite on json_backend.py: all that its author has to write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from json_backend import JsonBackend  # type: ignore[import-not-found]  # it is in the same folder

from sched_testkit import Harness, conformance


class JsonHarness(Harness):
    name = "json"
    can_cut = can_spoil = can_spoil_execution = True  # optional, as are the methods after backend()

    @contextmanager
    def place(self) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            yield Path(folder) / "jobs.json"

    def backend(self, place: Any) -> Any:
        return JsonBackend(place, lease=timedelta(seconds=30))

    async def cut(self, place: Any) -> None:
        place.parent.rename(f"{place.parent}-away")

    async def heal(self, place: Any) -> None:
        Path(f"{place.parent}-away").rename(place.parent)  # noqa: ASYNC240 -- a test may block

    async def spoil(self, place: Any, job_id: str) -> None:
        found = json.loads(place.read_text())
        found["rows"][job_id][0] = 99  # the format
        place.write_text(json.dumps(found))

    async def spoil_execution(self, place: Any, job_id: str) -> None:
        found = json.loads(place.read_text())
        newest = max(n for n, (_, text) in enumerate(found["history"]) if f'"{job_id}"' in text)
        found["history"][newest][1] = "\udcff: no JSON"
        place.write_text(json.dumps(found))


TestJson = conformance(JsonHarness())
