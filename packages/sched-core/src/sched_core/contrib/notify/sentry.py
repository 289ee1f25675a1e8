"""A sink that tells Sentry how jobs ended; it needs ``sched-core[sentry]``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sched_core.contrib.notify.notice import Notice, NoticeKind
from sched_core.errors import InvalidDefinition

LONGEST_SLUG = 50
"""Characters in the slug of a monitor."""


class SentryCheckIns:
    """Sends a check-in to a monitor of Sentry for each success and each final failure.

    You call ``sentry_sdk.init`` and make the monitors in Sentry. A check-in is delivered once the
    SDK has taken it; what the SDK then loses is lost.

    Args:
        monitors: The slug of the monitor by the job's id; jobs without one are not told. ``None``:
            each job's monitor has its id as slug, in lower case, with ``-`` for what no slug has.

    Raises:
        InvalidDefinition: ``sentry_sdk`` is not installed, or ``monitors`` is empty.
    """

    kinds: frozenset[NoticeKind] = frozenset({"succeeded", "failed"})
    most = None
    """Each check-in counts: none is summed up."""

    def __init__(self, monitors: Mapping[str, str] | None = None) -> None:
        try:
            from sentry_sdk.crons import capture_checkin
        except ImportError:
            raise InvalidDefinition(
                "sentry_sdk", "is not installed: pip install 'sched-core[sentry]'"
            ) from None
        if monitors is not None and not monitors:
            raise InvalidDefinition("monitors", "is empty: name a monitor for a job, or give None")
        self._capture = capture_checkin
        self._monitors = None if monitors is None else dict(monitors)

    async def __call__(self, notice: Notice) -> None:
        """Hand a check-in to the SDK, which sends it in a thread of its own."""
        slug = None if notice.job_id is None else self._slug(notice.job_id)
        if slug is None:
            return
        took = None if notice.started_at is None else (notice.at - notice.started_at)
        self._capture(
            monitor_slug=slug,
            status="ok" if notice.kind == "succeeded" else "error",
            duration=None if took is None else took.total_seconds(),
        )

    def _slug(self, job_id: str) -> str | None:
        if self._monitors is not None:
            return self._monitors.get(job_id)
        return re.sub(r"[^a-z0-9_-]+", "-", job_id.lower()).strip("-")[:LONGEST_SLUG] or None
