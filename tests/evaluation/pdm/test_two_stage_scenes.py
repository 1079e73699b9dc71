"""Scenes of two stages: what cannot be scored is refused with its reason, and costs nothing else."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.synthetic import read_synthetic_scene
from beyonddrive.evaluation.pdm import MetricCacheError
from beyonddrive.evaluation.pdm.cache.two_stage import build_two_stage_scene

GOLDEN = Path(__file__).parents[2] / "data/golden"
DATA, MAPS = GOLDEN / "two_stage/data", GOLDEN / "pdms/data/maps"


@pytest.fixture(scope="module")
def root():
    return NavsimRoot(DATA, MAPS)


@pytest.fixture(scope="module")
def follow_up():
    return read_synthetic_scene(min((DATA / "synthetic_scene_pickles").glob("*.pkl")))


@pytest.mark.parametrize(
    ("frame", "change", "message"),
    [
        (1, {"ego_dynamic_state": [1.0, 0.0, np.nan, 0.0]}, r"ego_velocity or ego_acceleration .*frame 1"),
        (2, {"timestamp": 0}, r"time stamps \(timestamp\) of the last four frames do not increase"),
    ],
)
def test_a_past_that_cannot_be_read_is_refused_with_pickle_and_key(root, follow_up, frame, change, message):
    frames = [copy.copy(item) for item in follow_up.frames]
    frames[frame].update(change)
    scene = replace(follow_up, frames=frames)
    with pytest.raises(MetricCacheError, match=rf"\({follow_up.token}\.pkl\): .*{message}"):
        build_two_stage_scene(scene, root.map(scene.map_location))
