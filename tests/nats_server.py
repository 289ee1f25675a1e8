"""A real nats-server: found, or fetched once into the checkout; and started on free ports.

``NATS_SERVER`` names one, else the one on PATH is taken; a too old one is refused with a sentence.
On Debian and its kin a newer suite's package is unpacked into ``.dev/``, with the machine's own apt
and its signatures, and without touching the system. ``python -m
tests.nats_server`` prints where it lies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".dev" / "nats-server"
NEEDED = (2, 12, 12)
SUITE = "forky"
"""The first Debian with a server that is new enough."""
KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
REMEDY = (
    "set NATS_SERVER to a nats-server of 2.12.12 or later (2.14.3 or later is better), or put one "
    "on PATH: `brew install nats-server`, or the binary out of the official image"
)


class NoServer(RuntimeError):
    """There is no nats-server to be had; the message says what to do."""


def find() -> Path:
    """Return the path of a nats-server that is new enough.

    Raises:
        NoServer: There is none, and none could be fetched.
    """
    named = os.environ.get("NATS_SERVER")
    if named:
        found = shutil.which(named)
        if found is None:
            raise NoServer(f"NATS_SERVER is {named}, and there is no such program: {REMEDY}")
        problem = too_old(Path(found))
        if problem:
            raise NoServer(f"NATS_SERVER: {problem}: {REMEDY}")
        return Path(found)
    on_path = shutil.which("nats-server")
    problem = None if on_path is None else too_old(Path(on_path))
    if on_path is not None and problem is None:
        return Path(on_path)
    try:
        return fetch(SUITE)
    except NoServer as error:
        raise NoServer(f"{problem}; {error}" if problem else str(error)) from None


def find_old() -> Path:
    """Return the path of a nats-server that is too old, for the test that it is refused.

    Raises:
        NoServer: It could not be fetched.
    """
    return fetch(None)


def version_of(program: Path) -> tuple[int, int, int]:
    """Return what a program says that it is."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"v?(\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        raise NoServer(f"{program} says {said.strip()!r}, which is no version")
    return int(match[1]), int(match[2]), int(match[3])


def too_old(program: Path) -> str | None:
    """Return why a program will not do, ``None`` if it will."""
    version = version_of(program)
    if version >= NEEDED:
        return None
    return f"{program} is {'.'.join(map(str, version))}, which knows no scheduled messages"


# -- fetching ----------------------------------------------------------------


def fetch(suite: str | None) -> Path:
    """Unpack the package of a Debian suite, or the system's own one, into the cache.

    Raises:
        NoServer: This is no Debian, or it did not work.
    """
    name = suite or "system"
    program = CACHE / name / "usr" / "sbin" / "nats-server"
    if program.exists():
        return program
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise NoServer(f"no nats-server here, and no apt to get one with: {REMEDY}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _fetch(suite, CACHE / name)
    return program


def _fetch(suite: str | None, place: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix="apt-", dir=CACHE))
    try:
        options: list[str] = []
        if suite is not None:
            options = _apart(suite, work)
            _apt(["update", *options], work)
        (work / "package").mkdir()
        try:
            _apt(["download", *options, "nats-server"], work / "package")
        except NoServer:
            if suite is not None:
                raise
            _apt(["update"], work)
            _apt(["download", "nats-server"], work / "package")
        (package,) = (work / "package").glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, work / "tree"], check=True)
        shutil.rmtree(place, ignore_errors=True)
        (work / "tree").rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _apart(suite: str, work: Path) -> list[str]:
    """Return options that make apt use another suite of the same mirror, and folders of its own."""
    mirror, keyring = _mirror()
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    source = work / "source.list"
    source.write_text(f"deb [signed-by={keyring}] {mirror} {suite} main\n", encoding="utf-8")
    settings = {
        "Dir::Etc::SourceList": source,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work / "cache",
    }
    return [arg for key, value in settings.items() for arg in ("-o", f"{key}={value}")]


def _mirror() -> tuple[str, str]:
    """Return the mirror that the machine itself uses, and the keyring of its archive."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    uris = [
        uri.rstrip("/")
        for origin, _, uri in (line.partition(" ") for line in listed.splitlines())
        if origin == "Debian" and "security" not in uri
    ]
    keyring = next(
        (path for path in KEYRINGS if Path(path).exists()), "debian-archive-keyring, not installed"
    )
    if not uris:
        raise NoServer(f"the machine's apt names no mirror of Debian: {REMEDY}")
    return uris[0], keyring


def _apt(args: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        ["apt-get", "-q", *args], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NoServer(f"apt-get {args[0]} failed: {said[-1] if said else '?'}; {REMEDY}")


# -- running -----------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago.

    None of those that the system gives to outgoing connections: while a server is down, one of its
    clients could get its port, and be connected to itself.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", 20_000 + secrets.randbelow(12_000)))
                found.append(probe.getsockname()[1])
    return found


class Server:
    """One server process, on a folder of its own.

    Args:
        folder: Where it stores, and writes its log.
        program: The binary; found unless given.
        config: More lines of its configuration.
        synced: Whether each write is on the disk before it is acknowledged.
        cluster: Its name, the port for the other nodes, and theirs.
        name: The node's name.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: Path | None = None,
        config: str = "",
        synced: bool = False,
        name: str = "node",
        cluster: tuple[int, Sequence[int]] | None = None,
    ) -> None:
        self.folder, self.name = folder, name
        self.program = find() if program is None else program
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.monitor = free_ports(2)
        sync = ", sync_interval: always" if synced else ""
        lines = [
            'host: "127.0.0.1"',
            f"port: {self.port}",
            f'http: "127.0.0.1:{self.monitor}"',
            f'server_name: "{name}"',
            f'jetstream {{ store_dir: "{folder / "store"}"{sync} }}',
            f'log_file: "{folder / "log"}"',
            config,
        ]
        if cluster is not None:
            own, others = cluster
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in others)
            lines.append(
                f'cluster {{ name: "c", listen: "127.0.0.1:{own}", routes: [{routes}], '
                "pool_size: -1, no_advertise: true }"
            )
        (folder / "conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address to which clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self, *, patience: float = 20.0) -> None:
        """Start it, and wait until it takes connections."""
        assert self.process is None
        self.process = subprocess.Popen(
            [self.program, "-c", self.folder / "conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + patience
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise NoServer(f"the server did not start: {self.log()[-2000:]}") from None
                time.sleep(0.02)

    def log(self) -> str:
        """Return what it has logged."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else "(no log)"

    def kill(self) -> None:
        """End it without goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(how)
            process.wait(30)

    def freeze(self) -> None:
        """Stop its process at once, with all that it holds."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def memory(self) -> int:
        """Return its resident memory, in bytes."""
        assert self.process is not None
        with Path(f"/proc/{self.process.pid}/statm").open() as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def ask(self, what: str) -> dict[str, object]:
        """Ask the monitoring port."""
        url = f"http://127.0.0.1:{self.monitor}/{what}"
        with urllib.request.urlopen(url, timeout=5) as reply:
            found = json.load(reply)
            assert isinstance(found, dict)
            return found


@contextlib.contextmanager
def running(folder: Path, **options: object) -> Iterator[Server]:
    """Run one server."""
    server = Server(folder, **options)  # type: ignore[arg-type]  # handed on
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.thaw()
            server.kill()


def _leads(name: str, group: dict[str, Any]) -> bool:
    """Whether a node says that it leads, with all copies at its side."""
    cluster = group.get("cluster", {})
    replicas = cluster.get("replicas") or []
    return cluster.get("leader") == name and all(
        each.get("current") and not each.get("offline") for each in replicas
    )


class Cluster:
    """Three nodes on loopback."""

    def __init__(self, folder: Path, *, size: int = 3, config: str = "") -> None:
        ports = free_ports(size)
        self.nodes = [
            Server(
                folder / f"n{number}",
                name=f"n{number}",
                config=config,
                cluster=(ports[number], [port for port in ports if port != ports[number]]),
            )
            for number in range(size)
        ]

    @property
    def urls(self) -> list[str]:
        """The addresses to which clients connect."""
        return [node.url for node in self.nodes]

    def start(self) -> None:
        """Start all nodes; they elect a leader within seconds."""
        for node in self.nodes:
            node.start()

    def leader_of(self, stream: str) -> Server | None:
        """Return the node that leads a stream, as far as any node knows."""
        for node in self.nodes:
            if node.process is None:
                continue
            try:
                details = node.ask("jsz?streams=true")["account_details"]
            except OSError:
                continue
            for account in details if isinstance(details, list) else []:
                for each in account.get("stream_detail") or []:
                    if each["name"] == stream and each.get("cluster", {}).get("leader"):
                        name = each["cluster"]["leader"]
                        return next(other for other in self.nodes if other.name == name)
        return None

    def is_whole(self, *streams: str) -> bool:
        """Whether all nodes run, the streams and their consumers are led, and no copy is behind.

        A leader counts only if it says so itself: others believe for seconds in one that is dead.
        """
        led: set[str] = set()
        for node in self.nodes:
            try:
                found = node.ask("jsz?streams=true&consumers=true")
            except OSError:
                return False
            details = found.get("account_details")
            for account in details if isinstance(details, list) else []:
                for stream in account.get("stream_detail") or []:
                    if _leads(node.name, stream):
                        led.add(stream["name"])
                    groups = [stream, *(stream.get("consumer_detail") or [])]
                    if not all(each.get("cluster", {}).get("leader") for each in groups):
                        return False
        return led.issuperset(streams)

    def end(self) -> None:
        """End whatever runs."""
        for node in self.nodes:
            if node.process is not None:
                node.thaw()
                node.kill()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{find()}\n")
    except NoServer as error:
        sys.exit(f"nats-server: {error}")
