"""`threedme benchmark --quick`, the whole command on tiny volumes."""

import json

import pytest

from threedme_ros import cli
from threedme_ros.anatomy import Anatomy
from threedme_ros.commands.benchmark import add_arguments, plan_of

pytest.importorskip("monai")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, anatomy: Anatomy):
    import torch

    from threedme_ros.model.checkpoint import save_checkpoint
    from threedme_ros.model.config import ModelConfig, Preprocessing
    from threedme_ros.model.threedme import ThreeDME

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    save_checkpoint(path, ThreeDME(ModelConfig("small", anatomy.num_classes)), anatomy, Preprocessing(), {})
    return path


def test_one_run_gives_a_table_a_picture_and_every_figure(checkpoint, tmp_path, capsys) -> None:
    names = ("figures.json", "tables.md", "plot.png")
    figures, tables, plot = (tmp_path / name for name in names)
    arguments = ["--quick", "--engine", "torch", "--checkpoint", checkpoint, "--json", figures]
    assert cli.main(["benchmark", *map(str, arguments), "--markdown", str(tables), "--plot", str(plot)]) == 0
    found = json.loads(figures.read_text())
    assert found["volume"] == [48, 48, 32]
    assert found["engine"] == "torch fp32"
    assert found["full_s"] > found["network_s"] > 0
    assert found["overhead_share"] == pytest.approx(1 - found["network_s"] / found["full_s"], abs=1e-3)
    assert found["update_share"] == pytest.approx(found["update_s"] / found["full_s"], rel=0.01)
    assert 0.9 < found["update_agreement"] <= 1
    assert found["postprocess_ms"] > 0
    assert found["threads"] >= 1 and found["hardware"]
    peer = found["peers"]["SegResNet-16"]
    assert peer["ratio"] == pytest.approx(peer["volume_s"] / found["full_s"], rel=0.01)
    assert peer["windows"] == 2 * 2 * 1 and not peer["extrapolated"]
    (point,) = found["growth"]
    assert point["shape"] == [32, 32, 32] and point["peak_mb"] > 100 and point["seconds"] > 0
    assert found["ros_ms"] == {} and "peak_mb" in found
    printed = capsys.readouterr().out
    assert "SegResNet-16" in printed and "mirrored" in printed
    assert "| SegResNet-16 |" in tables.read_text()
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_arguments_choose_what_is_measured() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    plan = plan_of(parser.parse_args(["--no-ros", "--no-growth", "--peers", "DynUNet", "--update-mm", "20"]))
    assert (plan.ros, plan.ros_large, plan.growth, plan.clinical) == (0, 0, (), False)
    assert (plan.peers, plan.radius_mm) == (("DynUNet",), 20.0)
    soak = plan_of(parser.parse_args(["--ros-soak", "200", "--soak-only"]))
    assert (soak.soak, soak.ros, soak.peers, soak.growth) == (200, 0, (), ())
    for bad in (["--peers", "UNet"], ["--ros-soak", "-1"], ["--update-mm", "0"]):
        with pytest.raises(ValueError, match=bad[0]):
            plan_of(parser.parse_args(bad))
