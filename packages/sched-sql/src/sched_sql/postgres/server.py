"""The server: its address, and the settings of every session.

A role's and a database's defaults are the DBA's, so each session sets what the statements rely on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import conninfo

from sched_core.errors import InvalidDefinition

MEANING: Mapping[str, str] = {
    # Names that are not qualified are the server's own: of functions, operators and types, too.
    # pg_temp is named because it would come first otherwise.
    "search_path": "pg_catalog, pg_temp",
    "client_encoding": "UTF8",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    # A policy that hides rows is an error, and no empty queue.
    "row_security": "off",
}
"""What our statements mean depends on these; they are set in sessions of others, too."""

SETTINGS: Mapping[str, str] = {
    # The statements are written for their indexes, whatever statistics say or miss; planned once.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "enable_tidscan": "on",
    "enable_sort": "on",
    "enable_material": "on",
    "max_parallel_workers_per_gather": "0",
    "default_transaction_isolation": "read committed",
    # A process that freezes inside a transaction must not keep its locks.
    "idle_in_transaction_session_timeout": "10s",
    # A role's or a database's default must not end sessions that wait for work.
    "idle_session_timeout": "0",
    "default_table_access_method": "heap",  # a claim names the place of its row
    **MEANING,
}
"""The settings of this package's sessions, whatever the role's and the database's defaults are.

Not among them: default_transaction_read_only, by which a DBA fences a server off.
"""


class Address:
    """The address of the server, and the user to connect as.

    Args:
        where: The address for libpq: a URI or ``key=value`` pairs; what it leaves out comes from
            a service file and the environment.
        timeout: Seconds after which a server that does not answer counts as unreachable.
        settings: The settings of every session.

    Raises:
        InvalidDefinition: libpq does not understand it.
    """

    def __init__(self, where: str, *, timeout: float, settings: Mapping[str, str]) -> None:
        given = _understood(where)
        if given is None:  # raised here: libpq's own error, which quotes passwords, is no context
            raise InvalidDefinition(
                "where",
                "libpq does not understand it: write 'postgresql://user@host:5432/database', with "
                "what is special in user and password percent-encoded",
            )
        quick = str(max(1, min(10, round(timeout))))
        defaults = {
            "application_name": "sched",
            "connect_timeout": quick,
            "keepalives_idle": quick,
            "keepalives_interval": "2",
            "keepalives_count": "3",
            "tcp_user_timeout": str(round(timeout * 1000)),
        }
        # As what the role or the database has for a default, nothing but ASCII might pass.
        always = {"client_encoding": "UTF8"}
        self.conninfo = conninfo.make_conninfo("", **{**defaults, **given, **always})
        self.timeout = timeout
        self.settings = dict(settings)

    def __str__(self) -> str:
        """Return what may be shown: no password."""
        shown = conninfo.conninfo_to_dict(self.conninfo)
        host = shown.get("host") or shown.get("hostaddr") or "(local)"
        port, database = shown.get("port"), shown.get("dbname")
        service, user = shown.get("service"), shown.get("user")
        text = f"PostgreSQL at {host}" + (f":{port}" if port else "")
        text = f"PostgreSQL service {service}" if service else text
        text += f", database {database}" if database else ""
        return text + (f", user {user}" if user else "")


def _understood(where: str) -> dict[str, Any] | None:
    try:
        return dict(conninfo.conninfo_to_dict(where))
    except psycopg.ProgrammingError:
        return None


def flat(settings: Mapping[str, str]) -> list[str]:
    """Return names and values in turn, as ``set_config`` takes them."""
    return [part for setting in settings.items() for part in setting]
