"""A simulator's frames, and a driver whose planner does as it is told."""

import json
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.datasets.transforms.strip_rig import synth_rig
from beyonddrive.datasets.transforms.targets import EgoStatus
from beyonddrive.deploy.drivers import DriverSettings, FrameInputs, PlannerDriver
from beyonddrive.deploy.drivers.self_test import arc
from beyonddrive.structures.frame import Command, Frame

CAMERAS = json.loads((Path(__file__).parents[2] / "data/golden/hugsim/cameras.json").read_text())


class Told:
    """An engine that plans what it is told, and notes what it was given."""

    name, required_inputs = "Told", ("status",)

    def __init__(self, answer=None):
        self.answer = arc(4.0, 0.1) if answer is None else answer
        self.given = []

    def __call__(self, packed):
        self.given.append(packed)
        answer = self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer(packed) if callable(answer) else answer


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def driver(told):
    return PlannerDriver(told, FrameInputs([EgoStatus()], [PackPlanInputs()], synth_rig()), DriverSettings())


@pytest.fixture
def frame():
    def make(session="s", time=0.0, **fields):
        made = {
            "cameras": {},
            "velocity": np.array([4.0, 0.0]),
            "acceleration": np.zeros(2),
            "command": Command.LEFT,
            "pose": np.array([4.0 * time, 0.0, 0.0]),
        }
        return Frame(session=session, time=time, **{**made, **fields})

    return make


def observation(step=0, data_set="nuscenes", size=(45, 80), **info):
    """What HUGSIM tells a planner, with small images."""
    rng = np.random.default_rng(step)
    rgb, parameters = {}, {}
    for name, camera in CAMERAS[data_set]["cams"].items():
        intrinsic = camera["yaml"]["intrinsics"]
        rgb[name] = rng.integers(1, 256, (*size, 3), dtype=np.uint8)
        parameters[name] = {
            "intrinsic": {
                **{key: intrinsic[key] for key in ("H", "W", "cx", "cy")},
                **{key: np.radians(intrinsic[key]) for key in ("fovx", "fovy")},
            },
            "v2c": np.array(camera["v2c"]),
            "l2c": np.array(camera["l2c"]),
        }
    obs = {
        "rgb": rgb,
        "semantic": {name: np.zeros(size, np.uint8) for name in rgb},
        "depth": {name: np.full(size, 10.0, np.float32) for name in rgb},
    }
    told = {
        "ego_pos": [0.0, 0.0, float(step)],
        "ego_rot": [0.0, 0.0, 0.0],
        "ego_velo": 4.0,
        "ego_steer": 0,
        "accelerate": 0,
        "steer_rate": 0,
        "timestamp": 0.25 * step,
        "command": 1,
        "ego_box": [float(step), 0.0, 0.0, 1.6, 3.0, 1.5, 0.0],
        "obj_boxes": [],
        "cam_params": parameters,
    }
    return obs, {**told, **info}


@pytest.fixture(name="observation")
def _observation():
    return observation
