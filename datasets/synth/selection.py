"""Which moments of a simulated drive become scenes.

Most of a drive is easy: a planner that keeps its speed and heading is right. Like those of NAVSIM's splits,
scenes are chosen mostly where it is wrong, by a geometric test; a share of the rest is kept.
Moments in which the simulated driver is no example (it leaves the road, or comes too close to somebody) are
left out as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.synth.clearance import Clearance
from beyonddrive.datasets.synth.frames import STEPS_PER_FRAME
from beyonddrive.datasets.synth.recorded_town import RecordedTown
from beyonddrive.datasets.synth.vehicle_types import EGO_TYPE, LAUNCH_TYPE

HISTORY_FRAMES = 3
"""Frames of a scene before now ..."""
FUTURE_FRAMES = 10
"""... and after."""
SCENE_FRAMES = HISTORY_FRAMES + 1 + FUTURE_FRAMES
PLAN_FRAMES = 8


@dataclass(frozen=True)
class SelectionRule:
    """What is chosen.

    Attributes:
        shares: Largest share of each kind of moment among the scenes of a town.
        easy_share: Largest share of scenes in which constant velocity stays on the road and hits nobody.
        launch: Accelerating hard: at least this now [m/s2].
        turn: A turn changes the heading by at least this within 4 s [rad].
        slow_down: Braking: the expert falls behind constant velocity by at least this within 4 s [m].
        speed_up: Accelerating: it gets ahead by at least this within 4 s [m].
        sideways: Swerving: it leaves the straight line ahead by at least this within 4 s [m].
        yaw_rate: The ego turns at most this fast now [rad/s]: the score's simulation starts with the wheels
            straight (PDMS_V1, section 3), so a plan from the middle of a turn is not followed even if it is
            right. Scenes begin before or early in a turn.
        egos: A town's scenes come from at least about so many egos.
    """

    shares: tuple[tuple[str, float], ...] = (
        ("launch", 0.013),
        ("turn", 0.45),
        ("brake", 0.35),
        ("accelerate", 0.15),
        ("swerve", 0.25),
        ("keep", 0.10),
        ("stand", 0.03),
    )
    easy_share: float = 0.3
    launch: float = 5.7
    turn: float = 0.45
    slow_down: float = 6.0
    speed_up: float = 8.0
    sideways: float = 1.5
    yaw_rate: float = 0.13
    egos: int = 30


@dataclass(frozen=True)
class Drive:
    """One log to be written: consecutive scenes of one ego that share no frame, ``SCENE_FRAMES`` each."""

    ego: int
    first_step: int
    kinds: tuple[str, ...]
    """Kind of moment of every scene."""

    @property
    def num_frames(self) -> int:
        """Frames of the log."""
        return SCENE_FRAMES * len(self.kinds)

    @property
    def end_step(self) -> int:
        """Step of the frame after the last."""
        return self.first_step + STEPS_PER_FRAME * self.num_frames


def kind_of_moment(pose: NDArray[np.float64], speed: float, acceleration: float, rule: SelectionRule) -> str:
    """Name the moment from the poses (9, 3) now and at the eight plan times, and the present motion.

    >>> straight = np.column_stack([np.arange(9) * 2.0, np.zeros(9), np.zeros(9)])
    >>> kind_of_moment(straight, 4.0, 0.0, SelectionRule())
    'keep'
    >>> kind_of_moment(straight, 8.0, -1.0, SelectionRule())
    'brake'
    """
    if acceleration > rule.launch:
        return "launch"
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


def plan_drives(
    town: RecordedTown, clearance: Clearance, rule: SelectionRule, wanted: int, rng: np.random.Generator
) -> list[Drive]:
    """Choose logs and scenes of a town.

    Args:
        town: The recorded town.
        clearance: Its checks.
        rule: What is chosen.
        wanted: Scenes; fewer are returned if there are no more good ones.
        rng: Decides ties; the same state gives the same choice.
    """
    left = {kind: int(np.ceil(share * wanted)) for kind, share in rule.shares}
    easy_left = int(rule.easy_share * wanted)
    per_ego = max(2, -(-wanted // rule.egos))
    egos = [i for i, motion in enumerate(town.motions) if motion.name.startswith(EGO_TYPE)]
    drives: list[Drive] = []
    total = 0
    order = [int(i) for i in rng.permutation(np.array(egos, dtype=np.int64))]
    # Those who can launch come first, and give nothing else: launches are rare.
    for index in sorted(order, key=lambda i: not town.motions[i].name.startswith(LAUNCH_TYPE)):
        ego = town.motions[index]
        only_launch = ego.name.startswith(LAUNCH_TYPE)
        # The first second is left out: the run-up of the path is not driven.
        step = -(-max(ego.first + 10, 0) // STEPS_PER_FRAME) * STEPS_PER_FRAME
        taken = 0
        while step + (SCENE_FRAMES - 1) * STEPS_PER_FRAME <= ego.last and taken < per_ego and total < wanted:
            row = step + HISTORY_FRAMES * STEPS_PER_FRAME - ego.first
            poses = ego.pose[row : row + PLAN_FRAMES * STEPS_PER_FRAME + 1 : STEPS_PER_FRAME]
            kind = kind_of_moment(poses, float(ego.speed[row]), float(ego.acceleration[row]), rule)
            turning = abs(float(ego.speed[row] * ego.curvature[row]))
            good = left[kind] > 0 and turning <= rule.yaw_rate and (kind == "launch" or not only_launch)
            easy = good and clearance.constant_velocity_is_good(index, row)
            end = row + FUTURE_FRAMES * STEPS_PER_FRAME
            if not good or (easy and easy_left <= 0) or not clearance.expert_is_good(index, row, end):
                step += STEPS_PER_FRAME
                continue
            easy_left -= easy
            left[kind] -= 1
            taken += 1
            total += 1
            last = drives[-1] if drives else None
            if last is not None and last.ego == index and last.end_step == step:
                drives[-1] = Drive(last.ego, last.first_step, (*last.kinds, kind))
            else:
                drives.append(Drive(index, step, (kind,)))
            step += SCENE_FRAMES * STEPS_PER_FRAME
        if total >= wanted:
            break
    return drives
