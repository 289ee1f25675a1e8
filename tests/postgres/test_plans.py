"""The statements of every run use the indexes that they were written for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from tests.postgres.places import Place, place, renewals, settlement

from sched_core import Claim, ClaimQuery, CountQuery, ExecutionQuery
from sched_sql._shared.rows import JOB_COLUMNS, read_job
from sched_sql.postgres import lookups, queries
from sched_sql.postgres.claims import Claims
from sched_sql.postgres.definitions import Definitions
from sched_sql.postgres.executions import Executions
from sched_sql.postgres.follow import Follow
from sched_sql.postgres.parts import BEGINNING, ClaimRequest
from sched_sql.postgres.records import Records
from sched_sql.postgres.server import SETTINGS
from sched_sql.postgres.settlements import Settler
from sched_sql.postgres.sql import Names, Query, Steps
from sched_sql.postgres.survey import Survey

LEASE = 30_000_000

FILL = """
INSERT INTO @job (id, revision, tag, schedule, uid, declared, anchor, number, next_run, due_at)
SELECT 'job-' || n, n, 'interval', '{"every":60}', md5(n::text), true, 0, 1, due, due
FROM (SELECT n, (extract(epoch FROM now()) * 1000000)::bigint + (n - 1000) * 10000::bigint AS due
    FROM generate_series(1, %s) n) moments
"""
EXECUTIONS = """
INSERT INTO @execution (seq, job_id, uid, number, attempt, scheduled_at, status, final, token,
    worker, claimed_at, finished_at, expires_at, drop_at)
SELECT nextval('@serial'), 'job-' || n, md5(n::text), 0, 1, 0, 'succeeded', true, 0, 'w', 0,
    n, 0, CASE n %% 9 WHEN 8 THEN 9223372036854775807 ELSE n %% 9 * 86400000000 END
FROM generate_series(1, %s) n
"""
PARTITIONS = "SELECT @make_partitions(ARRAY(SELECT n * 86400000000 FROM generate_series(0, 7) n))"


@pytest.fixture(scope="module")
def full(deep: bool) -> Iterator[Place]:
    """A schema with many jobs, of which 1,000 are due, and as many executions."""
    count = 1_000_000 if deep else 20_000
    with place() as here:

        async def make() -> None:
            async with here.scheduler():
                pass

        anyio.run(make)
        here.rows(FILL, (count,))
        here.rows("SELECT @drop_partitions(9223372036854775806)")  # of earlier tests
        here.rows(PARTITIONS)
        here.rows(EXECUTIONS, (count,))
        here.rows("ANALYZE @job")
        here.rows("ANALYZE @execution")
        yield here


_PART = re.compile(r"execution_(\d+|never)_")
"""The prefix of a partition's index: each partition has the indexes of the whole."""


class Planner:
    """Explains the queries of some steps, on a connection that is set as all of this package's."""

    def __init__(self, here: Place) -> None:
        names = Names(here.schema)
        self.names = names
        self.executions = Executions(names)
        announce, records = Definitions(names, self.executions).announce, Records(names)
        self.claims = Claims(names, self.executions, records, announce)
        self.claims.worker = "w"
        self.settling = Settler(names, self.executions, records, announce)
        self.connection = here.connect(autocommit=True)
        for setting, value in SETTINGS.items():
            self.connection.execute("SELECT set_config(%s, %s, false)", (setting, value))

    def used(self, steps: Steps[Any], *, after: int = 0) -> tuple[set[str], set[str]]:
        """Return the indexes that the query after some others uses, and its other scans."""
        query = next(steps)
        for _ in range(after):
            rows = self.connection.execute(query.statement, query.values).fetchall()
            query = steps.send(rows)
        (row,) = self.explain(query, "FORMAT JSON")
        plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
        indexes, others = set[str](), set[str]()
        waiting = [plan[0]["Plan"]]
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            if "Index Name" in node:
                indexes.add(_PART.sub("execution_", node["Index Name"]))
            elif node["Node Type"] == "Tid Scan":
                indexes.add("ctid")
            elif "Relation Name" in node and node["Node Type"] != "ModifyTable":
                others.add(f"{node['Node Type']} of {node['Relation Name']}")
        return indexes, others

    def explain(self, query: Query, options: str) -> list[tuple[Any, ...]]:
        # In a prepared statement, as in production: its generic plan is what counts.
        with self.connection.cursor() as cursor:
            return cursor.execute(
                f"EXPLAIN ({options}) {query.statement}", query.values, prepare=True
            ).fetchall()


@pytest.fixture
def planner(full: Place) -> Iterator[Planner]:
    made = Planner(full)
    yield made
    made.connection.close()


def asked(*, floor: int = BEGINNING) -> ClaimRequest:
    return ClaimRequest(100, LEASE, None, (BEGINNING, 2**62), floor, ends=True)


def claimed(planner: Planner, count: int) -> list[Claim]:
    rows = planner.connection.execute(
        f"SELECT {JOB_COLUMNS} FROM {planner.names.job} ORDER BY due_at LIMIT %s", (count,)
    )
    now = datetime.now(UTC)
    return [Claim(read_job(row), 7, "w", now, now) for row in rows]


def test_claiming(planner: Planner) -> None:
    for floor in (BEGINNING, 0):
        used = planner.used(planner.claims.claim([], asked(floor=floor)))
        assert used == ({"job_due", "job_held", "ctid", "renewal_pkey"}, set())


@pytest.mark.parametrize(
    ("room", "floor", "scans"), [(100, BEGINNING, 2), (100, 0, 1), (10_000, BEGINNING, 1)]
)
def test_what_lapsed_behind_others_is_looked_for_by_a_sweep_whose_room_is_taken(
    planner: Planner, room: int, floor: int, scans: int
) -> None:
    """There are 1,000 due: with room for more of them, one scan sees all that has lapsed."""
    query = next(planner.claims.claim([], asked(floor=floor)._replace(limit=room)))
    planner.connection.execute("BEGIN")
    plan = [line for (line,) in planner.explain(query, "ANALYZE, COSTS OFF")]
    planner.connection.execute("ROLLBACK")
    scans_of_due = [line for line in plan if "Index Scan using job_due" in line]
    done = [line for line in scans_of_due if "never executed" not in line]
    assert len(done) == scans, "\n".join(plan)


def test_looking(planner: Planner) -> None:
    for sweep in (False, True):
        steps = planner.claims.probe(None, 2**60, floor=BEGINNING, above=0, sweep=sweep)
        held = {"job_held"} if sweep else set()
        assert planner.used(steps) == ({"job_due", "renewal_pkey"} | held, set())


def test_renewing(planner: Planner) -> None:
    steps = planner.claims.renewals.renew(renewals(claimed(planner, 50)), LEASE, None)
    assert planner.used(steps) == ({"job_pkey"}, set())


def test_ending_lost_claims_and_releasing(planner: Planner) -> None:
    steps: Steps[Any] = planner.claims.lapse(["job-1", "job-2"], None)
    assert planner.used(steps) == ({"job_pkey"}, set())
    steps = planner.claims.release([("job-1", 1, "w")], None)
    assert planner.used(steps) == ({"job_pkey"}, set())


@pytest.mark.parametrize("count", [1, 500])
def test_settling(planner: Planner, count: int) -> None:
    settlements = [settlement(claim) for claim in claimed(planner, count)]
    runs = planner.settling.settle_runs(settlements, lambda _: "(0,1)")
    assert planner.used(runs) == ({"ctid"}, set())
    assert planner.used(planner.settling.settle(settlements, None)) == ({"job_pkey"}, set())
    executions = [each for one in settlements for each in one.executions]
    used = planner.used(planner.executions.find(executions))
    assert used == ({"execution_pkey"}, set())
    writing = planner.used(planner.executions.write(executions))
    assert writing == ({"execution_pkey"}, set())


def test_pruning_and_listing(planner: Planner) -> None:
    expired = planner.used(planner.executions.prune_expired(None), after=1)
    assert expired == ({"execution_expires_at_idx", "ctid"}, set())
    old = planner.used(planner.executions.prune_old(1, 0), after=1)
    assert old == ({"execution_seq_idx", "ctid"}, set())
    assert planner.used(planner.claims.prune(None)) == ({"job_expires"}, set())
    page = queries.executions(planner.names, ExecutionQuery(job_id="job-7"), None, 10)
    assert planner.used(page) == ({"execution_job_id_seq_idx"}, set())
    page = queries.executions(planner.names, ExecutionQuery(), None, 10)
    assert planner.used(page) == ({"execution_seq_idx"}, set())


def test_a_claim_reads_no_more_than_it_claims(planner: Planner, full: Place) -> None:
    """Also without an old snapshot this is what would grow first."""
    query = next(planner.claims.claim([], asked()._replace(limit=5)))
    with planner.connection.transaction(force_rollback=True):
        lines = [
            row[0] for row in planner.explain(query, "ANALYZE, BUFFERS, TIMING OFF, COSTS OFF")
        ]
    # Whether there are other queues is seen at either end of the index.
    others = [line for line in lines if "Index Only Scan using job_due" in line]
    assert len(others) == 2
    assert all("rows=0 " in line.replace(".00", "") for line in others), others
    scan = next(line for line in lines if "Index Scan using job_due" in line)
    assert "rows=5 " in scan.replace(".00", ""), scan
    # What was never held costs no look at renewals.
    unlocked = next(line for line in lines if "renewal_pkey" in line)
    assert "never executed" in unlocked, unlocked


def test_the_explained_statements_are_those_that_run(full: Place) -> None:
    """The rows of the explained claim can be claimed: nothing above looks at dead statements."""
    lane = Planner(full)
    claims: list[Claim] = []
    steps = lane.claims.claim(claims, asked())
    query = next(steps)
    try:
        with lane.connection.transaction(force_rollback=True):
            steps.send(lane.connection.execute(query.statement, query.values).fetchall())
    except StopIteration:
        pass
    lane.connection.close()
    assert len(claims) == 100
    assert all(claim.job.standing.due_at for claim in claims)


COUNTED = {
    # What each statement of a count uses, by its place.
    1: {"job_pkey", "job_held", "job_paused", "job_finished", "job_strange"},
    2: {"job_due"},
    3: {"job_due", "job_held"},
    4: {"job_due", "job_held", "job_pkey"},
    5: {"execution_seq_idx"},
    6: {"execution_seq_idx"},
    7: {"execution_seq_idx"},
}


@pytest.mark.parametrize("at", COUNTED)
def test_counting(planner: Planner, at: int) -> None:
    looks = Survey(planner.names)
    indexes, others = planner.used(looks.counts(CountQuery(datetime.now(UTC)), None), after=at)
    assert indexes == COUNTED[at]
    # The reports of workers are few.
    assert others <= {"Seq Scan of worker"}


def test_listing_claims(planner: Planner) -> None:
    looks = Survey(planner.names)
    indexes, others = planner.used(looks.claims(ClaimQuery(), None, 100, datetime.now(UTC)))
    assert indexes == {"job_due", "job_held", "job_pkey", "renewal_pkey"}
    assert others <= {"Seq Scan of worker"}


def test_looking_executions_up(planner: Planner) -> None:
    found = planner.used(lookups.execution(planner.names, f"{'0' * 32}:1:1"))
    assert found == ({"execution_pkey"}, set())
    recent = planner.used(lookups.recent(planner.names, ["job-1", "job-2"], 10))
    assert recent == ({"execution_job_id_seq_idx"}, set())


def test_following(planner: Planner) -> None:
    """A page costs what it shows: the rows come in the order of an index, and none is sorted."""
    follow = Follow(planner.names)
    for cursor in ("", None):
        used = planner.used(follow.steps(cursor, 10, None), after=2)
        assert used == ({"execution_xact_seq_idx"}, set())
    waits = Query(follow._waits, (0, None))
    plan = "\n".join(line for (line,) in planner.explain(waits, "COSTS OFF"))
    assert "execution_xact_seq_idx" in plan.replace("execution_never", "execution")
    for statement, values in (
        (follow._page[True], ("0", 0, 0, 2**60, 10)),
        (follow._newest[True], (0, 2**60)),
    ):
        lines = [line for (line,) in planner.explain(Query(statement, values), "COSTS OFF")]
        assert not any("Sort" in line and "Sort Key" not in line for line in lines), lines
        assert any("xact < pg_snapshot_xmin" in line for line in lines if "Index Cond" in line)
