"""The score of reference states, everything in one kernel per batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.areas import (
    POINTS,
    AreaMasks,
    drivable_area_compliance,
    driving_direction_compliance,
    ego_areas,
)
from beyonddrive.evaluation.pdm.kernels.arrays import Flags, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.collision import (
    Traffic,
    nearby,
    no_at_fault_collision,
    time_to_collision,
)
from beyonddrive.evaluation.pdm.kernels.comfort import comfort, history_comfort
from beyonddrive.evaluation.pdm.kernels.constants import (
    CENTER_IN_INTERSECTION,
    NUM_STATES,
    NUM_STEPS,
    TTC_SAMPLES_V2,
)
from beyonddrive.evaluation.pdm.kernels.grid import Grid
from beyonddrive.evaluation.pdm.kernels.lane_keeping import Line, center_progress, lane_keeping
from beyonddrive.evaluation.pdm.kernels.lights import Lights, traffic_light_compliance
from beyonddrive.evaluation.pdm.kernels.plan_states import plan_references
from beyonddrive.evaluation.pdm.kernels.simulate import STATE_SIZE, track

PDMS, EPDMS = 1, 2
"""Bits: which sub-scores are asked for. Both share collisions and the drivable area."""
NC, DAC, TTC, COMFORT, DDC, EXTENDED_DDC, TLC, LANE_KEEPING, HISTORY_COMFORT = range(9)
"""Columns of the sub-scores. The time to collision is that of PDMS if both are asked for: the one of EPDMS is
0 if its first infraction is among the first 32 samples."""
NC_SAMPLE, NC_OBJECT, TTC_SAMPLE, TTC_OBJECT, TLC_SAMPLE, TLC_LIGHT, LANE_KEEPING_SAMPLE = range(7)
"""Columns of the first infractions; -1 for none."""


class World(NamedTuple):
    """What a plan is scored in."""

    grid: Grid
    masks: AreaMasks
    traffic: Traffic
    line: Line
    lights: Lights
    """Looked at by EPDMS only."""
    history: Floats
    """(n, 11) states of the ego before now; none: history comfort is 1."""


@kernel
def score_references(
    references: Floats, ego: Floats, world: World, rules: int
) -> tuple[Floats, Flags, Floats, Floats, Ints]:
    """Simulate references (N, 41, 3) and score each for itself.

    Returns:
        Simulated states (N, 41, 11); area flags (N, 41) uint8; sub-scores (N, 9), 1 where they are not asked
        for; progress (N,) [m]; first infractions (N, 7) int64.
    """
    grid, masks, traffic, line = world.grid, world.masks, world.traffic, world.line
    count = len(references)
    states = np.empty((count, NUM_STATES, STATE_SIZE))
    flags = np.empty((count, NUM_STATES), np.uint8)
    scores = np.ones((count, 9))
    progress = np.empty(count)
    first = np.full((count, 7), -1, np.int64)
    motion = np.empty((NUM_STATES, 3))
    tracker = np.empty((5, NUM_STEPS))
    past = len(world.history)
    signals = np.empty((8, NUM_STATES))
    long_signals = np.empty((8, past + NUM_STATES))
    points = np.empty((POINTS * NUM_STATES, 2))
    found = np.empty((POINTS * NUM_STATES, grid.inside.shape[1]), np.int64)
    near = np.empty(len(traffic.bounds), np.int64)
    ignored = np.empty(len(traffic.bounds), np.bool_)
    start = center_progress(line, ego)
    ttc_samples = NUM_STATES if rules & PDMS else TTC_SAMPLES_V2
    for n in range(count):
        track(references[n], ego, tracker, states[n], motion)
        ego_areas(grid, masks, states[n], motion, points, found, flags[n])
        close = near[: nearby(states[n], motion, traffic, near)]
        scores[n, NC], first[n, NC_SAMPLE], first[n, NC_OBJECT] = no_at_fault_collision(
            states[n], motion, flags[n], traffic, close, ignored
        )
        scores[n, DAC] = drivable_area_compliance(flags[n])
        scores[n, TTC], first[n, TTC_SAMPLE], first[n, TTC_OBJECT] = time_to_collision(
            states[n], motion, flags[n], traffic, close, ignored, ttc_samples
        )
        if rules & PDMS:
            scores[n, COMFORT] = comfort(states[n], signals)
            scores[n, DDC] = driving_direction_compliance(states[n], motion, flags[n], 0, signals[0])
        if rules & EPDMS:
            scores[n, EXTENDED_DDC] = driving_direction_compliance(
                states[n], motion, flags[n], CENTER_IN_INTERSECTION, signals[0]
            )
            scores[n, TLC], first[n, TLC_SAMPLE], first[n, TLC_LIGHT] = traffic_light_compliance(
                states[n], motion, world.lights
            )
            scores[n, LANE_KEEPING], first[n, LANE_KEEPING_SAMPLE] = lane_keeping(
                states[n], motion, flags[n], line
            )
            if past:
                scores[n, HISTORY_COMFORT] = history_comfort(world.history, states[n], long_signals)
        progress[n] = max(0.0, center_progress(line, states[n, NUM_STATES - 1]) - start)
    return states, flags, scores, progress, first


@kernel
def score_plans(
    knots: Floats, interval: Ints, time: Floats, ego: Floats, world: World, rules: int
) -> tuple[Floats, Flags, Floats, Floats, Ints]:
    """As :func:`score_references`, for plans given as global knots (N, 9, 3)."""
    return score_references(plan_references(knots, interval, time), ego, world, rules)
