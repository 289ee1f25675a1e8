"""Handlers' transactions that settle otherwise than their commit does."""

from __future__ import annotations

from typing import Any

from tests.testkit.mutants.base import breaks, holds
from tests.testkit.mutants.joined import Connection, Handlers, Joined

from sched_core import Claim, ClaimLost, RevisionConflict, Settlement


@breaks("a_handlers_commit_settles")
class TellsOfTheCommitBeforeIt(Joined):
    """Committed is called when the settlement is written, and the commit comes after it."""

    def end(self, handlers: Handlers) -> None:
        self.settle_in(handlers)

    def transaction(self, claim: Claim, decide: Any, committed: Any) -> Handlers:
        def told(settlement: Settlement) -> None:
            committed(settlement)
            handlers.connection.staged.commit()

        handlers = super().transaction(claim, decide, told)
        return handlers


@breaks("a_handlers_commit_settles")
class SettlesWithoutTheLine(Joined):
    """The transaction ends the claim and stores the standing; its execution is forgotten."""

    def settle_in(self, handlers: Handlers) -> None:
        super().settle_in(handlers)
        handlers.connection.staged.keep([])


@breaks("a_handlers_settlement_is_decided_on_what_is_stored")
class DecidesOnWhatWasClaimed(Joined):
    """Decide gets the job as it was claimed, and not as it is stored by now."""

    def transaction(self, claim: Claim, decide: Any, committed: Any) -> Handlers:
        return super().transaction(claim, lambda _: decide(claim.job), committed)


@breaks("a_handlers_settlement_is_decided_on_what_is_stored")
class DecidesWhenTheBlockBegins(Joined):
    """The job is read when the block is entered, and not locked."""

    def begun(self, handlers: Handlers) -> None:
        job = self.store.row(handlers.claim.job.id).job
        decide = handlers.decide
        handlers.decide = lambda _: decide(job)


@breaks("an_exception_takes_the_settlement_back")
class SettlesAlthoughTheBlockRaised(Joined):
    """The settlement is written in a finally, on a connection of its own."""

    def failed(self, handlers: Handlers) -> None:
        handlers.connection = Connection(self.store)
        if handlers.settlement is None:
            self.end(handlers)


@breaks("an_exception_takes_the_settlement_back")
class AnExceptionFreesTheClaim(Joined):
    """What was rolled back is released at once."""

    def failed(self, handlers: Handlers) -> None:
        row = self.store.row(handlers.claim.job.id)
        if holds(row, handlers.claim):
            row.hold = None
            self.store.save(handlers.claim.job.id, row)


@breaks("a_lost_claim_commits_nothing")
class LostClaimsCommitTheEffect(Joined):
    """What the handler wrote is committed, and only the settlement left out."""

    def failed(self, handlers: Handlers) -> None:
        if handlers.settlement is None:
            handlers.connection.staged.store_all()


@breaks("a_lost_claim_commits_nothing")
class TheFenceIsLookedAtWhenTheBlockBegins(Joined):
    """Whether the claim is held is asked once, before the handler has done its work."""

    def settle_in(self, handlers: Handlers) -> None:
        row = self.store.row(handlers.claim.job.id)
        handlers.settlement = handlers.decide(row.read())
        self.within(handlers.connection)._settle(handlers.settlement, self._now())


@breaks("a_refused_settlement_takes_the_transaction_back")
class ARefusedSettlementCommitsTheEffect(Joined):
    """The answer of the settlement is not looked at."""

    def end(self, handlers: Handlers) -> None:
        try:
            self.settle_in(handlers)
        except RevisionConflict:
            pass
        handlers.connection.staged.commit()


@breaks("a_handlers_commit_wakes_who_waits")
class HandlersCommitsWakeNobody(Joined):
    """A handler's commit is looked for later: only settle() wakes."""

    def end(self, handlers: Handlers) -> None:
        alarms, self.store.alarms = self.store.alarms, []
        super().end(handlers)
        self.store.alarms = alarms


class SettlesOtherwise(Joined):
    """Base: what a handler's commit writes is not what a settlement writes."""

    def written(self, handlers: Handlers, settlement: Settlement) -> None:
        raise NotImplementedError

    def settle_in(self, handlers: Handlers) -> None:
        row = self.store.row(handlers.claim.job.id)
        if not holds(row, handlers.claim):
            raise ClaimLost(handlers.claim.job.id)
        handlers.settlement = settlement = handlers.decide(row.read())
        if settlement.standing is not None:
            view = self.within(handlers.connection)
            if view._settle(settlement, self._now()).outcome != "written":
                raise RevisionConflict(handlers.claim.job.id)
            return
        self.written(handlers, settlement)


@breaks("a_handlers_settlement_ends_what_was_edited_away")
class HandlersEndNothing(SettlesOtherwise):
    """A handler's commit frees its claim, and leaves what was edited away without an end."""

    def written(self, handlers: Handlers, settlement: Settlement) -> None:
        view = self.within(handlers.connection)
        row = view.store.row(handlers.claim.job.id)
        row.hold = None
        view.store.save(handlers.claim.job.id, row)
        view.store.write(settlement.executions)


@breaks("a_handler_ends_nothing_that_is_still_pending")
class HandlersEndWhatTheyLike(HandlersEndNothing):
    """A handler's commit without a standing is written whatever is pending."""
