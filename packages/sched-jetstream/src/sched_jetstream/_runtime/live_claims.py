"""The claims that this worker has in flight, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from sched_core import Claim, Hold, Room
from sched_core.row import Filling, is_held_by
from sched_jetstream._model.protocol import StoredRecord
from sched_jetstream._model.record import Record


@define(eq=False)
class LiveClaim:
    """A claim that this worker made and that has not ended.

    Attributes:
        claim: The claim, as the caller got it.
        found: The record, as this worker wrote it last.
        reply: The subject on which the hint is acknowledged when the claim ends.
    """

    claim: Claim
    found: StoredRecord
    reply: str


class LiveClaims:
    """The claims of one worker, from the moment they are written until they end.

    Args:
        worker: The name of the worker.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.decided_late: list[Claim] = []
        """Claims that the server confirmed after the call that made them had returned."""
        self._held: dict[str, LiveClaim] = {}
        self._unconfirmed: set[int] = set()
        """Fencing tokens of claims without an answer: stored, perhaps, and no caller has them."""

    # -- claims that are held

    def find(self, token: str, claim: Claim) -> LiveClaim | None:
        """Return what is known of a claim; ``None`` if this worker did not make it, or ended it.

        Args:
            token: The token of the record's subject.
            claim: The claim, in its first form or renewed.
        """
        live = self._held.get(token)
        if live is None:
            return None
        same = live.claim.token == claim.token and live.claim.worker == claim.worker
        return live if same else None

    def confirm(self, claim: Claim, found: StoredRecord, reply: str) -> None:
        """Keep a claim that the server has stored."""
        self._held[found.token] = LiveClaim(claim, found, reply)
        # An earlier try with the same token, on the same revision, was not stored then.
        self._unconfirmed.discard(claim.token)

    def drop(self, live: LiveClaim) -> None:
        """Forget a claim that has ended; a newer claim of the same job stays."""
        held = self._held.get(live.found.token)
        if held is not None and held.claim.token == live.claim.token:
            del self._held[live.found.token]

    def adopt(self, found: StoredRecord, reply: str) -> bool:
        """Take over the hint of a job that this worker holds; return whether it holds the job."""
        live, record = self._held.get(found.token), found.content
        if live is None or not isinstance(record, Record):
            return False
        if not is_held_by(record.hold, live.claim):
            return False
        live.reply = reply
        return True

    # -- claims without an answer

    def doubt(self, token: str, claim: Claim) -> None:
        """Note that the server gave no answer to a claim: it may be stored, now or later.

        A second try of the same claim may have been confirmed before the first one is given up.
        """
        if self.find(token, claim) is None:
            self._unconfirmed.add(claim.token)

    def is_unconfirmed(self, token: str, hold: Hold | None) -> bool:
        """Whether this worker wrote a record's hold, and no caller got the claim."""
        if hold is None or hold.worker != self.worker or hold.token not in self._unconfirmed:
            return False
        live = self._held.get(token)
        return live is None or live.claim.token != hold.token

    def resolve(self, hold: Hold) -> None:
        """Note that an unconfirmed claim was found and ended."""
        self._unconfirmed.discard(hold.token)

    @property
    def unconfirmed(self) -> int:
        """How many claims have no answer yet."""
        return len(self._unconfirmed)

    # -- claims that came late

    def take_late(self, filling: Filling) -> list[Claim]:
        """Remove and return claims that were decided late, as far as they fit into a room."""
        taken: list[Claim] = []
        left: list[Claim] = []
        for claim in self.decided_late:
            fits = filling.fits(claim.job.id, claim.job.spec.queue)
            (taken if fits else left).append(claim)
            if fits:
                filling.add(claim.job.spec.queue)
        self.decided_late = left
        return taken

    def has_late(self, room: Room) -> bool:
        """Whether there is a claim that was decided late and fits into a room."""
        fits = Filling(room).fits
        return any(fits(claim.job.id, claim.job.spec.queue) for claim in self.decided_late)

    def withdraw_late(self, claim: Claim) -> Sequence[Claim]:
        """Remove and return a claim that was decided late, unless a caller has taken it."""
        wanted = claim.job.id, claim.token
        left = [each for each in self.decided_late if (each.job.id, each.token) == wanted]
        if left:
            self.decided_late = [each for each in self.decided_late if each not in left]
        return left
