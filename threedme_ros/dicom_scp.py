"""A DICOM storage provider (SCP) with C-ECHO, on pynetdicom, that bounds what a sender can make it hold.

Offered are CT and MR images in the transfer syntaxes that pydicom can decode here; anything else is refused when the
association is negotiated, so the sender knows.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import weakref
from dataclasses import dataclass
from typing import Protocol

MAX_PDU_BYTES = 1 << 17
_PDU_HEADER_BYTES = 64
"""Room for what a peer may add to the PDU length we negotiated."""
CONNECTIONS_AN_ASSOCIATION = 2
"""Room for senders beyond `ScpSettings.max_associations`, which hear that these are too many; the rest is cut off."""
_UNASKED = ("Sta2", "Sta13")
"""Of a connection that ends (DICOM PS3.8, 9.2): nothing was requested, or what came was none of DICOM's."""
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
_UNBOUNDED = "1.2.840.10008.1.2.1.99"
"""Deflated Explicit VR: a small stream can expand without end."""


@dataclass(frozen=True)
class ScpSettings:
    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "THREEDME"
    allowed_calling_ae_titles: tuple[str, ...] = ()
    max_slice_bytes: int = 64_000_000
    max_associations: int = 10
    network_timeout_s: float = 30.0


class Taker(Protocol):
    """Gets what arrives, on the threads of the associations, which go by number: one that ended is not kept alive."""

    def stored(self, encoded: bytes, instance: str, association: int) -> bool: ...
    def ended(self, association: int, orderly: bool) -> None: ...
    def rejected(self, reason: str) -> None: ...


class DicomScp:
    """Listens from construction to `close`. ImportError without pynetdicom, ValueError or OSError where it cannot."""

    def __init__(self, settings: ScpSettings, taker: Taker) -> None:
        try:
            from pynetdicom import AE, evt
            from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification
        except ImportError as error:
            raise ImportError(f"needs pynetdicom: pip install 'threedme_ros[dicom]' ({error})") from error
        self._settings = settings
        self._taker = taker
        self._lock = threading.Lock()
        self._open: dict = {}  # association -> its meter
        self._numbers = itertools.count(1)
        self._connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()  # from accept on, before they say a word
        ae = AE(ae_title=settings.ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = list(settings.allowed_calling_ae_titles)
        ae.maximum_associations = settings.max_associations
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.network_timeout = ae.acse_timeout = ae.dimse_timeout = settings.network_timeout_s
        ae.add_supported_context(Verification)
        self._kinds = (CTImageStorage, MRImageStorage)
        for kind in self._kinds:
            ae.add_supported_context(kind, decodable_transfer_syntaxes())
        handlers = [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_DIMSE_RECV, self._whole_message),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_RELEASED, lambda event: self._ended(event, True)),
            (evt.EVT_ABORTED, lambda event: self._ended(event, False)),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        self._server = ae.start_server((settings.host, settings.port), block=False, evt_handlers=handlers)
        self._server.verify_request = self._has_room  # socketserver asks it before it starts a thread
        self.port = self._server.socket.getsockname()[1]

    @property
    def associations(self) -> int:
        with self._lock:
            return len(self._open)

    def close(self) -> None:
        """Also ends the connections: who is silent would keep its threads, and so the process, until its time is up."""
        self._server.shutdown()
        for connection in self._connected():
            with contextlib.suppress(OSError):  # it has just left
                connection.shutdown(socket.SHUT_RDWR)

    def _connected(self) -> list[socket.socket]:
        with self._lock:
            return [connection for connection in self._connections if connection.fileno() >= 0]

    def _has_room(self, connection: socket.socket, address: tuple) -> bool:
        """On the thread that accepts; one that is refused is closed."""
        count = len(self._connected())
        if count >= CONNECTIONS_AN_ASSOCIATION * self._settings.max_associations:
            self._taker.rejected(f"a connection from {address[0]} refused: {count} are open")
            return False
        with self._lock:
            self._connections.add(connection)
        return True

    def _opened(self, event) -> None:
        transport = event.assoc.dul.socket
        transport.socket.settimeout(self._settings.network_timeout_s)
        meter = _Meter(transport.recv, self._settings.max_slice_bytes, next(self._numbers))
        transport.recv = meter.recv
        with self._lock:
            self._open[event.assoc] = meter

    def _whole_message(self, event) -> None:
        with self._lock:
            meter = self._open.get(event.assoc)
        if meter:
            meter.held = 0

    def _accepted(self, event) -> None:
        for context in event.assoc.rejected_contexts:
            if context.abstract_syntax in self._kinds:  # senders also propose everything they know
                name, syntaxes = context.abstract_syntax.name, ", ".join(s.name for s in context.transfer_syntax)
                self._taker.rejected(f"{name} as {syntaxes}: cannot be decoded here, refused at negotiation")

    def _rejected(self, event) -> None:
        calling, ours = event.assoc.requestor.primitive.calling_ae_title.strip(), self._settings.ae_title
        self._taker.rejected(f"association from {calling!r} refused: not allowed, not for {ours!r}, or too many")

    def _store(self, event) -> int:
        with self._lock:
            meter = self._open.get(event.assoc)
        if meter is None:  # the sender is gone, and was never told that this slice arrived
            return CANNOT_UNDERSTAND
        try:
            instance = str(event.request.AffectedSOPInstanceUID)
            taken = self._taker.stored(event.encoded_dataset(), instance, meter.number)
        except Exception as error:  # pynetdicom would log the text, which may quote the patient
            self._taker.rejected(f"a slice could not be taken ({type(error).__name__})")
            return CANNOT_UNDERSTAND
        return SUCCESS if taken else OUT_OF_RESOURCES

    def _closed(self, event) -> None:
        if event.assoc.dul.state_machine.current_state in _UNASKED:
            event.assoc.dul.to_user_queue.put(None)  # its thread would go on waiting for the request of an association
        self._ended(event, False)

    def _ended(self, event, orderly: bool) -> None:
        with self._lock:
            meter = self._open.pop(event.assoc, None)
        if meter is None:  # a released association still closes its connection
            return
        if meter.exceeded:
            self._taker.rejected(f"a sender was disconnected: {meter.exceeded}")
        self._taker.ended(meter.number, orderly)


class _Meter:
    """Stands before a connection's ``recv``; ends the stream where one message grows too large.

    pynetdicom collects a PDU of up to 4 GB, and a message of any number of them, before a handler sees it.
    """

    def __init__(self, recv, most: int, number: int) -> None:
        self._recv = recv
        self._most = most
        self.number = number
        self.held = 0
        self.exceeded = ""

    def recv(self, count: int) -> bytearray:
        self.held += count
        if self.exceeded:
            return bytearray()
        if count > MAX_PDU_BYTES + _PDU_HEADER_BYTES:
            self.exceeded = f"a PDU of {count} bytes, {MAX_PDU_BYTES} were negotiated"
        elif self.held > self._most:
            self.exceeded = f"a slice of more than {self._most} bytes"
        return bytearray() if self.exceeded else self._recv(count)


def decodable_transfer_syntaxes() -> list[str]:
    """What pydicom and its installed plug-ins decode, uncompressed first."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import AllTransferSyntaxes

    def decodable(syntax: str) -> bool:
        try:
            return get_decoder(syntax).is_available
        except NotImplementedError:
            return False

    return [syntax for syntax in AllTransferSyntaxes if syntax != _UNBOUNDED and decodable(syntax)]
