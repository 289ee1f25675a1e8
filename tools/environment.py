"""The environment in `.venv/`: made when it is missing, renewed when what it depends on changes.

Standard library only: this runs before anything is installed. pip's own settings (index,
certificates, proxy) are handed on to uv.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tools.running import BIN, OWN, ROOT, VENV, fail, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

UV_VENV = OWN / "uv-venv"
STAMP = OWN / "stamp.json"
UV_RANGE = "uv>=0.9,<1"

# What each level of setup installs. Each one contains those before it.
LEVELS: dict[str, tuple[str, ...]] = {
    "demo": ("--no-default-groups", "--group", "demo"),
    "dev": (),
    "bench": ("--group", "bench"),
}


def ensure(level: str) -> None:
    """Make sure that .venv holds what *level* needs; costs nothing when it does."""
    if satisfied(level):
        return
    with alone():
        if satisfied(level):  # another process made it meanwhile
            return
        began = time.monotonic()
        say(f"setup ({level}): once, until uv.lock or a pyproject.toml changes")
        level = max(level, stamped().get("level", level), key=list(LEVELS).index)
        STAMP.unlink(missing_ok=True)
        sync(LEVELS[level])
        STAMP.write_text(json.dumps({"digest": digest(), "level": level}), encoding="utf-8")
        say(f"setup: {time.monotonic() - began:.1f} s")


def satisfied(level: str) -> bool:
    stamp = stamped()
    order = list(LEVELS)
    return (
        stamp.get("digest") == digest()
        and order.index(stamp["level"]) >= order.index(level)
        and (BIN / "python").exists()
    )


def stamped() -> dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_bytes())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and stamp.get("level") in LEVELS else {}


def digest() -> str:
    """Name the state of everything that the environment depends on, the checkout's place too."""
    found = hashlib.sha256(str(ROOT).encode())
    for path in (ROOT / "uv.lock", ROOT / "pyproject.toml", *members()):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        found.update(path.read_bytes())
    return found.hexdigest()


def members() -> list[Path]:
    return sorted((ROOT / "packages").glob("*/pyproject.toml"))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let one process at a time change the environment."""
    OWN.mkdir(exist_ok=True)
    with (OWN / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("setup: waiting for another ./dev")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sync(groups: Sequence[str]) -> None:
    """Bring .venv to the state of uv.lock."""
    uv = find_uv()
    environment = uv_environment()
    python = ("--python", sys.executable)
    if any(environment.get(name) for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NO_INDEX")):
        # The lock names the files of the public index. Where another one is set, the same
        # versions, with the same hashes, come from there.
        wanted = OWN / "requirements.txt"
        fresh = ("--clear",) if VENV.exists() else ()
        editable = [arg for member in members() for arg in ("-e", str(member.parent))]
        no_index = ("--no-index",) if environment.get("UV_NO_INDEX") else ()
        everything = ("--frozen", "--all-packages", "--no-emit-workspace")
        install = ("pip", "install", "--python", str(VENV), *no_index)
        for command in (
            ("export", "--quiet", *everything, *python, *groups, "--output-file", str(wanted)),
            ("venv", "--quiet", *fresh, *python, str(VENV)),
            (*install, "--require-hashes", "-r", str(wanted)),
            (*install, "--no-deps", *editable),
        ):
            run_uv(uv, command, environment)
        return
    run_uv(uv, ("sync", "--frozen", "--all-packages", *python, *groups), environment)


def run_uv(uv: str, args: Sequence[str], environment: Mapping[str, str]) -> None:
    trusts = ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS")
    code = subprocess.call([uv, *args], cwd=ROOT, env=environment)
    if code and not any(environment.get(name) for name in trusts):
        say("uv failed; once more with the system's certificates")
        again = {**environment, "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
        code = subprocess.call([uv, *args], cwd=ROOT, env=again)
    if code:
        fail(f"uv {args[0]} failed (see above)", code=code if code > 0 else 1)


def find_uv() -> str:
    """Return the checkout's own uv; the first time it is made, with pip, away from the system."""
    uv, wish = UV_VENV / "bin" / "uv", UV_VENV / "wish"
    wanted = f"{UV_RANGE}\n{ROOT}\n"
    if uv.exists() and wish.exists() and wish.read_text(encoding="utf-8") == wanted:
        return str(uv)
    problem = make_uv()
    if problem is None:
        wish.write_text(wanted, encoding="utf-8")
        return str(uv)
    other = shutil.which("uv")
    if other:
        say(f"{problem.splitlines()[0]}; using {other}")
        return other
    return fail(problem)


def make_uv() -> str | None:
    """Install uv into a virtual environment of its own. Return what went wrong, if anything."""
    environment = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    venv = [sys.executable, "-m", "venv", "--clear", str(UV_VENV)]
    inside = str(UV_VENV / "bin" / "python")

    # The quick way borrows the pip of the Python at hand; it writes into the new environment only,
    # which is allowed where the system forbids `pip install`. Copying a pip in takes 3 s more, and
    # is impossible on a Debian without python3-venv.
    ways = (
        ([*venv, "--without-pip"], [sys.executable, "-m", "pip", "--python", inside]),
        (venv, [inside, "-m", "pip"]),
    )
    said = ""
    for make, pip in ways:
        for command in (make, [*pip, "--version"]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr or done.stdout).strip()
                break
        else:
            if subprocess.call([*pip, "install", "--quiet", UV_RANGE], env=environment):
                return f"pip could not install {UV_RANGE!r} (see above)"
            return None
    shutil.rmtree(UV_VENV, ignore_errors=True)
    version = ".".join(map(str, sys.version_info[:2]))
    return (
        f"{sys.executable} can make no virtual environment with pip in it\n"
        f"  Debian, Ubuntu:  apt-get install python{version}-venv (or python3-pip)\n"
        "  elsewhere:       put a uv on PATH, or use a Python 3.11+ with ensurepip\n"
        f"  it said:         {said.splitlines()[-1] if said else 'nothing'}"
    )


def uv_environment() -> dict[str, str]:
    """Return the environment for uv: the user's own, plus what pip was told and uv was not."""
    environment = dict(os.environ)
    for name in ("VIRTUAL_ENV", "UV_LOCKED", "UV_FROZEN", "UV_NO_DEV", "UV_NO_DEFAULT_GROUPS"):
        environment.pop(name, None)
    environment["UV_PROJECT_ENVIRONMENT"] = str(VENV)
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    told = pip_settings()

    def hand_on(setting: str, *names: str, separator: str = " ") -> None:
        value = told.get(setting)
        if value and not any(environment.get(name) for name in names):
            environment[names[0]] = separator.join(value.split())

    hand_on("cert", "SSL_CERT_FILE", "SSL_CERT_DIR")
    hand_on("client-cert", "SSL_CLIENT_CERT")
    hand_on("index-url", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
    hand_on("find-links", "UV_FIND_LINKS", separator=",")
    hand_on("trusted-host", "UV_INSECURE_HOST")
    hand_on("proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    hand_on("proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    hand_on("timeout", "UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT")
    hand_on("default-timeout", "UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT")
    if told.get("extra-index-url") and not environment.get("UV_INDEX"):
        hand_on("extra-index-url", "UV_INDEX", "UV_EXTRA_INDEX_URL")
        environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # as pip does
    if told.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        environment.setdefault("UV_NO_INDEX", "1")
    return environment


def pip_settings() -> dict[str, str]:
    """Return what pip was told by its files and PIP_… variables; the latter win."""
    for python in (sys.executable, str(UV_VENV / "bin" / "python")):
        command = [python, "-m", "pip", "config", "list"]
        try:
            listed = subprocess.run(command, capture_output=True, text=True, check=True)
            break
        except (OSError, subprocess.CalledProcessError):
            continue
    else:
        return {}
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in listed.stdout.splitlines()]
    for section in ("global.", "install.", ":env:."):
        for key, _, value in lines:
            if key.startswith(section):
                with contextlib.suppress(ValueError, SyntaxError):
                    found[key.removeprefix(section)] = str(ast.literal_eval(value))
    return found
