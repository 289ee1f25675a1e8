"""Jobs in NATS JetStream, for any number of replicas, on the server's own timers."""

from sched_jetstream.backend import JetStreamBackend
from sched_jetstream.errors import (
    NatsRefused,
    NatsServerTooOld,
    PermissionDenied,
    StreamLost,
    StreamUnsuitable,
)
from sched_jetstream.options import Options

__all__ = [
    "JetStreamBackend",
    "NatsRefused",
    "NatsServerTooOld",
    "Options",
    "PermissionDenied",
    "StreamLost",
    "StreamUnsuitable",
]
