"""Removes passwords from addresses, and from texts that may contain an address.

A password that was not percent-encoded makes an address ambiguous: one could only guess where it
ends. This module never guesses. It hides all that is not plainly harmless.
"""

from __future__ import annotations

import re

HIDDEN = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOSTS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\])(?::\d{1,5})?")
_CREDENTIALS = re.compile(r"(?<=://).*@", re.DOTALL)
_NAMED = re.compile(r"(?i)((?:pass\w*|pwd|token|secret)\s*=)")


def shown_address(address: str) -> str:
    """Return the scheme, host and port of an address, with ``***`` for what may be secret.

    Args:
        address: An address such as ``nats://user:password@host:4222``, or just a host and port.
    """
    scheme, found, rest = address.rpartition("://") if "://" in address else ("", "", address)
    if found and not _SCHEME.fullmatch(scheme):
        return HIDDEN
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    credentials, at, host = place.rpartition("@")
    if rest.count("@") > place.count("@") or "@" in credentials or not _are_hosts(host):
        return f"{scheme}{found}{HIDDEN}"
    return f"{scheme}{found}{HIDDEN}@{host}" if at else f"{scheme}{found}{host}"


def _are_hosts(text: str) -> bool:
    return all(_HOSTS.fullmatch(host) for host in text.split(","))


def without_password(text: str) -> str:
    """Return a text without anything that may be a credential, rather too short than too long.

    This removes all between ``://`` and the last ``@``, and all after ``password=``.
    """
    named, credentials = _NAMED.search(text), _CREDENTIALS.search(text)
    end = len(text) if named is None else named.end(1)
    if credentials is None:
        return text if named is None else text[:end] + HIDDEN
    start = min(credentials.start(), end)
    return text[:start] + HIDDEN + ("@" + text[credentials.end() :] if named is None else "")
