"""Which moments of a simulated drive become scenes.

Most of a drive is easy: a planner that keeps its speed and heading is right. As NAVSIM's splits do, the scenes
chosen here are mostly those in which it is wrong, by a geometric test; a small share of the rest is kept.
Moments in which the simulated driver is no example (it leaves the road, or comes too close to somebody) are
left out as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.datasets.synth.frames import STEPS_PER_FRAME, Town
from beyonddrive.datasets.synth.motion import Motion
from beyonddrive.structures.boxes import box_corners, ego_corners

HISTORY_FRAMES = 3
"""Frames of a scene before now ..."""
FUTURE_FRAMES = 10
"""... and after."""
PLAN_FRAMES = 8


@dataclass(frozen=True)
class SelectionRule:
    """What is chosen.

    Attributes:
        shares: Largest share of each kind of moment among the scenes of a town.
        turn: A turn changes the heading by at least this within 4 s [rad].
        slow_down: Braking: the expert falls behind constant velocity by at least this within 4 s [m].
        speed_up: Accelerating: it gets ahead by at least this within 4 s [m].
        sideways: Swerving: it leaves the straight line ahead by at least this within 4 s [m].
        stride: Frames between scenes of one log.
        max_frames: Frames of a log.
        egos: A town's scenes come from at least about so many egos.
    """

    shares: tuple[tuple[str, float], ...] = (
        ("turn", 0.5),
        ("brake", 0.4),
        ("accelerate", 0.22),
        ("swerve", 0.25),
        ("keep", 0.05),
        ("stand", 0.02),
    )
    turn: float = 0.45
    slow_down: float = 6.0
    speed_up: float = 8.0
    sideways: float = 1.5
    stride: int = 2
    max_frames: int = 26
    egos: int = 24


@dataclass(frozen=True)
class Drive:
    """One log to be written: consecutive frames of one ego and the scenes in it."""

    ego: int
    first_step: int
    count: int
    scenes: tuple[tuple[int, str], ...]
    """(frame of now, kind of moment)."""


def kind_of_moment(pose: NDArray[np.float64], speed: float, rule: SelectionRule) -> str:
    """Name the moment from the poses (9, 3) now and at the eight plan times.

    >>> straight = np.column_stack([np.arange(9) * 2.0, np.zeros(9), np.zeros(9)])
    >>> kind_of_moment(straight, 4.0, SelectionRule())
    'keep'
    >>> kind_of_moment(straight, 8.0, SelectionRule())
    'brake'
    """
    relative = pose[:, :2] - pose[0, :2]
    cosine, sine = np.cos(pose[0, 2]), np.sin(pose[0, 2])
    along, across = (
        cosine * relative[:, 0] + sine * relative[:, 1],
        cosine * relative[:, 1] - sine * relative[:, 0],
    )
    driven = float(np.hypot(*np.diff(pose[:, :2], axis=0).T).sum())
    if abs(pose[-1, 2] - pose[0, 2]) > rule.turn and driven > 4.0:
        return "turn"
    behind = speed * 0.5 * (len(pose) - 1) - driven
    if behind > rule.slow_down:
        return "brake"
    if behind < -rule.speed_up:
        return "accelerate"
    if float(np.abs(across).max()) > rule.sideways:
        return "swerve"
    return "stand" if float(along.max()) < 1.0 else "keep"


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether boxes with corners (N, 4, 2) overlap, row by row (separating axes)."""
    apart = np.zeros(len(a), dtype=bool)
    for box in (a, b):
        for i, j in ((0, 1), (1, 2)):
            axis = box[:, j] - box[:, i]
            mine, other = np.einsum("nkd,nd->nk", a, axis), np.einsum("nkd,nd->nk", b, axis)
            apart |= (mine.max(1) < other.min(1)) | (other.max(1) < mine.min(1))
    return ~apart


class ExpertVerdict:
    """Whether an ego leaves the drivable area, or would touch somebody within 0.9 s; looked at when asked.

    Args:
        town: The recorded town.
        ego: The ego.
        drivable: Where a car may be.
        stride: Every so many steps are checked.
    """

    def __init__(self, town: Town, ego: Motion, drivable: shapely.Geometry, stride: int = 2) -> None:
        self._town, self._ego, self._drivable, self._stride = town, ego, drivable, stride
        self._known: dict[int, bool] = {}

    def is_bad(self, first: int, end: int) -> bool:
        """Whether anything is wrong at rows ``first`` .. ``end`` of the ego's motion."""
        return any(self._check(row) for row in range(first, min(end + 1, len(self._ego.pose)), self._stride))

    def _check(self, row: int) -> bool:
        if row not in self._known:
            corners = ego_corners(self._ego.pose[row])
            inside = shapely.contains_xy(self._drivable, corners[:, 0], corners[:, 1])
            self._known[row] = not inside.all() or _too_close(self._town, self._ego, row)
        return self._known[row]


def _too_close(town: Town, ego: Motion, row: int) -> bool:
    pose, speed = ego.pose[row], float(ego.speed[row])
    direction = np.array([np.cos(pose[2]), np.sin(pose[2])])
    for later in (0, 4, 9):
        step = ego.first + row + later
        if (later and speed < 0.1) or step > ego.last:
            continue
        there = town.snapshot(step)
        moved = pose + np.array([*(direction * speed * 0.1 * later), 0.0])
        relative = there.center - moved[:2]
        away = np.hypot(relative[:, 0], relative[:, 1])
        own = town.snapshot_row(step, ego)
        near = np.flatnonzero(away < 4.5 + there.size[:, 0] / 2)
        near = near[near != own]
        if not len(near):
            continue
        to_object = there.center[near] - pose[:2]
        ahead = to_object @ direction > (0.0 if later == 0 else np.cos(np.pi / 6) * np.hypot(*to_object.T))
        box = box_corners(there.center[near], there.heading[near], there.size[near, 0], there.size[near, 1])
        if bool((_overlap(np.repeat(ego_corners(moved)[None], len(near), 0), box) & ahead).any()):
            return True
    return False


def plan_drives(
    town: Town, drivable: shapely.Geometry, rule: SelectionRule, wanted: int, rng: np.random.Generator
) -> list[Drive]:
    """Choose logs and scenes of a town.

    Args:
        town: The recorded town.
        drivable: Where a car may be.
        rule: What is chosen.
        wanted: Scenes; fewer are returned if there are no more good ones.
        rng: Decides ties; the same state gives the same choice.
    """
    left = {kind: int(np.ceil(share * wanted)) for kind, share in rule.shares}
    per_ego = max(2, -(-wanted // rule.egos))
    egos = [i for i, motion in enumerate(town.motions) if motion.name.startswith("ego_")]
    drives: list[Drive] = []
    total = 0
    for index in rng.permutation(np.array(egos, dtype=np.int64)):
        ego = town.motions[int(index)]
        first = -(-max(ego.first + 10, 0) // STEPS_PER_FRAME) * STEPS_PER_FRAME
        frames = np.arange(first, ego.last - 4, STEPS_PER_FRAME)
        if len(frames) < HISTORY_FRAMES + FUTURE_FRAMES + 1:
            continue
        verdict = ExpertVerdict(town, ego, drivable)
        chosen: list[tuple[int, str]] = []
        used = taken = 0
        for now in range(HISTORY_FRAMES, len(frames) - FUTURE_FRAMES):
            if chosen and now < chosen[-1][0] + rule.stride:
                continue
            row = int(frames[now]) - ego.first
            poses = ego.pose[row : row + PLAN_FRAMES * STEPS_PER_FRAME + 1 : STEPS_PER_FRAME]
            kind = kind_of_moment(poses, float(ego.speed[row]), rule)
            if left[kind] <= 0 or taken >= per_ego or verdict.is_bad(row, row + 50):
                continue
            begin = now - HISTORY_FRAMES
            if chosen and now + FUTURE_FRAMES - used >= rule.max_frames:
                drives.append(_drive(int(index), frames, used, chosen))
                total += len(chosen)
                used, chosen = chosen[-1][0] + FUTURE_FRAMES + 1, []
            if not chosen:
                if begin < used:
                    continue
                used = begin
            chosen.append((now, kind))
            left[kind] -= 1
            taken += 1
        if chosen:
            drives.append(_drive(int(index), frames, used, chosen))
            total += len(chosen)
        if total >= wanted:
            break
    return drives


def _drive(ego: int, frames: NDArray[np.int64], begin: int, chosen: Sequence[tuple[int, str]]) -> Drive:
    count = chosen[-1][0] + FUTURE_FRAMES + 1 - begin
    return Drive(ego, int(frames[begin]), count, tuple((now - begin, kind) for now, kind in chosen))
