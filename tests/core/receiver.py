"""A receiver of webhooks that the tests start and kill: one process, one request at a time.

    python tests/core/receiver.py JOURNAL PORT [ANSWER ...]

It prints its port. The first requests get the answers given, such as ``503`` or
``429,Retry-After:2``; all others 204. A request that is answered with success is written to the
journal before the answer.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

JOURNAL, PORT, ANSWERS = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        status, _, header = (ANSWERS.pop(0) if ANSWERS else "204").partition(",")
        if status.startswith("2"):
            said = {"method": self.command, "path": self.path, "body": body}
            line = json.dumps({**said, "headers": dict(self.headers.items())})
            with JOURNAL.open("a", encoding="utf-8") as journal:
                journal.write(f"{line}\n")
        self.send_response(int(status))
        if header:
            self.send_header(*header.split(":", 1))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815 -- http.server calls it by this name

    def log_message(self, *_: Any) -> None:
        pass


class Server(HTTPServer):
    allow_reuse_address = True


server = Server(("127.0.0.1", PORT), Handler)
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
server.serve_forever()
