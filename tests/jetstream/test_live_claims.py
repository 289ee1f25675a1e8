"""What a worker knows of its claims in flight, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from attrs import evolve

from sched_core import Claim, Hold, Interval, Job, JobSpec, Pending, Room, Standing
from sched_core.row import Filling, current, held
from sched_jetstream._model.protocol import StoredRecord
from sched_jetstream._model.record import record_of, with_claim
from sched_jetstream._runtime.live_claims import LiveClaims

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=30)


def claimed(token: int, worker: str = "one") -> tuple[Claim, Hold, StoredRecord]:
    """Return a claim with its hold and its record, written with a fencing token."""
    one = Pending(1, NOW, NOW)
    job = Job(JobSpec("job", Interval(hours=1)), "uid", False, NOW, Standing(1, one, NOW))
    hold = held(job, current(job.standing), token, worker, NOW, LEASE)
    claim = Claim(job, hold.token, worker, NOW, hold.expires_at)
    return claim, hold, StoredRecord("job", token, with_claim(record_of(job), hold))


def test_a_claim_that_was_lost_leaves_the_newer_claim_of_its_job() -> None:
    live = LiveClaims("one")
    older, _, found = claimed(1)
    live.confirm(older, found, "reply 1")
    lost = live.find("job", older)
    assert lost is not None
    newer, _, found = claimed(2)
    live.confirm(newer, found, "reply 2")
    live.drop(lost)
    assert live.find("job", older) is None
    kept = live.find("job", newer)
    assert kept is not None
    assert kept.reply == "reply 2"
    live.drop(kept)
    assert live.find("job", newer) is None


def test_a_renewed_claim_is_the_same_claim() -> None:
    live = LiveClaims("one")
    claim, _, found = claimed(1)
    live.confirm(claim, found, "")
    renewed = evolve(claim, expires_at=claim.expires_at + LEASE)
    assert live.find("job", renewed) is live.find("job", claim) is not None


def test_a_hint_is_adopted_for_a_claim_that_the_record_holds() -> None:
    live = LiveClaims("one")
    claim, _, found = claimed(1)
    assert not live.adopt(found, "reply 1")
    live.confirm(claim, found, "reply 1")
    assert live.adopt(found, "reply 2")
    kept = live.find("job", claim)
    assert kept is not None
    assert kept.reply == "reply 2"
    _, _, taken_over = claimed(2, "two")
    assert not live.adopt(taken_over, "reply 3")
    assert not live.adopt(StoredRecord("job", 3, None), "reply 4")
    assert kept.reply == "reply 2"


def test_a_claim_without_an_answer_is_unconfirmed_until_it_is_confirmed_or_ended() -> None:
    live = LiveClaims("one")
    claim, hold, found = claimed(1)
    assert not live.is_unconfirmed("job", hold)
    live.doubt("job", claim)
    assert live.is_unconfirmed("job", hold)
    assert not live.is_unconfirmed("job", None)
    assert not live.is_unconfirmed("job", evolve(hold, worker="two"))
    live.confirm(claim, found, "")
    assert not live.is_unconfirmed("job", hold)
    live.doubt("job", claim)  # its first try is given up only now
    assert live.unconfirmed == 0
    other, hold, _ = claimed(2)
    live.doubt("job", other)
    live.resolve(hold)
    assert not live.is_unconfirmed("job", hold)


def test_what_was_decided_late_is_taken_once_or_withdrawn() -> None:
    live = LiveClaims("one")
    claims = [claimed(token)[0] for token in (1, 2, 3)]
    live.decided_late += claims
    assert live.take_late(Filling(Room(1))) == claims[:1]
    assert live.withdraw_late(claims[0]) == []
    assert live.withdraw_late(claims[1]) == claims[1:2]
    assert live.take_late(Filling(Room(10))) == claims[2:]
    assert live.decided_late == []
