"""The command that runs jobs, and the one that sets up completion in a shell."""

from __future__ import annotations

import enum
import importlib
import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # as in application

from sched_cli.application import RUN, app, config_of, settings_of, store_of
from sched_cli.output import printable
from sched_core import InvalidDefinition, Scheduler
from sched_core.config import open_backend
from sched_core.handlers import Dispatcher
from sched_core.logs import JsonFormatter

logger = logging.getLogger("sched_cli")

WHAT = "MODULE:NAME"
MANY = 1000
"""The most jobs that are counted at the start: a service must not read a million first."""


class Log(enum.Enum):
    """The format of the log."""

    TEXT = "text"
    JSON = "json"
    NONE = "none"


@app.command(rich_help_panel=RUN, epilog="Example: sched run app.jobs:router")
def run(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar=WHAT,
            help="A Scheduler, a function that returns one, or a handler such as a JobRouter.",
            show_default=False,
        ),
    ],
    log: Annotated[
        Log, typer.Option(help="How to log to standard error, unless the module sets up logging.")
    ] = Log.TEXT,
) -> None:
    """Run due jobs until Ctrl-C or SIGTERM. A handler uses the store of the configuration."""
    scheduler = _scheduler_of(target, context)
    _set_up_logging(log)

    async def main() -> None:
        async with scheduler:
            jobs = await _counted(scheduler)
            logger.info("%s runs on %s, with %s", target, store_of(scheduler.backend), jobs)
            await scheduler.run_forever()

    anyio.run(main)


async def _counted(scheduler: Scheduler) -> str:
    """Return how many jobs there are, in words; stop counting at :data:`MANY`."""
    count = 0
    async for _ in scheduler.list_jobs():
        count += 1
        if count > MANY:
            return f"more than {MANY} jobs"
    return "1 job" if count == 1 else f"{count} jobs"


def _scheduler_of(target: str, context: typer.Context) -> Scheduler:
    module, colon, name = target.partition(":")
    parts = module.split(".")
    if not (colon and name and all(part.isidentifier() for part in parts)):
        raise InvalidDefinition(WHAT, f"must be like app.jobs:scheduler, not {target!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module was found, and what it imports was not
        raise InvalidDefinition(WHAT, f"there is no module {module!r} here") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise InvalidDefinition(WHAT, f"{module!r} has no {name!r}")
        found = getattr(found, part)
    is_function = callable(found) and not isinstance(found, Scheduler | Dispatcher)
    if isinstance(found, Dispatcher) or (is_function and not _takes_nothing(found)):
        config = config_of(context)
        general = config.general
        return Scheduler(
            open_backend(config),
            handler=found,
            worker=general.worker,
            max_concurrency=general.max_concurrency,
        )
    settings = settings_of(context)
    for option, given in (("--url", settings.url), ("--config", settings.config)):
        if given is not None:
            raise InvalidDefinition(option, f"is for handlers, and {target} brings its own store")
    if is_function:
        found = found()
    if not isinstance(found, Scheduler):
        raise InvalidDefinition(
            WHAT, f"{target} is no Scheduler, nor a function that returns one, nor a handler"
        )
    return found


class _Printable(logging.Formatter):
    """Text that cannot steer the terminal, whatever jobs log."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record, in lines that can be printed."""
        return "\n".join(map(printable, super().format(record).split("\n")))


def _set_up_logging(log: Log) -> None:
    root = logging.getLogger()
    if root.handlers or log is Log.NONE:
        return
    handler = logging.StreamHandler()
    text = _Printable("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log is Log.JSON else text)
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    return True


class Shell(enum.Enum):
    """The shells that can complete commands."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command(rich_help_panel=RUN)
def completion(
    shell: Annotated[
        Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)
    ],
) -> None:
    """Print a script that makes your shell complete commands: eval "$(sched completion bash)"."""
    name = "sched"
    script = get_completion_script(
        prog_name=name, complete_var=f"_{name.upper()}_COMPLETE", shell=shell.value
    )
    typer.echo(script)
