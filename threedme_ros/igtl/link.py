"""OpenIGTLink connections: a server of several clients or a client that reconnects, each peer on its own two threads.

Nothing a peer sends or fails to send reaches beyond its own connection.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Protocol

from threedme_ros.igtl.wire import Frame, Limits, StreamError, read_frame

DEFAULT_PORT = 18944
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 10.0
MAX_KEYS = 1024
"""Contents that wait for a peer, and that are kept for those to come: names are the senders' choice, memory is ours."""


@dataclass(frozen=True)
class LinkSettings:
    """``stall_timeout_s``: a peer silent this long inside a message, or taking nothing this long, is disconnected."""

    limits: Limits = field(default_factory=Limits)
    stall_timeout_s: float = 5.0
    max_clients: int = 8


class Listener(Protocol):
    """Hears of everything, on the threads of the connections."""

    wanted: frozenset[str]

    def received(self, frame: Frame, peer: str) -> None: ...
    def connected(self, peer: str) -> None: ...
    def disconnected(self, peer: str, reason: str, fault: bool) -> None: ...


class Link:
    """One peer. `run` reads until the connection ends; `send` queues for a writer of its own and never waits."""

    def __init__(self, sock: socket.socket, peer: str, settings: LinkSettings, listener: Listener) -> None:
        self.peer = peer
        self._socket = sock
        self._settings = settings
        self._listener = listener
        self._outbox: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._closed = False
        seconds = settings.stall_timeout_s
        timeout = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        sock.settimeout(None)  # the kernel's own time-outs are per direction, Python's are not
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        """Blocks until the peer leaves, misbehaves or `close` is called; the socket is closed then."""
        writer = threading.Thread(target=self._write, name=f"igtl to {self.peer}", daemon=True)
        reason, fault = "closed", False
        try:
            writer.start()
            while True:
                frame = read_frame(self._fill, self._settings.limits, self._listener.wanted)
                self._listener.received(frame, self.peer)
        except StreamError as error:
            reason, fault = str(error), True
        except (EOFError, OSError) as error:
            reason = str(error) or type(error).__name__
        except Exception as error:  # a bug met by this peer's data must not cost the others their bridge
            reason, fault = f"{type(error).__name__}: {error}", True
        finally:
            self.close()
            if writer.ident is not None:  # there may have been no thread to be had
                writer.join()
            self._socket.close()
            self._listener.disconnected(self.peer, reason, fault)

    def send(self, key: str, message: bytes) -> None:
        """Queue a packed message; it takes the place of one with the same ``key`` that still waits."""
        with self._changed:
            _put(self._outbox, key, message)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        with contextlib.suppress(OSError):  # already down
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes both threads

    def discard(self, reason: str) -> None:
        """Instead of `run`."""
        self._socket.close()
        self._listener.disconnected(self.peer, reason, True)

    def _fill(self, view: memoryview, idle: bool) -> None:
        got = 0
        while got < len(view):
            try:
                count = self._socket.recv_into(view[got:])
            except (BlockingIOError, TimeoutError):
                if idle and not got:
                    continue
                silence = f"{self._settings.stall_timeout_s:g} s of silence"
                raise StreamError(f"half a message: {got} of {len(view)} bytes, then {silence}") from None
            if not count:
                if idle and not got:
                    raise EOFError("the peer left")
                raise StreamError(f"half a message: {got} of {len(view)} bytes, then the end")
            got += count

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._outbox or self._closed)
                if self._closed:
                    return
                message = memoryview(self._outbox.pop(next(iter(self._outbox))))
            try:
                while message:
                    message = message[self._socket.send(message) :]
            except OSError:  # gone, or it takes nothing any more
                self.close()
                return


class Links:
    """All peers of one node. What is sent goes to each; what is kept also goes to those who join later."""

    def __init__(self, settings: LinkSettings, listener: Listener) -> None:
        self.settings = settings
        self.listener = listener
        self._links: set[Link] = set()
        self._kept: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        with self._lock:
            return len(self._links)

    def send(self, key: str, message: bytes, *, keep: bool = False) -> None:
        """Never waits. ``key``: names the content; a peer that is too slow for all of it gets the newest."""
        with self._lock:
            if keep:
                _put(self._kept, key, message)
            for link in self._links:
                link.send(key, message)

    def attach(self, sock: socket.socket, peer: str) -> Link | None:
        """A connected socket joins; then `run` it. It is closed where ``max_clients`` are there, or if it is gone."""
        reason = f"refused: {self.settings.max_clients} clients are connected"
        try:
            with self._lock:
                if len(self._links) < self.settings.max_clients:
                    link = Link(sock, peer, self.settings, self.listener)
                    self._links.add(link)
                    for key, message in self._kept.items():
                        link.send(key, message)
                    return link
        except OSError as error:
            reason = f"refused: {error}"
        sock.close()
        self.listener.disconnected(peer, reason, True)
        return None

    def run_on_a_thread(self, link: Link) -> None:
        """Or discard it, where there is no thread to be had."""
        try:
            threading.Thread(target=self.run, args=(link,), name=f"igtl from {link.peer}", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._links.discard(link)
            link.discard(f"refused: {error}")

    def run(self, link: Link) -> None:
        """On this thread, until it ends."""
        self.listener.connected(link.peer)
        try:
            link.run()
        finally:
            with self._lock:
                self._links.discard(link)

    def close(self) -> None:
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()


def _put(messages: dict[str, bytes], key: str, message: bytes) -> None:
    """Of too many keys the oldest goes."""
    messages[key] = message
    if len(messages) > MAX_KEYS:
        del messages[next(iter(messages))]


class Server:
    """Listens on ``host``:``port`` (0: any free one). OSError if it cannot, ValueError for what can be no host."""

    def __init__(self, links: Links, host: str, port: int) -> None:
        self._links = links
        self._socket = socket.create_server((host, port))
        self.port = self._socket.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="igtl server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join()
        self._socket.close()
        self._links.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                sock, address = self._socket.accept()
            except OSError:  # closed, or out of file descriptors: others may give some back
                self._stop.wait(FIRST_RETRY_S)
                continue
            peer = f"{address[0]}:{address[1]}"
            if link := self._links.attach(sock, peer):
                self._links.run_on_a_thread(link)


class Client:
    """Connects to ``host``:``port``, again and again, waiting longer each time it fails.

    ValueError for what can be no host: that does not get better.
    """

    def __init__(self, links: Links, host: str, port: int) -> None:
        host.encode("idna")  # as getaddrinfo does
        self._links = links
        self._address = (host, port)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._connect, name="igtl client", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._links.close()
        self._thread.join(LAST_RETRY_S)

    def _connect(self) -> None:
        peer = f"{self._address[0]}:{self._address[1]}"
        wait_s = FIRST_RETRY_S
        while not self._stop.is_set():
            try:
                sock = socket.create_connection(self._address, self._links.settings.stall_timeout_s)
            except (OSError, ValueError) as error:
                self._links.listener.disconnected(peer, f"no connection, again in {wait_s:g} s: {error}", False)
                self._stop.wait(wait_s)
                wait_s = min(wait_s * 2, LAST_RETRY_S)
                continue
            wait_s = FIRST_RETRY_S
            if link := self._links.attach(sock, peer):
                self._links.run(link)
            self._stop.wait(FIRST_RETRY_S)
