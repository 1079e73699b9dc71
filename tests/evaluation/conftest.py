"""Golden scenes, their maps and metric caches, made once per session."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.evaluation.pdm import build_metric_cache

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests/data/golden/pdms"
# Licensed data that stays outside of the repository.
AV2 = REPOSITORY.parent / "shared/golden/av2"


@dataclass
class GoldenScene:
    """A scene with its official scores and intermediate values."""

    scene: object
    nuplan_map: object
    scores: dict
    stages: dict

    @cached_property
    def cache(self):
        return build_metric_cache(self.scene, self.nuplan_map)


def load(folder, split, scene_filter):
    root = NavsimRoot(folder / "data")
    scenes = {scene.token: scene for scene in root.scenes(split, scene_filter)}
    golden = []
    for path in sorted((folder / "scores").glob("*.npz")):
        scores = dict(np.load(path, allow_pickle=False))
        scene = scenes[str(scores["token"])]
        stages = folder / "stages" / path.name
        golden.append(
            GoldenScene(
                scene,
                root.map(scene.map_location),
                scores,
                dict(np.load(stages, allow_pickle=False)) if stages.exists() else {},
            )
        )
    return golden


@pytest.fixture(scope="session")
def golden_scenes():
    return load(GOLDEN, "golden", SceneFilter())


@pytest.fixture(scope="session")
def golden(golden_scenes):
    """By feature: ``golden("curve_free")``."""

    def find(feature):
        return next(item for item in golden_scenes if item.scene.log_name.endswith(feature))

    return find


@pytest.fixture(scope="session")
def av2_scenes():
    if not AV2.is_dir():
        pytest.skip("the Argoverse 2 scenes are not here")
    return load(AV2, "av2", SceneFilter(frame_interval=1))
