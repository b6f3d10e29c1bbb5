import struct

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 the library's own abbreviation

from threedme_ros.igtl import content
from threedme_ros.igtl.wire import ContentError, crc64
from threedme_ros.phantom import phantom
from threedme_ros.volume import LPS_FROM_RAS, Volume, VolumeError

pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed: pip install 'threedme_ros[igtl]'")

OBLIQUE = np.array([[-0.8, 0.3, 0.1, 40], [0.3, 0.8, 0.0, -25], [0, 0.1, 2.5, 130], [0, 0, 0, 1]], np.float32)


def frame_of(read, voxels, matrix, coordinates="lps"):
    """As pyigtl packs it; big-endian voxels, which it cannot, are announced in the image header by hand."""
    message = bytearray(
        pyigtl.ImageMessage(voxels.view(voxels.dtype.newbyteorder("=")).T, matrix, coordinates, 5.0, "ct").pack()
    )
    if voxels.dtype.byteorder == ">":
        message[58 + 4] = 1
        message[50:58] = crc64(message[58:]).to_bytes(8)
    return read(message)


def decode(frame, **kwargs):
    return content.volume_from_image(frame, frame_id="ct_frame", **{"max_voxels": 10**6, **kwargs})


@pytest.mark.parametrize("coordinates", ["lps", "ras"])
@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "<u2", ">i4", "<u4", "<f4", ">f4", "<f8"])
def test_every_scalar_byte_order_and_coordinate_system_gives_the_same_volume(read, dtype, coordinates):
    voxels = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(dtype)
    matrix = OBLIQUE if coordinates == "ras" else LPS_FROM_RAS @ OBLIQUE
    volume = decode(frame_of(read, voxels, matrix, coordinates))
    assert volume.voxels.dtype == np.dtype(dtype).newbyteorder("=") and volume.frame_id == "ct_frame"
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)


def test_the_position_in_an_image_is_the_centre_of_the_volume(read):
    # by hand, not by pyigtl: 3 x 5 x 2 voxels of 2 x 3 x 4 mm, RAS, whose centre lies at (10, 20, 30)
    header = struct.pack(">HBBBB3H", 1, 1, 3, 2, 1, 3, 5, 2)
    header += struct.pack(">12f", 2, 0, 0, 0, 3, 0, 0, 0, 4, 10, 20, 30) + struct.pack(">6H", 0, 0, 0, 3, 5, 2)
    body = header + bytes(range(30))
    message = struct.pack(">H12s20sIIQQ", 1, b"IMAGE", b"us", 5, 0, len(body), crc64(body)) + body
    volume = decode(read(message))
    np.testing.assert_allclose(volume.affine[:3, 3], [10 - 2 * 1, 20 - 3 * 2, 30 - 4 * 0.5])
    np.testing.assert_allclose(volume.grid.to_mm(np.array([[1, 2, 0.5]])), [[10, 20, 30]])
    assert volume.voxels[1, 0, 0] == 1 and volume.voxels[0, 1, 0] == 3 and volume.voxels[0, 0, 1] == 15  # i is fastest


def test_phantom_out_of_itk_lands_the_right_way_round(read):
    image, labels = phantom((48, 40, 32), (8.0, 7.0, 12.0))
    itk = sitk.GetImageFromArray(image.reoriented("LPS")[0].voxels.T)  # an LPS image, as a scanner stores it
    lps = LPS_FROM_RAS @ image.reoriented("LPS")[0].affine
    itk.SetSpacing(np.linalg.norm(lps[:3, :3], axis=0)), itk.SetOrigin(lps[:3, 3])
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(itk.GetDirection()).reshape(3, 3) * itk.GetSpacing()
    matrix[:3, 3] = itk.GetOrigin()
    volume = decode(frame_of(read, sitk.GetArrayFromImage(itk).T, matrix))
    back = volume.reoriented("RAS")[0]
    np.testing.assert_array_equal(back.voxels, image.voxels)
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-3)
    liver = np.argwhere(labels.voxels == 4).mean(axis=0)
    assert back.grid.to_mm(liver[None])[0, 0] > 40  # on the patient's right


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (2, b"\x03", "3 components"),
        (3, b"\x09", "scalar type 9"),
        (4, b"\x00", "endian 0"),
        (5, b"\x03", "coordinates 3"),
        (6, b"\x00\x00", r"dimensions \(0, 5, 6\)"),
        (6, b"\xff\xff" * 3, "too many voxels"),
        (6, b"\x00\x03", "subvolume"),
        (60, b"\x00\x01", "subvolume"),
        (12, b"\x7f\xc0\x00\x00", "finite"),
        (12, b"\x00" * 12, "singular"),
    ],
)
def test_images_that_make_no_volume_are_refused(read, offset, value, reason):
    frame = frame_of(read, np.zeros((4, 5, 6), np.int16), np.eye(4))
    body = bytearray(frame.content)
    body[offset : offset + len(value)] = value
    header = struct.pack(">H12s20sIIQQ", 1, b"IMAGE", b"ct", 5, 0, len(body), crc64(body))
    with pytest.raises(VolumeError, match=reason):
        decode(read(header + body))


def test_too_many_voxels_single_slices_and_cut_bodies_are_refused(read):
    with pytest.raises(VolumeError, match="too many voxels"):
        decode(frame_of(read, np.zeros((4, 5, 6), np.int16), np.eye(4)), max_voxels=100)
    with pytest.raises(ContentError, match="single slice"):
        decode(frame_of(read, np.zeros((40, 50, 1), np.uint8), np.eye(4)))
    body = bytes(frame_of(read, np.zeros((4, 5, 6), np.int16), np.eye(4)).content)[:-2]
    header = struct.pack(">H12s20sIIQQ", 1, b"IMAGE", b"ct", 5, 0, len(body), crc64(body))
    with pytest.raises(ContentError, match="make 312"):
        decode(read(header + body))


def test_labels_out_are_read_back_by_pyigtl():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[3, 0, 0], labels[0, 4, 0], labels[0, 0, 5] = 1, 2, 3
    packed = content.image_bytes(Volume(labels, OBLIQUE), "labels", 1700000000.5)
    message = unpack(packed)
    assert (message.device_name, message.timestamp, message.world_coordinate_system) == ("labels", 1700000000.5, "ras")
    np.testing.assert_array_equal(message.image.T, labels)
    np.testing.assert_allclose(message.ijk_to_world_matrix, OBLIQUE, atol=1e-4)


def test_voxels_that_openigtlink_has_no_type_for_are_not_sent():
    with pytest.raises(ContentError, match="int64"):
        content.image_bytes(Volume(np.zeros((2, 2, 2), np.int64), np.eye(4)), "labels", 1.0)


def test_transform_out_is_read_back_by_pyigtl(read):
    matrix = np.array([[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1.0]])
    packed = content.transform_bytes(matrix, "ToolToPatient", 5.0)
    np.testing.assert_array_equal(unpack(packed).matrix, matrix)
    np.testing.assert_array_equal(content.matrix_from_transform(read(packed)), matrix)


def test_surface_out_is_big_endian_mm_with_a_count_before_each_face():
    vertices, faces = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3]]), np.array([[0, 1, 2], [0, 2, 3]])
    body = content.polydata_bytes(vertices, faces, "liver", 5.0)[58:]
    assert struct.unpack(">10I", body[:40]) == (4, 0, 0, 0, 0, 2, 32, 0, 0, 0)
    np.testing.assert_allclose(np.frombuffer(body, ">f4", 12, 40).reshape(4, 3), vertices * 1000)
    np.testing.assert_array_equal(np.frombuffer(body, ">u4", offset=88).reshape(2, 4), [[3, 0, 1, 2], [3, 0, 2, 3]])


def test_a_structure_that_is_gone_goes_out_as_an_empty_surface():
    assert content.polydata_bytes((), (), "liver", 5.0)[58:] == bytes(40)


def test_device_names_fit_and_stay_apart():
    assert content.device_for("inferior_vena_cava") == "inferior_vena_cava"
    long = [content.device_for(f"portal_vein_and_splenic_{k}") for k in "ab"]
    assert len(set(long)) == 2 and all(len(name) <= 20 for name in long)
    with pytest.raises(ContentError, match="1 to 20 bytes"):
        content.transform_bytes(np.eye(4), "VeryLongToolNameToPatient", 1.0)


def unpack(packed: bytes):
    fields = pyigtl.MessageBase.parse_header(packed[:58])
    message = pyigtl.MessageBase.create_message(fields["message_type"])
    message.unpack(fields, packed[58:])
    return message
