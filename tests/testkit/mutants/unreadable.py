"""Executions of the history that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve
from tests.testkit.mutants.base import Sound, Store, breaks, holds

from sched_core import (
    Claim,
    Execution,
    ExecutionQuery,
    Page,
    Settled,
    Settlement,
    UndecodableExecution,
)


@breaks("an_unreadable_execution_is_shown_in_its_place")
class UnreadableLinesAreLeftOut(Sound):
    """What cannot be read is not listed: no one learns of it."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        page = await super().executions(query, after=after, limit=limit)
        return Page(
            [execution for execution in page.items if isinstance(execution, Execution)], page.next
        )


@breaks("an_unreadable_execution_is_shown_in_its_place")
class OneUnreadableLineHidesAll(Sound):
    """A page is decoded as a whole, so one that cannot be read takes all others with it."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        page = await super().executions(query, after=after, limit=limit)
        for execution in page.items:
            if isinstance(execution, UndecodableExecution):
                raise ValueError(execution.reason)  # noqa: TRY004 -- as a decoder does
        return page


@breaks("an_unreadable_execution_is_shown_in_its_place")
class UnreadableLinesMatchNothing(Sound):
    """A filter takes it that what cannot be read is not what is asked for."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        page = await super().executions(query, after=after, limit=limit)
        if query == ExecutionQuery(job_id=query.job_id):
            return page
        return Page(
            [execution for execution in page.items if isinstance(execution, Execution)], page.next
        )


@breaks("an_unreadable_execution_is_shown_in_its_place")
class UnreadableLinesComeLast(Sound):
    """What cannot be read is appended to each page."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        page = await super().executions(query, after=after, limit=limit)
        odd = [execution for execution in page.items if isinstance(execution, UndecodableExecution)]
        return Page(
            [*(execution for execution in page.items if execution not in odd), *odd], page.next
        )


@breaks("an_unreadable_execution_stops_nothing_else")
class UnreadableLinesStopTakeovers(Sound):
    """All executions are read to write an abandoned one."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        holds = [row.hold for row in self.store.rows.values() if row.hold is not None]
        if any(hold.expires_at <= self._now() for hold in holds):
            _all_readable(self.store)
        return await super().hand_out(limit)


@breaks("an_unreadable_execution_stops_nothing_else")
class UnreadableLinesStopRepeats(Sound):
    """All executions are read to know a repeated settlement."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        for settlement in settlements:
            if not holds(self.store.row(settlement.claim.job.id), settlement.claim):
                _all_readable(self.store)
        return await super().settle(settlements)


@breaks("a_settlement_whose_execution_cannot_be_read_is_written_once")
class WhatCannotBeReadIsWrittenAgain(Sound):
    """A repeat is known by the executions that can be read: what is not among them is written."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        answers = await super().settle(settlements)
        known = {execution.id for execution in self.store.readable()}
        for settlement in settlements:
            for execution in settlement.executions:
                if execution.id not in known:
                    self.store.history.append((self.store.next_serial(), execution))
        return answers


@breaks("an_unreadable_execution_is_pruned_by_its_age")
class UnreadableLinesStopPruning(Sound):
    """Prune looks at the age of what has none."""

    async def prune(self, before: datetime) -> int:
        _all_readable(self.store)
        return await super().prune(before)


@breaks("an_unreadable_execution_is_pruned_by_its_age")
class UnreadableLinesAreOld(Sound):
    """What tells no age is taken to be older than everything."""

    async def prune(self, before: datetime) -> int:
        self.store.history = [
            (
                at,
                evolve(execution, finished_at=self._now())
                if execution.finished_at is None
                else execution,
            )
            for at, execution in self.store.history
        ]
        return await super().prune(before)


def _all_readable(store: Store) -> None:
    if len(store.readable()) < len(store.history):
        raise ValueError("an execution cannot be read")
