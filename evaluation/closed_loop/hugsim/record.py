"""What a closed-loop run leaves behind, frame by frame (HUGSIM, section 6.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import MOST_POINTS
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError
from beyonddrive.structures.errors import shown

STAMP_TOLERANCE = 1e-5
"""Two time stamps are the same if they are nearer than this [s]."""


@dataclass(frozen=True)
class Frame:
    """One step of a run; record frame (x ahead, y left, z up), metres, radians, seconds.

    Attributes:
        time: Time stamp.
        ego_box: (7,) x, y, z, width, length, height, yaw.
        obj_boxes: (A, 7) other road users.
        obj_names: A names; ``'car'`` counts.
        traj: (N - 1, 3) x, y, yaw of what was planned.
        timestep: Seconds between its entries.
        collision: The run ended here by a collision.
        rc: Route completion so far, may exceed 1.
        is_key_frame: The scorer looks at key frames only.
    """

    time: float
    ego_box: NDArray[np.float64]
    obj_boxes: NDArray[np.float64]
    obj_names: tuple[str, ...]
    traj: NDArray[np.float64]
    timestep: float
    collision: bool
    rc: float
    is_key_frame: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As the official loop writes it."""
        return {
            "time_stamp": self.time,
            "is_key_frame": self.is_key_frame,
            "ego_box": self.ego_box.tolist(),
            "obj_boxes": self.obj_boxes.tolist(),
            "obj_names": list(self.obj_names),
            "planned_traj": {"traj": self.traj.tolist(), "timestep": self.timestep},
            "collision": self.collision,
            "rc": self.rc,
        }


def read_frames(record: Any, source: str = "record") -> list[Frame]:
    """Frames of a record: ``[{'type': 'closeloop', 'frames': [...]}]`` or the dictionary alone.

    Args:
        record: What ``data.pkl`` holds.
        source: Name of the file, for messages.

    Raises:
        HugsimError: If something is missing or of another shape, a box has a negative size or the ego's has
            none, or a plan has more entries than
            :data:`~beyonddrive.evaluation.closed_loop.hugsim.plan_reference.MOST_POINTS`; the message names
            frame and key.
    """
    if isinstance(record, Sequence) and not isinstance(record, str) and len(record) == 1:
        record = record[0]
    if not isinstance(record, Mapping) or not isinstance(record.get("frames"), Sequence):
        raise HugsimError(f"{source}: is no record of a run: expected a dictionary with a list 'frames'")
    return [_read_frame(frame, f"{source}: frame {i}") for i, frame in enumerate(record["frames"])]


def _read_frame(frame: Any, where: str) -> Frame:
    if not isinstance(frame, Mapping):
        raise HugsimError(f"{where}: is a {type(frame).__name__}, not a dictionary")
    try:
        planned = frame["planned_traj"]
        names = tuple(str(name) for name in frame["obj_names"])
        if len(planned["traj"]) > MOST_POINTS:
            # (the scorer looks at everybody at each entry)
            raise HugsimError(
                f"{where}: planned_traj.traj: has {len(planned['traj'])} entries, {MOST_POINTS} are allowed"
            )
        boxes = _numbers(frame["obj_boxes"], (len(names), 7), f"{where}: obj_boxes")
        if (boxes[:, 3:6] < 0).any():
            i = int((boxes[:, 3:6] < 0).any(axis=1).argmax())
            raise HugsimError(f"{where}: obj_boxes[{i}]: has a negative size, {_size(boxes[i])}")
        ego = _numbers(frame["ego_box"], (7,), f"{where}: ego_box")
        if not (ego[3:6] > 0).all():
            # (nothing is in such a box, so that the ego would collide with nothing)
            raise HugsimError(f"{where}: ego_box: its sizes must be positive, got {_size(ego)}")
        return Frame(
            _number(frame["time_stamp"], f"{where}: time_stamp"),
            ego,
            boxes,
            names,
            _numbers(planned["traj"], (-1, 3), f"{where}: planned_traj.traj"),
            _number(planned["timestep"], f"{where}: planned_traj.timestep", positive=True),
            bool(frame["collision"]),
            _number(frame["rc"], f"{where}: rc"),
            bool(frame["is_key_frame"]),
        )
    except KeyError as error:
        raise HugsimError(f"{where}: lacks {error}") from None
    except TypeError as error:
        raise HugsimError(f"{where}: {error}") from error


def _size(box: NDArray[np.float64]) -> str:
    return "width {:g}, length {:g}, height {:g}".format(*box[3:6])


def _number(value: Any, where: str, positive: bool = False) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or (positive and number <= 0):
        kind = "positive" if positive else "finite"
        raise HugsimError(f"{where}: must be a {kind} number, got {shown(value)}")
    return number


def _numbers(value: Any, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    try:
        array = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise HugsimError(f"{where}: holds no numbers ({error})") from None
    if not array.size and shape[0] <= 0:
        # (an empty list has lost its columns)
        array = array.reshape([max(size, 0) for size in shape])
    fits = array.ndim == len(shape) and all(w in (-1, h) for w, h in zip(shape, array.shape, strict=True))
    if not fits or not np.isfinite(array).all():
        wanted = str(shape).replace("-1", "N")
        raise HugsimError(f"{where}: must be finite numbers {wanted}, got {array.shape}")
    return array
