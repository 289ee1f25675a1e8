"""What PostgreSQL can do on its own: ``WORKLOAD STORE PLACE N``.

Claim, finish and write a line for 500 rows in one statement; nothing else, no scheduler.
"""

from __future__ import annotations

import asyncio

import asyncpg
from benchmarks._peers import figures
from benchmarks._peers.figures import FAR, Meter

BATCH = 500
TABLES = """
CREATE TABLE job (id text PRIMARY KEY, due timestamptz, state text);
CREATE INDEX ON job (due) WHERE due IS NOT NULL;
CREATE TABLE line (id text PRIMARY KEY, at timestamptz, status text)
"""
INSERT = "INSERT INTO job VALUES ($1, $2, 'active')"
BULK = "INSERT INTO job SELECT id, $2, 'active' FROM unnest($1::text[]) id"
RUN = f"""
WITH due AS (
    SELECT id FROM job WHERE due <= now() ORDER BY due LIMIT {BATCH} FOR UPDATE SKIP LOCKED),
ended AS (
    UPDATE job SET due = NULL, state = 'finished' FROM due WHERE job.id = due.id RETURNING job.id)
INSERT INTO line SELECT id, now(), 'succeeded' FROM ended RETURNING id
"""


async def main() -> None:
    asked = figures.call()
    connection = await asyncpg.connect(asked.place)
    await connection.execute(TABLES)
    names = [f"j{i}" for i in range(asked.n)]
    meter = Meter()
    if asked.workload == "register":
        for name in names:
            await connection.execute(INSERT, name, FAR)
    else:
        at = await connection.fetchval("SELECT now()") if asked.workload == "burst" else FAR
        await connection.execute(BULK, names, at)
    found = meter.rate(asked.n)
    if asked.workload == "burst":
        ran, meter = 0, Meter()
        while ran < asked.n:
            ran += len(await connection.fetch(RUN))
        found = meter.rate(asked.n)
    await connection.close()
    figures.tell(found)


if __name__ == "__main__":
    asyncio.run(main())
