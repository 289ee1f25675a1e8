"""Requests over HTTP, with the standard library or a client that users have.

Addresses of webhooks are secrets: no error and no log says more of one than its host.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from sched_core._support.redaction import shown_address
from sched_core.errors import InvalidDefinition, shown
from sched_core.handlers import RetryAfter

LONGEST_WAIT = timedelta(hours=1)
"""The longest wait that a receiver may ask for."""
LONGEST_TIMEOUT = 3600
"""The most seconds that a request may take."""
_LATER = frozenset({408, 425, 429})
"""Answers with which a receiver says that the same request may do later."""
_quiet: ContextVar[bool] = ContextVar("sched_core.notify.quiet", default=False)


class NotDelivered(Exception):
    """The receiver could not be reached, or says that it cannot take anything now: try again."""


class Refused(Exception):
    """The receiver refuses this notice. A sink of your own may raise it, too.

    It is tried again for as long as ``Notifier(give_up=…)`` says. Then the notice is left out.
    """


@frozen
class Answer:
    """What a receiver has answered.

    Attributes:
        status: The status of HTTP.
        headers: Its headers; names are in lower case.
    """

    status: int
    headers: Mapping[str, str]


class Endpoint:
    """One address to which requests are made.

    Args:
        url: An address of ``http`` or ``https``.
        timeout: How long connecting, and each wait for the answer, may take: a timedelta, or
            seconds.
        client: An ``httpx.AsyncClient``; without one, the standard library in a thread.

    Raises:
        InvalidDefinition: An argument is none of these. The address is not shown.
    """

    def __init__(
        self, url: str, *, timeout: timedelta | float = 10, client: Any | None = None
    ) -> None:
        if not _is_address(url):
            raise InvalidDefinition(
                "url",
                "must be an address such as https://host/path, percent-encoded, without a user "
                "and a password: give these in a header",
            )
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_TIMEOUT:  # type: ignore[redundant-expr]  # callers may not type-check
            raise InvalidDefinition(
                "timeout", f"must be more than zero and at most an hour, not {shown(timeout)}"
            )
        if client is not None and not hasattr(client, "request"):
            raise InvalidDefinition("client", "must be an httpx.AsyncClient, or leave it out")
        self.url, self._seconds, self._client = url, float(seconds), client

    def __str__(self) -> str:
        return shown_address(self.url)

    def ask(
        self, method: str, *, url: str | None = None, body: bytes | None = None, headers: Any = None
    ) -> Awaitable[None] | None:
        """Make a request; with a client, return what makes it once it is awaited.

        Without one, this returns once the receiver has taken the request: call it in a thread.

        Args:
            method: The method of HTTP.
            url: Another address of the same receiver.
            body: What to send.
            headers: The headers to send, by name.

        Raises:
            NotDelivered: It could not be reached, or answered that it cannot take it now.
            RetryAfter: It has said when to try again.
            Refused: It has answered anything else than success.
        """
        url, headers, asked = url or self.url, dict(headers or {}), f"{method} {self}"
        if self._client is not None:
            return self._ask_client(asked, method, url, body, headers)
        _check(_ask(method, url, body, headers, self._seconds), asked)
        return None

    async def _ask_client(
        self, asked: str, method: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> None:
        logger = logging.getLogger("httpx")
        if _unless_quiet not in logger.filters:
            logger.addFilter(_unless_quiet)
        token = _quiet.set(True)
        client: Any = self._client
        try:
            answer = await client.request(
                method, url, content=body, headers=headers, timeout=self._seconds
            )
            found = {name.lower(): value for name, value in answer.headers.items()}
            got: Answer | str = Answer(answer.status_code, found)
        except Exception as error:  # noqa: BLE001 -- whatever the client raises may show the address
            got = type(error).__name__
        finally:
            _quiet.reset(token)
        _check(got, asked)


def _is_address(url: object) -> bool:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(known) and "@" not in parts.netloc


def _unless_quiet(_: logging.LogRecord) -> bool:
    """Leave out what httpx logs of our requests: it has the whole address."""
    return not _quiet.get()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are answers like others: a POST that is redirected may arrive as a GET."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def _ask(
    method: str, url: str, body: bytes | None, headers: dict[str, str], seconds: float
) -> Answer | str:
    """Make a request with the standard library; return the answer, or why there is none."""
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 -- http or https
    try:
        with _opener.open(request, timeout=seconds) as answer:
            return _answer(answer.status, answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers)
    except urllib.error.URLError as error:
        return type(error.reason).__name__
    except Exception as error:  # noqa: BLE001 -- http.client and ssl raise of their own; no text is shown
        return type(error).__name__


def _answer(status: int, headers: Any) -> Answer:
    return Answer(status, {name.lower(): value for name, value in headers.items()})


def _check(answer: Answer | str, asked: str) -> None:
    """Raise what an answer means, or why there is none."""
    if isinstance(answer, str):
        raise NotDelivered(f"{asked}: {answer}")
    if 200 <= answer.status < 300:
        return
    text = f"{asked}: the answer is {answer.status}"
    if answer.status in _LATER or answer.status >= 500:
        delay = retry_after(answer.headers)
        if delay is not None:
            raise RetryAfter(delay, text)
        raise NotDelivered(text)
    raise Refused(text)


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Return how long a receiver asks to wait, an hour at most; ``None`` where it does not say.

    A moment is compared with the receiver's own clock, as its answer tells it.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=min(int(text[:9]), 86_400)), LONGEST_WAIT)
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_WAIT)
