"""What claims by queue and by id look at in SQLite, among many jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.sql.stores import LEASE, NOW, job

from sched_core import Room
from sched_sql._shared.moments import micros
from sched_sql._shared.table import ClaimBatch
from sched_sql.sqlite import due
from sched_sql.sqlite.table import SqliteTable

QUEUES, EACH = 100, 1_000
ROOMS = {
    "all": Room(50),
    "two": Room(50, {"queue-1": 20, "queue-2": 50}),
    "rest": Room(50, {"queue-1": 20, "*": 50}),
    "none": Room(50, {"nobody's": 50}),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteTable]:
    """A file with 100,000 jobs in 100 queues, of which half are due."""
    path = tmp_path_factory.mktemp("queues") / "jobs.db"
    made = SqliteTable(str(path), synchronous="NORMAL", timeout=10, lease=LEASE)
    made.open("w", lambda: NOW)
    made.add([job("0", NOW - timedelta(days=1), queue="queue-0")])
    connection = made._database.connection
    columns = [row[1] for row in connection.execute("PRAGMA table_info(sched_job)")]
    told = {
        "id": "'job-' || n",
        "uid": "'uid-' || n",
        "queue": "'queue-' || (n % 100)",
        "due_at": f"{micros(NOW)} + (n - 50000) * 1000",
        "next_run": f"{micros(NOW)} + (n - 50000) * 1000",
    }
    values = ", ".join(told.get(name, name) for name in columns)
    connection.execute(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers "
        f"WHERE n < {QUEUES * EACH}) INSERT INTO sched_job ({', '.join(columns)}) "
        f"SELECT {values} FROM numbers, (SELECT * FROM sched_job WHERE id = '0')"
    )
    connection.execute("DELETE FROM sched_job WHERE id = '0'")
    yield made
    made.close()


@pytest.mark.parametrize(
    "name", [name for name in vars(due) if name.startswith("_") and name.isupper()]
)
def test_every_statement_goes_by_the_index(table: SqliteTable, name: str) -> None:
    statement = vars(due)[name]
    if not isinstance(statement, str) or "SELECT" not in statement or "FROM" not in statement:
        return
    readable, _ = table._claims.can_read()
    text = statement.format(readable=readable)
    marks = 1 if "?1" in text else text.count("?")
    explained = table._database.connection.execute(f"EXPLAIN QUERY PLAN {text}", (1,) * marks)
    plan = [row[-1] for row in explained]
    assert not any("TEMP B-TREE" in step for step in plan), plan
    for step in plan:
        assert "sched_job" not in step or step.startswith("SEARCH") or "COVERING" in step, plan


def steps(table: SqliteTable, room: Room) -> tuple[int, list[str]]:
    """Return how much work a claim was for SQLite, and what it has claimed; it is taken back."""
    connection, batch = table._database.connection, ClaimBatch(room, NOW)
    counts = Counter[str]()

    def count() -> int:
        counts["steps"] += 1
        return 0

    connection.set_progress_handler(count, 100)
    try:
        table.claim(batch, lambda: NOW)
    finally:
        connection.set_progress_handler(None, 0)
    table.release(batch.claims, lambda: NOW)
    return counts["steps"] * 100, [claim.job.id for claim in batch.claims]


@pytest.mark.parametrize("name", ROOMS)
def test_a_claim_looks_at_a_part_of_each_queue(table: SqliteTable, name: str) -> None:
    """A look at all that is due would be more than a million instructions of SQLite's."""
    work, claimed = steps(table, ROOMS[name])
    oldest = list(range(1, 51))
    two = sorted([*(100 * k + 1 for k in range(20)), *(100 * k + 2 for k in range(30))])
    expected = {"all": oldest, "two": two, "rest": oldest, "none": []}[name]
    assert claimed == [f"job-{number}" for number in expected]
    assert work < 60_000


def test_what_is_refused_is_passed_over_in_one_walk(table: SqliteTable) -> None:
    asked = Counter[str]()

    def accepts(job_id: str) -> bool:
        asked[job_id] += 1
        return int(job_id[4:]) > 20_000

    work, claimed = steps(table, Room(3, {"queue-7": 3, "queue-8": 1}, accepts))
    assert claimed == ["job-20007", "job-20008", "job-20107"]
    assert max(asked.values()) == 1
    assert sum(asked.values()) < 1_000
    assert work < 60_000
