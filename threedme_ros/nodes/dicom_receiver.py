"""The DICOM receiver: scanners push series by C-STORE, each whole series goes out as one `volume`.

| topic | type | QoS (reliability, durability, depth) | |
|---|---|---|---|
| `volume` | CompressedImage | reliable, volatile, 1 | published, stamped with the time the series was whole |
| `/diagnostics` | DiagnosticArray | reliable, volatile, 10 | 1 Hz |

C-ECHO is answered. Parameters: `DicomReceiverParameters`. Nothing that names a patient reaches a topic, a log or a
disk: `frame_id` is a parameter, and a series goes by a digest of its UID. How to point a scanner here:
docs/openigtlink.md.
"""

from __future__ import annotations

import logging
import stat
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from threedme_ros.dicom_scp import DicomScp, ScpSettings
from threedme_ros.dicom_series import DicomSeriesError
from threedme_ros.dicom_store import ClosedSeries, SeriesStore, StoreSettings
from threedme_ros.nodes.diagnostics import diagnostics_message
from threedme_ros.nodes.entry import run_node
from threedme_ros.nodes.event_log import EventLog
from threedme_ros.nodes.messages import volume_message
from threedme_ros.nodes.parameters import ParameterError, Parameters, declare_parameters, parameter, read_parameters
from threedme_ros.nodes.qos import VOLUMES, publisher_events
from threedme_ros.nodes.steady_timer import steady_timer
from threedme_ros.nodes.tally import Tally
from threedme_ros.nodes.watchdog import LeftBehind
from threedme_ros.volume import Volume, VolumeError
from threedme_ros.volume_io import DEFAULT_MAX_VOXELS, FORMATS, write_volume

POLL_S = 0.1
DIAGNOSTICS_PERIOD_S = 1.0
STOP_TIMEOUT_S = 10.0
ACKNOWLEDGE_TIMEOUT_S = 5.0
BYTES_PER_MB = 1_000_000
COUNTS = (
    *("slices", "slices_refused", "series_published", "series_refused", "series_not_saved"),
    "associations_refused",
)


@dataclass(frozen=True)
class DicomReceiverParameters(Parameters):
    """Of the `dicom_receiver` node."""

    host: str = parameter("127.0.0.1", "address to listen on; the scanner's network: that of its interface here")
    port: int = parameter(11112, "TCP port; 0: a free one", between=(0, 65535))
    ae_title: str = parameter("THREEDME", "our AE title, which senders must call; up to 16 characters")
    allowed_calling_ae_titles: str = parameter("", "senders that may store, separated by commas; empty: any")
    frame_id: str = parameter("patient", "frame of the volumes")
    format: str = parameter("nifti", "encoding of the volumes", choices=FORMATS)
    quiet_s: float = parameter(5.0, "a series without a new slice this long is closed [s]", between=(0.1, 3600.0))
    use_count: bool = parameter(True, "believe the slice count in the headers, if there is one")
    max_assembly_mb: int = parameter(1024, "of all slices held; a series beyond is given up [MB]", between=(1, 2**20))
    max_slice_mb: int = parameter(64, "a sender of a larger slice is disconnected [MB]", between=(1, 4096))
    max_series: int = parameter(4, "series in assembly at once; a further one is given up", between=(1, 1000))
    max_associations: int = parameter(10, "senders connected at once", between=(1, 1000))
    max_voxels: int = parameter(DEFAULT_MAX_VOXELS, "larger volumes are refused [voxels]", between=(1, 2**40))
    network_timeout_s: float = parameter(30.0, "a sender silent this long is disconnected [s]", between=(0.1, 3600.0))
    save_folder: str = parameter("", "also write each volume there as .nii.gz; empty: nothing is written to disk")


class DicomReceiver(Node):
    """Slices are taken on the threads of their associations, series are decoded and published on one of our own."""

    def __init__(self, **kwargs) -> None:
        super().__init__("dicom_receiver", **kwargs)
        declare_parameters(self, DicomReceiverParameters)
        self._parameters = parameters = read_parameters(self, DicomReceiverParameters)
        if not parameters.frame_id:
            raise ParameterError("frame_id '': expected the name of the patient frame")
        self._folder = Path(parameters.save_folder).expanduser() if parameters.save_folder else None
        if self._folder and not self._folder.is_dir():
            raise ParameterError(f"save_folder {parameters.save_folder!r}: expected an existing folder")
        if self._folder and self._folder.stat().st_mode & stat.S_IWOTH:
            raise ParameterError(f"save_folder {parameters.save_folder!r}: expected one that not all may write to")
        self._log = EventLog(self.get_logger())
        self._tally = Tally(*COUNTS)
        self._store = SeriesStore(
            StoreSettings(
                max_bytes=parameters.max_assembly_mb * BYTES_PER_MB,
                max_series=parameters.max_series,
                quiet_s=parameters.quiet_s,
                use_count=parameters.use_count,
            )
        )
        events = publisher_events(self, "volume", VOLUMES, partial(self._log.warning, "qos_mismatch"))
        self._volumes = self.create_publisher(CompressedImage, "volume", VOLUMES, event_callbacks=events)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._scp = self._listen()
        self._stop = threading.Event()
        self._left_behind = LeftBehind()
        self._assembler = threading.Thread(target=self._assemble, name="series assembly", daemon=True)
        self._assembler.start()
        steady_timer(self, DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)

    def close(self) -> None:
        self._scp.close()
        self._stop.set()
        self._assembler.join(STOP_TIMEOUT_S)
        if self._assembler.is_alive():
            self._left_behind.add(self._assembler)
        self._log.flush(everything=True)

    @property
    def threads_left_behind(self) -> int:
        """Threads that hang: the process cannot join them."""
        return self._left_behind.count

    def stored(self, encoded: bytes, instance: str, association: int) -> bool:
        """On the association's thread. False: refused."""
        try:
            self._store.add(encoded, instance, association, time.monotonic())
        except DicomSeriesError as error:
            self._refused("slices_refused", str(error))
            return False
        self._tally.count("slices")
        return True

    def ended(self, association: int, orderly: bool) -> None:
        self._store.ended(association, orderly)

    def rejected(self, reason: str) -> None:
        self._refused("associations_refused", reason)

    def _listen(self) -> DicomScp:
        parameters = self._parameters
        titles = tuple(title.strip() for title in parameters.allowed_calling_ae_titles.split(",") if title.strip())
        settings = ScpSettings(
            host=parameters.host,
            port=parameters.port,
            ae_title=parameters.ae_title,
            allowed_calling_ae_titles=titles,
            max_slice_bytes=parameters.max_slice_mb * BYTES_PER_MB,
            max_associations=parameters.max_associations,
            network_timeout_s=parameters.network_timeout_s,
        )
        try:
            scp = DicomScp(settings, self)
        except (ImportError, ValueError, OSError) as error:
            raise ParameterError(f"DICOM receiver at {parameters.host!r}, port {parameters.port}: {error}") from error
        where = f"{parameters.host}:{scp.port}"
        self._log.info("listening", f"{parameters.ae_title} listening on {where}", port=scp.port)
        return scp

    def _assemble(self) -> None:
        while not self._stop.wait(POLL_S):
            for series in self._store.due(time.monotonic()):
                try:
                    self._publish(series)
                except VolumeError as error:
                    self._refused("series_refused", f"series {series.tag} refused: {error}")
                except Exception as error:  # a bug or a full disk must not stop the next series
                    where = "".join(traceback.format_tb(error.__traceback__))  # not the text: it may quote the patient
                    reason = f"series {series.tag} failed: {type(error).__name__}"
                    self._refused("series_refused", reason)
                    self._log.error("series_failed", reason, trace=where, series=series.tag)
                finally:
                    self._store.forget(series)

    def _publish(self, series: ClosedSeries) -> None:
        began = time.perf_counter()
        volume = series.volume(frame_id=self._parameters.frame_id, max_voxels=self._parameters.max_voxels)
        stamp = self.get_clock().now().to_msg()
        self._volumes.publish(volume_message(volume, stamp, self._parameters.format))
        self._tally.count("series_published")
        # the next series may be due already, and with a depth of 1 it would take the place of this one on its way
        self._volumes.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_TIMEOUT_S))
        took_ms = f"{(time.perf_counter() - began) * 1e3:.0f}"
        said = f"series {series.tag}: {volume.shape} published, {took_ms} ms"
        self._log.info("series_published", said, series=series.tag, took_ms=took_ms)
        if self._folder:
            self._save(volume, f"{series.tag}_{stamp.sec}.{stamp.nanosec:09d}.nii.gz", series)

    def _save(self, volume: Volume, name: str, series: ClosedSeries) -> None:
        try:
            write_volume(self._folder / name, volume)
        except (OSError, VolumeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._refused("series_not_saved", f"series {series.tag} published, but not saved: {reason}")

    def _refused(self, what: str, reason: str) -> None:
        reason = " ".join(reason.split())[:500]
        self._tally.error(what, reason, time.monotonic())
        self._log.warning(what, reason)

    def _publish_diagnostics(self) -> None:
        self._log.flush()
        parameters = self._parameters
        values = {
            "ae_title": parameters.ae_title,
            "address": f"{parameters.host}:{self._scp.port}",
            "associations": self._scp.associations,
            "bytes_in_assembly": self._store.nbytes,
        }
        status = self._tally.status(self.get_fully_qualified_name(), "listening", time.monotonic(), values)
        self._diagnostics.publish(diagnostics_message(self.get_clock().now().to_msg(), status))


def silence_libraries() -> None:
    """pydicom and pynetdicom quote values in their warnings and logs; in this process nothing of them is shown."""
    warnings.simplefilter("ignore")
    for name in ("pydicom", "pynetdicom"):
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False


def main(args: list[str] | None = None) -> int:
    silence_libraries()
    return run_node(DicomReceiver, args)
