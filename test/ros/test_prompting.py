"""Clicks on a running node: a mask on the input's grid, refining, refusals, clearing, a volume that changes."""

import numpy as np
import pytest

pytest.importorskip("rclpy")
from geometry_msgs.msg import Point, PointStamped
from perceiving import Perceiving
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from threedme_ros.nodes.messages import volume_from_message
from threedme_ros.nodes.qos import RESULTS
from threedme_ros.phantom import phantom
from threedme_ros.volume import MM_PER_M, Volume

NODE = "/perception"


@pytest.fixture(scope="module")
def image() -> Volume:
    image = phantom((40, 32, 44), (9.0, 8.0, 9.5))[0].reoriented("LPS")[0]
    return Volume(image.voxels, image.affine, "theatre/patient")


@pytest.fixture(scope="module")
def node(domain, random_checkpoint, tmp_path_factory) -> Perceiving:
    import torch

    from threedme_ros.model.checkpoint import load_checkpoint
    from threedme_ros.model.prompt_decoder import PromptConfig, PromptDecoder
    from threedme_ros.model.prompt_file import save_prompt_decoder

    checkpoint = load_checkpoint(random_checkpoint)
    torch.manual_seed(0)
    decoder = tmp_path_factory.mktemp("models") / "prompt.safetensors"
    made = PromptDecoder(PromptConfig.of_model(checkpoint.config))
    torch.nn.init.constant_(made.head.bias, 20.0)  # untrained, it would find nothing: here it finds everything
    save_prompt_decoder(decoder, made, checkpoint.hash, {})
    process = domain.start(
        "perception", checkpoint=random_checkpoint, prompt_decoder=decoder, engine="torch", threads=1, max_faces=400
    )
    node = Perceiving(domain, process, NODE)
    node.prompt_labels = domain.collect(CompressedImage, "/prompt/labels", RESULTS)
    node.prompt_markers = domain.collect(MarkerArray, "/prompt/markers", RESULTS)
    node.foreground = domain.node.create_publisher(PointStamped, "/clicked_point", 10)
    node.background = domain.node.create_publisher(PointStamped, "/clicked_point_background", 10)
    node.wait_for_subscription()
    ready = lambda: node.foreground.get_subscription_count() and node.background.get_subscription_count()  # noqa: E731
    domain.spin_until(ready, what="clicks are not subscribed")
    return node


def click(node, publisher, point_mm, frame_id="theatre/patient"):
    x, y, z = (float(v) / MM_PER_M for v in point_mm)
    publisher.publish(PointStamped(header=Header(frame_id=frame_id), point=Point(x=x, y=y, z=z)))


def clicked(node, domain, publisher, point_mm) -> Volume:
    """The mask that the click leads to."""
    before = len(node.prompt_labels)
    click(node, publisher, point_mm)
    domain.spin_until(lambda: len(node.prompt_labels) > before, what=f"no mask; {node.diagnostics}")
    return volume_from_message(node.prompt_labels[-1])


def refused(node, domain, publisher, point_mm, words, frame_id="theatre/patient"):
    click(node, publisher, point_mm, frame_id)
    domain.spin_until(lambda: words in node.diagnostics.get("last_error", ""), what=f"{words}; {node.diagnostics}")


def at(volume: Volume, *index: float) -> np.ndarray:
    return volume.grid.to_mm(np.array([index]))[0]


def test_a_click_before_any_volume_is_refused(node, domain):
    refused(node, domain, node.foreground, (0, 0, 0), "no volume was segmented yet")
    assert not node.prompt_labels


def test_clicks_give_a_mask_on_the_input_grid_refine_it_and_are_shown(node, domain, image):
    stamp = node.segment(image)
    first = clicked(node, domain, node.foreground, at(image, 20, 16, 20))
    assert (first.shape, first.voxels.dtype, first.frame_id) == (image.shape, np.uint8, "theatre/patient")
    np.testing.assert_allclose(first.affine, image.affine, atol=1e-3)
    assert node.prompt_labels[-1].header.stamp == stamp
    assert set(np.unique(first.voxels)) <= {0, 1}
    assert first.voxels.any()
    clicked(node, domain, node.background, at(image, 8, 8, 8))
    domain.spin_until(lambda: "2 clicks" in node.diagnostics["prompt"], what="two clicks")
    made_by = node.diagnostics["prompt_made_by"]
    assert made_by.startswith(f"checkpoint={node.diagnostics['checkpoint']} prompt=") and len(made_by) <= 79
    assert made_by.encode() in bytes(node.prompt_labels[-1].data[:348])
    domain.spin_until(lambda: node.prompt_markers[-1].markers[-1].points, what="no background click in the markers")
    markers = {m.ns: m for m in node.prompt_markers[-1].markers}
    assert (markers["prompt"].type, markers["prompt"].header.frame_id) == (Marker.TRIANGLE_LIST, "theatre/patient")
    assert len(markers["prompt"].points) > 0
    for ns, index in (("clicks", (20, 16, 20)), ("clicks_background", (8, 8, 8))):
        (p,) = markers[ns].points
        np.testing.assert_allclose([p.x, p.y, p.z], at(image, *index) / MM_PER_M, atol=1e-9)


def test_clicks_outside_or_in_a_frame_out_of_reach_are_refused_and_change_nothing(node, domain, image):
    shown = len(node.prompt_labels)
    refused(node, domain, node.foreground, at(image, 41, 16, 20), "expected one inside the volume")
    refused(node, domain, node.foreground, at(image, 20, 16, 20), "frame 'camera'", frame_id="camera")
    refused(node, domain, node.foreground, (np.nan, 0, 0), "expected finite numbers")
    assert len(node.prompt_labels) == shown
    assert "2 clicks" in node.diagnostics["prompt"]


def test_clearing_takes_the_mask_away_and_a_background_click_alone_means_nothing(node, domain, image):
    shown = len(node.prompt_labels)
    answer = domain.call(Trigger, f"{NODE}/clear_prompts")
    assert (answer.success, answer.message) == (True, "2 clicks cleared")
    domain.spin_until(lambda: len(node.prompt_labels) > shown, what="no cleared mask")
    assert not volume_from_message(node.prompt_labels[-1]).voxels.any()
    domain.spin_until(lambda: node.diagnostics["prompt"] == "none", what="prompt in diagnostics")
    deleted = {Marker.DELETE}
    domain.spin_until(lambda: {m.action for m in node.prompt_markers[-1].markers} == deleted, what="markers deleted")
    refused(node, domain, node.background, at(image, 20, 16, 20), "expected a click inside a structure first")


def test_the_same_volume_again_keeps_the_clicks_and_another_one_forgets_them(node, domain, image):
    clicked(node, domain, node.foreground, at(image, 20, 16, 20))
    stamp = node.segment(image)
    clicked(node, domain, node.foreground, at(image, 21, 16, 20))
    assert node.prompt_labels[-1].header.stamp == stamp
    domain.spin_until(lambda: "2 clicks" in node.diagnostics["prompt"], what="two clicks")
    shown = len(node.prompt_labels)
    changed = image.voxels.copy()
    changed[:10] += 50
    stamp = node.segment(image.with_voxels(changed))
    domain.spin_until(lambda: node.diagnostics["prompt"] == "of an earlier volume", what="an earlier volume")
    assert "2 clicks forgotten" in node.process.output()
    assert len(node.prompt_labels) == shown
    clicked(node, domain, node.foreground, at(image, 20, 16, 20))
    assert node.prompt_labels[-1].header.stamp == stamp
    domain.spin_until(lambda: node.diagnostics["prompt"].startswith("1 click"), what="one click")


def test_ctrl_c_is_a_clean_end(node):
    assert node.process.interrupt() == 0
    assert "Traceback" not in node.process.output()
