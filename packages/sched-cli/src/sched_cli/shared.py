"""What the commands share: the application, its options, errors, the scheduler, printing."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import anyio
import typer
from attrs import frozen
from rich.console import Console
from rich.text import Text

from sched_core import (
    InvalidDefinition,
    ModeNotConfigured,
    SchedError,
    Scheduler,
    SystemClock,
)
from sched_core.config import open_backend, read_config

FILES = ("scheduler.toml", "pyproject.toml")

app = typer.Typer(
    name="sched",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Look at the jobs of a scheduler, operate them, and run them.\n\n"
    "The store is the one of the configuration file: --config, or the file that SCHEDULER_CONFIG "
    "names, or scheduler.toml or pyproject.toml (table tool.scheduler) in this folder; variables "
    "such as SCHEDULER_SQL_URL win over it.\n\n"
    "Exit codes: 0 done, 1 it could not be done, 2 wrong input or configuration.",
)


@frozen
class Settings:
    """What stands before the command."""

    config: Path | None
    utc: bool


LOOK, ACT, RUN = "Look", "Operate", "Run"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Of the job.", show_default=False)]


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The TOML file.", show_default=False)
    ] = None,
    utc: Annotated[bool, typer.Option("--utc", help="Show moments in UTC.")] = False,
) -> None:
    """Keep what stands before the command."""
    context.obj = Settings(config, utc)


class Telling:
    """Turns errors that are the caller's, or the store's, into a line and an exit code."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InvalidDefinition | ModeNotConfigured):
            fail(str(error), code=2)
        if isinstance(error, SchedError):
            fail(str(error), code=1)
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            fail(f"{error.filename}: {error.strerror}", code=2)


def fail(text: str, *, code: int) -> NoReturn:
    """Say what is wrong, and end."""
    Console(stderr=True, soft_wrap=True).print(Text(f"sched: {text}"))
    raise typer.Exit(code)


def settings_of(context: typer.Context) -> Settings:
    """Return what stands before the command."""
    settings: Settings = context.obj
    return settings


def config_of(context: typer.Context) -> Path | None:
    """Return the file to read; ``None`` leaves it to the environment."""
    config = settings_of(context).config
    if config is None and not os.environ.get("SCHEDULER_CONFIG"):
        for name in FILES:
            path = Path(name)
            if path.exists() and (
                name != "pyproject.toml" or "[tool.scheduler" in path.read_text()
            ):
                return path
    return config


@asynccontextmanager
async def opened_scheduler(config: Path | None) -> AsyncIterator[Scheduler]:
    """Open the scheduler of a configuration; it runs nothing."""
    found = read_config(config)
    scheduler = Scheduler(open_backend(found), worker="sched-cli")
    async with scheduler:
        yield scheduler


def with_scheduler(
    context: typer.Context, main: Callable[[Scheduler], Awaitable[int | None]]
) -> None:
    """Call a function with the scheduler of the configuration; what it returns is the exit code."""
    config = config_of(context)

    async def opened() -> int | None:
        async with opened_scheduler(config) as scheduler:
            return await main(scheduler)

    with Telling():
        code = anyio.run(opened)
    if code:
        raise typer.Exit(code)


def now_of(scheduler: Scheduler) -> Any:
    """Return the present moment, by the clock that decides."""
    health = scheduler.snapshot()
    return SystemClock().now() if health is None else health.at


def screen() -> Console:
    """Return the terminal, or a wide page where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 200  # a pipe has no edge
    return console


def print_json(value: Any) -> None:
    """Print a value for programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2))  # noqa: T201 -- a program's output
