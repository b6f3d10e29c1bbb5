"""The receiver as a process: DCMTK's and pynetdicom's senders on its port, DDS on its topic, a planted patient."""

import re
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from pydicom.uid import CTImageStorage, JPEGLSLossless, generate_uid
from rcl_interfaces.msg import Log
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage

from threedme_ros.dicom_store import series_tag
from threedme_ros.nodes.messages import volume_from_message
from threedme_ros.volume_io import read_volume

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed: pip install 'threedme_ros[dicom]'")
dcmtk = pytest.mark.skipif(not shutil.which("storescu"), reason="DCMTK is not installed: apt install dcmtk")
SECRET = "ZZTOPSECRET"
SCU, SCP = "SCANNER1", "THREEDME"


def planted(slices: list, folder: Path, *, count: int | None = None, offset: int = 0) -> list[Path]:
    """A series as a scanner would send it: every identifier filled in, and ``offset`` added to its values."""
    folder.mkdir()
    series = generate_uid()
    for index, data in enumerate(slices):
        data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = CTImageStorage, generate_uid(), series
        data.StudyInstanceUID = generate_uid()
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.PatientName, data.PatientID, data.PatientBirthDate = f"{SECRET}^NAME", f"{SECRET}ID", "19010203"
        data.ReferringPhysicianName, data.InstitutionName = f"{SECRET}^DOCTOR", f"{SECRET} CLINIC"
        data.RescaleIntercept = int(data.RescaleIntercept) + offset
        if count is not None:
            data.ImagesInAcquisition = count
        data.save_as(folder / f"{index:03d}.dcm")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def patient_b(samples, tmp_path_factory):
    """Three series: 8 slices in JPEG 2000 that say they are 8; all 20 uncompressed; the same with other values."""
    root = tmp_path_factory.mktemp("dicom")
    slices = [pydicom.dcmread(path) for path in (samples / "example_ct_dicom").iterdir()]
    slices.sort(key=lambda data: data.ImagePositionPatient[2])
    series = {"counted": planted(slices[:8], root / "counted", count=8)}
    for data in slices:
        data.decompress(generate_instance_uid=False)
        data.ImagesInAcquisition = None
    return {
        **series,
        "plain": planted(slices, root / "plain"),
        "other": planted(slices, root / "other", offset=50),
    }


class Receiver:
    """The process, what it published, and senders to it."""

    def __init__(self, domain):
        self.domain = domain
        self.volumes = domain.collect(CompressedImage, "volume", QoSProfile(depth=10))
        self.logs = domain.collect(Log, "/rosout", 100)
        self.diagnostics = domain.collect(DiagnosticArray, "/diagnostics", 10)
        self.process = domain.start(
            "dicom_receiver", port=0, quiet_s=1.0, allowed_calling_ae_titles=SCU, frame_id="ct", network_timeout_s=2.0
        )
        output = self.process.wait_for("listening on 127.0.0.1:")
        self.port = re.search(r"listening on 127\.0\.0\.1:(\d+)", output)[1]
        domain.spin_until(lambda: domain.node.count_publishers("volume"), what="no publisher of volume")
        self.seen = 0  # characters of the log that earlier tests were about
        self.messages = []  # all that ever came, for the search at the end

    def echo(self, calling=SCU, called=SCP) -> bool:
        command = ["echoscu", "-aet", calling, "-aec", called, "127.0.0.1", self.port]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0

    def store(self, files, *options) -> None:
        done = subprocess.run(self.storescu(files, *options), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def storescu(self, files, *options) -> list[str]:
        return ["storescu", *options, "-aet", SCU, "-aec", SCP, "127.0.0.1", self.port, *map(str, files)]

    def expect(self, count: int) -> list:
        """The next ``count`` volumes, by what the log says of them."""
        self.domain.spin_until(lambda: len(self.volumes) >= count, 30, f"not {count} volumes")
        taken = self.volumes[:]
        self.messages += taken
        self.volumes.clear()
        assert len(taken) == count
        return [volume_from_message(message) for message in taken]

    def expect_refusal(self, files, reason: str) -> None:
        tag = series_tag(pydicom.dcmread(files[0], specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)
        line = re.compile(f"series {tag} refused: .*{reason}")
        found = lambda: line.search(self.process.output(), self.seen)  # noqa: E731
        self.domain.spin_until(found, 30, f"series {tag} not refused for {reason!r}")
        self.seen = len(self.process.output())
        assert not self.volumes


@pytest.fixture(scope="module")
def receiver(domain):
    return Receiver(domain)


def assert_same(volume, folder: Path):
    expected = read_volume(folder)
    assert volume.frame_id == "ct" and volume.voxels.dtype == expected.voxels.dtype
    np.testing.assert_array_equal(volume.voxels, expected.voxels)
    np.testing.assert_array_equal(volume.affine, expected.affine)


@dcmtk
def test_echo_is_answered_for_allowed_titles_only(receiver):
    assert receiver.echo()
    assert not receiver.echo(calling="STRANGER")
    assert not receiver.echo(called="SOMEONE")
    assert "association from 'STRANGER' refused" in receiver.process.output()


@dcmtk
@pytest.mark.parametrize("order", ["in order", "shuffled"])
def test_a_series_equals_its_folder_bit_for_bit(receiver, patient_b, order):
    files = patient_b["plain"]
    if order == "shuffled":
        files = [files[i] for i in np.random.default_rng(5).permutation(len(files))]
    receiver.store(files)
    (volume,) = receiver.expect(1)
    assert_same(volume, files[0].parent)


@dcmtk
def test_compressed_and_counted_series_is_whole_at_its_last_slice(receiver, patient_b):
    receiver.store(patient_b["counted"], "-xv")
    (volume,) = receiver.expect(1)
    assert_same(volume, patient_b["counted"][0].parent)


@dcmtk
def test_two_interleaved_series_are_two_volumes(receiver, patient_b):
    pairs = zip(patient_b["plain"], patient_b["other"], strict=True)
    receiver.store([file for pair in pairs for file in pair])
    volumes = sorted(receiver.expect(2), key=lambda volume: volume.voxels.mean())
    assert_same(volumes[0], patient_b["plain"][0].parent)
    assert_same(volumes[1], patient_b["other"][0].parent)


@dcmtk
def test_bad_series_are_refused_and_the_next_good_one_passes(receiver, patient_b):
    plain, counted = patient_b["plain"], patient_b["counted"]
    receiver.store(plain[:8] + plain[9:])
    receiver.expect_refusal(plain, "a missing slice")
    receiver.store(counted[:5], "-xv")
    receiver.expect_refusal(counted, "5 of the 8 slices that the sender announced")
    receiver.store(patient_b["other"][:10], "--abort")
    receiver.expect_refusal(patient_b["other"], "the sender broke off after 10 slices")
    receiver.store(plain)
    (volume,) = receiver.expect(1)
    assert_same(volume, plain[0].parent)


@dcmtk
def test_a_sender_that_dies_half_way_is_refused_and_may_try_again(receiver, patient_b):
    files = patient_b["other"]
    command, output = receiver.storescu(files, "-v"), subprocess.PIPE
    with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True) as dying:
        sent = 0
        for line in dying.stdout:
            sent += line.startswith("I: Sending file")
            if sent == 5:
                dying.kill()
                break
    receiver.expect_refusal(files, "the sender broke off after [1-9][0-9]? slices")
    receiver.store(files)
    (volume,) = receiver.expect(1)
    assert_same(volume, files[0].parent)


def test_syntaxes_nobody_here_decodes_are_refused_at_negotiation(receiver):
    from pynetdicom import AE

    ae = AE(ae_title=SCU)
    ae.add_requested_context(CTImageStorage, JPEGLSLossless)
    association = ae.associate("127.0.0.1", int(receiver.port), ae_title=SCP)
    assert not association.accepted_contexts
    association.abort()
    receiver.process.wait_for("CT Image Storage as JPEG-LS Lossless Image Compression: cannot be decoded here")


def test_hostile_senders_are_disconnected_and_the_next_good_one_served(receiver, patient_b):
    from pynetdicom import AE

    with socket.create_connection(("127.0.0.1", int(receiver.port)), 10) as huge:
        huge.sendall(struct.pack(">BBL", 4, 0, 2**32 - 1) + bytes(1000))
        read_to_the_end(huge)
    receiver.process.wait_for("a PDU of 4294967295 bytes")
    with socket.create_connection(("127.0.0.1", int(receiver.port)), 10) as stalled:
        stalled.sendall(struct.pack(">BBL", 1, 0, 200) + bytes(20))
        read_to_the_end(stalled)
    rng = np.random.default_rng(1)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", int(receiver.port)), 10) as noise:
            noise.sendall(rng.bytes(int(rng.integers(1, 300))))
    ae = AE(ae_title=SCU)
    ae.add_requested_context(CTImageStorage)
    end = time.monotonic() + 20  # the noise may fill the places there are until it is seen to be gone
    while not (association := ae.associate("127.0.0.1", int(receiver.port), ae_title=SCP)).is_established:
        assert time.monotonic() < end
        time.sleep(0.2)
    for file in patient_b["plain"]:
        assert association.send_c_store(file).Status == 0
    association.release()
    (volume,) = receiver.expect(1)
    assert_same(volume, patient_b["plain"][0].parent)


def test_no_identifier_in_any_message_or_log(receiver, patient_b):
    """Last: it looks through all that the tests above made the receiver say."""
    receiver.domain.spin_until(lambda: receiver.diagnostics, what="no diagnostics")
    assert receiver.process.interrupt() == 0
    output = receiver.process.output()
    said = output + "".join(map(str, receiver.logs)) + "".join(map(str, receiver.diagnostics))
    said += "".join(path.read_text(errors="replace") for path in receiver.domain.folder.rglob("*.log"))
    uids = [str(pydicom.dcmread(files[0]).SeriesInstanceUID) for files in patient_b.values()]
    for secret in (SECRET, "19010203", "1.3.12.2.1107", *uids):
        assert secret not in said
        assert all(secret.encode() not in bytes(message.data) for message in receiver.messages)
    assert {message.header.frame_id for message in receiver.messages} == {"ct"}
    assert receiver.messages and "Traceback" not in output


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"ae_title": "ALTOGETHERTOOLONGTITLE"}, "error: DICOM receiver at"),
        ({"save_folder": "/nowhere/at/all"}, "expected an existing folder"),
        ({"save_folder": "/tmp"}, "expected one that not all may write to"),
    ],
)
def test_unusable_parameters_end_it_with_one_line(domain, parameters, reason):
    process = domain.start("dicom_receiver", "-r", "__ns:=/wrong", **{"port": 0, **parameters})
    assert process.wait() == 1
    assert reason in process.output() and "Traceback" not in process.output()


def read_to_the_end(sock):
    try:
        while sock.recv(1000):
            pass
    except ConnectionResetError:
        pass
