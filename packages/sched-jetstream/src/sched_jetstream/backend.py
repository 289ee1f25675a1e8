"""``JetStreamBackend``: the scheduler's port on NATS JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
from nats.aio.client import Client

from sched_core import (
    Claim,
    Claimed,
    CountQuery,
    Counts,
    Execution,
    Hold,
    Job,
    Renewal,
    Room,
    Settled,
    Settlement,
    WorkerState,
)
from sched_core._support.logger import Logger
from sched_core._support.redaction import shown_address
from sched_core.affinity import Affinity
from sched_core.clock import Clock, monotonic_seconds
from sched_core.errors import BackendError, InvalidDefinition
from sched_core.ports import (
    MAX_POLL,
    Capabilities,
    ClaimQuery,
    ExecutionQuery,
    Followed,
    JobQuery,
    Page,
    Undecodable,
    UndecodableExecution,
)
from sched_core.row import Tally
from sched_jetstream._model.layout import TTL, AtomicWrite, Message
from sched_jetstream._model.subjects import token_of
from sched_jetstream._runtime.session import Session
from sched_jetstream._store.addresses import addresses
from sched_jetstream._store.dialer import must_be_known
from sched_jetstream._store.permissions import probes, words
from sched_jetstream._store.provision import provision
from sched_jetstream._store.wire import Wire
from sched_jetstream.options import Options, Servers

logger = Logger("sched_jetstream")

BULK = 300
"""Most jobs in one add: three messages each fit into one atomic batch."""

INSPECTION_TIMEOUT = timedelta(seconds=5)
"""How long a command that only looks at a store tries to reach it: a person waits."""

COUNTS_FOR = 2.0
"""Seconds for which a count reads what it does not know yet; the next one goes on from there."""


class JetStreamBackend:
    """Jobs in NATS JetStream, for any number of replicas.

    Args:
        servers: Addresses, such as ``nats://127.0.0.1:4222``.
        connection: An existing connection to use instead of ``servers``. The backend does not close
            it. Make it with ``max_reconnect_attempts=-1``, or it does not survive a restart of the
            server.
        options: The settings as one :class:`~sched_jetstream.Options`; or give its fields as
            keywords.
        domain: The JetStream domain; the account's own unless given.
        create: Whether opening makes missing streams. If not, it raises
            :class:`~sched_core.errors.StoreNotFound` where there are none, and a
            :class:`~sched_core.errors.BackendError` where an older version made them.
        nats: Further options for ``nats.connect``: ``tls``, ``user_credentials``, ``token`` …
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
        create: bool = True,
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
            if not create:
                settings.setdefault("startup_timeout", INSPECTION_TIMEOUT)
            options = Options(**settings)
        self.options = options
        self._names = options.names
        self._servers, self._connection = addresses(servers), connection
        self._create = create
        self._api = "$JS.API" if domain is None else f"$JS.{domain}.API"
        self._nats = dict(nats or {})
        must_be_known(self._nats)
        self._session: Session | None = None
        self._affinity = Affinity("this JetStreamBackend")
        self._capabilities = Capabilities(
            durable=True,
            shared=True,
            time=options.time,
            granularity=timedelta(microseconds=1),
            lease=options.lease,
            bulk_limit=BULK,
            loops=frozenset({"asyncio"}),
        )

    def __str__(self) -> str:
        """Return which streams these are, without the user's password, for people."""
        where = ", ".join(shown_address(server.text) for server in self._servers)
        place = "a connection that was given" if self._connection is not None else where
        return f"NATS JetStream at {place}, bucket {self.options.job_bucket}"

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
        if self._session is not None:
            self._affinity.check_process()
            raise BackendError("this JetStreamBackend is open already: use one for each Scheduler")
        self._affinity = Affinity("this JetStreamBackend")
        options = self.options
        wire = Wire(
            self._servers,
            self._nats,
            connection=self._connection,
            api=self._api,
            known=words(self._names),
            timeout=options.timeout.total_seconds(),
            connect_timeout=options.startup_timeout.total_seconds(),
        )
        await wire.open()
        try:
            was_older = await provision(wire, options, create=self._create)
            session = Session(wire, options, clock, worker)
            await session.begin(was_older=was_older)
        except BaseException:
            await wire.close()
            raise
        self._session = session
        return session.clock

    async def close(self) -> None:
        session = self._session
        if session is None or not self._affinity.is_of_this_process:
            return
        self._affinity.check()
        self._session = None
        await session.close()

    async def _calm(self) -> Session:
        session = self._opened()
        await session.background.calm()
        return session

    def _opened(self) -> Session:
        if self._session is None:
            raise BackendError("this JetStreamBackend is not open: use it through a Scheduler")
        self._affinity.check()
        return self._session

    async def check(self) -> None:
        session = self._opened()
        if session.hints.failure is not None:
            raise session.hints.failure
        await session.wire.allowed(probes(session.names))
        message = Message(session.names.check(session.worker), b"", {TTL: "60"})
        await session.writer.write(AtomicWrite([message], None))

    # -- probes

    async def due_since(self) -> datetime | None:
        return await self._opened().reconciler.due_since()

    async def live_workers(self) -> Sequence[str] | None:
        self._opened()
        return None

    # -- definitions

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        session = await self._calm()
        if not jobs:
            return []
        if len(jobs) > BULK:
            raise InvalidDefinition("jobs", f"at most {BULK} at once, not {len(jobs)}")
        return await session.background.undisturbed(session.definitions.add(jobs))

    async def get(self, job_id: str) -> Job | Undecodable | None:
        session = await self._calm()
        # From the leader: what an edit makes of an occurrence depends on whether it has begun.
        return (await session.reader.read_leader(token_of(job_id))).read()

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        session = await self._calm()
        return await session.background.undisturbed(session.definitions.replace(job, executions))

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        session = await self._calm()
        await session.background.undisturbed(session.definitions.remove(job, executions))

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await (await self._calm()).listing.page(query, after, limit)

    # -- waiting and claiming

    async def wait_due(self, room: Room) -> None:
        session = self._opened()
        clock, hints, alarm = session.clock, session.hints, session.alarm
        last = clock.now() + MAX_POLL
        # In real time, too: the clock may be set back, and a fake one may not move.
        with anyio.move_on_after(MAX_POLL.total_seconds()), hints.wanted(room):
            while session is self._session:
                seen = alarm.count
                if hints.failure is not None:
                    raise hints.failure
                await session.find_due()
                hints.look(room)
                await hints.read_offers(room)
                now, earliest = clock.now(), hints.earliest(room)
                last = min(last, now + MAX_POLL)  # the clock may have been set back
                if (
                    session.live.has_late(room)
                    or now >= last
                    or (earliest is not None and earliest <= now)
                ):
                    return
                await alarm.sleep(clock, last if earliest is None else min(earliest, last), seen)

    async def wait_cancelled(self) -> bool:
        session = self._opened()
        return await session.cancels.wait(session.clock)

    async def claim_due(self, room: Room) -> Claimed:
        asked_at = self._opened().clock.now()
        session = await self._calm()
        claiming = session.background.spawn(session.claims.due(room, asked_at=asked_at))
        try:
            await asyncio.wait([claiming])
            await anyio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            session.background.clean_up(_give_back(session, claiming))
            raise
        return claiming.result()

    # -- holding

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        return await self._opened().leases.renew(renewals)

    async def release(self, claims: Sequence[Claim]) -> None:
        session = await self._calm()
        await session.background.undisturbed(session.leases.release(claims))

    # -- settling

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        session = await self._calm()
        answers = await session.background.undisturbed(session.settlements.settle(settlements))
        for answer in answers:
            if isinstance(answer, BackendError):
                raise answer
        return [answer for answer in answers if isinstance(answer, Settled)]

    # -- the history

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        return await (await self._calm()).history.page(query, after, limit)

    async def execution(self, execution_id: str) -> Execution | UndecodableExecution | None:
        return await (await self._calm()).lookup.execution(execution_id)

    async def recent(
        self, job_ids: Sequence[str], *, limit: int
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        return await (await self._calm()).lookup.recent(job_ids, limit)

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        return await (await self._calm()).following.part(after, limit)

    # -- what is going on

    async def claims(self, query: ClaimQuery, *, after: str | None, limit: int) -> Page[Hold]:
        return await (await self._calm()).held.page(query, after, limit)

    async def counts(self, query: CountQuery) -> Counts:
        session = await self._calm()
        async with session.counting:
            tally = Tally(query, session.clock.now())
            until = monotonic_seconds() + COUNTS_FOR
            jobs = await session.job_index.count(tally, until)
            until = max(until, monotonic_seconds() + COUNTS_FOR / 2)
            # Workers ask for no execution, each minute: they must not read the whole history.
            executions = query.since > tally.now or await session.history_index.count(tally, until)
        return tally.counts(complete=jobs and executions)

    async def report(self, state: WorkerState) -> None:
        await self._opened().reports.store(state)

    async def workers(self) -> Sequence[WorkerState]:
        return await self._opened().reports.all()

    # -- retention

    async def prune(self, before: datetime) -> int:
        session = await self._calm()
        now = session.clock.now()
        await session.reports.prune(now)
        deleted = await session.timing.delete_expired(session.reconciler, session.records)
        return deleted + await session.history.prune(before, now)

    # -- reconciling

    async def reconcile(self) -> int:
        """Read all records once, and send a hint for each job that is due and that no worker has.

        The backend does so on its own every ``reconcile_interval``. Call it after a repair by hand,
        and in tests on a fake clock.

        Returns:
            How many hints were sent.
        """
        session = self._opened()
        return await session.reconciler.go_through(grace=timedelta(0))


async def _give_back(session: Session, claiming: asyncio.Task[Claimed]) -> None:
    """Give back what was claimed for a call that was cancelled."""
    await asyncio.wait([claiming])
    if claiming.exception() is None:
        await session.leases.give_back(claiming.result().claims)
