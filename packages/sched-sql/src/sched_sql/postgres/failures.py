"""What goes wrong with PostgreSQL, or on the way to it, as the port's errors with a remedy."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from sched_core.errors import (
    BackendError,
    BackendUnavailable,
    InvalidDefinition,
    SchedError,
    StoreNotFound,
)

READ_ONLY = "25006"
"""A standby, which may be promoted, or a session that was told so."""

_AGAIN = frozenset(
    {
        READ_ONLY,
        "25P03",  # idle in a transaction for too long: this process had stopped
        "25P04",  # a transaction took too long
        "40001",  # serialization failure
        "40P01",  # deadlock
        "55P03",  # a lock was not to be had in time
        "55006",  # object in use
        "57014",  # a statement was cancelled
    }
)
_AGAIN_CLASSES = ("08", "53", "57P", "58", "XX")
_ENDS_SESSIONS = ("08", "57P")
_FULL = (
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "no more connections allowed",
)
MORE_SLOTS = (
    "raise the CONNECTION LIMIT of the role or of the database, max_connections of the server or "
    "the pool of the pooler, or end other connections"
)
_REFUSED = (
    "password authentication failed",
    "no pg_hba.conf entry",
    "no password supplied",
    "does not exist",
    "is not permitted to log in",
    "permission denied for database",
)
"""What trying again does not mend; libpq tells no code before there is a session."""
_NO_DATABASE = re.compile(r'database ".*" does not exist')


def ends_sessions(error: BaseException) -> bool:
    """Whether what a server said tells that no connection to it is of use any more.

    It is read-only, shutting down, or has broken the conversation off.
    """
    code = getattr(error, "sqlstate", None) or ""
    return code == READ_ONLY or code.startswith(_ENDS_SESSIONS)


def is_full(error: BaseException) -> bool:
    """Whether there was no slot for another connection; libpq tells no code for it."""
    code = getattr(error, "sqlstate", None) or ""
    return code == "53300" or (
        isinstance(error, psycopg.OperationalError) and any(text in str(error) for text in _FULL)
    )


def translate(error: Exception, where: str, schema: str) -> Exception:
    """Return the port's error for one of the driver's.

    Args:
        error: What was raised.
        where: The address as it may be shown.
        schema: The name of the schema, for remedies.
    """
    if isinstance(error, SchedError) or not isinstance(error, (psycopg.Error, OSError)):
        if type(error).__name__ == "_WaitTimeout":
            return BackendUnavailable(f"{where}: no answer in time; the outcome is not known")
        return error
    text = first_line(error)
    code = getattr(error, "sqlstate", None) or ""
    if "row-level security" in text:
        return BackendError(
            f"{where}: {text}: a policy would hide rows: ALTER TABLE ... DISABLE ROW LEVEL "
            f"SECURITY for the tables of schema {schema}, or give the role BYPASSRLS"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return BackendError(
            f"{where}: {text}: grant what is missing: USAGE on schema {schema}; SELECT, INSERT, "
            f"UPDATE, DELETE on its tables; USAGE on its sequence; CREATE on the database only to "
            f"whom makes the schema"
        )
    if code in {"42P01", "3F000", "42703"}:
        return BackendError(
            f"{where}: {text}: the schema {schema} is missing or incomplete: open a backend with "
            "migrate=True once, or run what `python -m sched_sql.postgres` prints"
        )
    if "statement pooling mode" in text:
        return BackendError(
            f"{where}: {text}: the pooler must be in transaction mode, with pooled=True, or in "
            "session mode"
        )
    if code == READ_ONLY:
        return BackendUnavailable(
            f"{where}: {text}: this server is a read-only standby: name the primary, or all hosts "
            "with target_session_attrs=read-write"
        )
    if is_full(error):
        return BackendUnavailable(f"{where}: {text}: {MORE_SLOTS}")
    if isinstance(error, errors.DependentObjectsStillExist):
        detail = (error.diag.message_detail or "").replace("\n", ", ")
        return BackendError(
            f"{where}: {text} ({detail}): drop what is made of the tables and views of schema "
            f"{schema}, open it again, and make that again; nothing was changed"
        )
    if code in {"22P05", "22021"}:
        return BackendError(f"{where}: {text}: the database must have the encoding UTF8")
    if code in _AGAIN or code.startswith(_AGAIN_CLASSES):
        return BackendUnavailable(f"{where}: {text}")
    if not code and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, OSError)):
        if _NO_DATABASE.search(text):
            return StoreNotFound(f"{where}: {text}")
        refused = next((reason for reason in _REFUSED if reason in text), None)
        if refused is not None:
            return BackendError(f"{where}: {text}: check user, password, database and pg_hba.conf")
        return BackendUnavailable(f"{where}: {text}")
    if isinstance(error, psycopg.DataError):
        return InvalidDefinition("job", f"PostgreSQL cannot keep it: {text}")
    return BackendError(f"{where}: {text}")


def first_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    diag = getattr(error, "diag", None)
    text = getattr(diag, "message_primary", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
