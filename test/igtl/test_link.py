"""Real sockets on the loopback device, pyigtl as the good peer and raw sockets as the bad ones."""

import contextlib
import socket
import struct
import threading
import time

import numpy as np
import pytest

from threedme_ros.igtl import content
from threedme_ros.igtl.link import MAX_KEYS, Client, Link, Links, LinkSettings, Server
from threedme_ros.igtl.wire import Limits

pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed: pip install 'threedme_ros[igtl]'")
GOOD = "ProbeToTracker"


class Recorder:
    """Keeps what it hears."""

    wanted = frozenset({"IMAGE", "TRANSFORM"})

    def __init__(self):
        self.devices, self.reasons, self.faults, self.connections = [], [], [], 0

    def received(self, frame, peer):
        self.devices.append(frame.header.device)

    def connected(self, peer):
        self.connections += 1

    def disconnected(self, peer, reason, fault):
        (self.faults if fault else self.reasons).append(reason)


def wait_until(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def links(recorder):
    return Links(LinkSettings(Limits(max_body_bytes=2_000_000), stall_timeout_s=0.3, max_clients=3), recorder)


@pytest.fixture
def server(links):
    server = Server(links, "127.0.0.1", 0)
    yield server
    server.close()
    assert not [t for t in threading.enumerate() if t.name == "igtl server"]


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), 5)


def read_to_the_end(peer):
    """All that still comes; a peer that closes with something of ours unread resets the connection."""
    with contextlib.suppress(ConnectionResetError):
        while peer.recv(1000):
            pass


def read_exactly(peer, count):
    data = bytearray()
    while len(data) < count:
        data += peer.recv(count - len(data))
    return bytes(data)


def transform(device=GOOD):
    return content.transform_bytes(np.eye(4), device, 5.0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (transform()[:30], "half a message: 30 of 58 bytes, then 0.3 s of silence"),
        (transform()[:80], "half a message: 22 of 48 bytes, then 0.3 s of silence"),
        (transform()[:42] + struct.pack(">Q", 2**31) + transform()[50:], "header claims 2147483648 bytes"),
        (transform()[:50] + bytes(8) + transform()[58:], "the header says 0000000000000000"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: something long enough\r\n\r\n", "is this OpenIGTLink?"),
    ],
)
def test_a_bad_peer_is_disconnected_and_the_next_one_served(server, recorder, data, reason):
    with connect(server) as bad:
        bad.sendall(data)
        read_to_the_end(bad)
    wait_until(lambda: recorder.faults)
    assert reason in recorder.faults[0]
    with connect(server) as good:
        good.sendall(transform())
        wait_until(lambda: recorder.devices == [GOOD])


def test_a_peer_that_leaves_inside_a_message_is_a_fault_between_messages_it_is_not(server, recorder):
    with connect(server) as peer:
        peer.sendall(transform() + transform()[:70])
    wait_until(lambda: recorder.faults)
    assert recorder.faults == ["half a message: 12 of 48 bytes, then the end"] and recorder.devices == [GOOD]
    with connect(server) as peer:
        peer.sendall(transform())
    wait_until(lambda: recorder.reasons)
    assert recorder.reasons == ["the peer left"]


def test_a_message_may_come_in_crumbs(server, recorder):
    with connect(server) as peer:
        for byte in transform():
            peer.sendall(bytes([byte]))
        wait_until(lambda: recorder.devices == [GOOD])


def test_everyone_gets_what_is_sent_and_late_joiners_what_is_kept(server, links):
    with connect(server) as first, connect(server) as second:
        wait_until(lambda: links.count == 2)
        links.send("labels", b"old" * 100, keep=True)
        links.send("labels", b"new" * 100, keep=True)
        links.send("tool", b"pose")
        for peer in (first, second):
            data = b""
            while not data.endswith(b"pose"):
                data += peer.recv(10_000)
            assert data.removesuffix(b"pose").endswith(b"new" * 100)
        with connect(server) as late:
            assert read_exactly(late, 300) == b"new" * 100


def test_names_without_end_do_not_fill_the_memory(links):
    """Structures and frames are named by whoever publishes them."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as ours,
    ):
        link = Link(ours, "slow", links.settings, links.listener)  # nobody writes yet: all of it waits
        for number in range(3 * MAX_KEYS):
            links.send(f"structure {number}", b"x", keep=True)
            link.send(f"structure {number}", b"x")
        newest = [f"structure {number}" for number in range(2 * MAX_KEYS, 3 * MAX_KEYS)]
        assert list(links._kept) == list(link._outbox) == newest


def test_a_peer_that_takes_nothing_holds_nobody_up_and_is_let_go(server, links, recorder):
    with connect(server) as deaf, connect(server) as peer:
        wait_until(lambda: links.count == 2)
        links.send("labels", bytes(20_000_000))
        assert read_exactly(peer, 20_000_000) == bytes(20_000_000)
        wait_until(lambda: links.count == 1)
        assert deaf.fileno() >= 0


def test_no_more_clients_than_allowed(server, links, recorder):
    peers = [connect(server) for _ in range(3)]
    wait_until(lambda: links.count == 3)
    with connect(server) as extra:
        read_to_the_end(extra)
    wait_until(lambda: recorder.faults)
    assert recorder.faults == ["refused: 3 clients are connected"]
    for peer in peers:
        peer.close()
    wait_until(lambda: links.count == 0)


def test_a_bug_in_the_handling_costs_only_its_connection(server, recorder, monkeypatch):
    with monkeypatch.context() as patch, connect(server) as peer:
        patch.setattr(recorder, "received", lambda frame, peer: 1 / 0)
        peer.sendall(transform())
        wait_until(lambda: recorder.faults)
    assert recorder.faults == ["ZeroDivisionError: division by zero"]
    with connect(server) as peer:
        peer.sendall(transform())
        wait_until(lambda: recorder.devices == [GOOD])


@pytest.fixture
def one_thread_too_few(monkeypatch):
    """``one_thread_too_few(name)``: the next thread whose name begins so cannot be started."""
    start = threading.Thread.start

    def arm(name):
        def refuse(thread):
            if thread.name.startswith(name):
                monkeypatch.setattr(threading.Thread, "start", start)
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)

    return arm


@pytest.mark.parametrize("thread", ["igtl from", "igtl to"])
def test_where_there_is_no_thread_to_be_had_the_peer_is_let_go_and_the_next_one_served(
    server, links, recorder, one_thread_too_few, thread
):
    one_thread_too_few(thread)
    with connect(server) as unlucky:
        read_to_the_end(unlucky)
    wait_until(lambda: recorder.faults)
    assert "can't start new thread" in recorder.faults[0]
    wait_until(lambda: links.count == 0)
    with connect(server) as good:
        good.sendall(transform())
        wait_until(lambda: recorder.devices == [GOOD])
    assert len(recorder.faults) == 1


def test_a_client_without_a_thread_connects_again(links, recorder, one_thread_too_few):
    with socket.create_server(("127.0.0.1", 0)) as peer:
        one_thread_too_few("igtl to")
        client = Client(links, *peer.getsockname())
        peer.accept()[0].close()
        accepted, _ = peer.accept()
        accepted.sendall(transform())
        wait_until(lambda: recorder.devices == [GOOD])
        accepted.close()
    client.close()
    assert recorder.faults == ["RuntimeError: can't start new thread"]


def test_a_peer_that_is_gone_before_it_is_looked_at_costs_nothing(links, recorder):
    ours, _ = socket.socketpair()
    ours.close()
    assert links.attach(ours, "gone") is None
    assert links.count == 0 and "Bad file descriptor" in recorder.faults[0]


@pytest.mark.parametrize("host", ["robot..local", "a" * 64, "a" * 64 + ".local"])
def test_what_can_be_no_host_is_refused_at_once(links, host):
    with pytest.raises(ValueError, match="label"):
        Client(links, host, 18944)
    with pytest.raises((ValueError, OSError)):
        Server(links, host, 0)
    assert not [t for t in threading.enumerate() if t.name in ("igtl client", "igtl server")]


def test_client_connects_again_when_its_server_comes_back(links, recorder):
    first = socket.create_server(("127.0.0.1", 0))
    address = first.getsockname()
    client = Client(links, *address)
    accepted, _ = first.accept()
    accepted.close(), first.close()
    wait_until(lambda: any("no connection, again in" in reason for reason in recorder.reasons))
    with socket.create_server(address) as again:
        accepted, _ = again.accept()
        accepted.sendall(transform())
        wait_until(lambda: recorder.devices == [GOOD])
        accepted.close()
    client.close()
    assert recorder.connections == 2 and not recorder.faults


def test_pyigtl_server_is_a_good_peer(links, recorder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    peer = pyigtl.OpenIGTLinkServer(port=port, local_server=True)
    client = Client(links, "127.0.0.1", port)
    wait_until(lambda: recorder.connections)
    peer.send_message(pyigtl.TransformMessage(np.eye(4), device_name=GOOD))
    wait_until(lambda: recorder.devices == [GOOD])
    links.send("tool", transform("ToolToPatient"))
    assert peer.wait_for_message("ToolToPatient", 5).message_type == "TRANSFORM"
    client.close()
    peer.stop()


def test_broken_streams_over_sockets_never_kill_the_server(server, recorder, seeds):
    rng = np.random.default_rng(3)
    for _ in range(300):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for at in rng.integers(len(data), size=rng.integers(1, 5)):
            data[at] = rng.integers(256)
        with connect(server) as peer:
            with contextlib.suppress(OSError):  # it may be shut out before it has sent all
                peer.sendall(data[: rng.integers(1, len(data) + 1)])
                peer.shutdown(socket.SHUT_WR)
            read_to_the_end(peer)
    recorder.devices.clear()
    with connect(server) as good:
        good.sendall(transform())
        wait_until(lambda: recorder.devices == [GOOD])
    assert len(recorder.faults) > 150
