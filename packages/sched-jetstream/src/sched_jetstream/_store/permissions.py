"""What a user must be allowed to do, asked by messages that change nothing. Pure."""

from __future__ import annotations

from sched_jetstream._model.layout import Message
from sched_jetstream._model.subjects import Names

NOWHERE = {"Nats-Expected-Stream": "-"}
"""Has the stream refuse the message, once the server has let it pass."""
PROBE = "permission-probe"


def probes(names: Names) -> list[Message]:
    """Return a message for each kind of subject that is published to without waiting for an answer.

    Whatever is asked of the API is answered, or refused, when it is asked.
    """
    stored = (
        names.record(PROBE),
        names.definition(PROBE),
        names.schedule(PROBE, "0"),
        names.fire(PROBE),
        names.run("ever", PROBE, "0"),
        names.report(PROBE),
        names.lock(PROBE),
    )
    acknowledged = f"$JS.ACK.{names.stream}.{names.consumer()}.0.0.0.0.0"
    return [
        *(Message(subject, b"", NOWHERE) for subject in stored),
        Message(acknowledged, b"+WPI", {}),
        Message(f"{names.signals}.{PROBE}", b"", {}),
    ]


def words(names: Names) -> list[str]:
    """Return the words of our subjects, in their capitals."""
    return [
        names.stream,
        names.history_stream,
        names.consumer(),
        names.record("-"),
        names.history("-", "-"),
        names.prefix,
        names.signals,
    ]
