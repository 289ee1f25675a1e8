"""What the tests of PostgreSQL share: schemas, schedulers on them, and rows as they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from attrs import evolve
from tests import postgres_server

from sched_core import Claim, Execution, Scheduler, Settlement, Standing, State, Status
from sched_sql import SqlBackend


class Place:
    """An empty schema on the shared server, and a table of the user's beside it."""

    def __init__(self, address: str, schema: str) -> None:
        self.address, self.schema = address, schema

    def backend(self, **options: Any) -> SqlBackend:
        return SqlBackend(self.address, schema=self.schema, **options)

    def scheduler(self, handler: Any = None, *, clock: Any = None, **options: Any) -> Scheduler:
        return Scheduler(self.backend(**options), handler=handler, clock=clock)

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.address, **options)

    def rows(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement, in which ``@`` stands for the schema, and return its rows."""
        with self.connect(autocommit=True) as connection:
            cursor = connection.execute(statement.replace("@", f"{self.schema}."), values)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def place() -> Iterator[Place]:
    """Make an empty place."""
    with postgres_server.schema() as (address, schema):
        here = Place(address, schema)
        here.rows(f"DROP TABLE IF EXISTS effect_{schema}")
        here.rows(f"CREATE TABLE effect_{schema} (job text, key text)")
        yield here


def past(seconds: float = 1) -> datetime:
    """Return a moment that has passed."""
    return datetime.now(UTC) - timedelta(seconds=seconds)


def settlement(claim: Claim) -> Settlement:
    """Return a success, after which the job is due again half a second later."""
    now, job = datetime.now(UTC), claim.job
    number = job.standing.number
    again = now + timedelta(milliseconds=500)
    line = Execution(
        id=f"{job.uid}:{number}:{claim.attempt}",
        job_id=job.id,
        uid=job.uid,
        number=number,
        scheduled_at=job.standing.next_run or now,
        manual=False,
        attempt=claim.attempt,
        status=Status.SUCCEEDED,
        final=True,
        token=claim.token,
        worker=claim.worker,
        claimed_at=claim.claimed_at,
        started_at=now,
        finished_at=now,
    )
    standing = evolve(
        job.standing, number=number + 1, next_run=again, due_at=again, state=State.ACTIVE
    )
    assert isinstance(standing, Standing)
    return Settlement(claim, job.revision, standing, (line,))
