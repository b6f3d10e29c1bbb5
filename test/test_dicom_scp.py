"""Real sockets on the loopback device: what a sender costs that never says what it wants."""

import socket
import struct
import threading
import time

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed: pip install 'threedme_ros[dicom]'")
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.sop_class import Verification

from threedme_ros.dicom_scp import CONNECTIONS_AN_ASSOCIATION, DicomScp, ScpSettings

NEVER_S = 3600.0
MAX_ASSOCIATIONS = 3
ROOM = CONNECTIONS_AN_ASSOCIATION * MAX_ASSOCIATIONS


class Taker:
    def __init__(self):
        self.reasons = []

    def stored(self, encoded, instance, association):
        return True

    def ended(self, association, orderly):
        pass

    def rejected(self, reason):
        self.reasons.append(reason)


def wait_until(condition, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


@pytest.fixture
def taker():
    return Taker()


@pytest.fixture
def listen(taker):
    """``listen(timeout_s)``: a provider on a free port."""
    made = []

    def listen(timeout_s):
        settings = ScpSettings(port=0, max_associations=MAX_ASSOCIATIONS, network_timeout_s=timeout_s)
        made.append(DicomScp(settings, taker))
        return made[-1]

    yield listen
    while made:
        made.pop().close()


def connect(scp):
    return socket.create_connection(("127.0.0.1", scp.port), 20)


def echoes(scp):
    ae = AE()
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", scp.port, ae_title="THREEDME")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return status.Status == 0


def test_silent_connections_end_with_the_provider_and_leave_no_thread():
    before = set(threading.enumerate())
    scp = DicomScp(ScpSettings(port=0, max_associations=MAX_ASSOCIATIONS, network_timeout_s=NEVER_S), Taker())
    silent = [connect(scp) for _ in range(ROOM)]
    wait_until(lambda: scp.associations == ROOM)
    scp.close()
    for sock in silent:
        assert sock.recv(1) == b""
        sock.close()
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_connections_beyond_the_limit_are_closed_before_they_cost_a_thread(listen, taker):
    before = set(threading.enumerate())
    scp = listen(NEVER_S)
    silent = [connect(scp) for _ in range(ROOM)]
    began = lambda kind: sum(isinstance(t, kind) for t in set(threading.enumerate()) - before)  # noqa: E731
    wait_until(lambda: scp.associations == began(Association) == began(DULServiceProvider) == ROOM)
    threads = set(threading.enumerate())
    for _ in range(20):
        with connect(scp) as refused:
            assert refused.recv(1) == b""
    assert set(threading.enumerate()) <= threads
    assert taker.reasons == [f"a connection from 127.0.0.1 refused: {ROOM} are open"] * 20
    for sock in silent:
        sock.close()
    wait_until(lambda: echoes(scp))


def test_silent_connections_give_their_place_back_when_their_time_is_up(listen):
    scp = listen(0.3)
    silent = [connect(scp) for _ in range(ROOM)]
    for sock in silent:
        assert sock.recv(1000) == b"" or sock.recv(1) == b""  # an A-ABORT may come first
        sock.close()
    wait_until(lambda: scp.associations == 0)
    wait_until(lambda: echoes(scp))


@pytest.mark.parametrize("said", [b"", b"\1", b"GET / HTTP/1.1\r\n\r\n", struct.pack(">BBL", 4, 0, 2**32 - 1)])
def test_connections_that_break_off_give_back_their_place_and_their_thread(listen, said):
    scp = listen(NEVER_S)
    before = set(threading.enumerate())
    for number in range(2 * ROOM):
        with connect(scp) as sock:
            sock.sendall(said)
            if number % 2:  # a reset instead of an orderly end
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: echoes(scp))
    wait_until(lambda: set(threading.enumerate()) <= before)
