"""A backend that the oracle watches, and that the state machine can break."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import anyio

from sched_core import (
    Backend,
    BackendError,
    BackendUnavailable,
    Claim,
    Claimed,
    Clock,
    Renewal,
    Room,
    Settled,
    Settlement,
)
from sched_testkit._oracle.oracle import Oracle


class SpyBackend:
    """Passes every call to a backend, as long as its process lives and reaches the store.

    Attributes:
        crash_at: The moment at which the process dies: ``claimed``, ``settling`` or ``settled``.
        dead: Whether the process has died: no call goes through any more.
        is_cut_off: Whether claims and renewals do not reach the store.
        renewals_hang_until: An event for which renewals wait.
    """

    def __init__(
        self,
        inner: Backend,
        oracle: Oracle,
        noting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.inner, self.oracle, self.noting = inner, oracle, noting
        self.worker = ""
        self.crash_at: str | None = None
        self.dead = self.is_cut_off = False
        self.renewals_hang_until: anyio.Event | None = None
        self.renewals = 0
        self._under_way = 0
        self._rested = anyio.Event()
        self._clock: Clock | None = None

    def __getattr__(self, name: str) -> Any:
        if self.dead:
            raise BackendError("the process is dead")
        return getattr(self.inner, name)

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        """Open the backend and remember who opened it."""
        self.worker = worker
        self._clock = await self.inner.open(clock, worker=worker)
        return self._clock

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if not self._under_way:
            self._rested = anyio.Event()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._rested.set()

    async def at_rest(self) -> None:
        """Wait for the answers to claims and settlements: their effect is not known before."""
        while self._under_way:
            await self._rested.wait()

    def _check(self) -> None:
        if self.dead:
            raise BackendError("the process is dead")
        if self.is_cut_off:
            raise BackendUnavailable("the store cannot be reached")

    def _die(self, when: str) -> None:
        if self.crash_at == when:
            self.dead = True
            with self.noting():
                self.oracle.crashed(self.worker)
            raise BackendError("the process is dead")

    async def claim_due(self, room: Room) -> Claimed:
        """Report every claim, and the executions of lost ones."""
        self._check()
        with self._counted():
            claimed = await self.inner.claim_due(room)
        assert self._clock is not None
        with self.noting():
            self.oracle.claims.lapsed(claimed.lapsed, self._clock.now())
            for claim in claimed.claims:
                self.oracle.claims.claimed(claim, self._clock.now())
        if claimed.claims:
            self._die("claimed")
        return claimed

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        """Report every renewal."""
        if self.renewals_hang_until is not None:
            await self.renewals_hang_until.wait()
        self._check()
        renewed = await self.inner.renew(renewals)
        assert self._clock is not None
        with self.noting():
            self.oracle.claims.renewed(renewals, renewed, self._clock.now())
        self.renewals += 1
        return renewed

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        """Report the outcome of every settlement."""
        self._die("settling")
        if self.dead:
            raise BackendError("the process is dead")
        with self._counted():
            outcomes = await self.inner.settle(settlements)
        with self.noting():
            for settlement, settled in zip(settlements, outcomes, strict=True):
                if settled.outcome in {"written", "claim_lost"}:
                    written = settled.outcome == "written"
                    self.oracle.unclaimed(settlement.claim, written=written)
        self._die("settled")
        return outcomes

    async def release(self, claims: Sequence[Claim]) -> None:
        """Report that the claims are free."""
        if self.dead:
            raise BackendError("the process is dead")
        await self.inner.release(claims)
        with self.noting():
            for claim in claims:
                self.oracle.unclaimed(claim)
