"""NAVSIM as mmdet3d reads it: what the files hold, and detectors of mmdet3d that train on them and on us."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets import info_files
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import HISTORY
from beyonddrive.datasets.navsim.sensors import camera_of, lidar_path_of, read_pcd
from beyonddrive.structures.agent_boxes import AGENT_CLASSES
from beyonddrive.structures.se2 import rotate
from beyonddrive.tools import create_data

DOCUMENT = Path(__file__).parents[2] / "docs/mmdet3d.md"
TRAIN = """
import runpy, sys
from pathlib import Path
import mmdet3d
tool = Path(mmdet3d.__file__).parent / ".mim/tools/train.py"
for config in sys.argv[1:]:
    sys.argv = [str(tool), config, "--work-dir", config.removesuffix(".py")]
    runpy.run_path(str(tool), run_name="__main__")
"""


def create(world, out, *more):
    arguments = ["mmdet3d-infos", "--data-root", world, "--split", "mini", "--out", out, *more]
    return create_data.main([str(value) for value in arguments])


def crowd(world):
    """Every agent of every scene gets points, so that there is something to find; returns the scenes."""
    from beyonddrive.datasets.navsim.sensors import write_pcd

    scenes = list(NavsimRoot(world).scenes("mini"))
    for number, scene in enumerate(scenes):
        path = lidar_path_of(scene.now, world / "sensor_blobs/mini")
        rng = np.random.default_rng(number)
        clouds = [read_pcd(path)]
        for box in scene.objects(HISTORY - 1).boxes:
            cloud = np.zeros((6, 40), np.float32)
            cloud[:2] = rotate(rng.uniform(-0.49, 0.49, (40, 2)) * box[3:5], box[6]).T + box[:2, None]
            cloud[2] = box[2] + rng.uniform(-0.49, 0.49, 40) * box[5]
            cloud[3] = 51.0
            clouds.append(cloud)
        write_pcd(path, np.concatenate(clouds, axis=1))
    return scenes


def test_files_hold_the_scenes(world, tmp_path, capsys):
    scenes = crowd(world)
    out = tmp_path / "out"
    assert create(world, out) == 0
    assert f"mini: infos of {len(scenes)} scenes, 3 logs done now" in capsys.readouterr().out
    content = pickle.loads((out / "navsim_infos_mini.pkl").read_bytes())
    assert content["metainfo"]["categories"] == {"vehicle": 0, "pedestrian": 1, "bicycle": 2}
    assert [info["sample_idx"] for info in content["data_list"]] == list(range(len(scenes)))
    infos = {info["token"]: info for info in content["data_list"]}
    database = pickle.loads((out / "navsim_dbinfos_mini.pkl").read_bytes())
    entries = {(entry["image_idx"], entry["gt_idx"]): entry for kind in database.values() for entry in kind}
    checked = 0
    for scene in scenes:
        info, objects = infos[scene.token], scene.objects(HISTORY - 1)
        points = np.fromfile(out / "points/mini" / info["lidar_points"]["lidar_path"], np.float32).reshape(
            -1, 4
        )
        sweep = read_pcd(lidar_path_of(scene.now, world / "sensor_blobs/mini"))
        assert np.array_equal(points[:, :3], sweep[:3].T) and points[-1, 3] == pytest.approx(0.2)
        pose = np.array(info["ego2global"])
        assert pose[:2, 3] == pytest.approx(scene.ego_pose[:2])
        assert np.arctan2(pose[1, 0], pose[0, 0]) == pytest.approx(scene.ego_pose[2], abs=1e-6)
        assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-9)
        agents = [row for row, kind in enumerate(objects.types) if kind in AGENT_CLASSES]
        assert len(info["instances"]) == len(agents)
        for row, agent in zip(agents, info["instances"], strict=True):
            assert agent["bbox_3d"] == pytest.approx(objects.boxes[row], rel=1e-5, abs=1e-5)
            assert AGENT_CLASSES[agent["bbox_label_3d"]] == objects.types[row]
            assert agent["num_lidar_pts"] >= 40
            entry = entries[info["sample_idx"], info["instances"].index(agent)]
            own = np.fromfile(out / entry["path"], np.float32).reshape(-1, 4)
            assert len(own) == entry["num_points_in_gt"] == agent["num_lidar_pts"]
            box = entry["box3d_lidar"]
            assert box[:2] == pytest.approx(objects.boxes[row, :2], abs=1e-5)
            assert own[:, 2].min() >= 0 and own[:, 2].max() <= box[5] + 1e-5  # from the bottom up
            checked += 1
        image = info["images"]["CAM_F0"]
        camera = camera_of(scene.now, "CAM_F0", world / "sensor_blobs/mini")
        assert world / "sensor_blobs/mini" / image["img_path"] == camera.path
        in_camera = camera.rotation.T @ (np.array([20.0, 1.0, 1.5]) - camera.translation)
        assert (image["lidar2cam"] @ np.array([20.0, 1.0, 1.5, 1.0]))[:3] == pytest.approx(in_camera)
    assert checked > 3


def test_a_second_run_does_what_is_missing(world, tmp_path, capsys):
    assert create(world, tmp_path / "out") == 0
    before = (tmp_path / "out/navsim_infos_mini.pkl").read_bytes()
    (part, *_) = sorted((tmp_path / "out/.parts/mini").glob("*.json"))
    assert json.loads(part.read_text())["infos"]
    part.unlink()
    capsys.readouterr()
    assert create(world, tmp_path / "out") == 0
    assert ", 1 logs done now" in capsys.readouterr().out
    assert (tmp_path / "out/navsim_infos_mini.pkl").read_bytes() == before


def test_logs_are_done_again_for_other_scenes_another_release_or_lost_files(
    world, tmp_path, capsys, monkeypatch
):
    crowd(world)
    out, few = tmp_path / "out", tmp_path / "few.yaml"
    few.write_text("frame_interval: 1\nmax_scenes: 3\n")

    def logs_done():
        capsys.readouterr()
        assert create(world, out, "--scene-filter", few) == 0
        (count,) = re.findall(r"infos of 3 scenes, (\d) logs done now", capsys.readouterr().out)
        return int(count)

    assert (logs_done(), logs_done()) == (2, 0)
    first = min((world / "navsim_logs/mini").glob("*.pkl"))
    frames = pickle.loads(first.read_bytes())
    for number, frame in enumerate(frames):
        frame["token"] = f"{number:016x}"
    (world / "navsim_logs/mini/0.pkl").write_bytes(pickle.dumps(frames))
    assert (logs_done(), logs_done()) == (2, 0)  # (the new one, and that of which fewer are wanted)
    for folder in ("points/mini", "gt_database/mini"):
        file = next((out / folder).glob("000*.bin"))
        content = file.read_bytes()
        file.unlink()
        assert logs_done() == 1 and file.read_bytes() == content
        for left in (b"", content[:-16]):  # as a machine that dies may leave it
            file.write_bytes(left)
            assert (logs_done(), logs_done()) == (1, 0) and file.read_bytes() == content
    monkeypatch.setattr(info_files, "__version__", "of another release")
    assert logs_done() == 3


def test_scenes_that_cannot_be_written_are_named(world, tmp_path, capsys):
    scene = next(iter(NavsimRoot(world).scenes("mini")))
    lidar_path_of(scene.now, world / "sensor_blobs/mini").unlink()
    assert create(world, tmp_path / "out") == 1
    assert f"scene {scene.token}: " in capsys.readouterr().err
    assert create(world, tmp_path / "other", "--scene-filter", tmp_path / "none.yaml") == 1
    assert "none.yaml" in capsys.readouterr().err


def test_a_log_under_two_names_is_refused(world, tmp_path, capsys):
    log = min((world / "navsim_logs/mini").iterdir())
    shutil.copy(log, log.with_name("zz.pkl"))
    assert create(world, tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert log.name in told and "zz.pkl" in told and "take one of these logs out" in told
    assert not (tmp_path / "out/navsim_infos_mini.pkl").exists()


def test_calibrations_that_are_no_numbers_are_named(world, tmp_path, capsys):
    log = min((world / "navsim_logs/mini").iterdir())
    frames = pickle.loads(log.read_bytes())
    frames[HISTORY - 1]["cams"]["CAM_B0"]["cam_intrinsic"] = np.full((3, 3), np.nan)
    log.write_bytes(pickle.dumps(frames))
    assert create(world, tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert frames[HISTORY - 1]["token"] in told and "cam_intrinsic" in told
    content = pickle.loads((tmp_path / "out/navsim_infos_mini.pkl").read_bytes())
    assert len(content["data_list"]) == 2


def test_mmdet3d_trains_on_them_and_on_our_data_set_by_its_own_tool(mmdet3d, world, tmp_path):
    crowd(world)
    assert create(world, tmp_path / "out") == 0
    config, dataset = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for old, new in (
        ('"data/navsim_mmdet3d/"', f'"{tmp_path}/out/"'),
        ('"trainval", "test"', '"mini", "mini"'),
        ("cell = 0.25", "cell = 1.0"),
        ("max_epochs=24, val_interval=4", "max_epochs=2, val_interval=2"),
    ):
        assert old in config
        config = config.replace(old, new)
    config += "\nmodel['test_cfg'] = dict(score_thr=0.0)\ndefault_hooks = dict(logger=dict(interval=1))\n"
    dataset = dataset.replace("data/navsim", str(world)).replace("trainval", "mini")
    ours = f"{config}\n{dataset}\ntrain_dataloader['dataset'] = val_dataloader['dataset'] = dataset\n"
    files = {"infos": config, "ours": ours}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    paths = [str(tmp_path / f"{name}.py") for name in files]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *paths], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in files:
        (scalars,) = (tmp_path / name).glob("*/vis_data/scalars.json")
        lines = [json.loads(line) for line in scalars.read_text().splitlines()]
        losses = [line["loss_bbox"] for line in lines if "loss_bbox" in line]
        assert len(losses) >= 4 and np.isfinite(losses).all() and max(losses) > 0
        (figures,) = [line for line in lines if "detection/AP_vehicle" in line]
        assert 0 <= figures["detection/AP_vehicle"] <= 100
        assert figures["detection/num_scenes"] == len(list(NavsimRoot(world).scenes("mini")))


def test_poses_that_are_no_numbers_are_named(world, tmp_path, capsys):
    scene = next(NavsimRoot(world).scenes("mini"))
    path = world / "navsim_logs/mini" / f"{scene.log_name}.pkl"
    frames = pickle.loads(path.read_bytes())
    for frame in frames:
        if frame["token"] == scene.token:
            frame["ego2global_rotation"] = np.zeros(4)
    path.write_bytes(pickle.dumps(frames))
    assert create(world, tmp_path / "out") == 1
    assert f"{scene.token}: " in (err := capsys.readouterr().err) and "rotation is zero" in err
