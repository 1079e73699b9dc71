"""Scenes prepared for the kernels, and the reference planner and the driver scored in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.inputs.extended import ExtendedScene
from beyonddrive.evaluation.pdm.inputs.tracks import Tracks
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.collision import Traffic, remove_touching
from beyonddrive.evaluation.pdm.kernels.constants import (
    HISTORY_FRAMES,
    MAP_INTERVAL_US,
    NUM_FRAMES_V2,
    NUM_STATES,
)
from beyonddrive.evaluation.pdm.kernels.lane_keeping import make_line
from beyonddrive.evaluation.pdm.kernels.lights import make_lights
from beyonddrive.evaluation.pdm.kernels.plan_states import (
    plan_knots,
    plan_references,
    plan_stamps,
    principal,
    proposal_stamps,
    sample_poses,
    sampling,
    unwrap,
)
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings
from beyonddrive.evaluation.pdm.kernels.prepared import NO_HISTORY, NO_LIGHTS, PreparedScene, scene_map
from beyonddrive.evaluation.pdm.kernels.simulate import STATE_SIZE
from beyonddrive.evaluation.pdm.kernels.sub_scores import (
    DAC,
    EPDMS,
    EXTENDED_DDC,
    LANE_KEEPING,
    NC,
    PDMS,
    TLC,
    TTC,
    World,
    score_references,
)


def prepare(
    ego_state: Floats,
    time_us: int,
    proposal: Floats,
    centerline: Floats,
    polygons: PolygonRings,
    polygon_types: NDArray[np.int8],
    on_route: Bools,
    traffic: Traffic,
) -> PreparedScene:
    """Prepare a scene and score the reference planner's trajectory in it.

    A trajectory that is not finite (it stands under a speed limit of 0) makes no progress: every plan that is
    not at fault has an EP of 1 then, as by the official arithmetic.

    Args:
        ego_state: (11,) state now.
        time_us: Time stamp now [us].
        proposal: (51, 3) poses of the reference planner.
        centerline: (V, >= 2) vertices.
        polygons: P polygons of the drivable map.
        polygon_types: (P,) classes of the polygons.
        on_route: (P,) which polygons are of a lane or connector of the route.
        traffic: Other road users.
    """
    grid, masks = scene_map(ego_state, polygons, polygon_types, on_route)
    world = World(grid, masks, traffic, make_line(centerline), NO_LIGHTS, NO_HISTORY)
    reference = proposal_reference(proposal, time_us)
    made = 0.0
    if np.isfinite(reference).all():
        _, _, scores, progress, _ = score_references(reference, ego_state, world, PDMS)
        made = float(progress[0] * scores[0, NC] * scores[0, DAC])
    interval, time = sampling(time_us, plan_stamps(time_us))
    return PreparedScene(ego_state, interval, time, world, made, np.ones(8))


def prepare_extended(
    scene: PreparedScene, time_us: int, tracks: Tracks, extra: ExtendedScene
) -> PreparedScene:
    """Prepare a scene for EPDMS, and score reference planner and driver in it (EPDMS_V2, sections 2, 10).

    Args:
        scene: The same scene, prepared for PDMS.
        time_us: Time stamp now [us].
        tracks: Other road users.
        extra: What EPDMS needs besides.
    """
    traffic = tracks.traffic(NUM_FRAMES_V2)
    remove_touching(traffic, scene.ego)
    world = scene.world._replace(traffic=traffic, lights=make_lights(extra.lights, extra.light_red))
    human = plan_references(plan_knots(extra.human[None], scene.ego), scene.interval, scene.time)
    reference = proposal_reference(extra.proposal, time_us)
    is_finite = bool(np.isfinite(reference).all())
    references = np.concatenate([reference, human]) if is_finite else human
    _, _, scores, progress, _ = score_references(references, scene.ego, world, EPDMS)
    multiplier = scores[0, NC] * scores[0, DAC] * scores[0, EXTENDED_DDC] * scores[0, TLC]
    nc, dac, ddc, tlc, ttc, lane = scores[-1, [NC, DAC, EXTENDED_DDC, TLC, TTC, LANE_KEEPING]]
    return scene._replace(
        world=world._replace(history=history_states(extra.history_us, extra.history)),
        reference_progress=float(progress[0] * multiplier) if is_finite else 0.0,
        human=np.array([nc, dac, ddc, tlc, 1.0, ttc, lane, 1.0]),
    )


def proposal_reference(proposal: Floats, time_us: int) -> Floats:
    """Reference states (1, 41, 3) of the reference planner's poses (51, 3)."""
    reference = np.empty((1, NUM_STATES, 3))
    sample_poses(proposal.copy(), *sampling(time_us, proposal_stamps(time_us)), reference[0])
    return reference


def history_states(stamps: Ints, states: Floats) -> Floats:
    """States (n, 11) every 0.1 s before now, from four logged ones (EPDMS_V2, section 8).

    They start at the oldest frame and end one step before the last that is earlier than now.

    Args:
        stamps: (4,) time stamps [us], ascending, the last is now.
        states: (4, 7) x, y, heading, vx, vy, ax, ay.

    >>> stamps = np.array([0, 500000, 1000000, 1500001])
    >>> history_states(stamps, np.zeros((4, 7))).shape
    (15, 11)
    """
    times = np.arange(stamps[0], stamps[-1], MAP_INTERVAL_US)[:-1]
    knots = states.copy()
    unwrap(knots[:, 2])
    interval = np.clip(np.searchsorted(stamps, times, side="left") - 1, 0, HISTORY_FRAMES - 2)
    since, span = times - stamps[interval], stamps[interval + 1] - stamps[interval]
    slope = (knots[interval + 1] - knots[interval]) / span[:, None]
    out = np.zeros((len(times), STATE_SIZE))
    out[:, :7] = slope * since[:, None] + knots[interval]
    for state in out:
        state[2] = principal(state[2])
    return out
