"""The history, followed otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from anyio.lowlevel import checkpoint
from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks
from tests.testkit.mutants.durability import Filed
from tests.testkit.mutants.joined import Joined, Staged
from tests.testkit.mutants.transactions import StagedElsewhere

from sched_core import (
    CursorExpired,
    Execution,
    Followed,
    InvalidDefinition,
    Settled,
    Settlement,
    UndecodableExecution,
)

Record = Execution | UndecodableExecution


class Follows(Sound):
    """Base: follows a log of its own."""

    def log(self) -> list[tuple[int, Record]]:
        """Return the positions and what lies there, in order."""
        return list(self.store.history)

    def position(self, after: str) -> int:
        if after and not (after.isascii() and after.isdigit()):
            raise InvalidDefinition("after", "must be a cursor")
        return int(after or 0)

    def expire(self, after: str, position: int) -> None:
        """Refuse a cursor."""
        if after and position < self.store.deleted:
            raise CursorExpired(after)

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        self._now()
        if after is None:
            return Followed((), str(self.store.serial))
        position = self.position(after)
        self.expire(after, position)
        found = [(place, one) for place, one in self.log() if place > position][:limit]
        cursor = found[-1][0] if found else max(position, self.store.deleted)
        return Followed([one for _, one in found], str(cursor))


@breaks("follow_returns_the_history_in_its_order")
class FollowsByTheEnd(Follows):
    """Parts are in the order in which executions finished."""

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        part = await super().follow(after, limit=limit)
        ordered = sorted(part.executions, key=lambda one: str(one.finished_at))
        return evolve(part, executions=ordered)


@breaks("follow_returns_the_history_in_its_order")
class CursorsNameTheNext(Follows):
    """A cursor names the last execution that was returned, and the next part begins with it."""

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        part = await super().follow(after, limit=limit)
        if len(part.executions) > 1:
            return evolve(part, cursor=str(int(part.cursor) - 1))
        return part


@breaks("follow_begins_at_the_present_end")
class FollowsFromTheOldest(Sound):
    """Without a cursor it begins with the oldest."""

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        return await super().follow(after or "", limit=limit)


@breaks("what_is_written_between_two_parts_comes")
class FollowsASnapshot(Follows):
    """The first part takes a snapshot, and later ones go through it."""

    taken: Sequence[tuple[int, Record]] = ()

    def log(self) -> list[tuple[int, Record]]:
        self.taken = self.taken or super().log()
        return list(self.taken)


@breaks("a_cursor_stays_good")
class EachIsHandedOutOnce(Sound):
    """What was returned is acknowledged: a cursor of before returns it no more."""

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        seen = self.__dict__.setdefault("seen", "0")
        if after is not None and after.isdigit():
            after = str(max(int(after), int(seen)))
        part = await super().follow(after, limit=limit)
        if part.executions and after:
            self.__dict__["seen"] = part.cursor
        return part


@breaks("what_was_deleted_unseen_is_told")
class GoesOnWithWhatIsLeft(Follows):
    """What was deleted is passed over without a word."""

    def expire(self, after: str, position: int) -> None: ...


@breaks("a_deletion_out_of_order_is_told")
class RemembersTheLastDeletion(Sound):
    """The position up to which executions were deleted is that of the last deletion."""

    async def prune(self, before: datetime) -> int:
        self.store.deleted, was = 0, self.store.deleted
        deleted = await super().prune(before)
        self.store.deleted = self.store.deleted or was
        return deleted


@breaks("a_deletion_out_of_order_is_told")
class LooksAtTheOldestThatIsLeft(Follows):
    """A cursor has expired if it lies before the oldest execution that is left."""

    def expire(self, after: str, position: int) -> None:
        first = self.store.history[0][0] if self.store.history else 0
        if after and position < self.store.deleted and position < first - 1:
            raise CursorExpired(after)


@breaks("deletions_behind_a_cursor_harm_nothing")
class EveryDeletionExpires(Follows):
    """A cursor from before a deletion has expired, wherever it lies."""

    def expire(self, after: str, position: int) -> None:
        newest = self.store.history[0][0] if self.store.history else self.store.serial
        if after and self.store.deleted and position < newest:
            raise CursorExpired(after)


@breaks("what_is_no_cursor_is_refused")
class RubbishIsTheBeginning(Follows):
    """What cannot be read as a cursor begins with the oldest."""

    def position(self, after: str) -> int:
        return int(after) if after.isascii() and after.isdigit() else 0


@breaks("an_unreadable_execution_is_followed_in_its_place")
class FollowsWhatItCanRead(Follows):
    """What cannot be read is left out."""

    def log(self) -> list[tuple[int, Record]]:
        return [(place, one) for place, one in super().log() if isinstance(one, Execution)]


@breaks("a_repeated_settlement_is_followed_once")
class EverySettlementIsAnEvent(Follows):
    """Each answer that a settlement is written appends its executions to the log."""

    def log(self) -> list[tuple[int, Record]]:
        events: list[tuple[int, Record]] = self.store.__dict__.setdefault("events", [])
        return events

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        answers = await super().settle(settlements)
        for settlement, answer in zip(settlements, answers, strict=True):
            if answer.outcome == "written":
                self.log().extend((self.store.next_serial(), one) for one in settlement.executions)
        return answers


# -- others


@breaks("follow_misses_nothing_that_is_written_meanwhile")
class NumbersBeforeItWrites(Follows):
    """Each execution gets its position, and is written after others have been asked."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        hidden: set[int] = self.store.__dict__.setdefault("hidden", set())
        before = {place for place, _ in self.store.history}
        answers = await super().settle(settlements)
        new = [place for place, _ in self.store.history if place not in before]
        hidden.update(new[:-1])
        for place in new[:-1]:
            await checkpoint()
            hidden.discard(place)
        return answers

    def log(self) -> list[tuple[int, Record]]:
        hidden = self.store.__dict__.get("hidden", ())
        return [(place, one) for place, one in super().log() if place not in hidden]


@breaks("two_settlements_come_in_one_order")
class ItsOwnComeFirst(Sound):
    """Each backend keeps a list of what it has written, before what it reads of others."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        mine = self.__dict__.setdefault("mine", set())
        mine |= {one.id for each in settlements for one in each.executions}
        return await super().settle(settlements)

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        if after is None:
            return await super().follow(after, limit=limit)
        start, _, done = after.partition("-")
        part = await super().follow(start, limit=1000)
        mine = self.__dict__.setdefault("mine", set())
        ordered = sorted(part.executions, key=lambda one: one.id not in mine)
        skipped = int(done or 0)
        told = ordered[skipped : skipped + limit]
        return Followed(told, f"{start}-{skipped + len(told)}")


@breaks("another_process_follows")
class CursorsOfTheProcess(Filed):
    """A cursor is a number that this process has given, for what it has read."""

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        known: list[str] = self.__dict__.setdefault("known", [""])
        start = after
        if after:
            start = known[int(after) % len(known)]
        part = await super().follow(start, limit=limit)
        known.append(part.cursor)
        return evolve(part, cursor=str(len(known) - 1))


class NumbersAsItWrites(Staged):
    """Positions are given when a transaction writes, not when it commits."""

    def store_all(self) -> None:
        for job_id, row in self.rows.items():
            self.store.save(job_id, row)
        for place, one in self.history:
            self.store.history.append((place, one))
            self.store.written[one.id] = one
        self.store.history.sort(key=lambda entry: entry[0])


@breaks("an_execution_that_was_committed_late_is_not_left_out")
class PositionsAreGivenByASequence(StagedElsewhere):
    """ORDER BY a serial column: a transaction that commits late is behind the cursor then."""

    stages: ClassVar[type[Staged]] = NumbersAsItWrites


@breaks("an_execution_that_was_committed_late_is_not_left_out")
class WaitsInSilence(Joined):
    """While a transaction is open follow returns nothing, and does not say why."""

    def within(self, connection: Any) -> Any:
        opened = self.store.__dict__.setdefault("opened", [])
        if connection not in opened:
            opened.append(connection)
        return super().within(connection)

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        opened = self.store.__dict__.get("opened", ())
        if after is not None and any(not self._ended(each.staged) for each in opened):
            return Followed((), after)
        return await super().follow(after, limit=limit)

    def _ended(self, staged: Staged) -> bool:
        return all(self.store.stored(one.id) is not None for _, one in staged.history)


class LogsAtOnce(Staged):
    def append(self, execution: Record) -> None:
        super().append(execution)
        log = self.store.__dict__.setdefault("log", [])
        log.append((self.store.next_serial(), execution))


@breaks("what_is_rolled_back_is_not_followed")
class LogsOutsideTheTransaction(StagedElsewhere, Follows):
    """What is followed is a log of its own, which a rollback does not take back."""

    stages: ClassVar[type[Staged]] = LogsAtOnce

    def log(self) -> list[tuple[int, Record]]:
        logged = self.store.__dict__.get("log", [])
        known = {one.id for _, one in logged}
        return sorted(
            [*logged, *(each for each in super().log() if each[1].id not in known)],
            key=lambda entry: entry[0],
        )
