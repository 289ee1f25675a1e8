"""Dials until a connection is made, or until it is clear that none can be."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nats.aio.client import Client, RawCredentials
from nats.errors import Error

from sched_core._support.logger import Logger
from sched_core.errors import BackendUnavailable, InvalidDefinition
from sched_jetstream._store.addresses import Address
from sched_jetstream._store.refusals import (
    INSTALL,
    NO_ANSWER,
    Refusal,
    Unusable,
    lacks_tls,
    refusal,
)
from sched_jetstream.errors import NatsRefused

logger = Logger("sched_jetstream")

HANG_UP = 2.0
"""Seconds for a connection to be closed, in whatever state it is."""
_KEYS = ("user_credentials", "nkeys_seed", "nkeys_seed_str")

OnError = Callable[[Exception], None]


class _Client(Client):
    """nats-py's client, where that forgets, hangs or says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.wants_tls = False
        self.tried: set[str] = set()
        """The places of the servers that were tried."""

    async def _connect_to_server(self, server: Any) -> None:
        """Close what an attempt that failed has left open, before the next one: nats-py forgets."""
        self.tried.add(server.uri.netloc)
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]  # nats-py's
        await super()._connect_to_server(server)

    async def _process_connect_init(self) -> None:
        """Say why the server has hung up: nats-py does not read what it said before."""
        try:
            await super()._process_connect_init()
        except ConnectionError as error:
            reader = getattr(self._transport, "_io_reader", None)
            _, mark, said = bytes(getattr(reader, "_buffer", b"")).partition(b"-ERR ")
            if mark:
                raise Error(f"nats: {said.partition(bytes([13]))[0].decode()}") from error
            raise

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Send no credentials in the clear where TLS was asked for: nats-py does not look."""
        if initial_connection and lacks_tls(self.wants_tls, info):
            raise Unusable("TLS was asked for, and the server offers none: configure it there")
        await super()._process_info(info, initial_connection)

    def _connect_command(self) -> bytes:
        """Read credentials again; what cannot be read is tried again, and does not end the task."""
        try:
            return super()._connect_command()
        except OSError as error:
            raise Unusable(f"the credentials cannot be read: {error}") from error
        except Unusable:
            raise
        except Exception as error:  # noqa: BLE001 -- of nkeys, and of callables that were given
            # Without a cause: who signs may put the secret into what it raises.
            raise Unusable(f"the credentials cannot be used: {_name(error)}") from None

    def _read_creds_user_jwt(self, creds: Any) -> Any:
        """Refuse a file without a token: nats-py looks for one past its end, and never returns."""
        _must_hold(creds, b"BEGIN NATS USER JWT")
        return super()._read_creds_user_jwt(creds)

    def _read_creds_user_nkey(self, creds: Any) -> bytearray:
        _must_hold(creds, b"BEGIN USER NKEY SEED")
        return super()._read_creds_user_nkey(creds)


def _name(error: BaseException) -> str:
    """Return what an error is; its text may hold a secret."""
    return type(error).__name__


def _must_hold(creds: Any, mark: bytes) -> None:
    if isinstance(creds, RawCredentials):
        name, content = "the credentials", creds.data.encode()
    else:
        name, content = f"the credentials file {os.fspath(creds)}", Path(creds).read_bytes()
    if mark not in content:
        raise Unusable(f"{name} has no {mark.decode()}: it is cut off, or none of NATS")


def _must_be_whole(creds: Any) -> None:
    """Refuse a file with credentials before any server is asked.

    Raises:
        NatsRefused: It cannot be read, or is cut off.
    """
    if not isinstance(creds, str | Path | RawCredentials):
        return
    try:
        for mark in (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED"):
            _must_hold(creds, mark)
    except Unusable as error:
        raise NatsRefused(str(error)) from error
    except OSError as error:
        raise NatsRefused(f"the credentials cannot be read: {error}") from error


def must_be_known(options: Mapping[str, Any]) -> None:
    """Refuse options that ``nats.connect`` does not take.

    Raises:
        InvalidDefinition: One is unknown, or is none to be given here.
    """
    known = inspect.signature(Client.connect).parameters.keys() - {"self"}
    for name in options:
        if name == "servers":
            raise InvalidDefinition("nats", "takes no servers: they are the first argument")
        if name not in known:
            raise InvalidDefinition("nats", f"nats.connect takes no {name!r}")


async def dial(
    servers: Sequence[Address],
    options: Mapping[str, Any],
    *,
    seconds: float,
    on_error: OnError,
) -> Client:
    """Return a connection to one of the servers.

    Args:
        servers: The servers to try.
        options: Options for ``nats.connect``; their ``error_cb`` is called after ``on_error``.
        seconds: How long the servers are tried.
        on_error: Called with what nats-py reports, for as long as the connection lives.

    Raises:
        NatsRefused: A server refused, and waiting does not help.
        BackendUnavailable: No server could be reached in time.
    """
    if any(options.get(key) is not None for key in _KEYS) and not find_spec("nkeys"):
        raise NatsRefused(f"credentials need the package nkeys to sign with: {INSTALL}")
    where = ", ".join(server.place for server in servers)
    if any(server.scheme in {"ws", "wss"} for server in servers) and not find_spec("aiohttp"):
        raise NatsRefused(
            f"no connection to NATS at {where}: ws:// and wss:// need the package aiohttp: "
            "pip install aiohttp"
        )
    _must_be_whole(options.get("user_credentials"))
    places = len({server.place for server in servers})
    attempts: list[Refusal] = []
    refused: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
    given = options.get("error_cb")

    async def failed(error: Exception) -> None:
        if not connecting.done():
            attempts.append(refusal(error))
            final = next((each for each in attempts if each.final), None)
            # Only once all servers were tried: others may take what one refuses.
            if final is not None and len(nc.tried) >= places and not refused.done():
                refused.set_result(final)
        on_error(error)
        if given is not None:
            await given(error)

    nc = _Client()
    nc.wants_tls = not options.get("tls_handshake_first") and (
        options.get("tls") is not None or any(server.scheme == "tls" for server in servers)
    )
    urls, login = _login(servers, options)
    settings = {**options, **login, "servers": urls, "error_cb": failed}
    connecting = asyncio.ensure_future(nc.connect(**settings))
    is_connected = False
    try:
        both: set[asyncio.Future[Any]] = {connecting, refused}
        await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            connecting.result()
            is_connected = True
            return nc
    except Exception as error:  # noqa: BLE001 -- nats-py lets through whatever it is given
        # Of nkeys, of callables that were given; without a cause, which may hold a secret.
        told = isinstance(error, Error | OSError)
        why = refusal(error).text if told else f"the credentials cannot be used: {_name(error)}"
        raise NatsRefused(f"no connection to NATS at {where}: {why}") from None
    finally:
        if not is_connected:
            connecting.cancel()
            await asyncio.wait({connecting})
            await hang_up(nc, HANG_UP)
    if refused.done():
        raise NatsRefused(f"no connection to NATS at {where}: {refused.result().text}")
    told_most = [each for each in attempts if each.told] or attempts or [NO_ANSWER]
    why = told_most[-1].text
    raise BackendUnavailable(f"no connection to NATS at {where} within {seconds:g} s: {why}")


def _login(
    servers: Sequence[Address], options: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """Return addresses for nats-py, and the options that log in.

    Credentials of an address are options wherever they can be: nats-py does not decode them, and
    does not use them for the servers that it is told of later.
    """
    logins = {(server.user, server.password) for server in servers}
    if any(options.get(key) is not None for key in (*_KEYS, "user", "password", "token")):
        return [server.url for server in servers], {}
    if len(logins) > 1:
        return [server.text for server in servers], {}
    user, password = logins.pop()
    urls = [server.url for server in servers]
    if user is None:
        return urls, {}
    return urls, {"token": user} if password is None else {"user": user, "password": password}


async def hang_up(nc: Client, seconds: float) -> None:
    """Close a connection, in whatever state it is."""
    try:
        await asyncio.wait_for(nc.close(), seconds)
    except Exception as error:  # noqa: BLE001 -- nats-py asserts where it never connected
        logger.debug("closing the connection: %s", error)
