"""The command that runs jobs."""

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

from sched_cli.shared import (
    RUN,
    Telling,
    app,
    config_of,
)
from sched_core import (
    InvalidDefinition,
    Scheduler,
    open_scheduler,
)
from sched_core.logs import JsonFormatter
from sched_core.ports import Dispatcher


class Log(enum.Enum):
    """How to log."""

    TEXT = "text"
    JSON = "json"
    NONE = "none"


@app.command(rich_help_panel=RUN)
def run(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A Scheduler, a function that returns one, or a handler such as a JobRouter.",
            show_default=False,
        ),
    ],
    log: Annotated[
        Log, typer.Option(help="How to log to standard error, unless the module sets that up.")
    ] = Log.TEXT,
) -> None:
    """Run what is due until Ctrl-C or SIGTERM. A handler gets the store of the configuration."""
    with Telling():
        scheduler = _scheduler_of(target, config_of(context))

    _set_up_logging(log)

    async def main() -> None:
        async with scheduler:
            await scheduler.run_forever()

    with Telling():
        anyio.run(main)


def _scheduler_of(target: str, config: Path | None) -> Scheduler:
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise InvalidDefinition("MODULE:NAME", f"must be like app.jobs:scheduler, not {target!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module was found, and what it imports was not
        raise InvalidDefinition("MODULE:NAME", f"there is no module {module!r} here") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise InvalidDefinition("MODULE:NAME", f"{module!r} has no {name!r}")
        found = getattr(found, part)
    if isinstance(found, Dispatcher):
        return open_scheduler(config, handler=found)
    if not isinstance(found, Scheduler) and callable(found):
        found = found() if _takes_nothing(found) else open_scheduler(config, handler=found)
    if not isinstance(found, Scheduler):
        raise InvalidDefinition(
            "MODULE:NAME",
            f"{target} is no Scheduler, nor a function that returns one, nor a handler",
        )
    return found


def _set_up_logging(log: Log) -> None:
    root = logging.getLogger()
    if root.handlers or log is Log.NONE:
        return
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log is Log.JSON else text)
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    return True
