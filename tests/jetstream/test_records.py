"""The loop of every compare-and-set, on a reader and a writer that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sched_core import Interval, Job, JobSpec, Pending, Standing
from sched_core.errors import BackendError
from sched_jetstream import Options, PermissionDenied
from sched_jetstream._model.layout import AtomicWrite
from sched_jetstream._model.protocol import StoredRecord, Write
from sched_jetstream._model.record import Record, record_of
from sched_jetstream._store.records import Change, Records
from sched_jetstream._store.writer import RevisionMismatch
from sched_jetstream.errors import NotSent, OutcomeUnknown

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ENDLESS = 20
"""Tries after which a test gives up."""


class Store:
    """Reads a record whose sequence counts the reads; writes as a list of errors says."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.reads: list[str] = []
        self.written: list[AtomicWrite] = []
        self.names = Options().names

    async def read_leader(self, token: str) -> StoredRecord:
        assert len(self.reads) < ENDLESS
        self.reads.append(token)
        return StoredRecord(token, len(self.reads), record())

    async def read_current(self, tokens: Sequence[str]) -> dict[str, StoredRecord]:
        return {token: await self.read_leader(token) for token in tokens}

    async def write(self, *writes: AtomicWrite) -> list[int]:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.written += writes
        return [100 + number for number, _ in enumerate(writes)]


def record() -> Record:
    one = Pending(1, NOW + MINUTE, NOW + MINUTE)
    standing = Standing(1, one, one.due_at)
    return record_of(Job(JobSpec("job", Interval(hours=1)), "uid", False, NOW, standing))


class Decisions:
    """Writes the record again, and remembers what each decision was made on."""

    def __init__(self, *, then: str | None = None) -> None:
        self.seen: list[tuple[int, bool]] = []
        self.then = then

    def __call__(self, found: StoredRecord, may_exist: bool) -> Write | str:
        self.seen.append((found.sequence, may_exist))
        if self.then is not None and may_exist:
            return self.then
        return Write("job", record())


def change(store: Store, decide: Callable[[StoredRecord, bool], Any], **more: Any) -> Change[Any]:
    any_store: Any = store
    records = Records(any_store, any_store, any_store, now=lambda: NOW, outbox=MINUTE, expire=True)
    return asyncio.run(records.change("token", decide, **more))


def expected_by(written: AtomicWrite) -> str:
    return written.messages[0].headers["Nats-Expected-Last-Subject-Sequence"]


def test_a_write_expects_what_was_read() -> None:
    store, decide = Store(), Decisions()
    changed = change(store, decide)
    assert decide.seen == [(1, False)]
    assert [expected_by(each) for each in store.written] == ["1"]
    assert changed.answer is None
    assert changed.found.sequence == 100
    job = changed.found.read()
    assert isinstance(job, Job)
    assert job.revision == 100


def test_what_is_known_is_not_read_until_it_turns_out_to_be_old() -> None:
    store, decide = Store(RevisionMismatch("old")), Decisions()
    change(store, decide, known=StoredRecord("token", 7, record()))
    assert decide.seen == [(7, False), (1, False)]
    assert store.reads == ["token"]
    assert [expected_by(each) for each in store.written] == ["1"]


def test_a_mismatch_is_decided_again_on_what_is_stored_then() -> None:
    store, decide = Store(*[RevisionMismatch("changed")] * 3), Decisions()
    change(store, decide)
    assert decide.seen == [(1, False), (2, False), (3, False), (4, False)]
    assert [expected_by(each) for each in store.written] == ["4"]


def test_after_a_write_without_an_answer_the_decision_knows_that_it_may_be_stored() -> None:
    store, decide = Store(OutcomeUnknown("no answer")), Decisions(then="it was stored")
    changed = change(store, decide, budget=MINUTE)
    assert decide.seen == [(1, False), (2, True)]
    assert changed.answer == "it was stored"
    assert changed.found.sequence == 2
    assert store.written == []


def test_what_was_not_sent_is_tried_again_and_is_not_taken_for_stored() -> None:
    store, decide = Store(NotSent("lost")), Decisions()
    change(store, decide, budget=MINUTE)
    assert decide.seen == [(1, False), (2, False)]


@pytest.mark.parametrize("error", [OutcomeUnknown("no answer"), NotSent("lost")])
def test_without_a_budget_the_first_failure_is_raised(error: BackendError) -> None:
    store, decide = Store(error), Decisions()
    with pytest.raises(type(error)):
        change(store, decide)
    assert len(decide.seen) == 1


@pytest.mark.parametrize(
    "error", [PermissionDenied("publish", "$KV.jobs.token"), BackendError("refused")]
)
def test_what_waiting_does_not_mend_is_raised_within_the_budget(error: BackendError) -> None:
    store, decide = Store(error), Decisions()
    with pytest.raises(type(error)):
        change(store, decide, budget=MINUTE)
    assert len(decide.seen) == 1


def test_several_records_change_in_one_write_or_not_at_all() -> None:
    store = Store(RevisionMismatch("one of them"))
    any_store: Any = store
    records = Records(any_store, any_store, any_store, now=lambda: NOW, outbox=MINUTE, expire=True)
    first, second = Decisions(), Decisions()
    changes = asyncio.run(records.change_together({"a": first, "b": second}))
    assert len(first.seen) == len(second.seen) == 2
    assert len(store.written) == 2
    assert [changes["a"].found.sequence, changes["b"].found.sequence] == [100, 101]


def test_a_caller_may_forbid_that_the_server_is_tried_again() -> None:
    store = Store(NotSent("lost"))
    any_store: Any = store
    records = Records(any_store, any_store, any_store, now=lambda: NOW, outbox=MINUTE, expire=True)
    decide = Decisions()
    with pytest.raises(NotSent):
        asyncio.run(records.change_together({"a": decide}, budget=MINUTE, may_retry=lambda: False))
    assert len(decide.seen) == 1
