"""``mode = "sql"``: the backend that a section of a configuration describes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from attrs import asdict, frozen

from sched_core._support.redaction import without_password
from sched_core.errors import BackendError, InvalidDefinition, ModeNotConfigured
from sched_core.settings import Section, setting
from sched_sql.backend import DatabaseBackend
from sched_sql.dialects import SqlBackend

DEFAULT = "sqlite:///scheduler.db"
"""The database where none is named: a file in the working directory."""


@frozen
class SqlSettings:
    """The section ``scheduler.sql`` or ``scheduler.gorm``; what is unset has the backend's default.

    Attributes:
        url: The database's address, as :func:`~sched_sql.SqlBackend` takes it.
        lease, timeout: Options of both backends.
        synchronous: An option of :class:`~sched_sql.SqliteBackend`.
        schema, migrate, pooled, handler_connections: Options of
            :class:`~sched_sql.PostgresBackend`.
    """

    url: str = setting(DEFAULT, aliases=("dsn", "database"), secret=True)
    lease: timedelta | None = None
    timeout: timedelta | None = None
    synchronous: str | None = None
    schema: str | None = None
    migrate: bool | None = None
    pooled: bool | None = None
    handler_connections: int | None = None


def open_sql(section: Section) -> DatabaseBackend:
    """Return the backend that the section describes, not open yet.

    Raises:
        InvalidDefinition: A key is unknown, or its value cannot be.
        ModeNotConfigured: The database's driver is not installed.
    """
    settings = section.read(SqlSettings)
    options: dict[str, Any] = {
        name: value
        for name, value in asdict(settings).items()
        if name != "url" and value is not None
    }
    try:
        return SqlBackend(settings.url, create=section.create, **options)
    except InvalidDefinition as error:
        if error.field == "where":
            raise InvalidDefinition(section.where("url"), error.problem) from None
        problem = without_password(error.problem)
        raise InvalidDefinition(section.where(error.field), problem) from None
    except BackendError as error:
        raise ModeNotConfigured(section.name.rpartition(".")[2], str(error)) from error
