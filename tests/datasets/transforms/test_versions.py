"""Cached transforms on fixed scenes, by version: a change without a new version would leave caches stale."""

import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.transforms.augmentation import Augmentation
from beyonddrive.registry import TRANSFORMS

NOT_CACHED = {
    *("BlankInputs", "LoadNegatives", "LoadVocabularyScores", "PackDet3DSample", "PackPlanInputs"),
    *("PerturbedNegatives", "HideStatus"),
}
"""They stand in a ``pipeline``, behind the cache."""
BYTES = {"EncodeCamera"}
"""What it makes is as OpenCV's libraries write it; what that decodes to is tested with stores."""
SETTINGS = {
    "LoadCameraStitch": {"size": (32, 128), "rig": True},
    "LoadLidarHistogram": {"size": 32, "use_ground_plane": True},
    "BEVMapTarget": {"shape": (32, 64), "pixel_size": 1.0, "walkways": False},
    "FutureBEVMapTarget": {"shape": (32, 64), "pixel_size": 1.0, "walkways": False},
}
BEHIND = {"AgentBoxTargets": "LoadPoints"}
"""Transforms that make more of a scene behind another."""


def transforms():
    TRANSFORMS.import_from_location()
    return sorted(
        name
        for name, kind in TRANSFORMS.module_dict.items()
        if kind.__module__.startswith("beyonddrive.datasets")
        and name not in NOT_CACHED | BYTES
        and not issubclass(kind, Augmentation)
    )


@pytest.mark.parametrize("name", transforms())
def test_outputs_change_with_the_version_alone(world_template, version_table, name):
    transform = TRANSFORMS.build({"type": name, **SETTINGS.get(name, {})})
    root = NavsimRoot(world_template)
    arrays = {}
    for number, scene in enumerate(root.scenes("mini", SceneFilter(frame_interval=1))):
        given = {"scene": scene, "root": root, "token": scene.token, "log_name": scene.log_name}
        if name in BEHIND:
            given = TRANSFORMS.build({"type": BEHIND[name]})(given)
        made = transform(dict(given))
        arrays |= {f"{key} {number}": made[key] for key in made.keys() - given.keys()}
    assert arrays
    version_table(name, transform.version, arrays)
