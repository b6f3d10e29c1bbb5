"""Good inputs to start from, made here or by an independent library; small, and the same in every run."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from threedme_ros.share import share_path
from threedme_ros.volume import Volume
from threedme_ros.volume_io import volume_to_bytes, write_volume

SECRET = "ZZTOPSECRET^PATIENT"
"""Planted in every DICOM seed: no refusal may repeat it."""
SHAPE = (5, 4, 3)
OBLIQUE = np.array([[-0.8, 0.1, 0.3, 31.7], [0.2, 0.9, -0.5, -12.3], [0.1, 0.3, 2.1, 400.123], [0, 0, 0, 1]])
TINY = {"channels": (2, 2, 2), "token_size": 8, "vit_dim": 6, "vit_depth": 1, "vit_heads": 1, "plane_heads": 1}
TINY |= {"plane_points": 1, "knn": 2}


def voxels(dtype="i2") -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def nifti() -> list[bytes]:
    qform = nib.Nifti1Image(voxels(), None)
    qform.header.set_qform(np.diag([2, -3, 4, 1]), "scanner")
    extended = nib.Nifti1Image(voxels("f4"), OBLIQUE)
    extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 100))
    scaled = nib.Nifti1Image(voxels("u1"), OBLIQUE)
    scaled.header.set_slope_inter(0.5, -1024)
    images = [
        nib.Nifti1Image(voxels(), OBLIQUE),
        nib.Nifti2Image(voxels("f8"), OBLIQUE),
        nib.Nifti1Image(voxels(">i2"), OBLIQUE, nib.Nifti1Header(endianness=">")),
        nib.Nifti1Image(voxels("u1").reshape(*SHAPE, 1, 1), OBLIQUE),
        qform,
        extended,
        scaled,
    ]
    return [image.to_bytes() for image in images]


def nifti_gzip() -> list[bytes]:
    parts = nifti()[0]
    members = b"".join(gzip.compress(parts[i : i + 100], mtime=0) for i in range(0, len(parts), 100))
    return [*(gzip.compress(data, mtime=0) for data in nifti()), members]


def nrrd() -> list[bytes]:
    plain = bytes(volume_to_bytes(Volume(voxels("f4"), OBLIQUE), "nrrd"))
    head, _, body = plain.partition(b"\n\n")
    zipped = head.replace(b"encoding: raw", b"encoding: gzip") + b"\n\n" + gzip.compress(body, mtime=0)
    text = b"NRRD0005\n# by hand\ntype: uchar\ndimension: 4\nspace: RAS\nsizes: 1 5 4 3\nencoding: raw\nendian: big\n"
    text += b'space directions: none (2,0,0) (0,3,0) (0,0,4)\nspace origin: (1,2,3)\nspace units: "m" "m" "m"\nk:=v\n\n'
    return [plain, zipped, text + voxels("u1").tobytes(order="F")]


def meta_image() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.mha")
        write_volume(path, Volume(voxels(), np.diag([2.0, 3.0, 4.0, 1.0])))
        plain = path.read_bytes()
        import SimpleITK as sitk  # noqa: N813 the library's own abbreviation

        sitk.WriteImage(sitk.GetImageFromArray(voxels("f4")), str(path), useCompression=True)
        zipped = path.read_bytes()
    text = b"ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementSpacing = 1 2 3\nOffset = 0 0 9\n"
    text += b"ElementByteOrderMSB = True\nElementType = MET_USHORT\nElementDataFile = LOCAL\n"
    return [plain, zipped, text + voxels(">u2").tobytes(order="F")]


def slice_bytes(index: int, syntax: str = "1.2.840.10008.1.2.1", **changes) -> bytes:
    """One 6 x 5 slice of a series with 2 mm steps, as a DICOM file."""
    import pydicom
    from pydicom.dataset import FileMetaDataset

    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.2",
        f"1.2.3.{index}",
        "1.2.3",
    )
    data.PatientName = data.PatientID = SECRET
    data.Rows, data.Columns, data.PixelSpacing = 5, 6, [0.7, 0.9]
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10, -20, 2.0 * index]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = (np.arange(30, dtype="<i2") + 100 * index).tobytes()
    for name, value in changes.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        data.SOPClassUID,
        f"1.2.3.{index}",
    )
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


def encapsulated(frame: bytes, syntax: str, offsets: tuple[int, ...] = (0,), **changes) -> bytes:
    """The slice with pixels compressed as ``frame``; ``offsets``: of its frames, as its table has them."""
    import pydicom

    data = pydicom.dcmread(io.BytesIO(slice_bytes(1, **changes)))
    items = struct.pack(f"<{len(offsets)}I", *offsets), frame + bytes(len(frame) % 2)
    data.PixelData = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    data.save_as(out)
    return out.getvalue()


def dicom() -> list[bytes]:
    import pydicom
    from PIL import Image
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

    plain = slice_bytes(1)
    packed = [plain, slice_bytes(1, ImagesInAcquisition=2), slice_bytes(1, "1.2.840.10008.1.2")]
    packed += [slice_bytes(1, RescaleSlope="0.5", RescaleIntercept="1.25"), slice_bytes(1, "1.2.840.10008.1.2.2")]
    packed.append(slice_bytes(1, "1.2.840.10008.1.2.1.99"))
    rle = pydicom.dcmread(io.BytesIO(plain))
    rle.compress(RLELossless, generate_instance_uid=False)
    out = io.BytesIO()
    rle.save_as(out)
    packed.append(out.getvalue())
    picture = Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6))
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    for kind, syntax in (("JPEG", JPEGBaseline8Bit), ("JPEG2000", JPEG2000Lossless)):
        out = io.BytesIO()
        picture.save(out, kind, **({"irreversible": False, "no_jp2": True} if kind == "JPEG2000" else {}))
        packed.append(encapsulated(out.getvalue(), syntax, **eight))
    return packed


def igtl() -> list[bytes]:
    import pyigtl

    matrix = np.diag([0.5, 0.6, 2.0, 1.0])
    image = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    turn = np.array([[1, 0, 0, 10], [0, 0, -1, 20], [0, 1, 0, 30], [0, 0, 0, 1.0]])
    messages = [
        pyigtl.ImageMessage(image, matrix, "lps", 12.5, "ct"),
        pyigtl.ImageMessage(image.astype("f4"), matrix, "ras", 12.5, "ct"),
        pyigtl.ImageMessage(image.astype(np.uint8), matrix, "lps", 12.5, "us"),
        pyigtl.TransformMessage(turn, 12.5, "ProbeToTracker"),
        pyigtl.StringMessage("hello", 12.5, "text"),
        pyigtl.ImageMessage(image, matrix, "lps", 12.5, "ct"),
        pyigtl.TransformMessage(turn, 12.5, "ProbeToTracker"),
    ]
    for message in messages[-2:]:
        message.header_version, message.metadata = 2, {"key": "value", "b": "1"}
    packed = [message.pack() for message in messages]
    return [*packed, packed[3] + packed[4] + packed[0]]


def message() -> list[bytes]:
    """A volume message as one byte string: see `decoders.split_message`."""
    pairs = zip(("nifti", "nifti; gzip", "nrrd"), (nifti()[0], nifti_gzip()[0], nrrd()[0]), strict=True)
    return [
        struct.pack("<iI", 1700000000, 5) + bytes([len(frame), len(format)]) + frame + format.encode() + data
        for frame, (format, data) in zip((b"patient",) * 3, pairs, strict=True)
    ]


def anatomy_yaml() -> list[bytes]:
    rows = "structures:\n- {id: 1, name: liver, colour: [200, 30, 30], margin_mm: 2.5, role: no-go}\n"
    rows += "- id: 2\n  name: spleen\n  colour: [1, 2, 3]\n  margin_mm: 0\n  role: target\n"
    return [rows.encode(), share_path("config/anatomy.yaml").read_bytes()]


def anatomy_json() -> list[bytes]:
    from threedme_ros.anatomy import Anatomy

    row = {"id": 1, "name": "liver", "colour": [200, 30, 30], "margin_mm": 2.5, "role": "no-go"}
    two = [row, row | {"id": 2, "name": "milz"}]
    whole = Anatomy.from_yaml(share_path("config/anatomy.yaml")).to_json()
    return [json.dumps([row]).encode(), json.dumps(two).encode(), whole.encode()]


def label_info() -> list[bytes]:
    return [
        b'{"notice": "demo", "checkpoint": "0123456789abcdef", "structures": ' + rows + b"}" for rows in anatomy_json()
    ]


def trace() -> list[bytes]:
    row = {"checkpoint": "0123456789abcdef", "engine": "openvino", "precision": "bf16", "device": "cpu", "threads": 2}
    row |= {"modalities": ["auto"], "update": "full", "box": [[0, 16], [16, 48], [0, 32]], "window_voxels": 2097152}
    return [json.dumps(row).encode(), json.dumps(row | {"box": None, "stamp": {"sec": 3}}).encode()]


def task_yaml(*names: str) -> Callable[[], list[bytes]]:
    return lambda: [share_path(f"config/tasks/{name}.yaml").read_bytes() for name in names]


def npz() -> list[bytes]:
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.zeros((3, 4, 4, 4), np.uint8)
        arrays[f"{split}_labels"] = np.arange(3, dtype=np.uint8)[:, None] % 2
    packed = []
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, **arrays)
        packed.append(out.getvalue())
    array = io.BytesIO()
    np.save(array, np.zeros((2, 3), np.uint8))
    return [*packed, array.getvalue()]


def dataset_json() -> list[bytes]:
    msd = {"name": "x", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    msd["training"] = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    own = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": [1, 2], "b": 1}, "file_ending": ".nrrd"}
    own["regions_class_order"] = [1, 2]
    return [json.dumps(document).encode() for document in (msd, own)]


def splits() -> list[bytes]:
    one = {"train": ["a", "b"], "val": ["c"]}
    return [json.dumps([one]).encode(), json.dumps([one, {"train": ["c"], "val": ["a"]}]).encode()]


def fitted() -> list[bytes]:
    from threedme_ros.inference.scope import FEATURES

    lines = {m: {"background": [1.1, 1.2], "structures": [0.9, -0.6]} for m in ("ct", "other")}
    arrangement = {"pairs": [[1, 2]], "middle_mm": [[30.5, 0, -4]], "spread_mm": [[6, 10, 8.5]]}
    scope = {"features": {name: [0.5, 0.2, -1.1] for name in FEATURES}, "bias": -0.07, "threshold": -0.29}
    return [json.dumps({"scope": scope | {"arrangement": arrangement}, "lines": lines}).encode()]


def run_log() -> list[bytes]:
    lines = ({"step": step, "loss": 2.5 - step, "gradient_norm": 1.0, "block_mm": [1.0, 2.0]} for step in range(3))
    return [b"".join(json.dumps(line).encode() + b"\n" for line in lines)]


def run_state() -> list[bytes]:
    import torch

    out = io.BytesIO()
    state = {"step": 3, "model": {"a": torch.arange(4.0)}, "task": "{}", "optimiser": [{"state": {0: torch.ones(1)}}]}
    torch.save(state, out)
    return [out.getvalue()]


def prepared_volume() -> list[bytes]:
    packed = []
    for array in (voxels("f2"), np.asfortranarray(voxels("f2"))):
        out = io.BytesIO()
        np.save(out, array)
        packed.append(out.getvalue())
    return packed


def prepared_case() -> list[bytes]:
    import torch
    from safetensors.torch import save

    places = torch.tensor([[1, 0, 0, 0], [1, 4, 3, 2], [7, 2, 1, 0]], dtype=torch.int16)
    image, labels = torch.zeros(1, *SHAPE, dtype=torch.float16), torch.ones(SHAPE, dtype=torch.uint8)
    return [in_order(save({"image": image, "labels": labels, "places": places}))]


def cohort_records() -> list[bytes]:
    identity = {"name": "a.nii.gz", "identity": ["0123456789abcdef", [123, 456]]}
    done = identity | {"state": "done", "volumes_ml": {"liver": 1.5}, "seconds": 0.25, "warnings": ["thick slices"]}
    return [json.dumps(row).encode() for row in (done, identity | {"state": "failed", "reason": "no volume"})]


def records() -> list[bytes]:
    return [json.dumps({"recipe": {"steps": 3}, "result": {"dice": 0.5}, "seconds": 1.0}).encode()]


def weights(kind: str) -> Callable[[], list[bytes]]:
    """A file of ``kind`` (checkpoint, foundation, prompt, classifier, adapter, peer) of some 2,000 random weights.

    A peer's real weights are megabytes: its file has others, and can be read but not built.
    """

    def make() -> list[bytes]:
        import torch

        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder, "x.safetensors")
            _save_weights(kind, path)
            return [in_order(path.read_bytes())]

    return make


def in_order(file: bytes) -> bytes:
    """The same safetensors file with its metadata sorted; safetensors writes them in any order."""
    (size,) = struct.unpack_from("<Q", file)
    head = json.dumps(json.loads(file[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + file[8 + size :]


def _save_weights(kind: str, path: Path) -> None:
    import torch

    from threedme_ros.anatomy import Anatomy
    from threedme_ros.model import adapters, checkpoint, classifier, foundation, prompt_decoder, prompt_file
    from threedme_ros.model.config import ModelConfig, Preprocessing
    from threedme_ros.model.encoder import Encoder
    from threedme_ros.model.threedme import ThreeDME

    config = ModelConfig.of_size("small", 3, **TINY)
    if kind == "checkpoint":
        anatomy = Anatomy.from_json(anatomy_json()[1].decode())
        checkpoint.save_checkpoint(path, ThreeDME(config), anatomy, Preprocessing(), {"seed": 0})
    elif kind == "foundation":
        foundation.save_foundation(path, Encoder(config), Preprocessing(), {"seed": 0})
    elif kind == "classifier":
        model = classifier.Classifier(config)
        classifier.save_classifier(path, model, ("a", "b", "c"), (32, 32, 32), {})
    elif kind == "prompt":
        decoder = prompt_decoder.PromptDecoder(prompt_decoder.PromptConfig((2, 2, 2), 1, 1, 1, (6.0,)))
        prompt_file.save_prompt_decoder(path, decoder, "0123456789abcdef", {})
    elif kind == "peer":
        from threedme_ros.training.peer_checkpoint import save_peer
        from threedme_ros.training.peer_networks import PeerConfig

        stand_in = torch.nn.Linear(8, 8)
        stand_in.config = PeerConfig("segresnet", 3)
        save_peer(path, stand_in, Anatomy.from_json(anatomy_json()[1].decode()), Preprocessing(), {"seed": 0})
    else:
        model = ThreeDME(config)
        adaptation = adapters.Adaptation("lora", 1, 1.0)
        adaptation.apply(model)
        made = adapters.Adapter("segmentation", "0" * 16, config, adaptation, False, {"a": 1}, {}, "")
        adapters.save_adapter(path, model, made)
