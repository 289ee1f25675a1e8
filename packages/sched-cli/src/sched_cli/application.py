"""What the commands share: the application, its options, errors, the scheduler."""

from __future__ import annotations

import errno
import getpass
import os
import platform
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import anyio
import typer
from attrs import evolve, frozen
from typer.completion import completion_init  # type: ignore[attr-defined]  # named nowhere else
from typer.core import TyperGroup

from sched_cli.output import complain
from sched_core import (
    InvalidDefinition,
    ModeNotConfigured,
    SchedError,
    Scheduler,
    StoreNotFound,
    SystemClock,
)
from sched_core.config import Config, open_backend, read_config
from sched_core.ports import Backend
from sched_core.settings import without_password

FILES = ("scheduler.toml", "pyproject.toml")
FAILED, WRONG, INTERRUPTED, UNHEARD = 1, 2, 130, 141
"""Exit codes: it failed; wrong input or configuration; Ctrl-C; no program reads the output."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_JETSTREAM = ("nats", "tls", "ws", "wss")
_NAMES_OF_URL = ("dsn", "database", "servers", "urls", "address")


class Commands(TyperGroup):
    """The commands; whatever ends one becomes one line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; see the table of exit codes in the README."""
        completion_init()  # Typer's own options for it are left out: they write to the user's files
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except typer.Abort:
            complain("interrupted")
            code = INTERRUPTED
        except SystemExit as end:  # of Typer and Rich, while they print help
            code = end.code
            if isinstance(end.__context__, BrokenPipeError):
                _let_go_of_output()
                code = UNHEARD
        except Exception as error:
            # Typer has its own copy of Click's errors, and gives them no public name.
            message = getattr(error, "format_message", None)
            if message is None:
                raise
            complain(
                " ".join(without_password(message()).split()) + _see(getattr(error, "ctx", None))
            )
            code = WRONG
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> Any:
        """Call the command, and check that its output could be written."""
        with ErrorReporting():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result


def _see(context: Any) -> str:
    return "" if context is None else f"; see '{context.command_path} --help'"


app = typer.Typer(
    name="sched",
    cls=Commands,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Look at the jobs of a scheduler, operate them, and run them.\n\n"
    "A configuration file names the store: --config, or the file that SCHEDULER_CONFIG names, or "
    "scheduler.toml or pyproject.toml (table tool.scheduler) in this folder. Variables such as "
    "SCHEDULER_SQL_URL win over the file, and --url wins over both. Only the command run creates "
    "a store.\n\n"
    "Exit codes: 0 done, 1 it failed, or a problem was found, 2 wrong input or configuration, "
    "130 Ctrl-C.",
)


@frozen
class Settings:
    """The options that precede the command."""

    config: Path | None
    url: str | None
    utc: bool


LOOK, ACT, RUN = "Look", "Operate", "Run"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.", show_default=False)]


Actor = Annotated[
    str | None,
    typer.Option(
        envvar="SCHED_ACTOR",
        help="Who does this, for people; your login and host unless given.",
        show_default=False,
    ),
]
Reason = Annotated[str | None, typer.Option(help="Why, for people.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be asked for; write nothing.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sched {version('sched-cli')}")
        raise typer.Exit(0)


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="The configuration file (TOML).", show_default=False),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The store's address; it wins over the file and the environment."),
    ] = None,
    utc: Annotated[bool, typer.Option("--utc", help="Show moments in UTC.")] = False,
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Keep the options that precede the command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(WRONG)
    context.obj = Settings(config, url, utc)


class ErrorReporting:
    """Turns the caller's errors, and the store's, into one line and an exit code."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InvalidDefinition | ModeNotConfigured | StoreNotFound):
            fail(str(error), code=WRONG)
        if isinstance(error, SchedError):
            fail(str(error), code=FAILED)
        if isinstance(error, OSError):
            if error.errno == errno.EPIPE:
                _let_go_of_output()
                raise typer.Exit(UNHEARD)
            name = f"{without_password(str(error.filename))}: " if error.filename else ""
            fail(f"{name}{error.strerror or error}", code=WRONG)
        if isinstance(error, KeyboardInterrupt):
            fail("interrupted", code=INTERRUPTED)
        if isinstance(error, UnicodeEncodeError):
            fail(f"an argument is no text: {error.object!r}", code=WRONG)


def _let_go_of_output() -> None:
    """Discard output that is not flushed yet: the interpreter flushes once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError):
            continue


def fail(text: str, *, code: int) -> NoReturn:
    """Print what is wrong, and end the command."""
    complain(text)
    raise typer.Exit(code)


def entry_of(text: str, option: str) -> tuple[str, str]:
    """Return the parts of ``KEY=VALUE``, or end the command."""
    key, equals, value = text.partition("=")
    if not equals:
        fail(f"{option}: must be like KEY=VALUE, not {text!r}", code=WRONG)
    return key, value


def actor_of(given: str | None) -> str:
    """Return who does something: as given, or else the login and the host."""
    if given is not None:
        return given
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        login = str(os.getuid())
    return f"{login}@{platform.node()}"


def settings_of(context: typer.Context) -> Settings:
    """Return the options that precede the command."""
    settings: Settings = context.obj
    return settings


def config_of(context: typer.Context) -> Config:
    """Read the configuration: the file, the environment over it, ``--url`` over both."""
    settings = settings_of(context)
    path = _file(settings.config)
    found = read_config(path)
    if settings.url is None:
        return found
    mode = _mode_of(settings.url, found.general.mode)
    if mode != found.general.mode:
        found = read_config(path, environ={**os.environ, "SCHEDULER_MODE": mode})
    section = found.section.with_value(
        "url", settings.url, source="--url", instead_of=_NAMES_OF_URL
    )
    return evolve(found, section=section, source=f"--url and {found.source}")


def _file(config: Path | None) -> Path | None:
    """Return the file to read; ``None`` leaves it to the environment."""
    if config is None and not os.environ.get("SCHEDULER_CONFIG"):
        for name in FILES:
            path = Path(name)
            if path.exists() and (
                name != "pyproject.toml" or b"[tool.scheduler" in path.read_bytes()
            ):
                return path
    return config


def _mode_of(url: str, configured: str | None) -> str:
    """Return the mode for an address; an unknown kind of address keeps the configured mode."""
    scheme = _ADDRESS.match(url)
    jetstream, sql = ("jetstream", "nats"), ("sql", "gorm")
    known = (*jetstream, *sql)
    modes = jetstream if scheme is not None and scheme[1].lower() in _JETSTREAM else sql
    if configured in modes or (scheme is not None and configured not in (*known, "memory", None)):
        return configured or modes[0]
    return modes[0]


@asynccontextmanager
async def opened_scheduler(config: Config) -> AsyncIterator[Scheduler]:
    """Open a scheduler that runs nothing on the store of a configuration, which must exist."""
    scheduler = Scheduler(open_backend(config, create=False), worker=WORKER)
    async with scheduler:
        yield scheduler


WORKER = "sched-cli"
"""The name under which this program opens a store."""


def with_scheduler(
    context: typer.Context, main: Callable[[Scheduler], Awaitable[int | None]]
) -> None:
    """Call a function with the scheduler of the configuration; it returns the exit code."""
    config = config_of(context)

    async def opened() -> int | None:
        async with opened_scheduler(config) as scheduler:
            return await main(scheduler)

    code = anyio.run(opened)
    if code:
        raise typer.Exit(code)


def store_of(backend: Backend) -> str:
    """Return the name of a store for people, without a password."""
    kind = type(backend)
    return kind.__name__ if kind.__str__ is object.__str__ else str(backend)


def now_of(scheduler: Scheduler) -> Any:
    """Return the present moment, by the clock that decides."""
    health = scheduler.snapshot()
    return SystemClock().now() if health is None else health.at
