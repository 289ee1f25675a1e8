"""A TCP proxy of the tests: it drops, stalls and black-holes what goes through it.

It runs in a thread of its own and listens on the loopback interface::

    with Proxy(("127.0.0.1", 5432)) as proxy:
        connect("127.0.0.1", proxy.port)
        proxy.black_hole()
        ...
        proxy.heal()
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Collection
from types import TracebackType
from typing import Self

CHUNK = 65536


class Proxy:
    """Forwards connections to a target.

    Args:
        target: Host and port; may be replaced while it runs, for connections made from then on.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._swallowed: set[socket.socket] = set()
        self._listening: set[socket.socket] = set()
        self._lock = threading.RLock()
        self._state = "open"
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True
        self._waker.send(b".")
        self._thread.join(10)
        self.hang_up()
        for each in (self._listener, self._wake, self._waker):
            each.close()
        self._selector.close()

    @property
    def connections(self) -> int:
        """How many there are."""
        with self._lock:
            return len(self._peers) // 2

    @property
    def listening(self) -> set[int]:
        """The ports, as `swallow` takes them, of connections that LISTEN to PostgreSQL."""
        with self._lock:
            return {self._peers[each].getsockname()[1] for each in self._listening}

    # -- what it does to its connections

    def hang_up(self) -> None:
        """Cut all connections; new ones are welcome."""
        with self._lock:
            for each in list(self._peers):
                self._close(each)

    def drop(self) -> None:
        """Cut all connections, and every new one at once."""
        with self._lock:
            self._state = "dropping"
            self.hang_up()

    def stall(self) -> None:
        """Forward nothing until it is healed; then everything that was sent meanwhile."""
        with self._lock:
            self._state = "stalled"
            for each in set(self._peers) - self._swallowed:
                self._selector.unregister(each)

    def black_hole(self) -> None:
        """Swallow what is sent in both directions, without a word; new connections hang, too."""
        with self._lock:
            self._state = "black"

    def swallow(self, ports: Collection[int]) -> None:
        """Forward nothing any more on the connections that reach the target from these ports.

        A firewall that forgot them does so: no side is told, and `heal` does not bring them back.
        """
        with self._lock:
            for one, other in list(self._peers.items()):
                if one.getsockname()[1] in ports and one not in self._swallowed:
                    for each in (one, other):
                        self._swallowed.add(each)
                        with contextlib.suppress(KeyError):
                            self._selector.unregister(each)

    def heal(self) -> None:
        """Forward again. What was swallowed is lost, so such connections are cut."""
        with self._lock:
            state, self._state = self._state, "open"
            if state == "black":
                self.hang_up()
            elif state == "stalled":
                for each in set(self._peers) - self._swallowed:
                    self._selector.register(each, selectors.EVENT_READ)
                self._waker.send(b".")

    # -- the thread

    def _serve(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.5):
                with self._lock:
                    found = key.fileobj
                    assert isinstance(found, socket.socket)
                    if found is self._wake:
                        found.recv(CHUNK)
                    elif found is self._listener:
                        self._accept()
                    elif found in self._peers:
                        self._forward(found)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.accepted += 1
        if self._state == "dropping":
            client.close()
            return
        try:
            server = socket.create_connection(self.target, timeout=5)
        except OSError:
            client.close()
            return
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers[client], self._peers[server] = server, client
        if self._state != "stalled":
            self._selector.register(client, selectors.EVENT_READ)
            self._selector.register(server, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        try:
            data = source.recv(CHUNK)
            if b'LISTEN "' in data:
                self._listening.add(source)
            if data and self._state != "black":
                self._peers[source].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._close(source)

    def _close(self, one: socket.socket) -> None:
        other = self._peers.pop(one, None)
        if other is None:
            return
        self._peers.pop(other, None)
        for each in (one, other):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(each)
            self._swallowed.discard(each)
            self._listening.discard(each)
            each.close()
