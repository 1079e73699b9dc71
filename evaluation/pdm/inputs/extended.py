"""What EPDMS reads of a scene beyond the PDM score (EPDMS_V2, section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from beyonddrive.evaluation.pdm.inputs.route import route_lanes
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import HISTORY_FRAMES, NUM_FRAMES_V2
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings
from beyonddrive.structures.plan import NUM_POSES

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.scene import Scene
    from beyonddrive.evaluation.pdm.inputs.map_index import MapIndex


@dataclass(frozen=True, eq=False)
class ExtendedScene:
    """What EPDMS needs beyond the PDM score; metres, radians, seconds, global frame, float64.

    Attributes:
        proposal: (51, 3) poses of the reference planner every 0.1 s, chosen by the rules of EPDMS.
        human: (8, 3) what the driver did: poses every 0.5 s in the ego frame now.
        history_us: (4,) int64 time stamps of the three frames before and of the current one [us].
        history: (4, 7) x, y, heading of the rear axle, vx, vy, ax, ay in these frames.
        light_ids: (L,) int64 lanes and lane connectors of the logged route that are red at some time.
        light_red: (9, L) bool whether they are, in the current frame and the eight after it.
        lights: Their polygons.
    """

    proposal: Floats
    human: Floats
    history_us: Ints
    history: Floats
    light_ids: Ints
    light_red: Bools
    lights: PolygonRings = field(repr=False)

    def __post_init__(self) -> None:
        expected = {"proposal": (51, 3), "human": (NUM_POSES, 3), "history_us": (4,), "history": (4, 7)}
        lights = len(self.light_ids)
        expected["light_red"] = (NUM_FRAMES_V2, lights)
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        if len(self.lights) != lights:
            raise ValueError(f"{lights} light_ids but {len(self.lights)} polygons in lights")


def extended_scene(
    scene: Scene, index: MapIndex, current: int, proposal: Floats, human: Floats
) -> ExtendedScene:
    """What EPDMS needs beyond the PDM score, from log and map.

    Args:
        scene: The scene; its route is known to be on the map.
        index: The map.
        current: Index of the current frame.
        proposal: (51, 3) poses of the reference planner.
        human: (8, 3) what the driver did; NaN if nobody drove.
    """
    past = scene.frames[current - HISTORY_FRAMES + 1 : current + 1]
    dynamic = np.array([frame["ego_dynamic_state"] for frame in past], dtype=np.float32)
    poses = scene.ego_poses[current - HISTORY_FRAMES + 1 : current + 1]
    # The route as logged: a light that only the correction of the route adds does not count here.
    blocks = (index.block(int(id)) for id in dict.fromkeys(scene.roadblock_ids))
    lanes = route_lanes(index, [block for block in blocks if block is not None])
    by_id = {str(index.lane_ids[lane]): lane for lane in lanes}
    red = [
        {by_id[id] for id, is_red in scene.lights(current + j) if is_red and id in by_id}
        for j in range(NUM_FRAMES_V2)
    ]
    ever = np.array(sorted(set().union(*red)), dtype=np.int64)
    rows = index.lane_polygon_rows(ever)
    return ExtendedScene(
        proposal,
        human,
        np.array([int(frame["timestamp"]) for frame in past], dtype=np.int64),
        np.column_stack([poses, dynamic.astype(np.float64)]),
        index.lane_ids[ever],
        np.array([[lane in frame for lane in ever] for frame in red], dtype=bool).reshape(
            len(red), len(ever)
        ),
        index.polygons.take(rows),
    )
