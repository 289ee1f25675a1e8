"""Accounts for a history that has come to rest: every moment, request and begun occurrence."""

from __future__ import annotations

from datetime import datetime, timedelta

from attrs import define

from sched_core import Execution, FixedDelay, Kind, Status
from sched_testkit._oracle.incarnations import Incarnation, Request, ScheduleEra
from sched_testkit._oracle.known import Known
from sched_testkit._oracle.observed import Observed
from sched_testkit._oracle.violation import Violation, at

STILL_RUNNING = "still running"
SKIP_REACHES = timedelta(minutes=100)
"""How far ahead the oracle looks for the moment that a skip has marked."""


@define
class Accounting:
    """Judges what must be true of a history at its end.

    Attributes:
        known: What was commanded.
        observed: What was seen of each occurrence.
        jitter: The longest jitter that any policy of the history has.
    """

    known: Known
    observed: Observed
    jitter: timedelta = timedelta(minutes=5)

    def expect_ends_in_pause(self, uid: str, now: datetime) -> None:
        """Expect that what the pause in force does not hold has ended."""
        incarnation = self.known.incarnations[uid]
        pause = incarnation.paused_at(now)
        if pause is None:
            return
        for number in incarnation.cancels:
            if (uid, number) not in self.observed.finals:
                raise Violation(f"{number} was to be cancelled, and waits for the pause's end")
        for asked in incarnation.requests:
            # By its name, a request inside the pause may be one that the pause holds.
            seq = asked.seq if asked.is_plain else incarnation.asked_first(asked.number)
            if seq >= pause.asked_seq and (uid, asked.number) not in self.observed.finals:
                raise Violation(f"{asked.number} was asked for inside the pause, and waits")

    def account(self, horizon: datetime) -> None:
        """Expect that everything that must end before the horizon has ended."""
        for key in (*self.observed.starts, *self.observed.attempts):
            if key not in self.observed.finals:
                raise Violation(f"{key} was begun and has no final execution")
        for incarnation in self.known.incarnations.values():
            finals = self.observed.finals_of(incarnation.uid)
            scheduled = [found for found in finals if found.kind is Kind.SCHEDULED]
            for era in incarnation.eras:
                self._judge_moments(incarnation, era, scheduled, horizon)
            self._judge_contents(incarnation, scheduled)
            self._judge_requests(incarnation, finals)
            self._judge_skips(incarnation, scheduled)

    def _judge_contents(self, incarnation: Incarnation, scheduled: list[Execution]) -> None:
        """Expect that each execution covers the moments that it says it covers."""
        for found in scheduled:
            first = incarnation.era_of(found.number)
            place = incarnation.eras.index(first)
            mine = [era for era in incarnation.eras[: place + 1] if era.has(found.scheduled_at)]
            if not mine:
                raise Violation(
                    f"{found.id}: {at(found.scheduled_at)} is no moment of its schedule"
                )
            if found.coalesced_until is None or (self.known.set_back and incarnation.pauses):
                continue
            known = [era for era in mine if not isinstance(era.schedule, FixedDelay)]
            place = incarnation.eras.index((known or mine)[-1])
            until = found.coalesced_until
            covered = [
                moment
                for era in self._covered(incarnation, found, place)
                for moment in era.moments(until if era.end is None else min(until, era.end))
                if found.scheduled_at < moment
                and (era is incarnation.eras[place] or era.anchor < moment)
                and moment not in era.cancelled
                and not incarnation.is_taken(moment, era)
            ]
            apart = sum(self._is_apart(found, moment, scheduled) for moment in covered)
            if covered and found.coalesced_until != covered[-1] and not self.known.set_back:
                raise Violation(
                    f"{found.id} ends at {at(found.coalesced_until)}: that is no moment"
                )
            if len(covered) - apart != found.coalesced and not self.known.set_back:
                raise Violation(
                    f"{found.id} {found.status.value} {at(found.scheduled_at)} says "
                    f"{found.coalesced} until {at(found.coalesced_until)}, not {len(covered)}"
                )

    def _covered(self, incarnation: Incarnation, found: Execution, place: int) -> list[ScheduleEra]:
        """Return the eras whose moments an occurrence may cover.

        What an edit has superseded does not belong to the schedule that the edit has brought.
        """
        seq = self.observed.finals[found.uid, found.number][0]
        edited = found.status is Status.SUPERSEDED and not found.token
        if not edited or (incarnation.removed is not None and incarnation.removed < seq):
            return incarnation.eras[place:]
        newest = [era for era in incarnation.eras if era.seq < seq][-1]
        before = [era for era in incarnation.eras[place:] if era.seq < newest.seq]
        return before or incarnation.eras[place : place + 1]

    @staticmethod
    def _is_apart(mine: Execution, moment: datetime, scheduled: list[Execution]) -> bool:
        """Whether another execution accounts for a moment that passed during the run."""
        return any(
            found is not mine
            and (
                found.reason == STILL_RUNNING
                or (found.status is Status.SUPERSEDED and found.number > mine.number)
            )
            and mine.scheduled_at
            < found.scheduled_at
            <= moment
            <= (found.coalesced_until or found.scheduled_at)
            for found in scheduled
        )

    def _judge_moments(
        self,
        incarnation: Incarnation,
        era: ScheduleEra,
        scheduled: list[Execution],
        horizon: datetime,
    ) -> None:
        """Expect that each moment of a schedule was accounted for, once."""
        end = horizon - self.jitter if era.end is None else era.end
        cancelled = {
            found.scheduled_at for found in scheduled if found.number in incarnation.cancels
        }
        for moment in era.moments(end):
            own, covering, apart = self._executions_of(moment, era, incarnation, scheduled)
            what = f"{incarnation.uid} {at(moment)}: {own} own, {covering} covering"
            if moment in era.cancelled:
                if own:
                    raise Violation(f"{what}: it had been cancelled before the edit")
                continue
            pause = incarnation.pause_around(moment, era)
            if apart and own + covering > 1:
                covering -= 1  # a range that goes on after the skipped moments
            if own > 1 or covering > 1 or (own and covering and not pause):
                raise Violation(what)
            if pause is not None:
                if own and moment not in pause.begun | cancelled and moment != era.last:
                    raise Violation(f"{what}, inside a pause")
                if own or covering or incarnation.is_taken(moment, era):
                    continue
            if own and era.must is not None and moment <= era.must and not apart:
                raise Violation(f"{what}: it had run before the edit")
            if own + covering == 1 or (era.may is not None and moment <= era.may):
                continue
            if era.end is not None and era.paused is not None and moment > era.paused:
                continue
            if self.known.set_back and era.end is not None:
                continue
            if era.held is not None and era.held[0] < moment <= era.held[1]:
                continue  # the lost run covered it
            raise Violation(what)

    def _executions_of(
        self,
        moment: datetime,
        era: ScheduleEra,
        incarnation: Incarnation,
        scheduled: list[Execution],
    ) -> tuple[int, int, bool]:
        """Return how many executions are of a moment, and how many cover it.

        The third says whether one of them is apart from the occurrence that was under way.
        """
        place = incarnation.eras.index(era)
        own: list[Execution] = []
        kept: list[Execution] = []
        covering: list[tuple[Execution, bool]] = []
        apart = False
        for found in scheduled:
            of = incarnation.eras.index(incarnation.era_of(found.number))
            rest = found.status is Status.SUPERSEDED and found.attempt == 0
            since = self.observed.finals[found.uid, found.number][0]
            # An edit gives what it supersedes behind a held occurrence numbers of the new schedule.
            early = rest and not found.token and (era.end_seq is None or since <= era.end_seq)
            mine = (of == place and not early) or (rest and of == place + 1)
            if found.scheduled_at == moment and mine:
                own.append(found)
            elif found.scheduled_at == moment and of < place and since > era.seq:
                kept.append(found)  # perhaps the new schedule has taken it over
                continue
            elif (
                found.coalesced_until is not None
                and of <= place + rest
                and found.scheduled_at < moment <= found.coalesced_until
            ):
                # A new schedule may have a moment of its own that passed before it took effect.
                covering.append((found, of == place or era.anchor < moment))
            else:
                continue
            apart = apart or rest or found.reason == STILL_RUNNING
        if own:
            covering = [(found, shared) for found, shared in covering if shared]
        if not own and not covering:
            ended = era.end is not None and not self.known.set_back
            own = [found for found in kept if ended or found.status is not Status.SUPERSEDED]
            apart = apart or bool(own)  # it was already under way: no run of the new schedule
        return len(own), len(covering), apart

    def _judge_requests(self, incarnation: Incarnation, finals: list[Execution]) -> None:
        """Expect that each request had its end, after it was made."""
        for asked in incarnation.requests:
            key = (incarnation.uid, asked.number)
            if key not in self.observed.finals:
                raise Violation(f"{key} was asked for at {asked.seq}, and has no end")
            kind, moment = self.observed.finals[key][1].kind, self.observed.names[key][1]
            if kind is not asked.kind:
                raise Violation(f"{key} was asked for at {asked.seq}, and its end is {kind.value}")
            if asked.kind is Kind.RERUN and moment != asked.since:
                raise Violation(f"{key} repeats {at(moment)}, and asked for was {at(asked.since)}")
            if (
                asked.is_plain
                and self.observed.starts.get(key, self.observed.finals[key][0]) < asked.seq
            ):
                raise Violation(f"{key} had begun before it was asked for at {asked.seq}")
            if asked.args is not None and self.observed.args.get(key, asked.args) != asked.args:
                raise Violation(f"{key} got {self.observed.args[key]}, not {asked.args}")
            if asked.kind is Kind.BACKFILLED:
                self._judge_backfill(incarnation, asked, finals)
        asked_for = {asked.number for asked in incarnation.requests}
        for (uid, number), (kind, moment) in self.observed.names.items():
            if uid != incarnation.uid or kind is Kind.SCHEDULED or number in asked_for:
                continue
            in_range = any(  # its first moment only has the number that the caller got
                one.kind is kind and one.since and one.until and one.since <= moment <= one.until
                for one in incarnation.requests
            )
            if not in_range:
                raise Violation(f"{number} runs, and no command asked for it")

    @staticmethod
    def _judge_backfill(incarnation: Incarnation, asked: Request, finals: list[Execution]) -> None:
        """Expect an execution for each moment of a range, or one for the rest."""
        # Asked for again, it is the same request, of the schedule that it was asked for with.
        span = asked.since, asked.until
        asked_for = [one for one in incarnation.requests if one.kind is Kind.BACKFILLED]
        first = min(one.seq for one in asked_for if (one.since, one.until) == span)
        era = incarnation.era_at(first)
        if asked.until is None or asked.since is None:
            return
        if era is not incarnation.eras[-1]:
            return  # an edit came between: the rest belongs to another schedule
        mine = [found for found in finals if found.kind is Kind.BACKFILLED]
        for moment in era.moments(asked.until):
            if moment < asked.since:
                continue
            found = sum(
                each.scheduled_at == moment
                or (
                    each.coalesced_until is not None
                    and each.scheduled_at < moment <= each.coalesced_until
                )
                for each in mine
            )
            ranges = {(one.number, one.since, one.until) for one in asked_for}
            most = sum(
                since is not None and until is not None and since <= moment <= until
                for _, since, until in ranges
            )
            if not 1 <= found <= most:
                raise Violation(f"backfill of {at(moment)}: {found} executions, {most} asked for")

    def _judge_skips(self, incarnation: Incarnation, scheduled: list[Execution]) -> None:
        """Expect that the moment marked by ``skip_next`` did not run."""
        skipped = [
            found for found in scheduled if found.status is Status.SKIPPED and not found.reason
        ]
        if len(skipped) > len(incarnation.skips):
            raise Violation(f"{len(skipped)} skipped, {len(incarnation.skips)} asked for")
        if not incarnation.skips or self.known.set_back or incarnation.unskipped:
            return
        seq, asked = incarnation.skips[-1]
        era = incarnation.era_at(seq)
        if era.end_seq is not None:
            return
        for moment in era.moments(asked + SKIP_REACHES):
            if moment <= asked:
                continue
            if incarnation.pause_around(moment, era) and moment != era.last:
                return  # a pause has taken it
            for found in scheduled:
                never_ran = {Status.SKIPPED, Status.MISSED, Status.CANCELLED, Status.SUPERSEDED}
                if found.scheduled_at == moment and found.status not in never_ran:
                    raise Violation(f"{at(moment)} was to be skipped, and {found.status.value}")
            return
