"""Overlap of definitions: two callers write at once, and one of them comes first.

Each law is one round; :mod:`sched_testkit._suite.overlap` says in which constellations it is
played.
"""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from sched_core import (
    Execution,
    Job,
    JobAlreadyExists,
    JobNotFound,
    Kind,
    Renewal,
    RevisionConflict,
    Room,
    Status,
)
from sched_testkit._suite.overlap import Answer, Call, Overlap
from sched_testkit.laws.law import law_of_overlap


def won(first: Answer, second: Answer, *refusals: type[Exception]) -> Answer:
    """Return the answer of the only call that succeeded; the other one was refused."""
    winners = [answer for answer in (first, second) if answer.error is None]
    assert winners, f"both were refused: {first} and {second}"
    assert len(winners) == 1, f"both succeeded: {first} and {second}"
    loser = second if winners[0] is first else first
    expected = " or ".join(kind.__name__ for kind in refusals)
    assert isinstance(loser.error, refusals), f"the other one raised {loser}, not {expected}"
    return winners[0]


@law_of_overlap
async def one_of_two_adds_of_an_id_wins(both: Overlap) -> None:
    """Two adds of one id at once: one stores its job and the other raises JobAlreadyExists."""
    mine, theirs = both.job(metadata={"of": "one"}), both.job(metadata={"of": "two"})
    first, second = await both.both(lambda one: one.add([mine]), lambda two: two.add([theirs]))
    winner = won(first, second, JobAlreadyExists)
    assert [await both.stored()] == list(winner.value), "what the winner was told is not stored"


@law_of_overlap
async def two_adds_of_one_incarnation_store_it_once(both: Overlap) -> None:
    """Two adds of one uid at once: one stores it, the other is a repeat, both get the job."""
    job = both.job()
    first, second = await both.both(lambda one: one.add([job]), lambda two: two.add([job]))
    assert first.error is None and second.error is None, f"refused: {first} and {second}"
    stored = await both.stored()
    assert list(first.value) == list(second.value) == [stored], "they were told different jobs"


@law_of_overlap
async def one_of_two_batches_with_a_common_id_wins(both: Overlap) -> None:
    """Two batches at once with ids in common: one is stored, and nothing of the other."""
    if (both.one.capabilities.bulk_limit or 4) < 4:
        return
    mine = [both.job(name) for name in ("a", "x", "y", "b")]
    theirs = [both.job(name) for name in ("b", "y", "z", "c")]  # in another order: no deadlock
    first, second = await both.both(lambda one: one.add(mine), lambda two: two.add(theirs))
    winner = won(first, second, JobAlreadyExists)
    won_by = mine if winner is first else theirs
    expected = {job.id: job.uid for job in won_by}
    jobs = await both.bench.jobs(both.two, id_prefix=both.name)
    stored = {job.id: job.uid for job in jobs if isinstance(job, Job)}
    assert stored == expected, f"stored are {stored}, the winner's batch is {expected}"
    claimed = {claim.job.id: claim.job.uid for claim in await both.claimed(both.one)}
    assert claimed == expected, f"due are {claimed}, the winner's batch is {expected}"


@law_of_overlap
async def nothing_of_a_refused_batch_is_ever_claimed(both: Overlap) -> None:
    """While a batch is refused because its last id is taken, no other job of it is handed out."""
    if (both.one.capabilities.bulk_limit or 4) < 4:
        return
    await both.added(both.job("z", due=None))
    batch = [both.job(name) for name in ("a", "b", "c", "z")]
    first, second = await both.both(lambda one: one.add(batch), both.claimed)
    assert first.raised(JobAlreadyExists), f"a taken id was accepted: {first}"
    claimed = [claim.job.id for claim in second.claims]
    assert not claimed, f"jobs of a refused batch were handed out: {claimed}"
    left = [job.id for job in await both.bench.jobs(both.two, id_prefix=both.name)]
    assert left == [f"{both.name}z"], f"a refused batch left {left}"


@law_of_overlap
async def a_refused_batch_removes_nothing_of_others(both: Overlap) -> None:
    """A batch that is refused takes back nothing that another call stored meanwhile."""
    if (both.one.capabilities.bulk_limit or 2) < 2:
        return
    await both.added(both.job("z"))
    batch, other = [both.job("a"), both.job("z")], both.job("a")
    first, second = await both.both(lambda one: one.add(batch), lambda two: two.add([other]))
    assert first.raised(JobAlreadyExists), f"a taken id was accepted: {first}"
    if second.raised(JobAlreadyExists):
        raise AssertionError("an id was said to be taken, by a batch that was never stored")
    assert [await both.stored("a")] == list(second.value)


@law_of_overlap
async def one_of_two_edits_of_a_revision_wins(both: Overlap) -> None:
    """Two edits of one revision at once: one is stored, executions too; the other is refused."""
    (job,) = await both.added(both.job(due=None))

    def edit(caller: str) -> Job:
        return evolve(job, spec=evolve(job.spec, metadata={"of": caller}))

    mine, theirs = unrun(both, job, 1), unrun(both, job, 2)
    first, second = await both.both(
        lambda one: one.replace(edit("one"), [mine]), lambda two: two.replace(edit("two"), [theirs])
    )
    winner = won(first, second, RevisionConflict)
    assert await both.stored() == winner.value, "what the winner was told is not stored"
    expected = [mine] if winner is first else [theirs]
    assert await both.history() == expected, "the history is not what the winner wrote"


@law_of_overlap
async def one_of_two_removals_removes(both: Overlap) -> None:
    """Two removals at once: one removes the job and writes executions, and the other finds none."""
    (job,) = await both.added(both.job(due=None))
    mine, theirs = unrun(both, job, 1), unrun(both, job, 2)
    first, second = await both.both(
        lambda one: one.remove(job, [mine]), lambda two: two.remove(job, [theirs])
    )
    winner = won(first, second, JobNotFound)
    assert await both.seen() is None, "a removed job is there"
    expected = [mine] if winner is first else [theirs]
    assert await both.history() == expected, "the history is not what the one that removed it wrote"


@law_of_overlap
async def an_edit_or_a_removal_of_a_revision_wins(both: Overlap) -> None:
    """An edit and a removal of one revision at once: one happens and the other is refused."""
    (job,) = await both.added(both.job(due=None))
    edited = evolve(job, spec=evolve(job.spec, metadata={"of": "one"}))
    first, second = await both.both(
        lambda one: one.replace(edited),
        lambda two: two.remove(job, [unrun(both, job, 1)]),
    )
    if second.error is None:
        assert first.raised(JobNotFound), f"both happened: {first}"
        assert await both.seen() is None, "a removed job is there again"
        assert len(await both.history()) == 1
        return
    assert second.raised(RevisionConflict), f"the removal of an edited job: {second}"
    assert first.error is None, f"both were refused: {first} and {second}"
    assert await both.stored() == first.value
    assert not await both.history(), "a refused removal wrote to the history"


@law_of_overlap
async def a_removed_id_is_free_for_one_add(both: Overlap) -> None:
    """An add during the removal of its id is stored after it, or refused because of what was."""
    (old,) = await both.added(both.job())
    new = both.job()
    first, second = await both.both(lambda one: one.remove(old), lambda two: two.add([new]))
    assert first.error is None, f"the removal: {first}"
    stored = await both.seen()
    if second.error is None:
        assert [stored] == list(second.value), "a job that was added is gone"
        assert [claim.job.uid for claim in await both.claimed(both.one)] == [new.uid]
    else:
        assert second.raised(JobAlreadyExists), f"the add: {second}"
        assert stored is None, "a removed job is there"


@law_of_overlap
async def writes_of_different_jobs_are_all_kept(both: Overlap) -> None:
    """Two writes at once of different jobs both happen: neither takes back what the other did."""
    one, two = await both.added(both.job("one", due=None), both.job("two", due=None))
    mine, theirs = (evolve(job, spec=evolve(job.spec, name="edited")) for job in (one, two))
    first, second = await both.both(
        lambda one_: one_.replace(mine, [unrun(both, one, 1)]),
        lambda two_: two_.replace(theirs, [unrun(both, two, 1)]),
    )
    assert first.error is None and second.error is None, f"refused: {first} and {second}"
    assert await both.stored("one") == first.value, "an edit of another job was taken back"
    assert await both.stored("two") == second.value, "an edit of another job was taken back"
    listed = {execution.job_id for execution in await both.newest(2)}
    assert listed == {one.id, two.id}, f"the history has executions of {sorted(listed)}"
    adding, removing = both.job("three"), first.value
    third, fourth = await both.both(
        lambda one_: one_.add([adding]), lambda two_: two_.remove(removing)
    )
    assert third.error is None and fourth.error is None, f"refused: {third} and {fourth}"
    assert await both.seen("one") is None, "a removal of another job was taken back"
    assert [await both.stored("three")] == list(third.value), "an added job is gone"


@law_of_overlap
async def no_call_takes_back_what_another_wrote(both: Overlap) -> None:
    """A call about another job, or about none, takes back nothing that is written meanwhile."""
    others = await both.added(both.job("renewed"), both.job("released"))
    claims = {claim.job.id: claim for claim in await both.claimed(both.one)}
    assert claims.keys() == {job.id for job in others}
    renewed, released = (claims[job.id] for job in others)
    long_ago = both.bench.clock.now() - timedelta(days=1000)
    calls: dict[str, Call] = {
        "check": lambda two: two.check(),
        "prune": lambda two: two.prune(long_ago),
        "renew": lambda two: two.renew([Renewal(renewed)]),
        "release": lambda two: two.release([released]),
        "claim_due": lambda two: two.claim_due(Room(10)),
    }
    for name, call in calls.items():
        job = both.job(name, due=None)
        first, second = await both.both(_adding(job), call)
        assert first.error is None and second.error is None, f"{name}: {first} and {second}"
        assert [await both.stored(name)] == list(first.value), f"{name} took a job back"


def _adding(job: Job) -> Call:
    return lambda one: one.add([job])


@law_of_overlap
async def pruning_keeps_what_an_edit_revives(both: Overlap) -> None:
    """A job whose edit takes away its end during a prune is kept, or its edit finds it gone."""
    job = both.job(due=None)
    expired = evolve(job.standing, expires_at=both.bench.clock.now() - timedelta(hours=1))
    (job,) = await both.added(evolve(job, standing=expired))
    revived = evolve(job, standing=evolve(expired, expires_at=None))
    before = both.bench.clock.now() - timedelta(days=1)
    first, second = await both.both(lambda one: one.replace(revived), lambda two: two.prune(before))
    stored = await both.seen()
    if first.error is None:
        assert stored == first.value, "prune deleted a job after an edit had taken away its end"
        assert second.value == 0, f"prune tells of {second} deleted, and nothing is"
    else:
        assert first.raised(JobNotFound), f"the edit: {first}"
        assert stored is None, "the edit was told that the job is gone, and it is there"


def unrun(both: Overlap, job: Job, attempt: int) -> Execution:
    """Build an execution that a definition writes: of an occurrence that will not run."""
    now = both.bench.clock.now()
    return Execution(
        id=f"{job.uid}:{job.standing.last_number}:{attempt}",
        job_id=job.id,
        uid=job.uid,
        number=job.standing.last_number,
        attempt=attempt,
        kind=Kind.SCHEDULED,
        scheduled_at=now,
        status=Status.SUPERSEDED,
        final=True,
        token=0,
        worker="",
        claimed_at=now,
        started_at=None,
        finished_at=now,
    )
