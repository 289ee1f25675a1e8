"""The time by which a backend decides what is due: the server's, or that of the given clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from sched_core.clock import Clock, StoreClock, boot_seconds
from sched_core.errors import BackendError
from sched_sql._shared.moments import micros, moment
from sched_sql._shared.table import Now
from sched_sql.postgres.session import LaneConnection
from sched_sql.postgres.sql import NOW, Query, Steps


class ServerTime:
    """Estimates the server's time from its answers, where the server decides.

    Args:
        decides: Who decides: the server, or the clock given to :meth:`deciding`.
        lane: The connection on which to ask.
        stepped: Told how far the server's clock was from where it was expected.
    """

    def __init__(
        self,
        decides: Literal["store", "clock"],
        lane: LaneConnection,
        stepped: Callable[[timedelta], None],
    ) -> None:
        self.is_the_servers = decides == "store"
        self._lane = lane
        self._stepped = stepped
        self.clock: StoreClock | None = None
        """The estimate; ``None`` where the given clock decides."""

    def deciding(self, clock: Clock) -> Clock:
        """Return the clock that decides: the given one, or the server's."""
        if not self.is_the_servers:
            return clock
        self.clock = StoreClock(clock)
        return self.clock

    def fixed(self, now: Now) -> int | None:
        """Return the moment where the clock decides, ``None`` where the server's does."""
        return None if self.is_the_servers else micros(now())

    def ask(self) -> None:
        """Ask the server for its time, and whether its database can hold every text.

        Raises:
            BackendError: The encoding of the database is not UTF-8.
        """
        self.observe(self._told)

    def _told(self) -> int:
        def steps() -> Steps[int]:
            ((encoding, at),) = yield Query(f"SELECT current_setting('server_encoding'), {NOW}")
            if encoding != "UTF8":
                raise BackendError(
                    f"{self._lane.address}: the database has the encoding {encoding}: make one "
                    "with ENCODING 'UTF8'"
                )
            return int(at)

        return self._lane.run(steps)

    def observe(self, ask: Callable[[], int | None]) -> None:
        """Ask something that tells the server's time, and keep the clock's estimate by it."""
        sent = boot_seconds()
        at = ask()
        received = boot_seconds()
        if at is not None:
            self.take(at, sent, received)

    def take(self, at: int, sent: float, received: float) -> None:
        """Keep the clock's estimate by an answer, and the seconds between which it was made."""
        if self.clock is not None:
            self._stepped(self.clock.observe(moment(at), sent, received))
