"""The address of a database: what it names, or why it is none. Pure: it looks at no disk.

A text that is no address must not become a file of that name: a scheduler on an empty file runs
nothing, and a password would be the file's name. So a path is what can be nothing else.
"""

from __future__ import annotations

import os
import re
import unicodedata

from attrs import field, frozen

from sched_core.errors import InvalidDefinition

FORMS = (
    "write 'sqlite:///relative.db', 'sqlite:////absolute.db', a path, or "
    "'postgresql://user@host:5432/database'"
)

_POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_SQLITE = "sqlite:///"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OTHER_MODES = {"nats": "jetstream", "tls": "jetstream", "ws": "jetstream", "wss": "jetstream"}
_PAIRS = re.compile(
    r"(?i)(?:^|[\s;])(?:host|hostaddr|port|dbname|database|user|user id|uid|passw?or[dt]|pwd|"
    r"passfile|service|server|data source|sslmode|sslcert|sslkey|sslrootcert|sslpassword|options|"
    r"application_name|connect_timeout|target_session_attrs|channel_binding|requiressl|url|dsn)"
    r"\s*="
)
"""A key of libpq's, or of another driver's, with its value."""
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_INVISIBLE = {"Cc", "Cf", "Zl", "Zp"}


@frozen
class Sqlite:
    """A file.

    Attributes:
        path: The path as the caller wrote it, not made absolute.
    """

    path: str


@frozen
class Postgres:
    """A server.

    Attributes:
        uri: The address for libpq, which has not judged it yet.
    """

    uri: str = field(repr=False)


def address_of(where: str | os.PathLike[str]) -> Sqlite | Postgres:
    """Return what an address names.

    Args:
        where: The address that the caller gave to :func:`~sched_sql.SqlBackend`.

    Raises:
        InvalidDefinition: It is no address of a database that is known here. The message holds
            no part of it but a scheme: any other may be a password.
    """
    text = os.fspath(where)
    if not isinstance(text, str):
        raise _refused("must be text or a path")
    if not text.strip():
        raise _refused("is empty")
    if text != text.strip():
        raise _refused("has space around it")
    if any(unicodedata.category(sign) in _INVISIBLE for sign in text):
        raise _refused("has characters in it that cannot be seen")
    if text.startswith(_POSTGRES):
        return _postgres(text)
    if text.startswith(_SQLITE):
        return _sqlite(text.removeprefix(_SQLITE))
    if (scheme := _SCHEME.match(text)) is not None:
        raise _unknown(scheme[1])
    return Sqlite(_path(text))


def _postgres(text: str) -> Postgres:
    rest = text.partition("://")[2]
    # As libpq reads it: what comes before the first "@" are user and password, unless a "/" comes
    # first. Any other "@" is part of a password, and the rest of that would be taken for the host.
    credentials, at, rest = rest.partition("@")
    if at and ("/" in credentials or "@" in rest):
        raise _refused(
            "is no address that libpq understands: percent-encode what is special in user, "
            "password and options (%40 for '@', %2F for '/')"
        )
    return Postgres("postgresql://" + text.partition("://")[2])


def _sqlite(path: str) -> Sqlite:
    if "?" in path or "#" in path:
        raise _refused("has options after the path, and there are none")
    if _ENCODED.search(path):
        raise _refused("has a percent-encoded path: write it as it is")
    return Sqlite(_checked(path))


def _path(text: str) -> str:
    first = text.partition("/")[0]
    if text[0] in "'\"":
        raise _refused("has quotes around it")
    if text == ":memory:":
        raise _memory()
    if ":" in first or text.startswith("//") or "://" in text:
        raise _refused("looks like an address, and is of no form that is known here")
    if "?" in text or _PAIRS.search(text):
        raise _refused("has keys and values in it, as other programs take them")
    return _checked(text)


def _checked(path: str) -> str:
    if not path or path.startswith((":memory:", "file:")):
        raise _memory()
    if path == "~" or path.startswith("~/"):
        raise _refused("begins with '~', which only a shell replaces: write the whole path")
    if "$" in path or "{{" in path:
        raise _refused("has a variable in it that nothing has replaced")
    if path.endswith("/"):
        raise _refused("names a directory: name a file in it")
    return path


def _unknown(scheme: str) -> InvalidDefinition:
    mode = _OTHER_MODES.get(scheme.lower())
    if mode is not None:
        return _refused(f"is an address for mode {mode!r}, not of a database")
    if f"{scheme.lower()}://".startswith(("sqlite://", *_POSTGRES)):
        return _refused(f"begins with '{scheme}://', which is not written like that")
    return _refused(f"begins with '{scheme}://', which is no database that is known here")


def _memory() -> InvalidDefinition:
    return _refused("names no file; for jobs in memory use MemoryBackend, or mode 'memory'")


def _refused(problem: str) -> InvalidDefinition:
    return InvalidDefinition("where", f"{problem}; {FORMS}")
