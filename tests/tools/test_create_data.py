"""``tools/create_data.py`` from end to end, at the smallest size."""

import json

import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.sensors import camera_of
from beyonddrive.evaluation.experts import score_experts
from beyonddrive.tools.create_data import main, shared_sizes

pytest.importorskip("sumo", reason="the extra 'synth' is not installed")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "synth"
    return [
        "synth", "--out", str(out), "--splits", "val:4", "--seed", "1", "--image-size", "96x54",
        "--cameras", "front", "--no-lidar", "--min-expert-score", "0.5",
    ]  # fmt: skip


def test_a_world_is_made_and_readable(command, capsys):
    assert main(command) == 0
    assert "val: 4 scenes" in capsys.readouterr().out
    root = NavsimRoot(command[2])
    scenes = list(root.scenes("val"))
    assert len(scenes) == 4
    for scene in scenes:
        for name in ("CAM_L0", "CAM_F0", "CAM_R0"):
            assert camera_of(scene.now, name, root.sensor_root("val")).image().shape == (54, 96, 3)
        assert score_experts([scene], root.map(scene.map_location))[0] >= 0.5
    # Sensors of what planners see, and of nothing else.
    assert len(list(root.sensor_root("val").rglob("*.*"))) == 3 * 4
    summary = json.loads((root.sensor_root("val").parents[1] / "synth.json").read_text())
    assert summary["settings"]["seed"] == 1 and sum(summary["kinds"]["val"].values()) == 4


def test_other_settings_are_refused(command, capsys):
    assert main([*command, "--seed", "2"]) == 1
    assert "other settings (seed)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--splits", "train"], ["--splits", "train:0"], ["--image-size", "480"], ["--cameras", "one"]],
)
def test_wrong_arguments_are_explained(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["synth", *arguments])
    assert stopped.value.code == 2


def test_too_few_scenes_for_three_splits(capsys, tmp_path):
    assert main(["synth", "--out", str(tmp_path / "x"), "--num-scenes", "2"]) == 1
    assert "--num-scenes 2" in capsys.readouterr().err
    assert shared_sizes(3) == {"train": 1, "val": 1, "test": 1}
