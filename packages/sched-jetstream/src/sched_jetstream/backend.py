"""The scheduler port on JetStream."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
from attrs import define, evolve
from nats.aio.client import Client

from sched_core.clock import Alarm, Clock, boot_seconds, cpu_seconds, pause
from sched_core.codec import decode_moment
from sched_core.errors import (
    BackendError,
    BackendUnavailable,
    InvalidDefinition,
    JobAlreadyExists,
)
from sched_core.job import Claim, Execution, Job, Settled, Settlement
from sched_core.ports import (
    MAX_POLL,
    Capabilities,
    ExecutionQuery,
    JobQuery,
    Page,
    Undecodable,
)
from sched_jetstream import layout, protocol
from sched_jetstream.batch import Committer, Mismatch
from sched_jetstream.clock import StoreClock
from sched_jetstream.errors import OutcomeUnknown, StreamLost
from sched_jetstream.hints import SHORTEST_NAK, Hint, Hints
from sched_jetstream.layout import TTL, Message, Step
from sched_jetstream.ledger import Ledger
from sched_jetstream.listing import Listing
from sched_jetstream.options import Options, Servers
from sched_jetstream.protocol import CLAIM_LOST, LONG_AGO, WRITTEN, Found, Write
from sched_jetstream.provision import provision
from sched_jetstream.reading import Reader
from sched_jetstream.reconcile import Reconciler
from sched_jetstream.record import Hold, Record, with_revision
from sched_jetstream.subjects import token_of
from sched_jetstream.wire import Wire

logger = logging.getLogger("sched_jetstream")

BULK = 300
"""Most jobs in one add: three messages each fit into one atomic batch."""
MORE = 900
"""Hints that a waiting replica may have beyond what it can run at once: they come ahead of their
moment, and quick handlers are done with many before the last of them is due."""
PATIENCE = 0.25
"""The part of a lease for which claims that are written wait for those that are not yet."""
MEASURE = 5.0
"""Seconds between two looks at the server's clock."""
SAMPLES = 5
"""Most looks at it before anything is decided by it: the first answers may come late."""


@define(eq=False)
class _Mine:
    """A claim that this process made and has not ended.

    Attributes:
        claim: As handed out.
        found: The record as last written here.
        reply: The hint's message: acknowledged when the claim ends.
    """

    claim: Claim
    found: Found
    reply: str


class _Session:
    """Everything that lives from open to close."""

    def __init__(self, wire: Wire, options: Options, clock: Clock, worker: str) -> None:
        self.wire, self.options, self.worker = wire, options, worker
        self.names = options.names
        self.store_clock = StoreClock(clock, options.lease) if options.time == "store" else None
        self.clock: Clock = clock if self.store_clock is None else self.store_clock
        self.alarm = Alarm()
        self.reader = Reader(wire, self.names)
        self.committer = Committer(
            self.reader,
            budget=options.write_budget.total_seconds(),
            batch_all=options.durability == "machine",
        )
        self.mine: dict[str, _Mine] = {}
        self.orphans: set[int] = set()
        """Tokens of claims whose writing has an unknown outcome: nobody was handed them."""
        self.late: list[Claim] = []
        """Claims that were written only after those beside them had been handed out."""
        self.hints = Hints(
            self.reader, options, now=self.clock.now, alarm=self.alarm, adopt=self._adopt
        )
        self.ledger = Ledger(self.reader, by_time=options.time == "store")
        self.listing = Listing(self.reader)
        self.reconciler = Reconciler(self.reader, self.clock.now)
        self.tasks: list[asyncio.Task[None]] = []

    def keep_up(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something done until the end; a fault in it is told, and it begins anew."""

        async def forever() -> None:
            while True:
                try:
                    return await work()
                except Exception as error:  # whatever it is: without these tasks, jobs stand still
                    logger.exception("a task of the backend failed, and is started again")
                    self.hints.fail(BackendError(f"a fault in sched-jetstream: {error!r}"))
                    await pause(1.0)

        self.tasks.append(asyncio.create_task(forever()))

    def is_orphan(self, hold: Hold | None) -> bool:
        """Whether this worker wrote it, and handed nobody the claim."""
        return hold is not None and hold.worker == self.worker and hold.token in self.orphans

    def _adopt(self, found: Found, reply: str) -> bool:
        mine = self.mine.get(found.token)
        record = found.content
        if not isinstance(record, Record):
            return False
        if self.is_orphan(record.hold):
            due = None if record.job is None else record.job.standing.due_at
            if record.job is not None and due is None:
                return False
            now = self.clock.now()
            self.hints.put(Hint(found.token, now if due is None else max(due, now), found, reply))
            return True
        if mine is None:
            return False
        if not protocol.same(record, mine.claim):
            return False
        mine.reply = reply
        self.hints.working(reply)
        return True


class JetStreamBackend:
    """Jobs in NATS JetStream, for any number of replicas.

    Args:
        servers: Addresses, such as ``nats://127.0.0.1:4222``.
        connection: An existing connection to use instead. It is not closed here, and must have
            been made with ``max_reconnect_attempts=-1`` to survive a restart of the server.
        options: An :class:`~sched_jetstream.Options`; or its fields as keywords.
        domain: The JetStream domain, where the account's own is not meant.
        nats: What else ``nats.connect`` takes: ``tls``, ``user_credentials``, ``token`` and so on.
        settings: Fields of :class:`~sched_jetstream.Options`.

    Raises:
        InvalidDefinition: A setting is out of bounds, or unknown.
    """

    def __init__(
        self,
        servers: Servers = "nats://127.0.0.1:4222",
        *,
        connection: Client | None = None,
        options: Options | None = None,
        domain: str | None = None,
        nats: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if options is not None and settings:
            raise InvalidDefinition("options", "give either options or single settings")
        if options is None:
            known = {field.name for field in Options.__attrs_attrs__}
            unknown = sorted(settings.keys() - known)
            if unknown:
                raise InvalidDefinition(
                    unknown[0], f"is no setting; there are: {', '.join(sorted(known))}"
                )
            options = Options(**settings)
        self.options = options
        self._names = options.names
        self._servers, self._connection = servers, connection
        self._api = "$JS.API" if domain is None else f"$JS.{domain}.API"
        self._nats = dict(nats or {})
        self._session: _Session | None = None
        self._capabilities = Capabilities(
            durable=True,
            shared=True,
            time=options.time,
            granularity=timedelta(microseconds=1),
            lease=options.lease,
            bulk_limit=BULK,
            loops=frozenset({"asyncio"}),
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # -- opening

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise BackendError(
                "JetStreamBackend runs on asyncio only, as nats-py does: start the scheduler with "
                "asyncio.run or anyio.run(..., backend='asyncio')"
            ) from None
        options = self.options
        wire = Wire(
            self._servers,
            self._nats,
            connection=self._connection,
            api=self._api,
            timeout=options.timeout.total_seconds(),
            connect_timeout=options.startup_timeout.total_seconds(),
        )
        await wire.open()
        try:
            await provision(wire, options)
            session = _Session(wire, options, clock, worker)
            for _ in range(SAMPLES):
                if session.store_clock is not None and session.store_clock.vague:
                    await _measure(session)
        except BaseException:
            await wire.close()
            raise
        session.keep_up(session.hints.feed)
        if session.store_clock is not None:
            session.keep_up(lambda: _measure_on(session))
            session.keep_up(lambda: _reconcile_on(session))
        self._session = session
        return session.clock

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        for task in session.tasks:
            task.cancel()
        await asyncio.gather(*session.tasks, return_exceptions=True)
        session.alarm.nudge()
        await session.committer.close()
        try:
            await self._release_all(session, session.late)
        except BackendError as error:
            logger.warning("claims could not be released, their leases must run out: %s", error)
        await session.hints.close()
        await session.wire.close()

    def _opened(self) -> _Session:
        if self._session is None:
            raise BackendError("this JetStreamBackend is not open: use it through a Scheduler")
        return self._session

    async def check(self) -> None:
        session = self._opened()
        if session.hints.failure is not None:
            raise session.hints.failure
        message = Message(session.names.check(session.worker), b"", {TTL: "60"})
        await session.committer.write(Step([message], None, 0, 0))

    # -- writing

    def _step(
        self,
        session: _Session,
        found: Found,
        write: Write,
        lines: Sequence[Execution] | None = None,
    ) -> Step:
        return layout.step(
            session.names,
            found,
            write,
            session.clock.now(),
            new_generation=_new_generation,
            outbox_ttl=session.options.outbox,
            expire=session.options.time == "store",
            lines=lines,
        )

    async def _change(
        self,
        session: _Session,
        token: str,
        decide: Callable[[Found, bool], Write | Any],
        budget: timedelta | None = None,
    ) -> tuple[Found, Any]:
        """Read, decide, and write, until the write was made on what stands.

        Args:
            session: What is open.
            token: Of the record.
            decide: Takes what was read, and whether an earlier try has an unknown outcome.
            budget: For how long a server that does not answer is tried again.

        Returns:
            What stands now, and what was decided if it was no write.
        """
        until = cpu_seconds() + (budget or timedelta(0)).total_seconds()
        unsure = False
        while True:
            try:
                found = await session.reader.one(token)
                decided = decide(found, unsure)
                if not isinstance(decided, Write):
                    return found, decided
                lines = await self._new_lines(session, decided)
                step = self._step(session, found, decided, lines)
                (sequence,) = await session.committer.write(step)
                return _written(token, sequence, step), None
            except Mismatch:
                continue
            except OutcomeUnknown:
                unsure = True
                if cpu_seconds() > until:
                    raise
            except BackendUnavailable:
                if cpu_seconds() > until:
                    raise
                await pause(0.1)

    async def _new_lines(self, session: _Session, write: Write) -> Sequence[Execution]:
        """Leave out what is stored already."""
        if not write.unsure:
            return write.lines
        known, taken = await session.ledger.stored(write.lines)
        return [line for line in write.lines if line.id not in known and line.id not in taken]

    # -- definitions

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        session = self._opened()
        if not jobs:
            return []
        if len(jobs) > BULK:
            raise InvalidDefinition("jobs", f"at most {BULK} at once, not {len(jobs)}")
        by_token = {token_of(job.id): job for job in jobs}
        if len(by_token) < len(jobs):
            seen: set[str] = set()
            for job in jobs:
                if job.id in seen:
                    raise JobAlreadyExists(job.id)
                seen.add(job.id)
        until = cpu_seconds() + session.options.add_job_retry_budget.total_seconds()
        founds = {token: Found(token, 0, None) for token in by_token}
        looked = False
        while True:
            try:
                if looked:
                    founds = await self._read_now(session, list(by_token))
                return await self._add(session, by_token, founds)
            except Mismatch:
                looked = True
            except BackendUnavailable:
                looked = True
                if cpu_seconds() > until or not session.wire.connected:
                    raise
                await pause(0.1)

    async def _add(
        self, session: _Session, by_token: dict[str, Job], founds: dict[str, Found]
    ) -> list[Job]:
        results: dict[str, Job] = {}
        steps: dict[str, Step] = {}
        for token, job in by_token.items():
            decided = protocol.add(founds[token], job)
            if isinstance(decided, Job):
                results[token] = decided
            else:
                steps[token] = self._step(session, founds[token], decided)
        if steps:
            sequences = await session.committer.write(*steps.values())
            for token, sequence in zip(steps, sequences, strict=True):
                results[token] = evolve(by_token[token], revision=sequence)
        return [results[token] for token in by_token]

    async def _read_now(self, session: _Session, tokens: Sequence[str]) -> dict[str, Found]:
        if session.options.replicas == 1 and len(tokens) > 1:
            return await session.reader.many(tokens)
        found = await asyncio.gather(*(session.reader.one(token) for token in tokens))
        return {each.token: each for each in found}

    async def get(self, job_id: str) -> Job | Undecodable | None:
        session = self._opened()
        content = (await session.reader.one(token_of(job_id))).content
        return content.job if isinstance(content, Record) else content

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        def decide(found: Found, unsure: bool) -> Write | Job:
            content = found.content
            if unsure and isinstance(content, Record) and content.job is not None:
                stored = content.job
                if stored.revision != job.revision and evolve(stored, revision=0) == evolve(
                    job, revision=0
                ):
                    return stored
            return protocol.replace(found, job, ledger)

        budget = self.options.write_budget
        found, known = await self._change(self._opened(), token_of(job.id), decide, budget)
        if isinstance(known, Job):
            return known
        return evolve(job, revision=found.sequence)

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        def decide(found: Found, unsure: bool) -> Write | bool:
            write = protocol.remove(found, job_id, ledger, expected)
            return unsure if write is None else write

        budget = self.options.write_budget
        _, known = await self._change(self._opened(), token_of(job_id), decide, budget)
        return known is None or bool(known)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await self._opened().listing.page(query, after, limit)

    # -- waiting and claiming

    async def wait_due(self, limit: int) -> None:
        session = self._opened()
        clock, hints, alarm = session.clock, session.hints, session.alarm
        last = clock.now() + MAX_POLL
        try:
            while True:
                seen = alarm.count
                if hints.failure is not None:
                    raise hints.failure
                if session.store_clock is None:
                    await self._scan(session)
                hints.want(limit + MORE)
                now = clock.now()
                earliest = hints.earliest()
                if session.late or now >= last or (earliest is not None and earliest <= now):
                    return
                until = last if earliest is None else min(earliest, last)
                await alarm.sleep(clock, until, seen)
                if session is not self._session:
                    return
        finally:
            hints.satisfied()

    async def _scan(self, session: _Session) -> None:
        """On a clock that the server's timers do not know, looking is the only way to find out."""
        for at, found in await session.reconciler.scan():
            session.hints.put(Hint(found.token, at, found))

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        session = self._opened()
        with anyio.CancelScope(shield=True):
            claims = await self._claim_due(session, limit)
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self.release(claims)
            raise
        return claims

    async def _claim_due(self, session: _Session, limit: int) -> list[Claim]:
        hints, clock = session.hints, session.clock
        if hints.failure is not None:
            raise hints.failure
        if limit <= 0:
            return []
        if session.late:
            return await self._take_late(session, limit)
        claims: list[Claim] = []
        due = hints.take(clock.now(), limit)
        if len(due) < limit:
            for hint in due:
                hints.put(hint)  # what is found now may be older
            await session.wire.ready()
            await hints.sweep(limit - len(due))
            if session.store_clock is None:
                await self._scan(session)
            due = hints.take(clock.now(), limit)
        until = clock.now() + session.options.lease * PATIENCE
        while due:
            try:
                claims += await self._claim(session, due)
            except BackendError:
                if not claims:
                    raise
                break  # what is claimed is not to wait, or be lost, because of what is not
            now = clock.now()
            due = hints.take(now, limit - len(claims)) if now < until else []
        return claims

    async def _claim(self, session: _Session, due: Sequence[Hint]) -> list[Claim]:
        now = session.clock.now()
        taken: list[tuple[Hint, Claim | None, Step, asyncio.Future[list[int]]]] = []
        again: list[Hint] = []
        for hint in due:
            record = hint.found.content
            hold = record.hold if isinstance(record, Record) else None
            orphaned = session.is_orphan(hold)
            if hold is not None and not orphaned and not self._may_take_over(session):
                session.hints.postpone(hint.reply, timedelta(seconds=1))
                continue
            decided = protocol.claim(
                hint.found,
                now,
                worker=session.worker,
                lease=session.options.lease,
                orphaned=orphaned,
            )
            if decided is None:
                again.append(hint)
                continue
            step = self._step(session, hint.found, decided.write)
            taken.append((hint, decided.claim, step, session.committer.submit(step)))
        claims: list[Claim] = []
        failure: BackendError | None = None
        patience = (session.options.lease * PATIENCE).total_seconds()
        if taken:
            await asyncio.wait([future for *_, future in taken], timeout=patience)
        for hint, claim, step, future in taken:
            if not future.done():
                decided_late = partial(self._decided_late, session, hint, claim, step)
                future.add_done_callback(decided_late)
                continue
            try:
                made = self._made(session, hint, claim, step, future)
            except Mismatch:
                again.append(hint)
            except BackendError as error:
                failure = error
                session.hints.postpone(hint.reply, timedelta(seconds=1))
            else:
                claims += made
        if failure is not None and not claims:
            raise failure
        await self._judge_again(session, again, patience)
        return claims

    def _made(
        self,
        session: _Session,
        hint: Hint,
        claim: Claim | None,
        step: Step,
        future: asyncio.Future[list[int]],
    ) -> list[Claim]:
        """Take in that a claim is decided; return it if it was written.

        Raises:
            Mismatch, BackendError: As the committer's.
        """
        try:
            (sequence,) = future.result()
        except OutcomeUnknown:
            if claim is not None:
                session.orphans.add(claim.token)
            raise
        if claim is None:
            session.hints.done(hint.reply)
            return []
        session.mine[hint.token] = _Mine(claim, _written(hint.token, sequence, step), hint.reply)
        session.orphans.discard(_held(hint.found))
        return [claim]

    def _decided_late(
        self,
        session: _Session,
        hint: Hint,
        claim: Claim | None,
        step: Step,
        future: asyncio.Future[list[int]],
    ) -> None:
        try:
            session.late += self._made(session, hint, claim, step, future)
            session.alarm.nudge()
        except Mismatch:
            session.hints.postpone(hint.reply, SHORTEST_NAK)
        except BackendError:
            session.hints.postpone(hint.reply, timedelta(seconds=1))

    async def _take_late(self, session: _Session, limit: int) -> list[Claim]:
        """Hand out what was decided late; what has little left of its lease is given back."""
        claims, session.late = session.late[:limit], session.late[limit:]
        since = session.clock.now() + session.options.lease / 2
        spent = [claim for claim in claims if claim.expires_at < since]
        try:
            await self._release_all(session, spent)
        except BackendError as error:
            logger.warning("claims could not be released, their leases must run out: %s", error)
        return [claim for claim in claims if claim.expires_at >= since]

    async def _judge_again(self, session: _Session, hints: Sequence[Hint], patience: float) -> None:
        """Read what was not as a hint said; what cannot be read in time is looked at later."""

        async def judge(hint: Hint) -> None:
            try:
                with anyio.fail_after(patience):
                    found = await session.reader.one(hint.token)
            except (BackendError, TimeoutError):
                session.hints.postpone(hint.reply, timedelta(seconds=1))
            else:
                if not session.hints.judge(found, hint.reply):
                    session.hints.done(hint.reply)

        await asyncio.gather(*map(judge, hints))

    def _may_take_over(self, session: _Session) -> bool:
        return session.store_clock is None or session.store_clock.stands

    # -- holding

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        session = self._opened()
        renewed = await asyncio.gather(*(self._renew(session, claim) for claim in claims))
        return [claim for claim in renewed if claim is not None]

    async def _renew(self, session: _Session, claim: Claim) -> Claim | None:
        token = token_of(claim.job.id)
        mine = _ours(session, token, claim)
        found = await session.reader.one(token) if mine is None else mine.found
        while True:
            until = session.clock.now() + session.options.lease
            write = protocol.renew(found, claim, until)
            if write is None:
                return None
            step = self._step(session, found, write)
            try:
                (sequence,) = await session.committer.write(step)
            except Mismatch:
                found = await session.reader.one(token)
                continue
            if mine is not None:
                mine.found = _written(token, sequence, step)
                session.hints.working(mine.reply)
            record = found.content
            lost = record.hold.lost if isinstance(record, Record) and record.hold else claim.lost
            return evolve(claim, expires_at=until, lost=lost)

    async def release(self, claims: Sequence[Claim]) -> None:
        await self._release_all(self._opened(), claims)

    async def _release_all(self, session: _Session, claims: Sequence[Claim]) -> None:
        await asyncio.gather(*(self._release(session, claim) for claim in claims))

    async def _release(self, session: _Session, claim: Claim) -> None:
        token = token_of(claim.job.id)
        mine = _ours(session, token, claim)

        def decide(found: Found, _unsure: bool) -> Write | None:
            return protocol.release(found, claim, session.clock.now())

        await self._change(session, token, decide)
        if mine is not None:
            self._let_go(session, token, mine)

    def _let_go(self, session: _Session, token: str, mine: _Mine) -> None:
        """The claim has ended, and what comes next has a hint or a schedule of its own."""
        if session.mine.get(token) is mine:
            del session.mine[token]
        session.hints.done(mine.reply)

    # -- settling

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        session = self._opened()
        with anyio.CancelScope(shield=True):
            answers = await self._settle_all(session, settlements)
        for answer in answers:
            if isinstance(answer, BackendError):
                raise answer
        return [answer for answer in answers if isinstance(answer, Settled)]

    async def _settle_all(
        self, session: _Session, settlements: Sequence[Settlement]
    ) -> list[Settled | BackendError]:
        """Send all of them at once by what is known here; look closer only where that fails."""
        sent: list[tuple[Settlement, str, _Mine | None, asyncio.Future[list[int]] | None]] = []
        for settlement in settlements:
            token = token_of(settlement.claim.job.id)
            mine = _ours(session, token, settlement.claim)
            future = None
            if mine is not None:
                decided = protocol.settle(mine.found, settlement)
                if isinstance(decided, Write) and not decided.unsure:
                    future = session.committer.submit(self._step(session, mine.found, decided))
            sent.append((settlement, token, mine, future))
        answers: list[Settled | BackendError] = []
        for settlement, token, mine, future in sent:
            answer: Settled | BackendError | None = None
            try:
                if future is not None:
                    await future
                    answer = WRITTEN
            except Mismatch:
                pass
            except BackendError as error:
                answer = error
            if answer is None:
                try:
                    answer = await self._settle(session, token, settlement)
                except BackendError as error:
                    answer = error
            if mine is not None and answer is WRITTEN:
                self._let_go(session, token, mine)
            elif mine is not None and answer is CLAIM_LOST:
                session.mine.pop(token, None)
            answers.append(answer)
        return answers

    async def _settle(self, session: _Session, token: str, settlement: Settlement) -> Settled:
        """Settle by what the leader says."""
        while True:
            found = await session.reader.one(token)
            decided = protocol.settle(found, settlement)
            if isinstance(decided, Settled):
                return decided
            if decided == LONG_AGO:
                return await self._by_the_ledger(session, settlement)
            lines: Sequence[Execution] = decided.lines
            if decided.unsure:
                known, taken = await session.ledger.stored(lines)
                if taken:
                    return Settled("conflict", _job(found))
                lines = [line for line in lines if line.id not in known]
            try:
                await session.committer.write(self._step(session, found, decided, lines))
            except Mismatch:
                continue
            return WRITTEN

    async def _by_the_ledger(self, session: _Session, settlement: Settlement) -> Settled:
        """Whether an earlier try of the same settlement wrote its lines."""
        claim, lines = settlement.claim, settlement.ledger
        known, _ = await session.ledger.stored(lines)
        for line in lines:
            stored = known.get(line.id)
            if stored is None or (stored.status, stored.token, stored.worker) != (
                line.status,
                claim.token,
                claim.worker,
            ):
                return CLAIM_LOST
        return WRITTEN if lines else CLAIM_LOST

    # -- the ledger

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution]:
        return await self._opened().ledger.page(query, after, limit)

    async def prune(self, before: datetime) -> int:
        session = self._opened()
        now = session.clock.now()
        deleted = 0
        if session.store_clock is None:
            for found in await session.reconciler.expired():
                record = found.content
                if isinstance(record, Record):
                    step = self._step(session, found, Write(record.id, None))
                    try:
                        await session.committer.write(step)
                    except Mismatch:
                        continue
                    deleted += 1
        return deleted + await session.ledger.prune(before, now)

    # -- reconciling

    async def reconcile(self) -> int:
        """Go through all records once and send hints about what is due and that nobody has.

        It happens by itself every ``reconcile_interval``. Calling it is for those who have just
        repaired something by hand, and for tests on a fake clock.

        Returns:
            How many hints were sent.
        """
        session = self._opened()
        return await session.reconciler.go_through(grace=timedelta(0))


def _held(found: Found) -> int:
    """Return the token of the hold that was read, 0 for none."""
    record = found.content
    return record.hold.token if isinstance(record, Record) and record.hold is not None else 0


def _ours(session: _Session, token: str, claim: Claim) -> _Mine | None:
    mine = session.mine.get(token)
    if mine is None:
        return None
    same = mine.claim.token == claim.token and mine.claim.worker == claim.worker
    return mine if same else None


def _written(token: str, sequence: int, step: Step) -> Found:
    """Return what stands after a step: a revision that was left open is its sequence."""
    record = step.record
    return Found(token, sequence, None if record is None else with_revision(record, sequence))


def _job(found: Found) -> Job | None:
    content = found.content
    return content.job if isinstance(content, Record) else None


def _new_generation() -> str:
    return secrets.token_hex(6)


async def _measure(session: _Session) -> None:
    clock = session.store_clock
    if clock is None:
        return
    before = boot_seconds()
    info = await session.wire.call(f"STREAM.INFO.{session.names.stream}")
    clock.measured(decode_moment(_to_microseconds(info["ts"])), before, boot_seconds())


def _to_microseconds(text: str) -> str:
    """Cut the nanoseconds that the server tells, which datetime cannot keep."""
    head, dot, rest = text.rstrip("Z").partition(".")
    return f"{head}{dot}{rest[:6]}Z"


async def _measure_on(session: _Session) -> None:
    while True:
        await pause(MEASURE)
        try:
            await _measure(session)
        except BackendError:
            continue  # whoever writes will say so


async def _reconcile_on(session: _Session) -> None:
    options, clock = session.options, session.clock
    while True:
        share = 0.5 + secrets.randbelow(1000) / 2000
        await clock.sleep_until(clock.now() + options.reconcile_interval * share)
        try:
            if await session.reconciler.my_turn(options.reconcile_interval / 2):
                await session.reconciler.go_through(
                    grace=options.reconcile_grace, rate=options.reconcile_rate
                )
                await session.ledger.trim()
        except StreamLost as error:
            session.hints.fail(error)
        except BackendError:
            continue
