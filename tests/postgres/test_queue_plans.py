"""Statements on many queues use the indexes, and look at no more than they must."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from tests.postgres.places import Place, place
from tests.postgres.test_plans import LEASE, Planner

from sched_core import Claim, Room
from sched_sql._shared.lanes import Lanes
from sched_sql.postgres.claims import Claims
from sched_sql.postgres.parts import BEGINNING, ClaimRequest
from sched_sql.postgres.sql import Query, Steps

JOBS, QUEUES = 100_000, 100
FILL = """
INSERT INTO @job (id, revision, tag, schedule, uid, declared, anchor, number, next_run, due_at,
    queue)
SELECT 'job-' || n, n, 'interval', '{"every":60}', md5(n::text), true, 0, 1, due, due,
    'queue-' || n % 100
FROM (SELECT n, (extract(epoch FROM now()) * 1000000)::bigint + (n - 50000) * 1000::bigint AS due
    FROM generate_series(1, 100000) n) moments
"""
ROOMS = {
    "all": Room(50),
    "two": Room(50, {"queue-1": 20, "queue-2": 50}),
    "rest": Room(50, {"queue-1": 20, "*": 50}),
    "none": Room(50, {"nobody's": 50}),
}


@pytest.fixture(scope="module")
def full() -> Iterator[Place]:
    """A schema with 100,000 jobs in 100 queues, of which half are due."""
    with place() as here:

        async def make() -> None:
            async with here.scheduler():
                pass

        anyio.run(make)
        here.rows(FILL)
        here.rows("ANALYZE @job")
        yield here


@pytest.fixture
def planner(full: Place) -> Iterator[Planner]:
    made = Planner(full)
    yield made
    made.connection.close()


def nodes(planner: Planner, query: Query) -> list[dict[str, Any]]:
    """Return the nodes of the plan as it ran; what it wrote is taken back."""
    with planner.connection.transaction(force_rollback=True):
        (row,) = planner.explain(query, "ANALYZE, FORMAT JSON")
    found: list[dict[str, Any]] = []
    waiting = [(row[0] if isinstance(row[0], list) else json.loads(row[0]))[0]["Plan"]]
    while waiting:
        found.append(waiting.pop())
        waiting += found[-1].get("Plans", [])
    return found


def looked_at(planner: Planner, steps: Steps[Any]) -> int:
    """Return how many rows of jobs a statement has read, all by an index, and sorted no more."""
    read = 0
    for node in nodes(planner, next(steps)):
        rows = round(node["Actual Rows"] * node["Actual Loops"])
        if node.get("Relation Name") == "job" and node["Node Type"] != "ModifyTable":
            assert node["Node Type"] in {"Index Scan", "Index Only Scan", "Tid Scan"}, node
            read += rows + round(node.get("Rows Removed by Filter", 0) * node["Actual Loops"])
        if "Sort" in node["Node Type"]:
            assert rows <= QUEUES * 50, node
    return read


def asked(limit: int = 50, floor: int = BEGINNING) -> ClaimRequest:
    return ClaimRequest(limit, LEASE, None, (BEGINNING, 2**62), floor, ends=False)


@pytest.mark.parametrize("name", ROOMS)
def test_a_claim_looks_at_the_oldest_of_each_queue(planner: Planner, name: str) -> None:
    lanes = Lanes(ROOMS[name])
    steps = planner.claims.claim([], asked(), lanes)
    # Each queue once; the oldest of each; those that are claimed three times, with their places.
    queues = {"two": 2, "none": 0}.get(name, QUEUES)
    assert looked_at(planner, steps) <= QUEUES + queues * 50 + 3 * 50


@pytest.mark.parametrize("name", ROOMS)
def test_a_look_at_what_is_next_looks_at_one_of_each_queue(planner: Planner, name: str) -> None:
    steps = planner.claims.probe(
        None, 2**60, floor=0, above=0, sweep=False, lanes=Lanes(ROOMS[name])
    )
    assert looked_at(planner, steps) <= 2 * (QUEUES + 1)


def test_who_refuses_looks_at_a_part(planner: Planner) -> None:
    lanes = Lanes(Room(50, None, lambda _: True))
    steps = planner.claims.choose(lanes, asked(), set())
    assert looked_at(planner, steps) <= 1 + QUEUES + QUEUES * 100


def claimed(full: Place, room: Room) -> list[Claim]:
    """Return what one statement claims, and take it back."""
    planner, claims = Planner(full), list[Claim]()
    claiming: Claims = planner.claims
    try:
        steps = claiming.claim(claims, asked(room.limit), Lanes(room))
        query = next(steps)
        with planner.connection.transaction(force_rollback=True):
            steps.send(planner.connection.execute(query.statement, query.values).fetchall())
    except StopIteration:
        pass
    finally:
        planner.connection.close()
    return claims


def test_the_oldest_of_all_are_claimed_in_order(full: Place) -> None:
    assert [claim.job.id for claim in claimed(full, Room(7))] == [f"job-{n}" for n in range(1, 8)]
    rest = claimed(full, Room(9, {"queue-1": 1, "queue-5": 0, "*": 4}))
    assert [claim.job.id for claim in rest] == [f"job-{n}" for n in (1, 2, 3, 4, 6)]
