"""Texts that every store keeps: bounded, and free of what some cannot store."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """Return the text with NULs and lone surrogates replaced."""
    return _UNSTORABLE.sub("\ufffd", text)


def cut(text: str, most: int) -> str:
    """Cut a storable text to so many bytes of UTF-8: the middle goes, and a mark says how much.

    Args:
        text: The text.
        most: The most bytes; at least 200.
    """
    if len(text) * 4 <= most:
        return text
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    room = most - len(_mark(len(encoded)).encode())
    head, tail = encoded[: room // 2], encoded[-(room - room // 2) :]
    mark = _mark(len(encoded) - len(head) - len(tail))
    return head.decode(errors="ignore") + mark + tail.decode(errors="ignore")


def _mark(left_out: int) -> str:
    return f"\n[… {left_out} bytes are left out …]\n"
