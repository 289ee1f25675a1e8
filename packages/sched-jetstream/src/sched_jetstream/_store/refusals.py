"""Refusals: why there is no connection, in words that say what to do. Pure."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen
from nats.errors import Error

INSTALL = "pip install 'sched-jetstream[nkeys]'"
"""What brings the package that signs with keys."""


class Unusable(Error):
    """What was given to log in with, or the server at the other end, cannot be used.

    It is one of nats-py's errors, so that nats-py tries the next server, and tries again.
    """


@frozen
class Refusal:
    """Why an attempt to connect failed.

    Attributes:
        text: The message for people, without credentials.
        final: Whether waiting does not help.
        told: Whether it says more than that a connection broke.
    """

    text: str
    final: bool = False
    told: bool = True


NO_ANSWER = Refusal(
    "no answer: what listens there is no NATS server, or expects TLS first (tls_handshake_first)"
)


_CREDENTIALS = "wrong or expired ones; look at user, password, token and credentials"
_SAID: tuple[tuple[str, str, bool], ...] = (
    ("authorization violation", f"it refused the credentials: {_CREDENTIALS}", True),
    ("authentication expired", "the credentials have expired: renew them", True),
    ("authentication revoked", "the credentials were revoked: get new ones", True),
    (
        "authentication timeout",
        "it did not get the credentials in time, or does not check any",
        False,
    ),
    ("tls required", "it wants TLS: use tls:// and nats={'tls': ssl.SSLContext}", True),
    ("maximum connections exceeded", "it takes no more connections: raise max_connections", False),
    ("active connections exceeded", "the account has no connection left: raise its limit", False),
)
"""What a server says, in lower case; in our words; and whether waiting will not mend it."""


_HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def refusal(error: BaseException) -> Refusal:
    """Return why an attempt to connect failed."""
    said = _plain(error)
    if isinstance(error, Unusable):
        return Refusal(said, final=True)
    if isinstance(error, ssl.SSLError) and not isinstance(error, _HUNG_UP):
        told = getattr(error, "verify_message", "") or getattr(error, "reason", "") or said
        return Refusal(
            f"TLS failed ({told}): give the context that fits the server, "
            "nats={'tls': ssl.SSLContext}",
            final=True,
        )
    for words, means, final in _SAID:
        if words in said.lower():
            return Refusal(f"{means} ({said})", final)
    if "when expecting info" in said.lower():
        return NO_ANSWER  # also where a proxy before a server that is down hangs up
    if isinstance(error, socket.gaierror):
        return Refusal(f"the name of the host is not known ({said})")
    if isinstance(error, ConnectionRefusedError):
        return Refusal("nothing listens there (connection refused)")
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    return Refusal(said, told=False)


def _plain(error: BaseException) -> str:
    text = str(error).removeprefix("nats: ").strip().strip("'")
    return text or type(error).__name__


_FORBIDDEN = re.compile(
    r"permissions violation for (?P<what>publish|subscription)(?: to)? \"(?P<subject>[^\"]*)\"",
    re.IGNORECASE,
)


@frozen
class Forbidden:
    """A permission that is missing.

    Attributes:
        what: ``publish`` or ``subscribe``.
        subject: The subject that was refused, in lower case: nats-py hands it on so.
    """

    what: str
    subject: str


def forbidden(error: object) -> Forbidden | None:
    """Return which permission is missing, where that is what the server says."""
    match = _FORBIDDEN.search(str(error))
    if match is None:
        return None
    what = "publish" if match["what"].lower() == "publish" else "subscribe"
    return Forbidden(what, match["subject"].lower())


def family(subject: str) -> str:
    """Return a subject, in lower case, without what differs between acknowledgements."""
    if not subject.startswith("$js.ack."):
        return subject
    tokens = subject.split(".")
    first = next((at for at, token in enumerate(tokens) if token.isdigit()), len(tokens))
    return ".".join([*tokens[:first], ">"])


def spelt(subject: str, known: Iterable[str]) -> str:
    """Return a subject with the capitals that the known ones have, token by token."""
    capitals = {token.lower(): token for each in known for token in each.split(".")}
    return ".".join(capitals.get(token, token) for token in subject.split("."))


def lacks_tls(wanted: bool, info: Mapping[str, Any]) -> bool:
    """Whether TLS is wanted and the server offers none: nats-py would go on in the clear."""
    return wanted and not info.get("tls_required")
