"""The schema: numbered SQL, applied under an advisory lock, or printed for those who apply it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psycopg.errors import LockNotAvailable, ObjectInUse

from sched_core._support.logger import Logger
from sched_core.clock import boot_seconds
from sched_core.errors import BackendError, SchemaTooNew
from sched_sql.postgres.server import MEANING
from sched_sql.postgres.session import LaneConnection
from sched_sql.postgres.sql import Names, Query, Steps

logger = Logger("sched_sql")

_KNOWN = """
SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'meta'
"""

_MIGRATIONS = Path(__file__).parent / "migrations"
BASE = 3
"""The version that ``0003_schema.sql`` makes; the scripts next to it take over older schemas."""

PATIENCE = 60.0
"""Seconds to wait for workers of an older version to let go of what they hold."""
_PAUSE = 0.5
"""Seconds between two looks at that."""


def migrations(after: int = 0, folder: Path = _MIGRATIONS) -> list[tuple[int, str]]:
    """Return the numbers and texts of all migrations after a version, in order.

    Args:
        after: The version that a schema has; 0 where there is none yet.
        folder: Where they are.
    """
    base = "" if after == 0 else "set_aside schema take_over"
    texts = [(folder / f"0003_{part}.sql") for part in (base or "schema").split()]
    found = [(BASE, "\n".join(path.read_text(encoding="utf-8") for path in texts))]
    found += [
        (int(path.name[:4]), path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.sql"))
        if not path.name.startswith("0003_")
    ]
    return [(number, text) for number, text in found if number > after]


def newest() -> int:
    """Return the version that this package works with."""
    return migrations()[-1][0]


def migration_sql(schema: str = "sched", *, after: int = 0) -> str:
    """Return what brings a schema up to date, as one script for ``psql``.

    Args:
        schema: Its name.
        after: The version that it has; 0 where there is none yet.
    """
    names = Names(schema)
    quoted = names.schema.replace("%%", "%")
    parts = [
        f"SET LOCAL search_path = {MEANING['search_path']};",
        f"SELECT pg_advisory_xact_lock({names.lock});",
    ]
    if after == 0:
        parts.append(f"CREATE SCHEMA IF NOT EXISTS {quoted};")
    for number, text in migrations(after):
        parts.append(_filled(text, names).replace("%%", "%").strip())
        done = f"UPDATE {quoted}.meta SET value = {number} WHERE key = 'schema';"  # noqa: S608
        parts.append(done)
    return "BEGIN;\n\n" + "\n\n".join(parts) + "\n\nCOMMIT;\n"


def _filled(text: str, names: Names) -> str:
    """Return a migration with its schema's name in it, as the driver wants it."""
    filled = text.replace("%", "%%").replace("@schema@", names.schema)
    return filled.replace("@literal@", names.literal)


def version(names: Names, schema: str) -> Steps[tuple[int, int]]:
    """Return the version of a schema, 0 for none, and the oldest that can work with it."""
    # Not to_regclass: it asks a cache, which does not see what was committed during a wait.
    if not (yield Query(_KNOWN, (schema,))):
        return 0, 0
    found: dict[str, int] = dict((yield Query(f"SELECT key, value FROM {names.meta}")))  # noqa: S608 -- quoted
    return int(found.get("schema", 0)), int(found.get("oldest", 0))


def check(schema: str, found: tuple[int, int], *, migrate: bool, create: bool = True) -> bool:
    """Return whether the schema must be brought up to date.

    Args:
        schema: Its name.
        found: What :func:`version` returned.
        migrate: Whether it may be changed from here.
        create: Whether this is more than a look at it.

    Raises:
        SchemaTooNew: A newer version of this package made it, with which this one cannot work.
        BackendError: It is missing or too old, and must not be changed from here.
    """
    present, oldest = found
    known = newest()
    if oldest > known:
        raise SchemaTooNew(
            f"the schema {schema} has version {present}, with which only a newer sched-sql can "
            f"work; this one knows {known}: upgrade sched-sql; nothing was changed"
        )
    if present < known and not create:
        raise BackendError(
            f"the schema {schema} has version {present}, which is older than {known}, and who only "
            "looks at a store does not change it: start the upgraded service first"
        )
    if present < known and not migrate:
        state = f"has version {present}, {known} is needed" if present else "is missing"
        raise BackendError(
            f"the schema {schema} {state}, and migrate=False: run what `python -m "
            f"sched_sql.postgres --schema {schema} --after {present}` prints"
        )
    return present < known


_SAMPLE = 20_000
"""Rows that an opening looks at, at most, to see that the sequence is not behind them."""

_MARGIN = 100_000
"""How far beyond all rows a sequence is set: others may draw from it at the same moment."""


def is_behind(names: Names) -> Steps[bool]:
    """Whether the sequence is behind the rows, as logical replication leaves it."""
    ((drawn, highest),) = yield _drawn_and_highest(names, f"LIMIT {_SAMPLE}")
    return bool(drawn < highest)


def set_forward(names: Names, schema: str) -> Steps[None]:
    """Set the sequence beyond all rows; safe where many begin at once, and never backwards.

    Raises:
        BackendError: This role may not.
    """
    yield Query("SELECT pg_advisory_xact_lock(%s)", (names.lock,))
    yield Query("SELECT set_config('enable_seqscan', 'on', true)")  # no index would be shorter
    ((drawn, highest),) = yield _drawn_and_highest(names)
    if drawn >= highest:
        return
    target = highest + _MARGIN
    ((may,),) = yield Query(f"SELECT has_sequence_privilege({names.serial}, 'UPDATE')")
    if not may:
        raise BackendError(
            f"the sequence of schema {schema} is at {drawn}, behind its rows (up to {highest}), as "
            "logical replication and partial restores leave it, and this role may not set it: run "
            f"SELECT setval({names.serial.replace('%%', '%')}, {target})"
        )
    # In one statement: a number that another worker draws at the same time is not taken back.
    yield Query(
        f"SELECT setval({names.serial}, %s) WHERE {_drawn(names)} < %s",
        (target, highest),
    )
    logger.warning(
        "the sequence of schema %s was at %s, behind its rows, and is set to %s",
        schema,
        drawn,
        target,
    )


def _drawn(names: Names) -> str:
    return f"coalesce(pg_sequence_last_value({names.serial}), 0)"


def _drawn_and_highest(names: Names, limit: str = "") -> Query:
    return Query(
        f"SELECT {_drawn(names)}, greatest(0, (SELECT max(seq) FROM {names.execution}), "  # noqa: S608 -- quoted
        f"(SELECT max(greatest(revision, token)) FROM (SELECT * FROM {names.job} {limit}) jobs))"
    )


def bring_up_to_date(
    lane: LaneConnection, names: Names, schema: str, fixed: Callable[[], int | None]
) -> None:
    """Make the schema, or bring it up to date; safe where many begin at once.

    Args:
        lane: Where to do it.
        names: The schema's names.
        schema: Its name.
        fixed: Tells the moment where not the server's clock decides.

    Raises:
        BackendError: Workers of an older version hold jobs, and do not let go of them.
    """
    until, told = boot_seconds() + PATIENCE, False
    while True:
        try:
            lane.run(lambda: apply(names, schema, fixed()), patience=None)
            return
        except (ObjectInUse, LockNotAvailable) as error:
            busy = error.diag.message_primary if isinstance(error, ObjectInUse) else str(error)
            if boot_seconds() >= until:
                raise BackendError(
                    f"the schema {schema} cannot be brought up to date while workers of an older "
                    f"version of sched-sql use it: {busy}: stop them, and open it again; nothing "
                    "was changed"
                ) from error
        if not told:
            logger.warning(
                "the schema %s is brought up to date as soon as workers of an older version have "
                "let go of it, within %.0f s: %s",
                schema,
                PATIENCE,
                busy,
            )
            told = True
        if lane.is_closed_within(_PAUSE):
            raise BackendError("the backend was closed")


def apply(names: Names, schema: str, at: int | None = None) -> Steps[None]:
    """Bring the schema up to date in one transaction; who comes second finds it done."""
    # As long as it takes: the copy of a long history, and the wait for the worker that makes it.
    patient = "set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)"
    # The plans of a copy, not those of a look-up.
    planned = ", ".join(f"set_config('enable_{kind}', 'on', true)" for kind in _BULK)
    yield Query(f"SELECT {patient}, {planned}")
    yield Query("SELECT pg_advisory_xact_lock(%s)", (names.lock,))
    # Who waits for a table keeps all others from it.
    yield Query("SELECT set_config('lock_timeout', '2s', true)")
    present, _ = yield from version(names, schema)
    if not present:
        yield Query(f"CREATE SCHEMA IF NOT EXISTS {names.schema}")
    if at is not None:
        yield Query("SELECT set_config('sched.now', %s, true)", (str(at),))
    for number, text in migrations(present):
        yield Query(_filled(text, names))
        yield Query(
            f"UPDATE {names.meta} SET value = %s WHERE key = 'schema'",  # noqa: S608 -- quoted
            (number,),
        )


_BULK = ("seqscan", "hashjoin", "mergejoin", "bitmapscan")
