"""Metric caches from scenes and maps (PDMS_V1, section 12)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely

from beyonddrive.datasets.maps.nuplan_map import MapError, NuPlanMap
from beyonddrive.datasets.navsim.scene import HISTORY, Scene, SceneError
from beyonddrive.evaluation.pdm.cache.metric_cache import MetricCache, MetricCacheError
from beyonddrive.evaluation.pdm.inputs.centerline import route_centerline, starting_lane
from beyonddrive.evaluation.pdm.inputs.drivable_map import DrivableMap, drivable_map
from beyonddrive.evaluation.pdm.inputs.extended import extended_scene
from beyonddrive.evaluation.pdm.inputs.map_index import MapIndex, map_index
from beyonddrive.evaluation.pdm.inputs.route import RouteError, find_route, route_lanes
from beyonddrive.evaluation.pdm.inputs.tracks import TrackError, tracks_of
from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import DEFAULT_SPEED_LIMIT, MAP_RADIUS, REAR_AXLE_TO_CENTER
from beyonddrive.evaluation.pdm.kernels.prepared import scene_map
from beyonddrive.evaluation.pdm.kernels.simulate import STATE_SIZE
from beyonddrive.evaluation.pdm.reference.forecast import forecast
from beyonddrive.evaluation.pdm.reference.pdm_closed import reference_trajectories


def build_metric_cache(scene: Scene, nuplan_map: NuPlanMap) -> MetricCache:
    """Everything the score of a scene needs, from its log and map.

    Args:
        scene: Four history and ten future frames.
        nuplan_map: The map of its location.

    Raises:
        MetricCacheError: If the scene cannot be scored: no route or one that is not on the map, no map around
            the ego, contradictory annotations, a damaged map; the message names scene, reason and remedy.
    """
    where = f"scene {scene.token} of log {scene.log_name}"
    try:
        return _build(scene, map_index(nuplan_map))
    except (RouteError, TrackError, MapError) as error:
        raise MetricCacheError(f"{where}: {error}") from error
    except SceneError as error:
        raise MetricCacheError(str(error)) from error
    except shapely.errors.GEOSException as error:
        raise MetricCacheError(f"{where}: a polygon of {nuplan_map.path} is not valid ({error})") from error


def ego_state(scene: Scene) -> Floats:
    """State (11,) of the ego now (section 12.1)."""
    state = np.zeros(STATE_SIZE)
    state[:3] = scene.ego_pose
    state[3:7] = scene.ego_dynamic.astype(np.float64)
    return state


class SceneParts(NamedTuple):
    """What log and map give for the score of a scene, whatever traffic it is scored in."""

    ego: Floats
    local: DrivableMap
    route_ids: Ints
    centerline: Floats
    proposal: Floats
    extended_proposal: Floats


def scene_parts(scene: Scene, index: MapIndex) -> SceneParts:
    """Road, route and reference planner of a scene.

    Raises:
        RouteError: If there is no road or route.
        MapError: If the map is damaged.
    """
    current = HISTORY - 1
    ego = ego_state(scene)
    pose = ego[:3]
    x = float(pose[0] + REAR_AXLE_TO_CENTER * np.cos(pose[2]))
    y = float(pose[1] + REAR_AXLE_TO_CENTER * np.sin(pose[2]))
    local = drivable_map(index, x, y)
    if not len(local.polygons):
        raise RouteError(
            f"the ego is off the map: no road within {MAP_RADIUS:g} m of ({x:.1f}, {y:.1f}) in {index.path}; "
            f"check map_location and the map's version"
        )
    route = find_route(index, scene.roadblock_ids, pose)
    lanes = route_lanes(index, route)
    expected = forecast(scene, current, index, lanes, pose)
    start = starting_lane(index, lanes, local, pose)
    centerline = route_centerline(index, route, lanes, start)
    route_ids = index.lane_ids[lanes]
    grid, masks = scene_map(ego, local.polygons, local.types, np.isin(local.ids, route_ids))
    proposals = reference_trajectories(ego, centerline, _speed_limit(index, start), expected, grid, masks)
    return SceneParts(ego, local, route_ids, centerline, *proposals)


def _build(scene: Scene, index: MapIndex) -> MetricCache:
    current = HISTORY - 1
    tracks = tracks_of(scene, current)
    parts = scene_parts(scene, index)
    return MetricCache(
        scene.token,
        scene.log_name,
        scene.timestamp_us,
        parts.ego,
        parts.proposal,
        parts.centerline,
        parts.route_ids,
        parts.local.polygons,
        parts.local.ids,
        parts.local.types,
        tracks,
        extended_scene(scene, index, current, parts.extended_proposal, scene.expert_plan),
    )


def _speed_limit(index: MapIndex, lane: int) -> float:
    limit = index.speed_limit(lane)
    if np.isnan(limit):
        return DEFAULT_SPEED_LIMIT
    if not 0 <= limit < np.inf:
        raise MapError(
            f"{index.path}: lane {index.lane_ids[lane]} has a speed limit of {limit} m/s; get the map again"
        )
    return limit
