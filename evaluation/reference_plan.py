"""The plan of PDM-Closed for a scene, and the transform that puts it in the place of the expert's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.evaluation.pdm.cache.build import SceneParts, scene_parts
from beyonddrive.evaluation.pdm.cache.metric_cache import MetricCacheError
from beyonddrive.evaluation.pdm.inputs.map_index import map_index
from beyonddrive.evaluation.pdm.kernels.constants import NUM_STATES
from beyonddrive.evaluation.pdm.kernels.simulate import simulate
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.se2 import to_local

POSES_PER_STEP = 5
"""PDM-Closed has a pose every 0.1 s, a plan every 0.5 s."""


def reference_plan(scene: Scene, nuplan_map: NuPlanMap) -> NDArray[np.float64]:
    """Plan (8, 3) of PDM-Closed: its choice by PDMS (PDMS_V1, section 12.8).

    It looks at the current frame only.

    Raises:
        MetricCacheError: If it has none: an ego that stands where the speed limit is 0.
        RouteError: If there is no road or route.
        MapError: If the map is damaged.
    """
    parts = scene_parts(scene, map_index(nuplan_map))
    return _plan_of(parts.proposal, parts, scene.token)


def driven_reference_plan(scene: Scene, nuplan_map: NuPlanMap) -> NDArray[np.float64]:
    """Plan (8, 3) of PDM-Closed as NAVSIM's tracker drives it (PDMS_V1, sections 2, 3).

    What it chooses is a line of the road, which begins beside the ego and may turn faster than a car. It was
    made for that tracker; another one does nonsense with it where the ego stands.

    Raises:
        MetricCacheError, RouteError, MapError: As :func:`reference_plan`.
    """
    parts = scene_parts(scene, map_index(nuplan_map))
    _plan_of(parts.proposal, parts, scene.token)
    driven = simulate(np.ascontiguousarray(parts.proposal[None, :NUM_STATES]), parts.ego)[0]
    return _plan_of(driven[:, :3], parts, scene.token)


def _plan_of(poses: NDArray[np.float64], parts: SceneParts, token: str) -> NDArray[np.float64]:
    plan = to_local(poses[POSES_PER_STEP::POSES_PER_STEP][:NUM_POSES], parts.ego[:3])
    if not np.isfinite(plan).all():
        raise MetricCacheError(f"scene {token}: PDM-Closed has no plan where the speed limit is 0")
    return plan


@TRANSFORMS.register_module()
class ReferencePlan(BaseTransform):
    """Adds ``trajectory``: float32 (8, 3), the plan of PDM-Closed in the place of the expert's."""

    is_target = True

    def transform(self, results: Results) -> Results:
        """Read ``scene`` and ``root``; add ``trajectory``."""
        scene: Scene = results["scene"]
        plan = reference_plan(scene, results["root"].map(scene.map_location))
        results["trajectory"] = plan.astype(np.float32)
        return results
