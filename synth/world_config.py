"""Settings of a generated world."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.synth.rig import CAMERA_NAMES
from beyonddrive.synth.selection import SelectionRule
from beyonddrive.synth.traffic import TrafficPlan
from beyonddrive.version import __version__

CAMERA_SETS: dict[str, tuple[str, ...]] = {
    "all": CAMERA_NAMES,
    "front": ("CAM_L0", "CAM_F0", "CAM_R0"),
    "none": (),
}
"""Which cameras are painted, by the name of the choice."""


class WorldError(BeyondDriveError, ValueError):
    """The settings of a world contradict what is on disk, or cannot be met."""


@dataclass(frozen=True)
class WorldConfig:
    """Settings of a world; two worlds with the same settings have the same bytes.

    Attributes:
        splits: Scenes per split.
        seed: Everything follows from it.
        image_size: Width and height of images [px].
        cameras: One of :data:`CAMERA_SETS`.
        lidar: Whether sweeps are written.
        sensor_frames: ``scenes``: sensors of the current frame of each scene only; ``all``: of every frame.
        scenes_per_town: At most so many from one town; fewer make the world more varied and take longer.
        min_expert_score: Leave out scenes whose expert has a lower PDM score; 0 does not ask the scorer.
        traffic: How much traffic.
        rule: Which moments become scenes.

    Raises:
        WorldError: If a setting is out of range.
    """

    splits: Mapping[str, int]
    seed: int = 0
    image_size: tuple[int, int] = (480, 270)
    cameras: str = "all"
    lidar: bool = True
    sensor_frames: str = "scenes"
    scenes_per_town: int = 150
    min_expert_score: float = 0.0
    traffic: TrafficPlan = field(default_factory=TrafficPlan)
    rule: SelectionRule = field(default_factory=SelectionRule)

    def __post_init__(self) -> None:
        if not self.splits or any(count < 1 for count in self.splits.values()):
            raise WorldError(f"splits: every split needs at least one scene, got {dict(self.splits)}")
        for split in self.splits:
            if not split.replace("-", "").replace("_", "").isalnum():
                raise WorldError(f"splits: {split!r} cannot be the name of a folder")
        if self.cameras not in CAMERA_SETS:
            raise WorldError(f"cameras: {self.cameras!r} is not one of {', '.join(CAMERA_SETS)}")
        if self.sensor_frames not in ("scenes", "all"):
            raise WorldError(f"sensor_frames: {self.sensor_frames!r} is neither 'scenes' nor 'all'")
        if min(self.image_size) < 16:
            raise WorldError(f"image_size: {self.image_size} is too small for a picture")
        if self.scenes_per_town < 1 or not 0.0 <= self.min_expert_score < 1.0:
            raise WorldError("scenes_per_town must be at least 1, min_expert_score in [0, 1)")

    def to_json(self) -> dict[str, Any]:
        """Settings as plain data."""
        return json.loads(json.dumps({**asdict(self), "splits": dict(self.splits), "version": __version__}))
