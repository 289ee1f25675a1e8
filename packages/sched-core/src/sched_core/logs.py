"""Structured logging with the standard library: executions and health, with facts as fields.

All records go to the logger ``sched_core`` and its children. This module sets up no handlers: the
application decides where records go. :class:`JsonFormatter` writes them as JSON, one object per
line.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from sched_core._model.execution import Execution, Status
from sched_core._runtime.observers import HealthChange

LEVELS = {
    Status.FAILED: logging.ERROR,
    Status.ABANDONED: logging.WARNING,
    Status.MISSED: logging.WARNING,
    Status.INTERRUPTED: logging.INFO,
}
"""Levels of executions; all others are ``INFO``. A failure that is retried is a ``WARNING``."""

_PLAIN = logging.LogRecord("", 0, "", 0, "", (), None).__dict__.keys() | {"message", "asctime"}


class LogExecutions:
    """An observer that logs each execution and each change of health.

    The fields of a record are those of :class:`~sched_core.Execution`, with moments as ISO 8601
    text and ``status`` as its word. If a handler was called, ``duration`` and ``delay`` are there
    too, in seconds. ``event`` is ``execution`` or ``health``.

    Args:
        logger: The logger, by default ``sched_core.executions``.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logging.getLogger("sched_core.executions") if logger is None else logger

    def __call__(self, what: Execution | HealthChange) -> None:
        if isinstance(what, HealthChange):
            level = logging.INFO if what.healthy else logging.ERROR
            if what.notices and level == logging.INFO:
                level = logging.WARNING
            text = "healthy" if what.healthy else "unhealthy: " + "; ".join(what.problems)
            if what.notices:
                text += "; notices: " + "; ".join(what.notices)
            fields = {
                "event": "health",
                "healthy": what.healthy,
                "problems": list(what.problems),
                "notices": list(what.notices),
            }
            self._logger.log(level, "%s", text, extra=fields)
            return
        level = LEVELS.get(what.status, logging.INFO)
        if level == logging.ERROR and not what.final:
            level = logging.WARNING
        if self._logger.isEnabledFor(level):
            reason = "" if what.reason is None else f": {what.reason}"
            self._logger.log(
                level,
                "job %r %s%s",
                what.job_id,
                what.status.value,
                reason,
                extra=fields_of(what),
            )


def fields_of(execution: Execution) -> dict[str, Any]:
    """Return an execution as fields that JSON can write, without those that are unset."""
    fields: dict[str, Any] = {
        "event": "execution",
        "execution_id": execution.id,
        "job_id": execution.job_id,
        "key": f"{execution.uid}:{execution.number}",
        "number": execution.number,
        "scheduled_at": execution.scheduled_at.isoformat(),
        "kind": execution.kind.value,
        "attempt": execution.attempt,
        "status": execution.status.value,
        "final": execution.final,
        "token": execution.token,
        "worker": execution.worker,
        "claimed_at": execution.claimed_at.isoformat(),
        "finished_at": execution.finished_at.isoformat(),
        "coalesced": execution.coalesced,
    }
    if execution.started_at is not None:
        fields["started_at"] = execution.started_at.isoformat()
        fields["duration"] = (execution.finished_at - execution.started_at).total_seconds()
        fields["delay"] = (execution.started_at - execution.scheduled_at).total_seconds()
    if execution.reason is not None:
        fields["reason"] = execution.reason
    if execution.coalesced_until is not None:
        fields["coalesced_until"] = execution.coalesced_until.isoformat()
    return fields


class JsonFormatter(logging.Formatter):
    """Writes a record, with all its extra fields, as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON; a value that JSON cannot write becomes its text."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        for name, value in record.__dict__.items():
            if name not in _PLAIN and name not in fields:
                fields[name] = value
        return json.dumps(fields, default=str, ensure_ascii=False)
