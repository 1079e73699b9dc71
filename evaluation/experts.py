"""PDM scores of what drivers did."""

from __future__ import annotations

from collections.abc import Sequence

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.evaluation.pdm import MetricCacheError, build_metric_cache, score


def score_experts(scenes: Sequence[Scene], nuplan_map: NuPlanMap) -> list[float]:
    """PDM score in [0, 1] of each scene's expert plan; 0 if the scene cannot be scored."""
    scores = []
    for scene in scenes:
        try:
            cache = build_metric_cache(scene, nuplan_map)
        except MetricCacheError:
            scores.append(0.0)
            continue
        scores.append(float(score(cache, scene.expert_plan[None]).column("PDMS")[0]))
    return scores
