"""Wrote ``former.jsonl``: the messages of a store that revision 1996364 has written, one a line.

Run by the Python of that revision, with the address of a server that nobody else uses::

    ../old/.venv/bin/python tests/jetstream/stored/write_former.py nats://127.0.0.1:4222
"""

# mypy: ignore-errors
# ruff: noqa: I001, T201
# It runs where sched_core is what it was then, and says how much it wrote.

from __future__ import annotations

import asyncio
import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
from sched_core import (
    Cron,
    Drop,
    FixedDelay,
    Interval,
    JobEvent,
    Once,
    Policy,
    Retry,
    RunAll,
    Scheduler,
    lifecycle,
)
from sched_core.job import JobSpec, Settlement, Status
from sched_core.testing import FakeClock
from sched_jetstream import JetStreamBackend

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
START = datetime(2031, 5, 6, 7, 0, 0, 123456, tzinfo=UTC)
CLOCK = FakeClock(START)
LEASE = 30 * SECOND


def backend(url: str) -> JetStreamBackend:
    return JetStreamBackend(url, time="clock", lease=LEASE)


async def handle(event: JobEvent) -> None:
    if event.id.startswith("fails"):
        raise ValueError("nothing works")


async def claim(store: JetStreamBackend, *ids: str) -> None:
    """Claim what is due, and release what is not among these."""
    claims = await store.claim_due(100)
    assert {each.job.id for each in claims} >= set(ids), [each.job.id for each in claims]
    await store.release([each for each in claims if each.job.id not in ids])


async def history(scheduler: Scheduler) -> None:
    """Have every status in the history."""
    retry = Policy(retry=Retry(attempts=2, backoff=SECOND))
    await scheduler.submit_job("fails twice", Once(START), policy=retry)
    await scheduler.submit_job("fails and waits", Once(START), policy=Policy(retry=Retry(9, HOUR)))
    await scheduler.submit_job("runs", Interval(hours=1))
    await scheduler.submit_job("dropped", Interval(minutes=10), policy=Policy(misfire=Drop(SECOND)))
    await scheduler.submit_job("all", Interval(minutes=10), policy=Policy(misfire=RunAll(3, HOUR)))
    await scheduler.submit_job("skipped", Interval(hours=1))
    await scheduler.skip_next("skipped")
    await scheduler.submit_job("kept for ever", Once(START), policy=Policy(keep_executions=None))
    await scheduler.ensure_job("asked for", Cron("0 3 * * *", tz="Europe/Berlin"))
    await scheduler.trigger_job("asked for")
    await scheduler.run_due()
    CLOCK.advance(2 * HOUR + MINUTE)
    while await scheduler.run_due():
        CLOCK.advance(SECOND)


async def claims(scheduler: Scheduler, url: str) -> None:
    one, two = backend(url), backend(url)
    await one.open(CLOCK, worker="host:1:one")
    await two.open(CLOCK, worker="host:2:two")
    every = Interval(hours=1)
    for name in ("lost", "lost and released", "lost and edited"):
        await scheduler.submit_job(name, every)
        await scheduler.trigger_job(name)
    await scheduler.submit_job("lost, not asked for", Once(CLOCK.now()))
    await claim(one, "lost", "lost and released", "lost and edited", "lost, not asked for")
    CLOCK.advance(2 * LEASE)
    await claim(two, "lost", "lost and released", "lost and edited", "lost, not asked for")
    CLOCK.advance(2 * LEASE)
    await claim(one, "lost", "lost and edited", "lost, not asked for")  # and releases the third
    for name in ("claimed", "edited", "edited, same schedule", "removed", "added again"):
        await scheduler.submit_job(name, Once(CLOCK.now()), metadata={"of": name})
    await scheduler.submit_job("asked for meanwhile", every)
    await scheduler.trigger_job("asked for meanwhile")
    await scheduler.submit_job("woken", every)
    await scheduler.pause_job("woken", until=CLOCK.now() + MINUTE)
    CLOCK.advance(MINUTE)
    await claim(
        two,
        *("claimed", "edited", "edited, same schedule", "removed", "added again"),
        *("asked for meanwhile", "woken", "lost", "lost and edited"),
    )
    await scheduler.update_job("edited", Interval(days=1))
    policy = Policy(keep_executions=timedelta(days=5))
    await scheduler.update_job("edited, same schedule", policy=policy)
    await scheduler.update_job("lost and edited", Interval(days=1))
    await scheduler.remove_job("removed")
    await scheduler.remove_job("added again")
    await scheduler.submit_job("added again", every)
    await scheduler.trigger_job("asked for meanwhile")
    await asyncio.sleep(0.2)
    for store in (one, two):  # as if they had been killed: their claims stay
        session = store._session
        for task in session.tasks:
            task.cancel()
        await session.wire.close()


async def interrupted(scheduler: Scheduler, url: str) -> None:
    store = backend(url)
    await store.open(CLOCK, worker="host:3:three")
    await scheduler.submit_job("interrupted", Once(CLOCK.now()))
    (claim,) = await store.claim_due(1)
    now, start = CLOCK.now(), lifecycle.begin(claim, now=CLOCK.now())
    ended = lifecycle.Ended(Status.INTERRUPTED, "the worker stops")
    decision = lifecycle.finish(claim, start, ended, started_at=now, now=now, stored=claim.job)
    settlement = Settlement(claim, claim.job.revision, decision.standing, decision.ledger)
    (answer,) = await store.settle([settlement])
    assert answer.outcome == "written"
    await store.close()


async def standings(scheduler: Scheduler, url: str) -> None:
    every = Interval(hours=1)
    now = CLOCK.now()
    await scheduler.submit_job("owed", Interval(minutes=10))
    await scheduler.submit_job("owed, and asked for", Interval(minutes=10))
    await interrupted(scheduler, url)
    CLOCK.advance(35 * MINUTE)
    for name in ("owed", "owed, and asked for"):
        await scheduler.pause_job(name, reason="busy")
    CLOCK.advance(2 * HOUR)
    await scheduler.resume_job("owed")
    await scheduler.trigger_job("owed, and asked for")
    await scheduler.submit_job("gone", Once(CLOCK.now()))
    await scheduler.remove_job("gone")
    await scheduler.submit_job("paused", every)
    await scheduler.pause_job("paused", reason="until further notice")
    await scheduler.submit_job("paused until", every)
    await scheduler.pause_job("paused until", until=CLOCK.now() + timedelta(days=3))
    await scheduler.submit_job("paused, asked for", every)
    await scheduler.pause_job("paused, asked for", until=CLOCK.now() + timedelta(days=3))
    await scheduler.trigger_job("paused, asked for")
    await scheduler.submit_job("asked for, too", every)
    await scheduler.trigger_job("asked for, too")
    await scheduler.submit_job("asked for behind", Once(CLOCK.now()))
    await scheduler.trigger_job("asked for behind")
    await scheduler.submit_job("marked", every)
    await scheduler.skip_next("marked")
    await scheduler.submit_job("large", every, metadata={"much": "ü" * 3000})
    await scheduler.submit_job("delayed", FixedDelay(minutes=5), name="a name", group="a group")
    await scheduler.submit_job("jitter", every, policy=Policy(jitter=10 * MINUTE))
    announced = lifecycle.announce(JobSpec("announced", every), uid="uid-announced", now=now)
    await scheduler._backend.add([announced])


async def main(url: str) -> None:
    async with Scheduler(backend(url), handler=handle, clock=CLOCK) as scheduler:
        await history(scheduler)
        await standings(scheduler, url)
        await claims(scheduler, url)
    connection = await nats.connect(url)
    lines: list[dict[str, Any]] = [{"now": CLOCK.now().isoformat()}]
    for stream in ("KV_jobs", "KV_executions"):
        answer = await connection.request(f"$JS.API.STREAM.INFO.{stream}", b"")
        info = json.loads(answer.data)
        config = {key: value for key, value in info["config"].items() if "created" not in key}
        lines.append({"stream": stream, "config": config})
    answer = await connection.request("$JS.API.STREAM.INFO.KV_jobs", b"")
    last = json.loads(answer.data)["state"]["last_seq"]
    for sequence in range(1, last + 1):
        request = json.dumps({"seq": sequence}).encode()
        answer = await connection.request("$JS.API.STREAM.MSG.GET.KV_jobs", request)
        found = json.loads(answer.data).get("message")
        if found is None:
            continue
        body = base64.b64decode(found.get("data", "")).decode()
        headers = base64.b64decode(found.get("hdrs", "")).decode()
        subject = found["subject"]
        if ".check." in subject or ".lock." in subject:
            continue
        lines.append({"subject": subject, "seq": sequence, "headers": headers, "body": body})
    await connection.close()
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (Path(__file__).parent / "former.jsonl").write_text(text)
    print(len(lines), "lines,", len(text), "characters")


asyncio.run(main(sys.argv[1]))
