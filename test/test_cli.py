import subprocess
import sys

import pytest

from threedme_ros.cli import COMMANDS, main
from threedme_ros.share import DEMO_CHECKPOINT, share_path


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_arguments(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert f"threedme {command}" in capsys.readouterr().out


def test_an_unknown_command_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["segmnt"])
    assert exit_.value.code == 2
    assert "invalid choice: 'segmnt'" in capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_status_2(tmp_path, capsys):
    assert main(["info", str(tmp_path / "absent.safetensors")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("threedme info: checkpoint ")
    assert error.endswith("absent.safetensors: no such file\n")
    assert error.count("\n") == 1


def test_the_top_level_imports_neither_torch_nor_ros():
    code = "import sys, threedme_ros.cli; print(sorted({'torch', 'rclpy', 'vtk'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_info_describes_the_shipped_checkpoint(capsys):
    if not share_path("models").joinpath(DEMO_CHECKPOINT.split("/")[-1]).exists():
        pytest.skip("no shipped checkpoint")
    assert main(["info"]) == 0
    assert '"liver"' in capsys.readouterr().out
