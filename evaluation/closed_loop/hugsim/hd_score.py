"""HD-Score of a run: how its plans would have gone, times route completion (HUGSIM, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.footprints import touch
from beyonddrive.evaluation.closed_loop.hugsim.points import MAX_POINTS, PointGrid
from beyonddrive.evaluation.closed_loop.hugsim.record import STAMP_TOLERANCE, Frame
from beyonddrive.evaluation.closed_loop.hugsim.settings import PRESETS, HugsimSettings

COLUMNS = ("nc", "dac", "ttc", "c", "pdms")
"""Sub-scores of a frame and its score, by their names in ``eval.json``."""
MIN_CELLS = 2
"""The road carries the ego if so many of the four cells of its footprint hold a ground point."""
TTC_SHIFTS = (0.5, 1.0)
"""How far the ego goes on for the time to collision [s]."""
STANDING = 1.0
"""A plan that gets less far than this keeps the ego's yaw [m]."""
MIN_ACCELERATION = -4.05
MAX_JERK = 8.37
MAX_YAW_ACCELERATION = 1.93
MAX_YAW_RATE = 0.95
"""Limits of comfort [m/s2, m/s3, rad/s2, rad/s]; that of acceleration is a setting."""
TTC_WEIGHT, COMFORT_WEIGHT = 5.0, 2.0


@dataclass(frozen=True)
class FrameScore:
    """One scored frame.

    Attributes:
        time: Its time stamp [s].
        values: nc, dac, ttc, c, pdms.
        losses: What was lost and why, in words; empty for a full score.
    """

    time: float
    values: tuple[float, float, float, float, float]
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunScore:
    """Score of a run.

    Attributes:
        frames: Scored frames in order.
        rc: Route completion in [0, 1].
        unscored: Why there is no score; empty if there is one.
        settings: What it was computed with.
        timesteps: Seconds between the entries of its plans, as its frames say, each once.
    """

    frames: tuple[FrameScore, ...]
    rc: float
    unscored: str = ""
    settings: HugsimSettings = field(default_factory=lambda: PRESETS["pr57"])
    timesteps: tuple[float, ...] = ()

    @property
    def means(self) -> dict[str, float]:
        """nc, dac, ttc, c, pdms, rc and hdscore; all 0 if there is no score."""
        # The dictionary of details holds one frame per time stamp, but the means are over all frames.
        values = np.array([frame.values for frame in self.frames]).reshape(-1, len(COLUMNS))
        means = dict.fromkeys(COLUMNS, 0.0)
        if len(values) and not self.unscored:
            means = {name: float(np.mean(column)) for name, column in zip(COLUMNS, values.T, strict=True)}
        rc = 0.0 if self.unscored else self.rc
        return {**means, "rc": rc, "hdscore": means["pdms"] * rc}

    def to_dict(self) -> dict[str, Any]:
        """As ``eval.json``, with what frames lost; a run without score says so under ``unscored``."""
        details = {str(f.time): dict(zip(COLUMNS, f.values, strict=True)) for f in self.frames}
        # (beside the details, which have the official keys alone; equal stamps overwrite each other in both)
        losses = {str(f.time): list(f.losses) for f in self.frames}
        lost = {time: texts for time, texts in losses.items() if texts}
        made: dict[str, Any] = {**self.means, "details": details, "losses": lost}
        return {**made, "unscored": self.unscored} if self.unscored else made


def score_run(
    frames: Sequence[Frame], ground: PointGrid, scene: PointGrid, settings: HugsimSettings | None = None
) -> RunScore:
    """Score a run.

    Args:
        frames: The record.
        ground: Points of the road, record frame.
        scene: Points of everything that stands on it, record frame.
        settings: Switches; the preset ``pr57`` by default.
    """
    settings = settings or PRESETS["pr57"]
    scored = [
        _score_frame(i, frames, ground, scene, settings)
        for i, frame in enumerate(frames)
        if frame.is_key_frame and len(frame.traj) >= 2
    ]
    rc = min(max((frame.rc for frame in frames), default=0.0), 1.0)
    reason = ""
    if not frames:
        reason = "the record has no frames"
    elif not scored:
        reason = "no key frame has a plan of three or more points"
    timesteps = tuple(sorted({frame.timestep for frame in frames}))
    return RunScore(tuple(scored), rc, reason, settings, timesteps)


def _score_frame(
    index: int, frames: Sequence[Frame], ground: PointGrid, scene: PointGrid, settings: HugsimSettings
) -> FrameScore:
    frame = frames[index]
    rows = np.vstack([frame.ego_box[[0, 1, 6]], frame.traj])
    if np.hypot(*(rows[-1, :2] - rows[0, :2])) < STANDING:
        rows[:, 2] = frame.ego_box[6]
    agents = _agents_of_rows(index, frames, len(rows))
    hit = _collisions(rows, frame, agents, scene, settings)
    cells = ground.filled_cells(rows, frame.ego_box[3], frame.ego_box[4])
    near = _too_close(rows, frame, agents, scene, settings)
    uncomfortable = discomfort(rows, frame.timestep, settings.comfort_lon_max)
    nc, dac, ttc, comfort = (
        float(not reason) for reason in (hit, (cells < MIN_CELLS).any(), near, uncomfortable)
    )
    total = nc * dac * (TTC_WEIGHT * ttc + COMFORT_WEIGHT * comfort) / (TTC_WEIGHT + COMFORT_WEIGHT)
    losses = [text for text in (hit, near, uncomfortable) if text]
    if not dac:
        row = int((cells < MIN_CELLS).argmax())
        losses.append(f"off the road at +{row * frame.timestep:g} s: {cells[row]} of 4 cells have ground")
    return FrameScore(frame.time, (nc, dac, ttc, comfort, total), tuple(losses))


def _agents_of_rows(index: int, frames: Sequence[Frame], count: int) -> list[NDArray[np.float64]]:
    """Boxes (A, 7) of the cars that really were there at each row; the last known ones beyond the run."""
    frame, position = frames[index], index
    found: list[NDArray[np.float64]] = []
    for row in range(count):
        stamp = frame.time + row * frame.timestep
        match = next(
            (i for i in range(position, len(frames)) if abs(frames[i].time - stamp) < STAMP_TOLERANCE), None
        )
        if match is None:
            break
        position = match
        cars = [name == "car" for name in frames[match].obj_names]
        found.append(frames[match].obj_boxes[np.array(cars, dtype=bool)])
    return found + [found[-1]] * (count - len(found))


def _collisions(
    rows: NDArray[np.float64],
    frame: Frame,
    agents: Sequence[NDArray[np.float64]],
    scene: PointGrid,
    settings: HugsimSettings,
) -> str:
    """The first collision of the rows (n, 3), in words; empty for none."""
    width, length, height = frame.ego_box[3:6]
    bottom = frame.ego_box[2] - (height if settings.scorer_box == "down" else 0.0)
    count = len(rows)
    sizes = np.tile([bottom, width, length, height], (count, 1))
    points = scene.count_in_boxes(np.column_stack([rows[:, :2], sizes, rows[:, 2]]))
    owner = np.repeat(np.arange(count), [len(boxes) for boxes in agents])
    others = np.concatenate(agents)
    hits = touch(rows[owner], np.tile([width, length], (len(owner), 1)), others[:, [0, 1, 6]], others[:, 3:5])
    by_points = np.flatnonzero(points > MAX_POINTS)
    by_agents = owner[hits]
    if not len(by_points) and not len(by_agents):
        return ""
    row = min([*by_points[:1], *by_agents[:1]])
    what = f"{points[row]} points of the scene" if points[row] > MAX_POINTS else "another road user"
    return f"collision with {what} at +{row * frame.timestep:g} s"


def _too_close(
    rows: NDArray[np.float64],
    frame: Frame,
    agents: Sequence[NDArray[np.float64]],
    scene: PointGrid,
    settings: HugsimSettings,
) -> str:
    """The first collision of the rows moved on at their speed, in words; agents are not moved."""
    step = np.diff(rows[:, :2], axis=0) / frame.timestep
    velocity = np.vstack([step[:1], step])
    for shift in TTC_SHIFTS:
        moved = rows.copy()
        moved[:, :2] += shift * velocity
        if reason := _collisions(moved, frame, agents, scene, settings):
            return f"{shift:g} s from a {reason}"
    return ""


def discomfort(rows: NDArray[np.float64], timestep: float, max_acceleration: float) -> str:
    """The first limit of comfort that rows (n, 3) x, y, yaw exceed, in words; empty for none."""
    if len(rows) < 4:
        return ""
    for name, (values, low, high) in comfort_signals(rows, timestep, max_acceleration).items():
        if (values < low).any() or (values > high).any():
            worst = values[np.argmax(np.maximum(low - values, values - high))]
            return f"{name} of {worst:.2f} is beyond {low:g} to {high:g}"
    return ""


def comfort_signals(
    rows: NDArray[np.float64], timestep: float, max_acceleration: float
) -> dict[str, tuple[NDArray[np.float64], float, float]]:
    """What comfort looks at, by name: values, lower and upper limit.

    Args:
        rows: (n, 3) x, y, yaw, n >= 4.
        timestep: Seconds between rows.
        max_acceleration: [m/s2]
    """
    speed = np.hypot(*np.diff(rows[:, :2], axis=0).T) / timestep
    acceleration = np.diff(speed) / timestep
    turn = np.diff(rows[:, 2])
    turn = np.where(turn > np.pi, turn - 2 * np.pi, np.where(turn < -np.pi, turn + 2 * np.pi, turn))
    yaw_rate = turn / timestep
    return {
        "acceleration": (acceleration, MIN_ACCELERATION, max_acceleration),
        "jerk": (np.diff(acceleration) / timestep, -MAX_JERK, MAX_JERK),
        "yaw acceleration": (np.diff(yaw_rate) / timestep, -MAX_YAW_ACCELERATION, MAX_YAW_ACCELERATION),
        "yaw rate": (yaw_rate, -MAX_YAW_RATE, MAX_YAW_RATE),
    }
