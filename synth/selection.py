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

from beyonddrive.synth.clearance import Clearance
from beyonddrive.synth.frames import STEPS_PER_FRAME
from beyonddrive.synth.recorded_town import RecordedTown
from beyonddrive.synth.vehicle_types import EGO_TYPE, LAUNCH_TYPE

HISTORY_FRAMES = 3
"""Frames of a scene before now ..."""
FUTURE_FRAMES = 10
"""... and after."""
SCENE_FRAMES = HISTORY_FRAMES + 1 + FUTURE_FRAMES
PLAN_FRAMES = 8
RELAXATION = 0.6
"""If a town has too few scenes of some kind, so much more of every kind is allowed, as a share of its own."""


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
        ("launch", 0.017),
        ("turn", 0.45),
        ("brake", 0.32),
        ("accelerate", 0.13),
        ("swerve", 0.22),
        ("keep", 0.09),
        ("stand", 0.02),
    )
    easy_share: float = 0.3
    launch: float = 5.6
    turn: float = 0.45
    slow_down: float = 6.0
    speed_up: float = 8.0
    sideways: float = 1.5
    yaw_rate: float = 0.12
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


class _Choice:
    """Scenes of a town as they are chosen, ego by ego."""

    def __init__(self, town: RecordedTown, clearance: Clearance, rule: SelectionRule, wanted: int) -> None:
        self._town, self._clearance, self._rule, self._wanted = town, clearance, rule, wanted
        self._left = {kind: int(np.ceil(share * wanted)) for kind, share in rule.shares}
        self._easy_left = int(rule.easy_share * wanted)
        self._per_ego = max(2, -(-wanted // rule.egos))
        self._busy: dict[int, list[int]] = {}
        """First steps of the chosen scenes of each ego."""
        self._easy: dict[tuple[int, int], bool] = {}
        self._good: dict[tuple[int, int], bool] = {}
        self.drives: list[Drive] = []
        self.total = 0

    def relax(self) -> None:
        """Allow more of every kind, because there was not enough of the others."""
        for kind, share in self._rule.shares:
            self._left[kind] += int(np.ceil(share * self._wanted * RELAXATION))
        self._per_ego *= 2

    def scan(self, index: int) -> None:
        """Go through the drive of mover ``index`` and take what is wanted."""
        ego = self._town.motions[index]
        busy = self._busy.setdefault(index, [])
        only_launch = ego.name.startswith(LAUNCH_TYPE)
        # A launch lasts less than a second, so it is looked for at every step.
        stride = 1 if only_launch else STEPS_PER_FRAME
        length = SCENE_FRAMES * STEPS_PER_FRAME
        # The first second is left out: the run-up of the path is not driven.
        step = -(-max(ego.first + 10, 0) // STEPS_PER_FRAME) * STEPS_PER_FRAME
        while step + length - STEPS_PER_FRAME <= ego.last:
            if self.total >= self._wanted or len(busy) >= self._per_ego:
                return
            if any(abs(step - other) < length for other in busy):
                step += stride
                continue
            kind = self._kind(index, step, only_launch)
            if kind is None:
                step += stride
                continue
            self.total += 1
            busy.append(step)
            last = self.drives[-1] if self.drives else None
            if last is not None and last.ego == index and last.end_step == step:
                self.drives[-1] = Drive(index, last.first_step, (*last.kinds, kind))
            else:
                self.drives.append(Drive(index, step, (kind,)))
            step += length

    def _kind(self, index: int, step: int, only_launch: bool) -> str | None:
        """Kind of the scene whose first frame is at ``step``, if it is wanted."""
        ego, rule = self._town.motions[index], self._rule
        row = step + HISTORY_FRAMES * STEPS_PER_FRAME - ego.first
        if only_launch and ego.acceleration[row] <= rule.launch:
            return None
        poses = ego.pose[row : row + PLAN_FRAMES * STEPS_PER_FRAME + 1 : STEPS_PER_FRAME]
        kind = kind_of_moment(poses, float(ego.speed[row]), float(ego.acceleration[row]), rule)
        turning = abs(float(ego.speed[row] * ego.curvature[row]))
        if self._left[kind] <= 0 or turning > rule.yaw_rate:
            return None
        if (index, row) not in self._easy:
            self._easy[index, row] = self._clearance.constant_velocity_is_good(index, row)
        easy = self._easy[index, row]
        if easy and self._easy_left <= 0:
            return None
        if (index, row) not in self._good:
            end = row + FUTURE_FRAMES * STEPS_PER_FRAME
            self._good[index, row] = self._clearance.expert_is_good(index, row, end)
        if not self._good[index, row]:
            return None
        self._left[kind] -= 1
        self._easy_left -= easy
        return kind


def plan_drives(
    town: RecordedTown, clearance: Clearance, rule: SelectionRule, wanted: int, rng: np.random.Generator
) -> list[Drive]:
    """Choose logs and scenes of a town.

    Args:
        town: The recorded town.
        clearance: Its checks.
        rule: What is chosen.
        wanted: Scenes; fewer are returned if there are no more good ones.
        rng: Decides the order of the egos; the same state gives the same choice.
    """
    egos = [i for i, motion in enumerate(town.motions) if motion.name.startswith(EGO_TYPE)]
    order = [int(i) for i in rng.permutation(np.array(egos, dtype=np.int64))]
    # Those who can launch come first, and give nothing else: launches are rare.
    order.sort(key=lambda i: not town.motions[i].name.startswith(LAUNCH_TYPE))
    choice = _Choice(town, clearance, rule, wanted)
    for index in order:
        choice.scan(index)
    if choice.total < wanted:
        choice.relax()
        for index in order:
            choice.scan(index)
    return choice.drives
