"""Jobs chosen by what they have in common, and one action on each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import anyio
import typer
from attrs import define, evolve, field, frozen

from sched_cli.application import FAILED, WRONG, fail
from sched_cli.asking import confirm, need_answer
from sched_cli.output import complain, print_json, say
from sched_cli.text import counted
from sched_core import (
    BackendError,
    BulkResult,
    InvalidDefinition,
    Job,
    JobQuery,
    SchedError,
    Scheduler,
    State,
    TooManyRequests,
    Undecodable,
)

MaybeJobId = Annotated[
    str | None, typer.Argument(metavar="ID", help="The job's id.", show_default=False)
]
OfGroup = Annotated[
    str | None, typer.Option("--group", help="All jobs of this group.", show_default=False)
]
OfQueue = Annotated[
    str | None, typer.Option("--queue", help="All jobs of this queue.", show_default=False)
]
WithPrefix = Annotated[
    str | None,
    typer.Option("--prefix", help="All jobs whose id starts with this text.", show_default=False),
]
InState = Annotated[
    State | None, typer.Option("--state", help="All jobs in this state.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="All jobs of the store.")]


@frozen
class Choice:
    """The options with which a command chooses jobs.

    Attributes:
        group, queue, prefix, state: What the jobs have in common.
        all: Whether all jobs are meant.
    """

    group: str | None
    queue: str | None
    prefix: str | None
    state: State | None
    all: bool

    def target(self, one: str | None, *, name: str = "ID") -> JobQuery | str:
        """Return what names one thing, or the query for the jobs; end the command for neither.

        Args:
            one: What names one thing, such as the job's id.
            name: What the command calls that.
        """
        texts = {"--group": self.group, "--queue": self.queue, "--prefix": self.prefix}
        for option, text in texts.items():
            if text == "":  # such as of a shell's variable that is not set
                fail(f"{option}: must not be empty; --all takes all jobs", code=WRONG)
        some = self.state is not None or any(texts.values())
        if some and self.all:
            fail("--all: takes all jobs: leave out the options that choose some", code=WRONG)
        if one is not None:
            if some or self.all:
                fail(f"{name}: give either it, or options that choose jobs", code=WRONG)
            return one
        if not some and not self.all:
            fail(
                f"{name}: give one, or choose jobs by --group, --queue, --prefix, --state or --all",
                code=WRONG,
            )
        return JobQuery(self.state, self.prefix or "", self.group, {}, self.queue)


@frozen
class Action:
    """What a command does to each of many jobs.

    Attributes:
        name: The verb, as the command is called.
        done: The verb's participle, for the result.
        applies: Whether a job needs it; the others are left as they are.
        act: Does it, and returns what is told of it to programs. ``None``: the job has changed
            since it was listed, and is left as it is.
        what: What is counted in the question.
    """

    name: str
    done: str
    applies: Callable[[Job], bool]
    act: Callable[[Job], Awaitable[dict[str, Any] | None]]
    what: str = "job"


def this_one(query: JobQuery, job: Job) -> JobQuery:
    """Return the query for a job alone, as long as it is the one that was listed, and is meant."""
    return evolve(query, id_prefix=job.id, uid=job.uid)


def outcome(result: BulkResult) -> dict[str, Any] | None:
    """Return what an action tells, of a call of the scheduler for one job.

    Raises:
        SchedError: It has failed.
    """
    for problem in result.failures.values():
        raise SchedError(problem)
    return {} if result.changed else None


@define
class _Result:
    wanted: int = 0
    done: list[dict[str, Any]] = field(factory=list)
    left: int = 0
    failed: list[dict[str, Any]] = field(factory=list)
    unreadable: list[str] = field(factory=list)


async def on_each(
    scheduler: Scheduler, query: JobQuery, action: Action, *, yes: bool, as_json: bool
) -> int:
    """Ask, act on each job that the query finds, tell each failure; return the exit code.

    Args:
        scheduler: Lists the jobs.
        query: The choice of jobs.
        action: What to do.
        yes: Whether not to ask.
        as_json: Whether to tell the result to a program.
    """
    need_answer(yes=yes)
    result, jobs = _Result(), list[Job]()
    async for job in scheduler.list_jobs(query):
        if isinstance(job, Undecodable):
            # Nothing but its id is known, so it may be none of those that are meant.
            result.unreadable.append(job.id)
            complain(f"left alone: job {job.id!r} cannot be read here: {job.reason}")
        elif action.applies(job):
            jobs.append(job)
        else:
            result.left += 1
    result.wanted = len(jobs)
    if jobs:
        verb = action.name.capitalize()
        await confirm(f"{verb} {counted(len(jobs), action.what)}?", yes=yes)
    try:
        await _act(action, jobs, result)
    except anyio.get_cancelled_exc_class():
        complain(f"{action.done} {len(result.done)} of {result.wanted}")
        raise
    _tell(action, result, as_json=as_json)
    return FAILED if result.failed else 0


async def _act(action: Action, jobs: list[Job], result: _Result) -> None:
    for job in jobs:
        try:
            told = await action.act(job)
        except BackendError as error:  # the store fails: so would the rest
            result.failed.append({"id": job.id, "reason": str(error)})
            said = f"{action.done} {len(result.done)} of {result.wanted}"
            complain(f"{said}, and gave up: {job.id!r}: {error}")
            return
        except TooManyRequests as error:
            _failed(job, error, result)
        except InvalidDefinition:
            raise  # an option is wrong, for every job
        except SchedError as error:
            _failed(job, error, result)
        else:
            if told is None:
                result.left += 1
            else:
                result.done.append({"id": job.id, **told})


def _failed(job: Job, error: SchedError, result: _Result) -> None:
    result.failed.append({"id": job.id, "reason": str(error)})
    complain(f"{job.id!r}: {error}")


def _tell(action: Action, result: _Result, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "done": result.done,
                "left": result.left,
                "failed": result.failed,
                "unreadable": result.unreadable,
            }
        )
        return
    said = [f"{action.done} {counted(len(result.done), action.what)}"]
    if result.left:
        said.append(f"left {result.left} as they were")
    if result.failed:
        said.append(f"{len(result.failed)} failed")
    say(", ".join(said))
