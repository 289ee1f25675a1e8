"""Provisioning: two streams and a consumer are made once, and checked at each start.

Creating is idempotent on the server, so replicas that start together need no lock. The
configuration that the server *echoes* decides: an old server accepts every field, and ignores
some.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from sched_core._support.logger import Logger
from sched_core.clock import monotonic_seconds, pause
from sched_core.errors import BackendError, BackendUnavailable, SchemaTooNew, StoreNotFound
from sched_jetstream._model.layout import LAYOUT
from sched_jetstream._model.subjects import Names
from sched_jetstream._store.permissions import probes
from sched_jetstream._store.reader import NO_STREAM
from sched_jetstream._store.wire import ApiError, NoLeader, NoResponders, Wire
from sched_jetstream.errors import (
    NatsRefused,
    NatsServerTooOld,
    PermissionDenied,
    StreamUnsuitable,
)
from sched_jetstream.options import Options

logger = Logger("sched_jetstream")

T = TypeVar("T")

MARK = "sched-jetstream"

OLDEST = (2, 12, 12)
KNOWN_BAD: tuple[tuple[tuple[int, int, int], tuple[int, int, int], str], ...] = (
    ((2, 14, 0), (2, 14, 3), "may discard a schedule that an atomic batch rewrites"),
)
"""First version, fixed version, and what is wrong: worked around here, and named in a warning."""

UNSERVED = timedelta(days=1)
"""The server deletes the consumer of a queue that no worker has asked for so long. The next worker
makes it again, and gets all hints that are there."""

NAME_IN_USE = 10058
OVERLAP = 10065
NO_CONSUMER = 10014
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def check_version(text: str) -> str | None:
    """Return a warning about a server, ``None`` if there is nothing to say.

    Raises:
        NatsServerTooOld: It is too old.
    """
    match = _VERSION.match(text.removeprefix("v"))
    if match is None:
        return f"the version {text!r} of the NATS server is not known here"
    version = (int(match[1]), int(match[2]), int(match[3]))
    if version < (2, 12, 0):
        raise NatsServerTooOld(text, "knows no scheduled messages and no atomic batches")
    if version < OLDEST:
        raise NatsServerTooOld(
            text, "corrupts schedules when it recovers, and discards some in atomic batches"
        )
    for first, fixed, problem in KNOWN_BAD:
        if first <= version < fixed:
            return f"nats-server {text} {problem}: run {'.'.join(map(str, fixed))} or later"
    if version < (2, 14, 3):
        return f"nats-server {text} is older than 2.14.3, the oldest that is tested"
    return None


async def provision(wire: Wire, options: Options, *, create: bool = True) -> bool:
    """Make what is missing, and check that what exists is suitable.

    Args:
        wire: The connection to the server.
        options: The options of the backend.
        create: Whether streams may be made or upgraded.

    Returns:
        Whether the streams had an older layout until now. Workers of that layout may still run; no
        further one can open.

    Raises:
        StoreNotFound: There are no streams, and none may be made.
        BackendError: The streams have an older layout, and may not be upgraded.
        NatsServerTooOld, NatsRefused, StreamUnsuitable, SchemaTooNew: See these errors.
        BackendUnavailable: JetStream was not ready in time.
    """
    names = options.names
    warning = check_version(wire.version)
    if warning is not None:
        logger.warning("%s", warning)
    _check_server(wire)
    until = monotonic_seconds() + options.startup_timeout.total_seconds()
    if not create:
        await _patiently(wire, lambda: _require(wire, names), until)
        return False
    was_older = False
    for make in (_permissions, _jobs, _executions, _consumer):
        older = await _patiently(wire, lambda make=make: make(wire, names, options), until)  # type: ignore[misc]
        was_older = was_older or older
    return was_older


SMALLEST_PAYLOAD = 16 * 1024
"""Bytes that a server must take: the record of a job, its headers, and what the server adds."""
PASSING = {10005, 10008, 10009, 10023, 10074}
"""What JetStream says while its nodes find each other: too few peers, no leader, no quorum yet."""
DISABLED = {10039, 10076}
"""It is not enabled for the account, or not at all."""
LISTENS_AFTER = 2.0
"""Seconds after which a server without JetStream is no leaf whose hub has it."""
TOLD_AFTER = 3.0
"""Seconds after which a warning says that opening still waits, and for what."""


def _check_server(wire: Wire) -> None:
    """Refuse a server whose limits are too small: waiting does not help.

    Raises:
        NatsRefused: Its limits are too small.
    """
    if wire.client.max_payload < SMALLEST_PAYLOAD:
        raise NatsRefused(
            f"the NATS server takes messages of {wire.client.max_payload} bytes only, and "
            f"{SMALLEST_PAYLOAD} are needed: raise its max_payload"
        )


async def _permissions(wire: Wire, names: Names, _: Options) -> bool:
    await wire.allowed(probes(names))
    return False


async def _patiently(wire: Wire, step: Callable[[], Awaitable[T]], until: float) -> T:
    """Try again while the cluster elects a leader."""
    began = monotonic_seconds()
    told_at = began + TOLD_AFTER
    while True:
        try:
            return await step()
        except PermissionDenied as error:
            raise NatsRefused(str(error)) from error
        except ApiError as error:
            if error.err_code in DISABLED:
                raise _disabled(error) from error
            if error.code != 503 and error.err_code not in PASSING:
                raise
            problem: BackendError = error
        except NoLeader as error:
            if error.err_code in DISABLED:
                raise _disabled(error) from error
            problem = error
        except BackendUnavailable as error:
            problem = error
        now = monotonic_seconds()
        is_alone = isinstance(problem, NoResponders) and not wire.may_have_jetstream
        if is_alone and now > began + LISTENS_AFTER:
            raise NatsRefused(
                "the NATS server has no JetStream: start it with -js, or with a jetstream block in "
                "its configuration"
            ) from problem
        if now > until:
            raise BackendUnavailable(
                f"JetStream is not ready: {problem}; is it enabled (-js) for this account, and has "
                "the cluster a majority of its nodes?"
            ) from problem
        if now > told_at:
            told_at = until
            logger.warning("waiting until JetStream is ready: %s", problem)
        await pause(0.1)


def _disabled(error: BackendError) -> NatsRefused:
    return NatsRefused(
        f"this account has no JetStream ({error}): enable it for the account, or on the server"
    )


async def _require(wire: Wire, names: Names) -> None:
    for name in (names.stream, names.history_stream):
        try:
            info = await wire.call(f"STREAM.INFO.{name}")
        except ApiError as error:
            if error.err_code != NO_STREAM:
                raise
            raise StoreNotFound(
                f"there is no stream {name} on the NATS server: no service has used these buckets"
            ) from None
        layout = _check(wire, name, info["config"], {}, made=False)
        if layout < LAYOUT:
            raise BackendError(
                f"the stream {name} has layout {layout}, which is older than {LAYOUT}, and a "
                "backend that only reads (create=False) does not upgrade it: start the upgraded "
                "service first"
            )


async def _jobs(wire: Wire, names: Names, options: Options) -> bool:
    wanted = {
        "name": names.stream,
        "subjects": [names.record(">"), f"{names.prefix}.>"],
        "retention": "limits",
        "discard": "old",
        "storage": options.storage,
        "num_replicas": options.replicas,
        "max_msgs_per_subject": 1,
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "allow_direct": True,
        "metadata": {MARK: str(LAYOUT)},
    }
    found, made = await _stream(wire, wanted)
    needs = {
        "allow_msg_schedules": True,
        "allow_atomic": True,
        "allow_msg_ttl": True,
        "allow_direct": True,
        "max_msgs_per_subject": 1,
        "retention": "limits",
        "discard": "old",
    }
    layout = _check(wire, names.stream, found, needs, made=made)
    for name in ("max_msgs", "max_bytes", "max_age"):
        if int(found.get(name) or -1) > 0:
            logger.warning(
                "the stream %s has %s = %s: when it is reached the server deletes jobs",
                names.stream,
                name,
                found[name],
            )
    return await _brought_up(wire, found, layout)


async def _executions(wire: Wire, names: Names, options: Options) -> bool:
    wanted = {
        "name": names.history_stream,
        "retention": "limits",
        "discard": "old",
        "storage": options.storage,
        "num_replicas": options.replicas,
        "max_msgs_per_subject": 1_000_000_000,  # a bucket must have some limit
        "allow_direct": True,
        "sources": [
            {
                "name": names.stream,
                "subject_transforms": [
                    {
                        "src": names.run("*", "*", "*"),
                        "dest": names.history("{{wildcard(1)}}", "{{wildcard(2)}}"),
                    }
                ],
            }
        ],
        "metadata": {MARK: str(LAYOUT)},
    }
    found, made = await _stream(wire, wanted)
    needs = {"allow_direct": True, "retention": "limits"}
    layout = _check(wire, names.history_stream, found, needs, made=made)
    sources = [source.get("name") for source in found.get("sources") or []]
    if sources != [names.stream]:
        raise StreamUnsuitable(names.history_stream, f"it copies {sources}, not {names.stream}")
    return await _brought_up(wire, found, layout)


async def _brought_up(wire: Wire, config: dict[str, Any], layout: int) -> bool:
    """Give a stream the mark of this layout, if it has an older one; return whether it had."""
    if layout == LAYOUT:
        return False
    metadata = {**config["metadata"], MARK: str(LAYOUT)}
    await wire.call(f"STREAM.UPDATE.{config['name']}", {**config, "metadata": metadata})
    return True


async def _stream(wire: Wire, wanted: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a stream's configuration as the server has it, and whether it was made just now."""
    name = wanted["name"]
    made = False
    try:
        info = await wire.call(f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.err_code != NO_STREAM:
            raise
        try:
            info = await wire.call(f"STREAM.CREATE.{name}", wanted)
            made = True
        except ApiError as refused:
            if refused.err_code == NAME_IN_USE:  # another program was faster, and wants another one
                info = await wire.call(f"STREAM.INFO.{name}")
            elif refused.err_code == OVERLAP:
                raise StreamUnsuitable(
                    name, f"its subjects are taken ({refused.description})"
                ) from refused
            elif refused.err_code == 10025:
                raise NatsServerTooOld(wire.version, f"says: {refused.description}") from refused
            else:
                raise
    config: dict[str, Any] = info["config"]
    return config, made


def _check(
    wire: Wire, name: str, found: dict[str, Any], needs: dict[str, Any], *, made: bool
) -> int:
    """Return the layout of a stream, if the stream is suitable."""
    layout = (found.get("metadata") or {}).get(MARK)
    missing = [
        f"{key} is {found.get(key)!r} and must be {value!r}"
        for key, value in needs.items()
        if found.get(key) != value
    ]
    if made and missing:
        # The server that we talk to may be newer than the one that keeps the stream.
        raise NatsServerTooOld(
            wire.version,
            f"made the stream {name} differently than asked: {', '.join(missing)}",
        )
    if layout is None:
        raise StreamUnsuitable(
            name, "another program made it" + (f" ({', '.join(missing)})" if missing else "")
        )
    if not str(layout).isdigit() or int(layout) > LAYOUT:
        raise SchemaTooNew(
            f"the stream {name} has layout {layout}, and this version knows {LAYOUT}: run a newer "
            "sched-jetstream"
        )
    if missing:
        raise StreamUnsuitable(name, ", ".join(missing))
    return int(layout)


async def _consumer(wire: Wire, names: Names, options: Options) -> bool:
    await make_consumer(wire, names, options)
    return False


async def make_consumer(
    wire: Wire, names: Names, options: Options, queue: str | None = None
) -> None:
    """Make a consumer that replicas share, or update its configuration.

    Args:
        wire: The connection to the server.
        names: The names of the deployment.
        options: The options of the backend.
        queue: The queue whose hints it has; ``None`` for all hints.
    """
    name, subjects = names.consumer(queue), names.fires_of(queue)
    config: dict[str, Any] = {
        "durable_name": name,
        "name": name,
        "ack_policy": "explicit",
        "ack_wait": int(options.wait_for_ack.total_seconds() * 1e9),
        "deliver_policy": "all",
        "max_ack_pending": options.max_ack_pending,
        "max_deliver": -1,
        "max_waiting": 10_000,
        "num_replicas": options.replicas,
    }
    call = f"CONSUMER.CREATE.{names.stream}.{name}"
    if len(subjects) == 1:
        config["filter_subject"] = subjects[0]
        call += f".{subjects[0]}"
    else:
        config["filter_subjects"] = subjects
    if queue is not None:
        config["inactive_threshold"] = int(UNSERVED.total_seconds() * 1e9)
    await wire.call(call, {"stream_name": names.stream, "config": config})
