"""Runs commands of ``sched``, each on a terminal of 80 columns or into pipes, in one process.

Importing takes longer than what most commands do, so this program imports once and forks for each.
Each line that it reads is a list of ``[how, words, environment]`` as JSON; it answers with a line,
the ``[code, output, errors]`` of each.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import pty
import struct
import sys
import termios
import time
from collections.abc import Sequence

from sched_cli.main import main

COLUMNS = 80


def child(words: Sequence[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    if "TZ" in environment:
        time.tzset()
    # As an interpreter makes them at its start, on what they lead to now.
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = ["sched", *words]
    code = 99  # what no command ends with
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def on_terminal(words: Sequence[str], environment: dict[str, str]) -> tuple[int, str, str]:
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        child(words, environment)
    output = read(terminal)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), output, ""


def piped(words: Sequence[str], environment: dict[str, str]) -> tuple[int, str, str]:
    outputs, errors = os.pipe(), os.pipe()
    process = os.fork()
    if process == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(outputs[1], 1)
        os.dup2(errors[1], 2)
        child(words, environment)
    os.close(outputs[1])
    os.close(errors[1])
    result = read(outputs[0]), read(errors[0])
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), *result


def unheard(words: Sequence[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Into a pipe that is closed at its other end."""
    outputs, errors = os.pipe(), os.pipe()
    os.close(outputs[0])
    process = os.fork()
    if process == 0:
        os.dup2(outputs[1], 1)
        os.dup2(errors[1], 2)
        child(words, environment)
    os.close(outputs[1])
    os.close(errors[1])
    said = read(errors[0])
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), "", said


def read(file: int) -> str:
    parts = list[bytes]()
    while True:
        try:
            part = os.read(file, 65536)
        except OSError:  # a terminal that its last program has left
            part = b""
        if not part:
            os.close(file)
            return b"".join(parts).decode()
        parts.append(part)


HOW = {"terminal": on_terminal, "pipe": piped, "unheard": unheard}

if __name__ == "__main__":
    outputs = sys.stdout
    with open(os.devnull, "w") as sys.stdout:  # noqa: PTH123 -- imports all that a command needs
        for words in (["jobs"], ["next", "* * * * *"], ["doctor"], ["--help"]):
            sys.argv = ["sched", *words]
            try:
                main()
            except SystemExit:
                sys.stdout.flush()
    gc.freeze()  # a child that collects would copy the pages of all that is imported
    sys.stdout = outputs
    for line in sys.stdin:
        answers = [HOW[how](words, environment) for how, words, environment in json.loads(line)]
        print(json.dumps(answers), flush=True)  # noqa: T201 -- its answer
