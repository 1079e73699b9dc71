"""The score of reference states, everything in one kernel per batch."""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.evaluation.pdm.areas import (
    AreaMasks,
    drivable_area_compliance,
    driving_direction_compliance,
    ego_areas,
)
from beyonddrive.evaluation.pdm.arrays import Flags, Floats, Ints
from beyonddrive.evaluation.pdm.collision import Traffic, nearby, no_at_fault_collision, time_to_collision
from beyonddrive.evaluation.pdm.comfort import comfort
from beyonddrive.evaluation.pdm.constants import NUM_STATES, NUM_STEPS, REAR_AXLE_TO_CENTER
from beyonddrive.evaluation.pdm.grid import Grid
from beyonddrive.evaluation.pdm.jit import kernel
from beyonddrive.evaluation.pdm.polyline import project
from beyonddrive.evaluation.pdm.reference import plan_references
from beyonddrive.evaluation.pdm.simulate import STATE_SIZE, track


@kernel
def center_progress(line: Floats, length: Floats, state: Floats) -> float:
    """Arc length of the ego box centre on the centre line."""
    x = state[0] + REAR_AXLE_TO_CENTER * math.cos(state[2])
    y = state[1] + REAR_AXLE_TO_CENTER * math.sin(state[2])
    return project(line, length, x, y)


@kernel
def score_references(
    references: Floats,
    ego: Floats,
    grid: Grid,
    masks: AreaMasks,
    traffic: Traffic,
    line: Floats,
    length: Floats,
) -> tuple[Floats, Flags, Floats, Floats, Ints]:
    """Simulate references (N, 41, 3) and score each for itself.

    Returns:
        Simulated states (N, 41, 11); area flags (N, 41) uint8; sub-scores (N, 5) NC, DAC, TTC, C, DDC;
        progress (N,) [m]; first infractions (N, 4) int64: sample and object of the collision, sample and
        object of the time to collision, -1 for none.
    """
    count = len(references)
    states = np.empty((count, NUM_STATES, STATE_SIZE))
    flags = np.empty((count, NUM_STATES), np.uint8)
    scores = np.empty((count, 5))
    progress = np.empty(count)
    first = np.empty((count, 4), np.int64)
    tracker = np.empty((4, NUM_STEPS))
    signals = np.empty((8, NUM_STATES))
    cells = np.empty((5, grid.inside.shape[1]), np.int64)
    near = np.empty(len(traffic.bounds), np.int64)
    ignored = np.empty(len(traffic.bounds), np.bool_)
    start = center_progress(line, length, ego)
    for n in range(count):
        track(references[n], ego, tracker, states[n])
        ego_areas(grid, masks, states[n], cells, flags[n])
        close = near[: nearby(states[n], traffic, near)]
        scores[n, 0], first[n, 0], first[n, 1] = no_at_fault_collision(
            states[n], flags[n], traffic, close, ignored
        )
        scores[n, 1] = drivable_area_compliance(flags[n])
        scores[n, 2], first[n, 2], first[n, 3] = time_to_collision(
            states[n], flags[n], traffic, close, ignored, NUM_STATES
        )
        scores[n, 3] = comfort(states[n], signals)
        scores[n, 4] = driving_direction_compliance(states[n], flags[n], signals[0])
        progress[n] = max(0.0, center_progress(line, length, states[n, NUM_STATES - 1]) - start)
    return states, flags, scores, progress, first


@kernel
def score_plans(
    knots: Floats,
    interval: Ints,
    time: Floats,
    ego: Floats,
    grid: Grid,
    masks: AreaMasks,
    traffic: Traffic,
    line: Floats,
    length: Floats,
) -> tuple[Floats, Flags, Floats, Floats, Ints]:
    """As :func:`score_references`, for plans given as global knots (N, 9, 3)."""
    references = plan_references(knots, interval, time)
    return score_references(references, ego, grid, masks, traffic, line, length)
