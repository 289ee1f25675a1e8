"""The connection on which a worker hears what other processes wrote.

They announce that something is due soon, and that a worker's claim is marked to be cancelled.
"""

from __future__ import annotations

import os
import secrets

from psycopg import Notify

from sched_core._support.logger import Logger
from sched_core.clock import boot_seconds
from sched_sql.postgres.session import IS_READ_ONLY, LaneConnection
from sched_sql.postgres.sql import Names

logger = Logger("sched_sql")

LONGEST_PAUSE = 10.0
"""Seconds between attempts to listen again, at most."""

ASK_EVERY = 10.0
"""Seconds after which the connection is asked for a sign of life: it may stay silent without end,
because its packets vanish, or because its server is no longer the primary."""

ANSWER = 4.0
"""Seconds to wait for the answer."""

CANCEL = "cancel:"
"""Begins a payload that says whose claim was marked; any other is the worker that announces."""


class Listener:
    """One connection that listens; without it, waiting falls back to looking.

    Args:
        lane: Its connection.
        names: The schema's names; it has a channel of its own.
        enabled: False behind a pooler, where nothing would arrive.
    """

    def __init__(self, lane: LaneConnection, names: Names, *, enabled: bool) -> None:
        self._lane = lane
        self._names = names
        self._enabled = enabled
        self.worker = ""
        """The worker that listens: its own announcements are no news to it."""
        self.news = 0
        """Grows when something may have been announced that is due soon."""
        self.cancels = 0
        """Grows when a claim of the worker may have been marked to be cancelled."""
        self._failures = 0
        self._try_at = 0.0
        self._asked = 0.0
        self._descriptor: int | None = None
        """A descriptor of its own: no thread closes what the event loop waits for."""
        self._listens = False
        self._question = f'LISTEN "{names.channel}"; {IS_READ_ONLY}'

    @property
    def descriptor(self) -> int | None:
        """What becomes readable when something is announced; ``None`` while not listening."""
        return self._descriptor if self._listens and self._lane.is_current else None

    def silence(self) -> float:
        """Seconds for which nothing may be announced before :meth:`hear` is to be called."""
        return max(0.0, self._asked + ASK_EVERY - boot_seconds())

    def may_start(self) -> bool:
        """Whether it is time to try."""
        return self._enabled and not (self._failures and boot_seconds() < self._try_at)

    def start(self) -> bool:
        """Listen, unless it was tried just now; return whether it has begun.

        Never raises: a worker that does not hear looks instead.
        """
        if not self.may_start():
            return False
        try:
            self._let_go()  # no task waits for it: a task that would, calls this
            self._descriptor = self._lane.listen(self._names.channel, self._on_notice)
        except Exception as error:  # noqa: BLE001 -- as the docstring says; looking raises, too
            self._failed(error)
            return False
        self._listens, self._asked = True, boot_seconds()
        if self._failures:
            logger.info("listening again")
            self._failures = 0
        return True

    def _failed(self, error: Exception) -> None:
        self._listens = False
        self._failures += 1
        pause = min(LONGEST_PAUSE, 0.25 * 2 ** min(self._failures, 10))
        self._try_at = boot_seconds() + pause * (0.5 + secrets.randbelow(1000) / 2000)
        if self._failures == 1:
            logger.warning("not listening, others' jobs are looked for: %s", error)

    def _on_notice(self, notice: Notify) -> None:
        if notice.payload.startswith(CANCEL):
            self.cancels += notice.payload == f"{CANCEL}{self.worker}"
        elif notice.payload != self.worker:
            self.news += 1

    def hear(self) -> None:
        """Take in what was announced."""
        now = boot_seconds()
        try:
            if now - self._asked < ASK_EVERY:
                self._lane.ask("SELECT", ANSWER)  # which also brings what was announced
            else:
                self._asked = now
                self._lane.ask(self._question, ANSWER)
        except Exception as error:  # noqa: BLE001 -- what was missed is looked for
            self._failed(error)
            self.news += 1

    def close(self) -> None:
        """Disconnect."""
        self._listens = False
        self._lane.close()
        self._let_go()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def forget(self) -> None:
        """Let go of the parent's connection in a forked child."""
        self._listens = False
        self._lane.forget()
