"""Hearing that others have written something that is due soon."""

from __future__ import annotations

import logging
import secrets

from psycopg import Notify

from sched_core.clock import boot_seconds
from sched_sql.postgres.names import Names
from sched_sql.postgres.session import Lane

logger = logging.getLogger("sched_sql")

LONGEST_PAUSE = 30.0
"""Seconds between attempts to listen again, at most."""


class Listening:
    """One connection that listens; without it, waiting falls back to looking.

    Args:
        lane: Its connection.
        names: Of the schema: it has a channel of its own.
        enabled: False behind a pooler, where nothing would arrive.
    """

    def __init__(self, lane: Lane, names: Names, *, enabled: bool) -> None:
        self._lane = lane
        self._names = names
        self._enabled = enabled
        self.worker = ""
        """Who listens: what it has announced by its name is no news."""
        self._heard = 0
        self._failures = 0
        self._try_at = 0.0
        self.descriptor: int | None = None
        """What becomes readable when something is announced; ``None`` while nobody listens."""

    def may_start(self) -> bool:
        """Whether it is time to try."""
        return self._enabled and not (self._failures and boot_seconds() < self._try_at)

    def start(self) -> bool:
        """Listen, unless it was tried just now; return whether it has begun.

        Never raises: whoever does not hear must look.
        """
        if not self.may_start():
            return False
        try:
            self.descriptor = self._lane.listen(self._names.channel, self._on_notice)
        except Exception as error:  # noqa: BLE001 -- as the docstring says; looking raises, too
            self._failed(error)
            return False
        if self._failures:
            logger.info("listening again")
            self._failures = 0
        return True

    def _failed(self, error: Exception) -> None:
        self.descriptor = None
        self._failures += 1
        pause = min(LONGEST_PAUSE, 0.25 * 2 ** min(self._failures, 10))
        self._try_at = boot_seconds() + pause * (0.5 + secrets.randbelow(1000) / 2000)
        if self._failures == 1:
            logger.warning("not listening, others' jobs are looked for: %s", error)

    def _on_notice(self, notice: Notify) -> None:
        if notice.payload != self.worker:
            self._heard += 1

    def heard(self) -> bool:
        """Return whether something may have been announced since the last call."""
        before = self._heard
        try:
            self._lane.ping()
        except Exception as error:  # noqa: BLE001 -- what was missed is looked for
            self._failed(error)
            return True
        return self._heard != before

    def close(self) -> None:
        """Disconnect."""
        self.descriptor = None
        self._lane.close()

    def forget(self) -> None:
        """Let go of the parent's connection in a forked child."""
        self.descriptor = None
        self._lane.forget()
