"""Released clients for HUGSIM at the pipes of ``closed-loop serve`` (HUGSIM, sections 3 and 7)."""

import json
import pickle
import shlex
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from beyonddrive.apis import load_config
from beyonddrive.evaluation.closed_loop.hugsim.run_files import read_record
from beyonddrive.registry import MODELS
from beyonddrive.synth.live import batch, episode_files
from beyonddrive.synth.live import serve_pipes as serving
from beyonddrive.synth.live.serve_pipes import serve_pipes
from beyonddrive.tests.synth.live.conftest import TINY
from beyonddrive.tools import closed_loop, drive

LTF_CLIENT = '''
"""The published LTF client, with a car that goes straight on in place of its network. Knows nothing of us."""
import os, pickle, sys
import cv2
import numpy as np

folder = sys.argv[2]
for name in ("obs_pipe", "plan_pipe"):
    try:
        os.mkfifo(os.path.join(folder, name))
    except FileExistsError:
        pass
told = []
while True:
    with open(os.path.join(folder, "obs_pipe"), "rb") as pipe:
        message = pickle.loads(pipe.read())
    if message == "Done":
        break
    obs, info = message
    images = [obs["rgb"][name] for name in ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT")]
    l0, f0, r0 = (cv2.resize(image, (1920, 1080)) for image in images)
    strip = np.concatenate([l0[28:-28, 416:-416], f0[28:-28], r0[28:-28, 416:-416]], axis=1)
    features = cv2.resize(strip, (1024, 256)).astype(np.float32) / 255
    x, y, z = info["ego_pos"]
    pose, yaw = np.array([z, -x, -y]), -info["ego_steer"]
    ahead = np.array([np.cos(yaw), np.sin(yaw)])
    velocity, acceleration = info["ego_velo"] * ahead, info["accelerate"] * ahead
    status = np.concatenate([[0, 1, 0, 0], velocity, acceleration]).astype(np.float32)
    speed = max(float(np.hypot(*status[4:6])), 2.0)
    poses = np.stack([0.5 * speed * np.arange(1, 9), 0.01 * np.arange(1, 9) ** 2], axis=1)
    plan = np.stack([-poses[:, 1], poses[:, 0]], axis=1).astype(np.float32)
    told.append(
        {
            "strip": strip.shape,
            "spread": [float(part.std()) for part in np.split(features, 4, axis=1)],
            "pose": pose,
            "status": status,
            "time": float(info["timestamp"]),
            "image": [str(images[1].dtype), images[1].shape],
            "after": sorted({"rc", "collision"} & set(info)),
            "fovx": float(info["cam_params"]["CAM_FRONT"]["intrinsic"]["fovx"]),
            "plan": plan,
        }
    )
    with open(os.path.join(folder, "plan_pipe"), "wb") as pipe:
        pipe.write(pickle.dumps(plan))
with open(os.path.join(folder, "told.pkl"), "wb") as file:
    pickle.dump(told, file)
print("the simulator said Done")
'''


def test_the_published_clients_protocol_drives_what_we_serve(live_folder, tmp_path, monkeypatch, capsys):
    """A script of its own that reads the pipes by plain pickle, from the observation to ``Done``."""
    monkeypatch.setattr(closed_loop.signal, "signal", lambda *_: None)
    (tmp_path / "client.py").write_text(LTF_CLIENT)
    script = tmp_path / "run.sh"
    script.write_text(f'exec {sys.executable} {shlex.quote(str(tmp_path))}/client.py "$1" "$2"\n')
    words = ["serve", "--protocol", "pipes", "--scenarios", str(live_folder), "--difficulty", "medium"]
    words += ["--out", str(tmp_path / "out"), "--planner", str(script), "--max-steps", "3"]
    assert closed_loop.main(words) == 0, capsys.readouterr()
    (folder,) = (tmp_path / "out" / "seed_0").iterdir()
    assert (folder / "output.txt").read_text() == "the simulator said Done\n"
    episode = episode_files.read_episode(folder)
    assert episode["ends"] == ["3 steps"] and episode["driver"]["counts"] == {"plans": 3}
    told = pickle.loads((folder / "told.pkl").read_bytes())
    frames = read_record(folder / "data.pkl")
    assert [item["time"] for item in told] == [0.0, 0.25, 0.5] and len(frames) == 3
    assert [item["after"] for item in told] == [[], ["collision", "rc"], ["collision", "rc"]]
    for item in told:
        assert item["image"] == ["uint8", (450, 800, 3)] and item["strip"] == (1024, 4096, 3)
        # All three cameras show something.
        assert min(item["spread"]) > 0.02
        assert np.isfinite(item["status"]).all() and item["fovx"] == pytest.approx(np.deg2rad(65.12))
    for before, frame in zip(told[1:], frames, strict=False):
        # The pose of the next observation is where the record has the ego.
        assert np.allclose(before["pose"], frame.ego_box[:3], atol=1e-9)
    for item, frame in zip(told, frames, strict=True):
        # What was sent in float32 is what is judged, on the pose after the step.
        forward, left = item["plan"][:-1, 1].astype(float), -item["plan"][:-1, 0].astype(float)
        turn = frame.ego_box[6]
        x = frame.ego_box[0] + forward * np.cos(turn) - left * np.sin(turn)
        y = frame.ego_box[1] + forward * np.sin(turn) + left * np.cos(turn)
        assert np.allclose(frame.traj[:, :2], np.stack([x, y], axis=1), atol=1e-5)


def test_our_driver_as_released_drives_what_we_serve(live_folder, tmp_path, monkeypatch, capsys):
    config = "ltf_tiny_1xb16-12e_synth"
    torch.manual_seed(0)
    weights = {"state_dict": MODELS.build(load_config(config).model).state_dict(), "meta": {}}
    torch.save(weights, tmp_path / "weights.pth")
    settings = replace(TINY, max_steps=2, pivot="camera", hugsim=TINY.hugsim.changed(resets=2))
    job = batch.jobs_of(live_folder, tmp_path / "out", settings, (0,), ("medium",))[0]
    read, plans, episodes = serving.read_message, [], []

    def noted(*args):
        plans.append(read(*args))
        return plans[-1]

    monkeypatch.setattr(serving, "read_message", noted)
    monkeypatch.setattr(drive.signal, "signal", lambda *_: None)
    thread = threading.Thread(target=lambda: episodes.extend(serve_pipes([job], 120.0)), daemon=True)
    thread.start()
    words = [config, str(tmp_path / "weights.pth"), "--protocol", "hugsim-pipes", "--as-released"]
    assert drive.main([*words, "--output-dir", str(job.folder), "--first-wait", "120"]) == 0
    thread.join(60)
    assert episodes[0]["ends"] == ["2 steps"] and episodes[0]["driver"]["counts"] == {"plans": 2}
    assert [(plan.dtype, plan.shape) for plan in plans] == [(np.float32, (8, 2))] * 2
    assert "2 plans in 1 session(s)" in capsys.readouterr().out
    report = json.loads((job.folder / "driver.json").read_text())
    assert report["fallbacks"] == 0 and report["rig"] == "as released"
    assert report["conventions"]["commands"] == "always_forward"
