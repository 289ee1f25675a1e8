"""What the tests of PostgreSQL share: schemas, schedulers on them, and rows as they are stored."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from tests import postgres_server

from sched_core import (
    Claim,
    Interval,
    Job,
    JobSpec,
    Pending,
    Renewal,
    Scheduler,
    Settlement,
    Standing,
)
from sched_sql import PostgresBackend
from sched_testkit._suite.builders import occurrence_of, success_of


class Place:
    """An empty schema on the shared server, and a table of the user's next to it."""

    def __init__(self, address: str, schema: str) -> None:
        self.address, self.schema = address, schema

    def backend(self, **options: Any) -> PostgresBackend:
        return PostgresBackend(self.address, schema=self.schema, **options)

    def scheduler(self, handler: Any = None, *, clock: Any = None, **options: Any) -> Scheduler:
        return Scheduler(self.backend(**options), handler=handler, clock=clock)

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.address, **options)

    def rows(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement, in which ``@`` is the schema, and return its rows."""
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


def pending(job_id: str, at: datetime, **spec: Any) -> Job:
    """Return a job with an occurrence that is due at a moment."""
    spec.setdefault("schedule", Interval(hours=1))
    standing = Standing(1, Pending(1, at, at), at)
    return Job(JobSpec(job_id, **spec), os.urandom(8).hex(), False, at, standing)


def settlement(claim: Claim) -> Settlement:
    """Return a success, after which the job is due again half a second later."""
    now = datetime.now(UTC)
    assert occurrence_of(claim).is_scheduled
    return success_of(claim, now, due=now + timedelta(milliseconds=500), keep=True)


def renewals(claims: Iterable[Claim]) -> list[Renewal]:
    """Return what extends the leases of claims."""
    return [Renewal(claim) for claim in claims]
