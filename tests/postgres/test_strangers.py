"""Functions, operators and types of others: none of them is called with the scheduler's rights.

Whatever our statements name, a stranger has made another one of the same name and arguments in a
schema that comes first in the search path. The names are taken from the statements themselves, as
they were sent, so that a new statement needs no entry here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import anyio
import psycopg
import pytest
from psycopg import sql
from tests import postgres_server
from tests.postgres import contender
from tests.postgres.places import Place, past, renewals

from sched_core import (
    ExecutionQuery,
    Interval,
    Job,
    JobEvent,
    JobQuery,
    JobSpec,
    Once,
    Policy,
    Retry,
    Room,
    Status,
    SystemClock,
)
from sched_sql.postgres import migration_sql

PATH = "public, pg_catalog"
"""What comes before the server's own wins where name and arguments are the same."""

SHADOW = """
CREATE SEQUENCE public.calls;
GRANT USAGE ON public.calls TO public;
CREATE FUNCTION public.called(what pg_catalog.text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$BEGIN
        PERFORM nextval('public.calls');  -- no rollback takes it back
        RAISE EXCEPTION 'a stranger was called: %%', what;
    END$$;
DO $do$
DECLARE found record;
BEGIN
    FOR found IN
        SELECT p.proname AS name, pg_get_function_identity_arguments(p.oid) AS arguments,
            pg_get_function_result(p.oid) AS result
        FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
            AND p.proname = ANY(%(words)s::text[]) AND p.prokind IN ('f', 'a', 'w')
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION public.%%I(%%s) RETURNS %%s LANGUAGE plpgsql AS '
                '$$BEGIN PERFORM public.called(''%%s''); END$$',
                found.name, found.arguments, found.result, found.name);
        EXCEPTION WHEN OTHERS THEN
            NULL;  -- not every kind of argument can be that of a function in PL/pgSQL
        END;
    END LOOP;
    -- A literal is rather a text than anything else.
    FOR found IN SELECT DISTINCT unnest(%(words)s::text[]) AS name LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname = found.name)
            OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname = found.name
                AND p.pronamespace = 'public'::regnamespace AND proargtypes = '25');
        EXECUTE format('CREATE FUNCTION public.%%I(text) RETURNS bigint LANGUAGE plpgsql AS '
            '$$BEGIN PERFORM public.called(''%%s''); END$$',
            found.name, found.name);
    END LOOP;
    FOR found IN
        SELECT o.oid, o.oprname AS name, o.oprleft::regtype AS l, o.oprright::regtype AS r,
            o.oprresult::regtype AS result
        FROM pg_operator o WHERE o.oprnamespace = 'pg_catalog'::regnamespace
            AND o.oprname = ANY(%(signs)s::text[]) AND o.oprleft <> 0
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION public.sign_%%s(%%s, %%s) RETURNS %%s LANGUAGE plpgsql '
                'AS $$BEGIN PERFORM public.called(''%%s''); END$$',
                found.oid, found.l, found.r, found.result, found.name);
            EXECUTE format('CREATE OPERATOR public.%%s (FUNCTION = public.sign_%%s, LEFTARG = %%s, '
                'RIGHTARG = %%s)', found.name, found.oid, found.l, found.r);
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
    CREATE FUNCTION public.refuse() RETURNS boolean LANGUAGE plpgsql AS
        $$BEGIN PERFORM public.called('a type'); END$$;
    FOR found IN
        SELECT t.typname AS name FROM pg_catalog.pg_type t
        WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype = 'b'
            AND t.typname = ANY(%(words)s::text[])
    LOOP
        EXECUTE format('CREATE DOMAIN public.%%I AS pg_catalog.%%I CHECK (public.refuse())',
            found.name, found.name);
    END LOOP;
END
$do$
"""


@contextmanager
def database(name: str) -> Iterator[Place]:
    """A database in which everybody may create in schema public, and which looks there first."""
    server = postgres_server.shared()
    server.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    server.admin(f"CREATE DATABASE {name} OWNER sched")
    server.admin(f"ALTER DATABASE {name} SET search_path = {PATH}")
    try:
        yield Place(server.address(name), "sched")
    finally:
        server.admin(f"DROP DATABASE {name} WITH (FORCE)")


def use_both_ways(here: Place) -> None:
    anyio.run(functools.partial(use, here, pooled=True))
    with psycopg.connect(here.address, autocommit=True) as connection:
        connection.execute("DROP SCHEMA sched CASCADE")
    anyio.run(functools.partial(use, here, pooled=False))


async def use(here: Place, *, pooled: bool) -> None:
    """Do whatever makes a statement of ours."""
    told: list[str] = []

    async def handle(event: JobEvent) -> None:
        told.append(event.id)
        if event.id == "failing" and event.attempt == 1:
            raise ValueError("as planned")
        if event.id == "effect":
            async with event.transaction():
                pass
        if event.id == "edited":
            await event_edits()

    def handle_in_thread(event: JobEvent) -> None:
        told.append(event.id)
        with event.transaction():
            pass

    options: dict[str, Any] = {"lease": timedelta(seconds=1), "pooled": pooled}
    async with here.scheduler(handle, **options) as scheduler:

        async def event_edits() -> None:
            await scheduler.update_job("edited", metadata={"by": "its handler"})

        retry = Policy(retry=Retry(attempts=2, backoff=timedelta(milliseconds=1)))
        await scheduler.ensure_job("often", Interval(seconds=1), metadata={"k": "v"})
        await scheduler.submit_jobs(
            [
                JobSpec("failing", Once(past()), policy=retry),
                JobSpec("effect", Once(past())),
                JobSpec("edited", Once(past())),
            ]
        )
        with anyio.fail_after(30):
            while told.count("failing") < 2:
                await scheduler.run_due()
        await scheduler.trigger_job("often")
        await scheduler.pause_job("often")
        await scheduler.resume_job("often")
        with here.connect() as connection:
            await edit(scheduler.in_transaction(connection), "sync")
            connection.commit()
        async with await psycopg.AsyncConnection.connect(here.address) as other:
            await edit(scheduler.in_transaction(other), "async")
            await other.commit()
        listed = [
            job
            async for job in scheduler.list_jobs(
                JobQuery(id_prefix="o", metadata={"k": "v"}, group=None)
            )
        ]
        assert [job.id for job in listed if isinstance(job, Job)] == ["often"]
        query = ExecutionQuery(job_id="failing", final=True, statuses=frozenset({Status.SUCCEEDED}))
        assert len([line async for line in scheduler.list_executions(query)]) == 1
        assert (await scheduler.health()).problems == ()
        await scheduler.remove_job("often")
        await scheduler.prune(past(-3600))
    async with here.scheduler(handle_in_thread, **options) as scheduler:
        await scheduler.submit_job("thread", Once(past()))
        await scheduler.run_due()
        assert "thread" in told
    await take_over(here, pooled=pooled)


async def edit(jobs: Any, job_id: str) -> None:
    await jobs.submit_job(job_id, Once(past()))
    await jobs.update_job(job_id, name="another")
    await jobs.ensure_job(f"{job_id}-2", Interval(hours=1))
    await jobs.remove_job(f"{job_id}-2")


async def take_over(here: Place, *, pooled: bool) -> None:
    """Waiting, renewing in the row and unlocked, giving back, and what was lost."""
    options: dict[str, Any] = {"lease": timedelta(milliseconds=300), "pooled": pooled}
    lost, other = here.backend(**options), here.backend(**options)
    await lost.open(SystemClock(), worker="lost")
    await other.open(SystemClock(), worker="other")
    with anyio.move_on_after(0.3):
        await lost.wait_due(Room(5))
    await lost.add([contender.new_job("left", past(60))])
    claims = (await lost.claim_due(Room(5))).claims
    assert claims
    with here.connect() as connection:
        connection.execute(f"LOCK {here.schema}.job IN EXCLUSIVE MODE")
        assert await lost.renew(renewals(claims))
    with here.connect() as connection:
        connection.execute(f"SELECT FROM {here.schema}.job FOR UPDATE")
        assert await lost.renew(renewals(claims))
    await lost.close()
    with anyio.fail_after(20):
        while not (taken := (await other.claim_due(Room(5))).claims):
            await other.wait_due(Room(5))
    await other.release(taken)
    await other.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements of all sessions, as they are sent."""
    found: list[str] = []

    def record(query: object) -> None:
        if isinstance(query, bytes):
            found.append(query.decode())
        elif isinstance(query, sql.Composable):
            found.append(query.as_string(None))
        else:
            found.append(str(query))

    execute, execute_async = psycopg.Cursor.execute, psycopg.AsyncCursor.execute

    def noted(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        record(query)
        return execute(self, query, *args, **options)

    async def noted_async(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        record(query)
        return await execute_async(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    monkeypatch.setattr(psycopg.AsyncCursor, "execute", noted_async)
    return found


def test_nothing_of_strangers_is_called(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with database("friendly") as here:
        anyio.run(functools.partial(use, here, pooled=False))
    text = "\n".join({*sent, migration_sql()})
    monkeypatch.undo()
    words = sorted(set(re.findall(r"[a-z_][a-z_0-9]*", text)))
    signs = sorted({*re.findall(r"[-+*/<>=~!@#%^&|`?]+", text), "~~", "!~~"})
    assert {"nextval", "clock_timestamp", "pg_notify", "set_config", "text"} <= {*words}
    assert {"<=", "*", "||", "="} <= {*signs}

    with database("hostile") as here:
        server = postgres_server.shared()
        shadow = server.local.replace("dbname=postgres", "dbname=hostile")
        with psycopg.connect(shadow, autocommit=True) as connection:
            connection.execute("SET search_path = pg_catalog")
            cursor = psycopg.ClientCursor(connection)
            cursor.execute(SHADOW, {"words": words, "signs": signs})
            made = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            ((functions,),) = connection.execute(made).fetchall()
            assert functions > 200
        # A program that does not look where its functions come from calls them.
        for careless in ("SELECT nextval('x')", "SELECT 1 = 1", "SELECT 'a'::text"):
            with pytest.raises(psycopg.errors.RaiseException, match="a stranger was called"):
                here.rows(careless)

        calls = server.admin("SELECT last_value FROM calls", "hostile")
        with psycopg.connect(here.address, autocommit=True) as connection:
            connection.execute(migration_sql())
        use_both_ways(here)
        with here.connect(autocommit=True) as connection:
            for view in ("jobs", "executions"):
                connection.execute(f"SELECT * FROM sched.{view}").fetchall()
        assert server.admin("SELECT last_value FROM calls", "hostile") == calls
