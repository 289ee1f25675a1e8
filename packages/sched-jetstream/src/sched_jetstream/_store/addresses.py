"""Addresses of servers: what can be one, and what messages show of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from attrs import field, frozen

from sched_core.errors import InvalidDefinition

SCHEMES = ("nats", "tls", "ws", "wss")
_LOOKS = "an address is nats://HOST:PORT, and several are a list, or one text with commas"

_HOST = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s:/?#@\[\]]+)(?::(?P<port>[^/?#]*))?(?P<path>/\S*)?"
)


@frozen
class Address:
    """One server.

    Attributes:
        scheme: One of :data:`SCHEMES`.
        place: Host and port; with a path where the scheme is a websocket's.
        user: The text before the ``@``, up to the first colon, decoded; the token where no
            colon follows.
        password: The text after the colon, decoded.
        text: The address as it was written.
    """

    scheme: str
    place: str
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    text: str = field(repr=False)

    @property
    def url(self) -> str:
        """The address without credentials."""
        return f"{self.scheme}://{self.place}"


def addresses(servers: str | Sequence[str]) -> list[Address]:
    """Return the addresses of servers.

    Args:
        servers: One text, in which commas separate several; or a sequence of such texts.

    Raises:
        InvalidDefinition: There is none, or one that cannot be. It shows no credentials.
    """
    listed: Any = [servers] if isinstance(servers, str) else servers
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        raise InvalidDefinition("servers", f"must be text, or a list of texts: {_LOOKS}")
    if not listed:
        raise InvalidDefinition("servers", f"is empty, and one is needed: {_LOOKS}")
    found = [_address(each.strip()) for text in listed for each in text.split(",")]
    if len({address.scheme.startswith("ws") for address in found}) > 1:
        raise InvalidDefinition(
            "servers", "ws:// and wss:// cannot be mixed with nats:// and tls://"
        )
    return found


def _address(text: str) -> Address:
    if not text:
        raise InvalidDefinition("servers", f"an address is empty: {_LOOKS}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "nats", text
    login, at, place = rest.rpartition("@")
    # Credentials may be written wrongly, too: whatever is shown comes after the last @.
    shown = repr(place)
    if scheme.lower() not in SCHEMES:
        raise InvalidDefinition(
            "servers",
            f"the address {shown} begins with none of "
            f"{', '.join(f'{each}://' for each in SCHEMES)}: {_LOOKS}",
        )
    match = _HOST.fullmatch(place)
    if match is None:
        raise InvalidDefinition("servers", f"{shown} names no host: {_LOOKS}")
    port = match["port"]
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidDefinition(
            "servers", f"the port of {shown} is no number between 1 and 65535: {_LOOKS}"
        )
    websocket = scheme.lower().startswith("ws")
    if match["path"] not in {None, "/"} and not websocket:
        raise InvalidDefinition("servers", f"{shown} has a path, and NATS knows none: {_LOOKS}")
    user, colon, password = login.partition(":")
    return Address(
        scheme.lower(),
        place if websocket else place.rstrip("/"),
        unquote(user) if at else None,
        unquote(password) if colon else None,
        text,
    )
