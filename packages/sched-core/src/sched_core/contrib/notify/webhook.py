"""Sinks that make requests: a webhook for notices, a ping for what must run."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sched_core.contrib.notify.http import Endpoint
from sched_core.contrib.notify.notice import Notice, NoticeKind
from sched_core.errors import InvalidDefinition


class Webhook:
    """Posts each notice as JSON; any answer from 200 to 299 means that it was delivered.

    Where there is no connection, or the answer is 408, 425, 429 or from 500 on, the notice is
    posted again, after the time in ``Retry-After`` if the answer has it. Any other answer refuses
    it; see ``Notifier(give_up=…)``. Redirects are not followed. The header ``Idempotency-Key`` is
    the notice's id. Of the address, nothing but its host is shown anywhere.

    Args:
        url: The address, of ``http`` or ``https``.
        headers: Further headers, such as ``Authorization``.
        body: Makes what is sent as JSON of a notice; its fields unless given. For Slack:
            ``lambda notice: {"text": notice.text}``.
        timeout: How long connecting, and each wait for the answer, may take: a timedelta, or
            seconds.
        client: An ``httpx.AsyncClient`` of yours, open for as long as the scheduler runs. Without
            one, the standard library makes the requests in a thread.

    Raises:
        InvalidDefinition: An argument is out of bounds.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[Notice], Any] = Notice.as_json,
        timeout: timedelta | float = 10,
        client: Any | None = None,
    ) -> None:
        self._endpoint = Endpoint(url, timeout=timeout, client=client)
        self._headers, self._body = dict(headers or {}), body

    def __repr__(self) -> str:
        return f"Webhook({str(self._endpoint)!r})"

    def __call__(self, notice: Notice) -> Awaitable[None] | None:
        """Post a notice, in a thread; with a client, return what posts it in the event loop.

        Raises:
            NotDelivered: Post it again.
            RetryAfter: Post it again after a time that the receiver has named.
            Refused: The receiver does not want it.
        """
        body = json.dumps(self._body(notice), ensure_ascii=False).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "sched-notify",
            "Idempotency-Key": notice.id,
            **self._headers,
        }
        return self._endpoint.ask("POST", body=body, headers=headers)


class DeadMansPing:
    """Asks an address after each success: a service such as healthchecks.io alerts if none comes.

    So people are told even where all workers are gone. Name the job by the notifier, or it pings
    for all: ``Notifier("backup-ping", DeadMansPing(url), jobs=["backup"])``.

    Args:
        url: The address, of ``http`` or ``https``.
        fail: What is added to the address's path after a final failure; ``None``: failures are not
            told.
        timeout: How long connecting, and each wait for the answer, may take: a timedelta, or
            seconds.
        client: An ``httpx.AsyncClient`` of yours; see :class:`Webhook`.

    Raises:
        InvalidDefinition: An argument is out of bounds.
    """

    def __init__(
        self,
        url: str,
        *,
        fail: str | None = "/fail",
        timeout: timedelta | float = 10,
        client: Any | None = None,
    ) -> None:
        self._endpoint = Endpoint(url, timeout=timeout, client=client)
        if fail is not None and not str(fail).startswith("/"):
            raise InvalidDefinition("fail", "must be a path such as '/fail', or None")
        self._fail = None
        if fail is not None:
            parts = urlsplit(url)
            self._fail = urlunsplit(parts._replace(path=parts.path.rstrip("/") + fail))
        kinds: set[NoticeKind] = {"succeeded"} if fail is None else {"succeeded", "failed"}
        self.kinds = frozenset(kinds)

    def __repr__(self) -> str:
        return f"DeadMansPing({str(self._endpoint)!r})"

    def __call__(self, notice: Notice) -> Awaitable[None] | None:
        """Ask the address for a notice of a success or a failure, as :class:`Webhook` does.

        Raises:
            NotDelivered: Ask again.
            RetryAfter: Ask again after a time that the receiver has named.
            Refused: The receiver does not want it.
        """
        url = None if notice.kind == "succeeded" else self._fail
        if notice.kind != "succeeded" and url is None:
            return None
        return self._endpoint.ask("GET", url=url, headers={"User-Agent": "sched-notify"})
