"""What `threedme demo` receives over DDS, with the phantom for a CT."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from threedme_ros.nodes import demo_run
from threedme_ros.nodes.demo_run import DemoError, run_demo
from threedme_ros.pictures.results import summary
from threedme_ros.samples import SampleError


@pytest.fixture(autouse=True)
def _own_domain(domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain.id))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_results_are_of_one_volume_and_counted(random_checkpoint):
    seen = []
    results = run_demo(
        source="phantom",
        checkpoint=str(random_checkpoint),
        engine="torch",
        volumes=2,
        say=lambda text: None,
        progress=seen.append,
    )
    assert seen[-1] >= 2
    assert results.volumes_published >= results.volumes_segmented >= 2
    assert len(results.stamp_to_publish_ms) == results.volumes_segmented
    assert results.labels.grid.matches(results.image.grid)
    found = {s.name for s in results.anatomy if (results.labels.voxels == s.id).any()}
    assert found and set(results.meshes) <= found
    assert set(np.unique(results.cloud.labels)) == {results.anatomy[name].id for name in found}
    assert len(results.obstacles)
    figures = summary(results)
    assert figures["stamp_to_publish_ms"]["p50"] > 0
    assert figures["source"].startswith("phantom")
    assert figures["engine"] == "torch fp32 on cpu"


def test_a_node_that_cannot_start_ends_the_demo_with_its_reason():
    with pytest.raises(DemoError, match=r"nowhere\.safetensors: no such file"):
        run_demo(source="phantom", checkpoint="/nowhere.safetensors", engine="torch", say=lambda text: None)


def test_sample_that_cannot_be_fetched_becomes_the_phantom_and_is_called_so(monkeypatch):
    def fetch(progress):
        raise SampleError("no route to the registry")

    monkeypatch.setattr(demo_run, "fetch_samples", fetch)
    case = demo_run.demo_case("sample:A", lambda text: None)
    assert case.player_source == "phantom"
    assert "phantom" in case.text and "no route to the registry" in case.text
