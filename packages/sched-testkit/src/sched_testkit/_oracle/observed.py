"""What handlers and executions have shown of each occurrence."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import Factory, define, evolve

from sched_core import Execution, Kind, Status
from sched_testkit._oracle.violation import Violation, at

Key = tuple[str, int]
"""Names an occurrence: the incarnation and the number."""


@define
class Observed:
    """What is known of each occurrence, by its key.

    Attributes:
        finals: The final execution, and its place in the order of everything that happened.
        names: The kind and the moment under which it was seen first; they never change.
        starts: The place of the handler's first call in that order.
        attempts: The number of attempts in the history.
        args: The arguments that the handler got.
        contents: How many further moments it covers, and until when.
        lost: The moment at which its last attempt was lost, unless a later one ended otherwise.
        fatal: Occurrences whose lost claim was the last that may be lost.
        asked: The moment for which a handler has asked to be called again.
        hurried: Occurrences that were to be attempted at once since their last call has ended.
    """

    finals: dict[Key, tuple[int, Execution]] = Factory(dict)
    names: dict[Key, tuple[Kind, datetime]] = Factory(dict)
    starts: dict[Key, int] = Factory(dict)
    attempts: dict[Key, int] = Factory(dict)
    args: dict[Key, Any] = Factory(dict)
    contents: dict[Key, tuple[int, datetime | None]] = Factory(dict)
    lost: dict[Key, datetime] = Factory(dict)
    fatal: set[Key] = Factory(set)
    asked: dict[Key, datetime] = Factory(dict)
    hurried: set[Key] = Factory(set)

    def copy(self) -> Observed:
        """Return an independent copy."""
        return evolve(
            self,
            finals=dict(self.finals),
            names=dict(self.names),
            starts=dict(self.starts),
            attempts=dict(self.attempts),
            args=dict(self.args),
            contents=dict(self.contents),
            lost=dict(self.lost),
            fatal=set(self.fatal),
            asked=dict(self.asked),
            hurried=set(self.hurried),
        )

    def name(self, key: Key, kind: Kind, moment: datetime) -> None:
        """Expect that an occurrence has the kind and the moment that it always had."""
        if self.names.setdefault(key, (kind, moment)) != (kind, moment):
            raise Violation(f"{key} named {self.names[key]} before, and now {(kind, at(moment))}")

    def finals_of(self, uid: str) -> list[Execution]:
        """Return the final executions of an incarnation, oldest first."""
        return [found for (of, _), (_, found) in self.finals.items() if of == uid]

    def forget_losses(self, uid: str) -> None:
        """Forget which claims were lost: an edit says how many may be lost from now on."""
        self.fatal = {key for key in self.fatal if key[0] != uid}
        self.lost = {key: moment for key, moment in self.lost.items() if key[0] != uid}

    def hurry(self, key: Key) -> None:
        """Forget what an occurrence waits for: it is to be attempted at once."""
        self.hurried.add(key)
        self.lost.pop(key, None)
        self.asked.pop(key, None)

    def is_cancelled_ahead(self, found: Execution) -> bool:
        """Whether an occurrence of the schedule was cancelled before its moment had come."""
        key = (found.uid, found.number)
        was_there = found.attempt or key in self.starts or key in self.attempts
        is_cancelled = found.kind is Kind.SCHEDULED and found.status is Status.CANCELLED
        return is_cancelled and not was_there and found.scheduled_at > found.finished_at
