"""A real PgBouncer: the machine's, or one unpacked into the checkout by the machine's own apt.

``PGBOUNCER`` names one, else the one on PATH is taken. Only the long forms of tests need it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.postgres_server import PASSWORD, free_port

CACHE = Path(__file__).resolve().parents[1] / ".dev" / "pgbouncer"


def find() -> Path:
    """Return the path of a PgBouncer.

    Raises:
        RuntimeError: There is none, and none could be fetched; it says what to do.
    """
    named = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer")
    if named:
        return Path(named)
    program = CACHE / "tree" / "usr" / "sbin" / "pgbouncer"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _fetch()
    return program


def _fetch() -> None:
    """Unpack the package, and what it needs that is not installed."""
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        work = Path(name)
        (work / "partial").mkdir()
        command = ["apt-get", "-qy", "--download-only", "--no-install-recommends"]
        command += ["-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={work}"]
        done = subprocess.run(
            [*command, "install", "pgbouncer"], capture_output=True, text=True, check=False
        )
        packages = list(work.glob("*.deb"))
        if done.returncode or not packages:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise RuntimeError(
                f"no pgbouncer here, and apt has none ({said[-1] if said else 'nothing'}): put "
                "one on PATH, or name it by PGBOUNCER"
            )
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", package, work / "tree"], check=True)
        (work / "tree").rename(CACHE / "tree")


@contextlib.contextmanager
def pgbouncer(port: int, *, mode: str = "transaction", **options: object) -> Iterator[int]:
    """Run one in a pool mode before the server at a port; yield its own port.

    Options are lines of its configuration, which hold instead of those of the same name here.
    """
    options = {"default_pool_size": 20, **options}
    program, own = find(), free_port()
    user = None
    if os.geteuid() == 0:
        user = "nobody"  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="sched-pgbouncer-") as name:
        folder = Path(name)
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n"
            f"* = host=127.0.0.1 port={port} user=sched password={PASSWORD}\n"
            f"[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {own}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\n"
            f"max_client_conn = 1000\nserver_reset_query = DISCARD ALL\nverbose = 0\n"
            + "".join(f"{name} = {value}\n" for name, value in options.items()),
            encoding="utf-8",
        )
        folder.chmod(0o755)
        if user is not None:
            shutil.chown(folder, pwd.getpwnam(user).pw_name)
        libraries = ":".join(str(path) for path in (CACHE / "tree/usr/lib").glob("*-linux-gnu"))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, folder / "pgbouncer.ini"],
                user=user,
                stdout=log,
                stderr=log,
                env={**os.environ, "LD_LIBRARY_PATH": libraries},
            )
        try:
            _wait(own, process, folder / "log")
            yield own
        finally:
            process.kill()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"pgbouncer does not answer:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)
