"""Names in the database, and values as PostgreSQL reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from sched_sql._shared.history import EXECUTION_COLUMNS
from sched_sql._shared.moments import Row
from sched_sql._shared.rows import JOB_COLUMNS

T = TypeVar("T")


class Query(NamedTuple):
    """A statement with its values."""

    statement: str
    values: Sequence[Any] | dict[str, Any] = ()


Steps = Generator[Query, list[Row], T]
"""What is done in a transaction, apart from how: it yields queries and is sent their rows.

The same steps run on this package's own connections and on a caller's, synchronous or not.
"""


Announce = Callable[[Iterable[int | None]], Steps[None]]
"""Wakes all workers that wait, once it is committed, if one of the moments is near."""


class Names:
    """The names of one schema, quoted for use in statements.

    Args:
        schema: The schema's name as the user wrote it.
    """

    def __init__(self, schema: str) -> None:
        # Statements go through the driver, in which a lone percent sign begins a placeholder.
        quoted = '"' + schema.replace('"', '""').replace("%", "%%") + '"'
        self.schema = quoted
        self.job = f"{quoted}.job"
        self.execution = f"{quoted}.execution"
        self.meta = f"{quoted}.meta"
        self.renewal = f"{quoted}.renewal"
        self.worker = f"{quoted}.worker"
        self.era = f"{quoted}.era"
        self.cluster = f"{quoted}.cluster()"
        self.begin_era = f"{quoted}.begin_era()"
        self.make_partitions = f"{quoted}.make_partitions"
        self.drop_partitions = f"{quoted}.drop_partitions"
        self.literal = quoted.replace("'", "''")
        """The schema's name inside a literal."""
        self.serial = f"'{self.literal}.serial'"
        """The sequence, as a literal."""
        self.next = f"nextval({self.serial})"
        digest = hashlib.blake2b(schema.encode(), digest_size=8).digest()
        self.channel = f"sched_{digest.hex()}"
        """The channel on which workers announce that something will be due soon."""
        self.lock = int.from_bytes(digest, "big", signed=True)
        """The key of the advisory lock under which the schema is changed."""


NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The server's clock in microseconds; not ``now()``, which does not move in a transaction."""

ASYNC_COMMIT = "set_config('synchronous_commit', 'off', true)"
"""The commit of probes and renewals: a server's crash that takes one back shortens a lease."""

SYNC_COMMIT = (
    "CASE current_setting('synchronous_commit') WHEN 'off' "
    "THEN set_config('synchronous_commit', 'on', true) END"
)
"""The commit of all that must survive; a role's or database's default may be off."""

_TEXT = frozenset(
    "id tag schedule policy metadata name group_name queue uid derived_from pause_reason "  # noqa: SIM905 -- shorter
    "last_status requests marks worker held job_id kind status reason ended_worker place "
    "traceback log progress actor args".split()
)
_BOOLEAN = frozenset({"declared", "final", "removed", "alone", "settled"})


def type_of(column: str) -> str:
    """Return the type of a column; ``its_`` before it changes nothing."""
    column = column.removeprefix("its_")
    if column in _TEXT:
        return "text"
    return "boolean" if column in _BOOLEAN else "bigint"


class Columns:
    """Columns that travel as one array each, and become rows again in ``unnest``.

    Args:
        names: Separated by commas, as they are called in statements.
    """

    def __init__(self, names: str) -> None:
        self.names = [name.strip() for name in names.split(",")]
        types = [type_of(name) for name in self.names]
        self._text = [kind == "text" for kind in types]
        arrays = ", ".join(f"%s::{kind}[]" for kind in types)
        self.unnest = f"unnest({arrays}) WITH ORDINALITY AS i({', '.join(self.names)}, n)"

    def values(self, rows: Iterable[Row]) -> list[str]:
        """Return the values of the placeholders in :attr:`unnest`."""
        columns = list(zip(*rows, strict=True)) or [()] * len(self.names)
        return [
            texts(column) if text else numbers(column)
            for column, text in zip(columns, self._text, strict=True)
        ]


def numbers(values: Iterable[int | None]) -> str:
    """Return an array of whole numbers or of booleans."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def texts(values: Iterable[str | None]) -> str:
    """Return an array of texts."""
    return "{" + ",".join([_text(value) for value in values]) + "}"


def _text(value: str | None) -> str:
    if value is None:
        return "NULL"
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


def qualified(table: str, columns: str) -> str:
    """Return columns with the name of their table before them."""
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))


JOBS = Columns(JOB_COLUMNS)
EXECUTIONS = Columns(f"{EXECUTION_COLUMNS}, drop_at")
