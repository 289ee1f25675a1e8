"""Stores of the format before this one: what revision 1996364 has written is read, and goes on.

``stored/former.jsonl`` has its bytes, and ``stored/write_former.py`` what they came from.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import nats
import pytest
from tests.nats_server import running

from sched_core import (
    BackendError,
    Execution,
    Job,
    JobEvent,
    Kind,
    Pending,
    Scheduler,
    State,
    Status,
    Undecodable,
)
from sched_core.codec import read_execution
from sched_core.testing import FakeClock
from sched_jetstream import JetStreamBackend
from sched_jetstream._model import old_format
from sched_jetstream._model.record import Record
from sched_jetstream._model.record_codec import apart_of, decode, encode
from sched_jetstream._model.subjects import token_of

STORED = Path(__file__).parent / "stored" / "former.jsonl"
LEASE = timedelta(seconds=30)


@cache
def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in STORED.read_text().splitlines()]


NOW = datetime.fromisoformat(lines()[0]["now"])
MESSAGES = [line for line in lines() if "subject" in line]
BODIES = {line["subject"]: line["body"].encode() for line in MESSAGES}
RECORDS = {line["subject"]: line for line in MESSAGES if line["subject"].startswith("$KV")}


def record_of(job_id: str) -> Record:
    token = token_of(job_id)
    line = RECORDS[f"$KV.jobs.{token}"]
    definition = BODIES.get(f"sched.jobs.def.{token}")
    found = decode(line["body"].encode(), line["seq"], job_id, definition)
    assert isinstance(found, Record), found
    return found


def job_of(job_id: str) -> Job:
    job = record_of(job_id).job
    assert job is not None
    return job


def at(text: str, day: int = 6) -> datetime:
    return datetime.fromisoformat(f"2031-05-{day:02}T{text}.123456Z")


# -- pure --------------------------------------------------------------------


AT_THREE = datetime(2031, 5, 7, 1, tzinfo=UTC)
"""Three o'clock in Berlin."""
SCHEDULED = {
    "asked for": Pending(
        2, datetime(2031, 5, 7, 1, tzinfo=UTC), datetime(2031, 5, 7, 1, tzinfo=UTC)
    ),
    "paused": Pending(1, at("12:36:01"), at("12:36:01")),
    "paused until": Pending(1, at("12:36:01"), at("12:36:01")),
    "marked": Pending(1, at("12:36:01"), at("12:36:01")),
    "interrupted": Pending(1, at("09:01:01"), at("09:01:01"), attempts=1, began_at=at("09:01:01")),
    "fails and waits": Pending(
        1, at("07:00:00"), at("10:01:00"), attempts=2, failures=2, began_at=at("10:01:00")
    ),
    "lost, not asked for": Pending(
        1, at("11:36:01"), at("11:36:01"), attempts=3, lost=3, began_at=at("11:36:01")
    ),
    "owed": Pending(1, at("09:11:01"), at("11:36:01"), coalesced=2, coalesced_until=at("09:31:01")),
    "owed, and asked for": Pending(1, at("09:11:01"), at("11:36:01")),
    "asked for behind": Pending(1, at("11:36:01"), at("11:36:01")),
    "asked for, too": Pending(2, at("12:36:01"), at("12:36:01")),
    "paused, asked for": Pending(2, at("12:36:01"), at("12:36:01")),
    "lost and released": Pending(2, at("12:36:01"), at("12:36:01")),
    "edited": Pending(2, at("11:39:01", 7), at("11:39:01", 7)),
    "fails twice": None,
    "kept for ever": None,
    "announced": None,
}


@pytest.mark.parametrize("job_id", SCHEDULED)
def test_what_the_schedule_has_pending(job_id: str) -> None:
    assert job_of(job_id).standing.scheduled == SCHEDULED[job_id]


@pytest.mark.parametrize(
    ("job_id", "number", "moment", "attempts"),
    [
        ("asked for behind", 2, at("11:36:01"), 0),
        ("asked for, too", 1, at("11:36:01"), 0),
        ("paused, asked for", 1, at("11:36:01"), 0),
        ("owed, and asked for", 2, at("11:36:01"), 0),
        ("lost and released", 1, at("11:36:01"), 2),
        ("lost", 1, at("11:36:01"), 3),
        ("lost and edited", 1, at("11:36:01"), 3),
        ("asked for meanwhile", 1, at("11:39:01"), 0),
    ],
)
def test_what_was_asked_for(job_id: str, number: int, moment: datetime, attempts: int) -> None:
    """It keeps its number, and what lost claims have cost it."""
    (one,) = job_of(job_id).standing.requests
    assert (one.number, one.origin, one.kind) == (number, number, Kind.TRIGGERED)
    assert (one.scheduled_at, one.due_at, one.attempts, one.lost) == (
        *(moment, moment, attempts, attempts),
    )


@pytest.mark.parametrize(
    ("job_id", "state", "due_at"),
    [
        ("asked for", State.ACTIVE, AT_THREE),
        ("kept for ever", State.FINISHED, None),
        ("paused", State.PAUSED, None),
        ("paused until", State.PAUSED, at("11:36:01", 9)),
        ("paused, asked for", State.PAUSED, at("11:36:01")),
        ("owed, and asked for", State.PAUSED, at("11:36:01")),
        ("announced", State.PAUSED, None),
        ("woken", State.PAUSED, at("11:39:01")),
        ("fails and waits", State.ACTIVE, at("10:01:00")),
        ("asked for, too", State.ACTIVE, at("11:36:01")),
    ],
)
def test_when_it_is_due(job_id: str, state: State, due_at: datetime | None) -> None:
    standing = job_of(job_id).standing
    assert (standing.state, standing.due_at) == (state, due_at)


def test_pauses_and_marks() -> None:
    pause = job_of("paused").standing.pause
    assert pause is not None
    assert (pause.since, pause.until, pause.reason) == (
        *(at("11:36:01"), None, "until further notice"),
    )
    asked = job_of("paused, asked for").standing
    assert asked.pause is not None
    assert asked.pause.last_number < asked.requests[0].number, "a pause held back a trigger"
    (gap,) = job_of("owed").standing.gaps
    assert (gap.since, gap.end) == (at("09:31:01"), at("11:36:01"))
    assert job_of("marked").standing.skip == at("12:36:01")
    finished = job_of("fails twice").standing
    assert (finished.last_status, finished.expires_at) == (Status.FAILED, at("09:01:00", 13))


@pytest.mark.parametrize(
    ("job_id", "number", "kind", "attempts"),
    [
        ("claimed", 1, Kind.SCHEDULED, 0),
        ("lost", 1, Kind.TRIGGERED, 3),
        ("lost and edited", 1, Kind.TRIGGERED, 3),
        ("edited", 1, Kind.SCHEDULED, 0),
        ("edited, same schedule", 1, Kind.SCHEDULED, 0),
        ("removed", 1, Kind.SCHEDULED, 0),
        ("added again", 1, Kind.SCHEDULED, 0),
        ("asked for meanwhile", 1, Kind.TRIGGERED, 0),
    ],
)
def test_what_is_held(job_id: str, number: int, kind: Kind, attempts: int) -> None:
    hold = record_of(job_id).hold
    assert hold is not None
    assert (hold.worker, hold.expires_at) == ("host:2:two", at("11:39:31"))
    assert hold.pending is not None
    assert (hold.pending.number, hold.pending.kind, hold.pending.attempts) == (
        *(number, kind, attempts),
    )


def test_a_claim_that_was_to_end_a_pause_holds_nothing() -> None:
    hold = record_of("woken").hold
    assert hold is not None
    assert hold.pending is None


def test_a_trigger_that_took_the_number_of_a_claimed_run_gets_another_one() -> None:
    """The run that is held keeps its name, and is the schedule's."""
    body = json.loads(RECORDS["$KV.jobs.claimed"]["body"].split("\n")[0])
    moment = body["standing"]["next_run"]
    body["standing"] |= {"triggered_at": body["hold"]["at"], "manual": True}
    body["hold"]["was"] = [body["uid"], 1, 0, moment, False, None]
    standing = old_format.standing_of(body)
    assert standing.scheduled is not None
    assert [standing.scheduled.number, standing.requests[0].number] == [1, 2]
    assert standing.last_number == 2


@pytest.mark.parametrize(("job_id", "number"), [("runs", 2), ("all", 5), ("removed", 1)])
def test_what_an_older_version_may_have_written_is_looked_up(job_id: str, number: int) -> None:
    """Up to the number that was pending or held then, and no further."""
    assert record_of(job_id).doubtful == number


@pytest.mark.parametrize("subject", RECORDS)
def test_what_is_read_old_is_written_new(subject: str) -> None:
    line = RECORDS[subject]
    if not line["body"]:
        return  # the mark of a removal
    token = subject.rpartition(".")[2]
    definition = BODIES.get(f"sched.jobs.def.{token}")
    read = decode(line["body"].encode(), line["seq"], None, definition)
    assert isinstance(read, Record)
    body = encode(read)
    assert body.startswith(b'{"format":2,')
    again = decode(body, line["seq"], None, definition if apart_of(body) else None)
    assert isinstance(again, Record)
    assert (again.job, again.hold, again.ended) == (read.job, read.hold, read.ended)


@pytest.mark.parametrize(
    "changed",
    [
        {"standing": {"state": "deferred", "number": 1}},
        {"standing": {"state": "active", "number": "many"}},
        {"standing": {"state": "active", "number": 1, "mood": "a field of another version"}},
        {"released": ["u", 1, "many", None, None]},
        {"closed": None},
        {"hold": {"token": 1, "worker": "w", "at": "soon", "until": "soon"}},
        {"doubtful": 1},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_undecodable(changed: dict[str, Any]) -> None:
    first, _, definition = RECORDS["$KV.jobs.runs"]["body"].partition("\n")
    body = (json.dumps(json.loads(first) | changed, separators=(",", ":")) + definition).encode()
    found = decode(body, 7, "runs")
    assert isinstance(found, Undecodable)
    assert (found.id, found.record, found.format) == ("runs", body, 1)


def executions() -> Iterator[Execution]:
    for line in MESSAGES:
        if ".run." in line["subject"]:
            found = read_execution(old_format.execution_of(line["body"].encode()), "x")
            assert isinstance(found, Execution), found
            yield found


def test_executions_of_all_kinds_are_read() -> None:
    found = list(executions())
    assert {each.status for each in found} == set(Status) - {Status.CANCELLED, Status.SNOOZED}
    assert {each.kind for each in found} == {Kind.SCHEDULED, Kind.TRIGGERED}
    (missed,) = [each for each in found if each.job_id == "dropped"]
    assert (missed.coalesced, missed.coalesced_until) == (11, at("09:00:00"))


def test_what_is_no_execution_of_then_is_left_as_it_is() -> None:
    for body in (b"", b'"manual":', b'{"manual":1}', b'{"manual":true,"kind":"x"}', b"[]"):
        assert old_format.execution_of(body) == body


# -- on a server -------------------------------------------------------------


@asynccontextmanager
async def restored(url: str) -> AsyncIterator[Any]:
    """Store everything as it was found; yield what an operator has."""
    connection = await nats.connect(url)
    try:
        for line in lines():
            if "stream" in line:
                subject = f"$JS.API.STREAM.CREATE.{line['stream']}"
                answer = await connection.request(subject, json.dumps(line["config"]).encode())
                assert "error" not in json.loads(answer.data), answer.data
        js = connection.jetstream()
        for line in MESSAGES:
            if ".sched." not in line["subject"]:
                removed = {"KV-Operation": "DEL"} if not line["body"] else None
                await js.publish(line["subject"], line["body"].encode(), headers=removed)
        await js.add_consumer("KV_jobs", durable_name="workers", filter_subject="sched.jobs.fire.*")
        yield js
    finally:
        await connection.close()


def backend(url: str, **settings: Any) -> JetStreamBackend:
    waits = timedelta(seconds=1)
    return JetStreamBackend(url, time="clock", lease=LEASE, startup_timeout=waits, **settings)


async def marks(js: Any) -> list[str]:
    infos = [await js.stream_info(name) for name in ("KV_jobs", "KV_executions")]
    return [info.config.metadata["sched-jetstream"] for info in infos]


def test_a_store_of_an_older_version_opens_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ran: Counter[str] = Counter()

    async def handle(event: JobEvent) -> None:
        ran[event.id] += 1

    async def main(url: str) -> None:
        clock = FakeClock(NOW)
        before = list(executions())
        async with restored(url) as js:
            store = backend(url)
            async with Scheduler(store, handler=handle, clock=clock) as scheduler:
                assert await marks(js) == ["2", "2"]
                jobs = [job async for job in scheduler.list_jobs()]
                assert all(isinstance(job, Job) for job in jobs), jobs
                assert {job.id for job in jobs} == {
                    json.loads(line["body"].partition("\n")[0])["id"]
                    for line in RECORDS.values()
                    if line["body"] and '"tag":"gone"' not in line["body"]
                }
                found = [each async for each in scheduler.list_executions()]
                assert found == before[::-1]
                while await scheduler.run_due():
                    pass
                held = {"claimed", "edited", "edited, same schedule", "lost", "lost and edited"}
                assert not held & set(ran), "a live claim was taken over"
                assert {"asked for behind", "owed", "owed, and asked for"} <= set(ran)
                for _ in range(8):
                    clock.advance(seconds=20)
                    await store.reconcile()
                    while await scheduler.run_due():
                        pass
                assert held - {"edited"} <= set(ran)
                history = [each async for each in scheduler.list_executions()]
                assert len(history) == len({each.id for each in history}), "an id was used twice"
                ends = Counter(
                    (each.uid, each.number)
                    for each in history
                    if isinstance(each, Execution) and each.final
                )
                assert set(ends.values()) == {1}, "an occurrence ended twice"
                assert statuses(history, "removed") == ["abandoned", "superseded"]
                assert statuses(history, "edited") == ["abandoned", "superseded"]
                assert statuses(history, "claimed") == ["abandoned", "succeeded"]
                assert statuses(history, "lost")[-2:] == ["abandoned", "succeeded"]
                assert (await scheduler.get_job("woken")).state is State.ACTIVE
                for job in [job async for job in scheduler.list_jobs()]:
                    await scheduler.remove_job(job.id)
            stored = await js.get_last_msg("KV_jobs", "$KV.jobs.claimed")
            assert not stored.data

    def statuses(history: list[Any], job_id: str) -> list[str]:
        return [each.status.value for each in reversed(history) if each.job_id == job_id]

    with running(tmp_path) as server, caplog.at_level(logging.WARNING):
        asyncio.run(main(server.url))
    assert "workers of an older version: host:2:two (runs added again, asked for meanwhile" in (
        caplog.text
    )
    assert "go on: host:2:two" in caplog.text


def test_where_no_older_worker_runs_anything_their_consumer_goes(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        async with restored(url) as js:
            store = backend(url)
            await store.open(FakeClock(NOW + 2 * LEASE), worker="new")
            await store.close()
            names = [info.name for info in await js.consumers_info("KV_jobs")]
            assert names == ["workers-all"]

    with running(tmp_path) as server:
        asyncio.run(main(server.url))


def test_a_backend_that_only_reads_changes_nothing_of_an_older_version(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        async with restored(url) as js:
            with pytest.raises(
                BackendError, match="layout 1, which is older than 2, and a backend that only reads"
            ):
                await backend(url, create=False).open(FakeClock(NOW), worker="new")
            assert await marks(js) == ["1", "1"]

    with running(tmp_path) as server:
        asyncio.run(main(server.url))
