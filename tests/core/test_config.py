"""open_scheduler: a file, a mapping, the environment; each error with its exact message."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import field, fields, frozen

from sched_core import (
    Interval,
    InvalidDefinition,
    MemoryBackend,
    ModeNotConfigured,
    Scheduler,
    open_scheduler,
)
from sched_core._support.redaction import without_password
from sched_core.config import open_backend, read_config
from sched_core.settings import Section, duration, setting
from sched_core.testing import FakeClock, RecordingHandler
from sched_sql import SqlBackend, SqliteBackend
from sched_sql.configuration import SqlSettings

# The configuration of the original project, unchanged; the tests insert the mode.
ORIGINAL = """
[database]
driver = "sqlite"

[scheduler]
mode = "{mode}"

[scheduler.nats]
streamName = "SCHED"
subjectPrefix = "scheduler"
consumerName = "scheduler-workers"
jobBucket = "scheduler-jobs"
execBucket = "scheduler-executions"
duplicatesWindow = "24h"
reconcilerInterval = "30s"
reconcilerGracePeriod = "10s"
addJobRetryBudget = "5s"
startupStreamReadyTimeout = "30s"
jetStreamReadyTimeout = "30s"
startPhaseTimeout = "10s"
loadJobsConcurrency = 32
loadJobsAsyncPublishTimeout = "30s"
onceKey = "scheduler-once"

[scheduler.nats.publishRetry]
attempts = 5
initialBackoff = "100ms"
"""


@frozen
class Retrying:
    attempts: int = 10
    initial_backoff: timedelta = timedelta(milliseconds=10)


@frozen
class Original:
    """The keys of the original's section, as an adapter would declare them."""

    stream_name: str = "S"
    subject_prefix: str = "s"
    consumer_name: str = "c"
    job_bucket: str = "j"
    exec_bucket: str = "e"
    duplicates_window: timedelta = timedelta(0)
    reconciler_interval: timedelta = timedelta(0)
    reconciler_grace_period: timedelta = timedelta(0)
    add_job_retry_budget: timedelta = timedelta(0)
    startup_stream_ready_timeout: timedelta = timedelta(0)
    jet_stream_ready_timeout: timedelta = timedelta(0)
    start_phase_timeout: timedelta = timedelta(0)
    load_jobs_concurrency: int = 1
    load_jobs_async_publish_timeout: timedelta = timedelta(0)
    once_key: str = "o"
    publish_retry: Retrying = Retrying()
    token: str = setting("", aliases=("auth_token",), secret=True)
    fraction: float = 0.5
    check: bool = field(default=False)
    limit: int | None = None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points, to be changed by a test."""
    real = importlib.metadata.entry_points
    group = "sched.backends"
    points = {point.name: point for point in real(group=group)}

    def entry_points(**wanted: Any) -> Any:
        return list(points.values()) if wanted == {"group": group} else real(**wanted)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return points


def section(config: Any, environ: Mapping[str, str] | None = None) -> Section:
    return read_config(config, environ=environ or {}).section


def refused(act: Callable[[], object], kind: type[Exception] = InvalidDefinition) -> str:
    with pytest.raises(kind) as caught:
        act()
    return str(caught.value)


# -- the original's file -----------------------------------------------------


def test_the_originals_file_opens_a_working_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name, the database is scheduler.db in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(ORIGINAL.format(mode="gorm"), encoding="utf-8")
    clock, handler = FakeClock(), RecordingHandler()

    async def main() -> None:
        async with open_scheduler(
            "config.toml", handler=handler, clock=clock, environ={}
        ) as scheduler:
            await scheduler.ensure_job("a", Interval(hours=1))
            clock.advance(hours=1)
            await scheduler.run_due()

    anyio.run(main)
    assert handler.ids == ["a"]
    assert (tmp_path / "scheduler.db").exists()


def test_every_key_of_the_originals_nats_section_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(ORIGINAL.format(mode="nats"), encoding="utf-8")
    read = section(path).read(Original)
    assert read.stream_name == "SCHED"
    assert read.duplicates_window == timedelta(hours=24)
    assert read.load_jobs_concurrency == 32
    assert read.publish_retry == Retrying(5, timedelta(milliseconds=100))
    assert read.once_key == "scheduler-once"


def test_nats_without_its_package_names_the_extra(
    tmp_path: Path, installed: dict[str, importlib.metadata.EntryPoint]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(ORIGINAL.format(mode="nats"), encoding="utf-8")
    for mode in ("nats", "jetstream", "sql", "gorm"):
        installed.pop(mode, None)
    assert refused(lambda: open_scheduler(path, environ={}), ModeNotConfigured) == (
        "mode 'nats' is not configured: the package sched-jetstream is not installed: "
        "pip install 'sched-core[jetstream]'"
    )
    path.write_text(ORIGINAL.format(mode="gorm"), encoding="utf-8")
    assert refused(lambda: open_scheduler(path, environ={}), ModeNotConfigured) == (
        "mode 'gorm' is not configured: the package sched-sql is not installed: "
        "pip install 'sched-core[sql]'"
    )


def test_a_misspelt_key_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    text = ORIGINAL.format(mode="nats")
    for written, message in (
        (
            'streamNmae = "SCHED"',
            "scheduler.nats.streamNmae: is no key of this section: did you mean 'streamName'?",
        ),
        (
            'stream_nam = "SCHED"',
            "scheduler.nats.stream_nam: is no key of this section: did you mean 'stream_name'?",
        ),
        (
            'streamName = "SCHED"\nstream-name = "X"',
            "scheduler.nats.stream-name: is given twice, in two spellings",
        ),
    ):
        path.write_text(text.replace('streamName = "SCHED"', written), encoding="utf-8")
        assert refused(lambda: section(path).read(Original)) == message
    path.write_text(text.replace("attempts = 5", "atempts = 5"), encoding="utf-8")
    assert refused(lambda: section(path).read(Original)) == (
        "scheduler.nats.publishRetry.atempts: is no key of this section: did you mean 'attempts'?"
    )
    sql = {"mode": "sql", "sql": {"synchronuos": "FULL"}}
    assert refused(lambda: open_scheduler(sql, environ={})) == (
        "scheduler.sql.synchronuos: is no key of this section: did you mean 'synchronous'?"
    )


# -- what can be wrong -------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "environ", "message"),
    [
        (
            {},
            {},
            (
                "scheduler.mode: is missing: set it there or as SCHEDULER_MODE; "
                "there are: gorm, jetstream, memory, nats, sql"
            ),
        ),
        ({"mode": "gomr"}, {}, "scheduler.mode: 'gomr' is no mode: did you mean 'gorm'?"),
        (
            {"mode": "x"},
            {},
            "scheduler.mode: 'x' is no mode: there are: gorm, jetstream, memory, nats, sql",
        ),
        ({"mode": 5}, {}, "scheduler.mode: must be text, not 5"),
        (
            {"moed": "sql"},
            {},
            "scheduler.moed: is no key of this section: did you mean 'mode'?",
        ),
        (
            {"mode": "memory", "maxConcurency": 5},
            {},
            "scheduler.maxConcurency: is no key of this section: did you mean 'maxConcurrency'?",
        ),
        (
            {"mode": "memory", "max_concurrency": "many"},
            {},
            "scheduler.max_concurrency: must be a whole number, not 'many'",
        ),
        (
            {"mode": "memory"},
            {"SCHEDULER_MAX_CONCURRENCY": "many"},
            (
                "scheduler.max_concurrency (from SCHEDULER_MAX_CONCURRENCY): "
                "must be a whole number, not 'many'"
            ),
        ),
        (
            {"mode": "memory", "memory": {"lease": "30 seconds"}},
            {},
            (
                "scheduler.memory.lease: must be a duration such as '30s', '5m' or '24h', "
                "or a number of seconds, not '30 seconds'"
            ),
        ),
        (
            {"mode": "memory"},
            {"SCHEDULER_MEMORY_LAESE": "5s"},
            (
                "scheduler.memory.laese (from SCHEDULER_MEMORY_LAESE): is no key of this section: "
                "did you mean 'lease'?"
            ),
        ),
        (
            {"mode": "memory", "memroy": {"lease": "5s"}},
            {},
            "scheduler.memroy: is no section: did you mean 'memory'?",
        ),
        (
            {"mode": "sql", "sql": {}, "gorm": {}},
            {},
            "scheduler.gorm: is the same section as scheduler.sql: keep one of them",
        ),
        (
            {"mode": "sql", "sql": {"synchronous": "MAYBE"}},
            {},
            "scheduler.sql.synchronous: must be 'FULL' or 'NORMAL', not 'MAYBE'",
        ),
        (
            {"mode": "sql", "sql": {"lease": 0}},
            {},
            (
                "scheduler.sql.lease: must be a timedelta of 0:00:00.001000 or more, "
                "not datetime.timedelta(0)"
            ),
        ),
        (5, {}, "config: must be a path or a mapping, not 5"),
    ],
)
def test_what_is_wrong_is_said(config: Any, environ: dict[str, str], message: str) -> None:
    assert refused(lambda: open_scheduler(config, environ=environ)) == message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    with pytest.raises(FileNotFoundError):
        open_scheduler(path, environ={})
    path.write_text("[scheduler", encoding="utf-8")
    assert "config.toml is no TOML file: " in refused(lambda: open_scheduler(path, environ={}))
    path.write_text("[other]\n", encoding="utf-8")
    assert refused(lambda: open_scheduler(path, environ={})) == (
        f"config: {path} has no table [scheduler]"
    )


def test_an_adapter_that_cannot_be_imported_is_not_configured(
    installed: dict[str, importlib.metadata.EntryPoint],
) -> None:
    installed["lunar"] = importlib.metadata.EntryPoint(
        "lunar", "no_such_module:open", "sched.backends"
    )
    assert refused(lambda: open_scheduler({"mode": "lunar"}, environ={}), ModeNotConfigured) == (
        "mode 'lunar' is not configured: no_such_module:open cannot be imported: "
        "No module named 'no_such_module'; install what is missing"
    )


# -- where values come from --------------------------------------------------


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[tool.scheduler]\nmode = "memory"\nworker = "w"\n[tool.scheduler.nats]\nonceKey = "x"\n'
        '[tool.scheduler.nats.publishRetry]\ninitialBackoff = "1s"\n',
        encoding="utf-8",
    )
    environ = {
        "SCHEDULER_CONFIG": str(path),
        "SCHEDULER_MODE": "NATS",
        "SCHEDULER_NATS_ONCE_KEY": "y",
        "SCHEDULER_JETSTREAM_ONCE_KEY": "z",
        "SCHEDULER_NATS_PUBLISH_RETRY__ATTEMPTS": "7",
        "SCHEDULER_NATS__FRACTION": "0.25",
        "SCHEDULER_NATS_CHECK": "yes",
        "SCHEDULER_NATS_LIMIT": "12",
        "SCHEDULER_MAX_CONCURRENCY": "5",
        # What Kubernetes adds for services named scheduler and scheduler-nats.
        "SCHEDULER_PORT": "tcp://10.0.0.1:80",
        "SCHEDULER_NATS_SERVICE_HOST": "10.0.0.2",
        "SCHEDULER_NATS_PORT_4222_TCP_ADDR": "10.0.0.2",
        # Another mode's.
        "SCHEDULER_SQL_URL": "sqlite:///x.db",
    }
    config = read_config(environ=environ)
    assert (config.general.mode, config.general.worker) == ("nats", "w")
    assert config.general.max_concurrency == 5
    read = config.section.read(Original)
    assert (read.once_key, read.fraction, read.check, read.limit) == ("y", 0.25, True, 12)
    assert read.publish_retry == Retrying(7, timedelta(seconds=1))
    assert config.source == str(path)


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    environ = {"SCHEDULER_MODE": "sql", "SCHEDULER_SQL_URL": f"sqlite:///{tmp_path}/x.db"}

    async def main() -> None:
        async with open_scheduler(environ=environ):
            pass

    anyio.run(main)
    assert (tmp_path / "x.db").exists()


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SCHEDULER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SCHEDULER_MODE", "memory")
    assert isinstance(open_backend(read_config()), MemoryBackend)


def test_a_mapping_is_enough_and_arguments_win() -> None:
    config = {"scheduler": {"mode": "memory", "workerName": "x"}}
    assert "workerName" in refused(lambda: open_scheduler(config, environ={}))
    handler = RecordingHandler()
    scheduler = open_scheduler(
        {"mode": "memory", "worker": "x", "max_concurrency": 3, "memory": {"lease": "7s"}},
        handler=handler,
        worker="y",
        environ={},
    )
    assert isinstance(scheduler, Scheduler)
    assert scheduler._worker == "y"
    assert scheduler._max_concurrency == 3
    assert scheduler._backend.capabilities.lease == timedelta(seconds=7)


def test_keys_of_another_modes_section_are_ignored() -> None:
    backend = open_backend(
        read_config(
            {"mode": "memory", "sql": {"nonsense": 1}, "lunar": {"phase": "full"}}, environ={}
        )
    )
    assert isinstance(backend, MemoryBackend)


def test_a_third_partys_mode_is_an_entry_point(
    installed: dict[str, importlib.metadata.EntryPoint],
) -> None:
    value = f"{__name__}:open_lunar"
    installed["lunar"] = importlib.metadata.EntryPoint("lunar", value, "sched.backends")
    installed["moon"] = importlib.metadata.EntryPoint("moon", value, "sched.backends")
    config = {"mode": "lunar", "moon": {"phase": "full"}}
    backend = open_backend(read_config(config, environ={"SCHEDULER_MOON_SINCE": "1h"}))
    assert backend.capabilities.lease == timedelta(hours=1)
    assert "'phase'" in refused(
        lambda: open_backend(read_config({"mode": "moon", "moon": {"pase": 1}}, environ={}))
    )


@frozen
class Lunar:
    phase: str
    since: timedelta


def open_lunar(section: Section) -> MemoryBackend:
    settings = section.read(Lunar)
    assert settings.phase == "full"
    return MemoryBackend(lease=settings.since)


def test_a_required_key_that_is_missing() -> None:
    assert refused(lambda: Section("scheduler.lunar", {"phase": "x"}).read(Lunar)) == (
        "scheduler.lunar.since: is missing"
    )


def test_sql_options_reach_the_backend(tmp_path: Path) -> None:
    config = {
        "mode": "sql",
        "sql": {"dsn": f"{tmp_path}/x.db", "lease": "1m", "timeout": 5, "synchronous": "NORMAL"},
    }
    backend = open_backend(read_config(config, environ={}))
    assert isinstance(backend, SqliteBackend)
    assert backend.capabilities.lease == timedelta(minutes=1)


def test_every_option_of_the_sql_backend_has_its_key() -> None:
    """Except who decides the time, which is for tests, and what the caller knows."""
    options = set(inspect.signature(SqlBackend).parameters) - {"where", "time", "create"}
    assert options == {field.name for field in fields(SqlSettings)} - {"url"}
    config = {
        "mode": "sql",
        "sql": {"url": "postgresql://me:hunter2@h/db", "schema": "mine", "migrate": "no"},
    }
    assert open_backend(read_config(config, environ={})).capabilities.time == "store"
    message = refused(
        lambda: open_scheduler({"mode": "sql", "sql": {"schema": "mine"}}, environ={})
    )
    assert message == "scheduler.sql.schema: is no option for SQLite"


# -- secrets -----------------------------------------------------------------


def test_secrets_are_never_shown() -> None:
    secret = "hunter2"
    for config in (
        {"mode": "sql", "sql": {"url": f"mysql://me:{secret}@host/db"}},
        {"mode": "sql", "sql": {"url": ["x", secret]}},
        {"mode": "sql", "sql": {"ulr": f"mysql://me:{secret}@host/db"}},
        {"mode": "sql", "sql": {"lease": f"mysql://me:{secret}@host/db"}},
        {"mode": "sql", "sql": {"lease": f"mysql://me:a/{secret}@host/db"}},
        {"mode": "sql", "sql": {"lease": f"host=h password=a {secret}"}},
        {"mode": "sql", "sql": {"url": "postgresql:///db", "schema": f"pg_://me:a/{secret}@host"}},
        {"mode": f"postgresql://me:a/{secret}@host/db"},
        {"mode": f"host=h password=a {secret}"},
    ):
        assert secret not in refused(lambda config=config: open_scheduler(config, environ={}))  # type: ignore[misc]  # bound now
    read = Section("scheduler.nats", {"authToken": secret}).read(Original)
    assert read.token == secret
    assert secret not in repr(read)
    found = read_config({"mode": "nats", "nats": {"token": secret}}, environ={})
    assert secret not in repr(found)
    assert "token" in repr(found)
    assert without_password(f"nats://{secret}@host") == "nats://***@host"
    assert without_password("nothing: here") == "nothing: here"


# -- durations ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("24h", 86_400),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("100us", 0.0001),
        ("2d", 172_800),
        ("1w", 604_800),
        ("30", 30),
        (30, 30),
        (0.5, 0.5),
        ("0", 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 s", "5x", -1, True, None, [], "9" * 40, 1e300])
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        duration(text)
