"""Road users over time: logged at 2 Hz, known to the score at 10 Hz (PDMS_V1, section 12.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.collision import Traffic, box_bounds
from beyonddrive.evaluation.pdm.kernels.constants import FRAME_STRIDE, NUM_FRAMES, STEP, STOPPED_TRACK_SPEED
from beyonddrive.evaluation.pdm.kernels.plan_states import unwrap
from beyonddrive.structures.boxes import AGENT_TYPES, OBJECT_TYPES
from beyonddrive.structures.errors import BeyondDriveError

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.scene import Scene

IS_AGENT = np.array([name in AGENT_TYPES for name in OBJECT_TYPES])
"""Per class: whether it moves by itself."""
TYPE_INDEX = {name: index for index, name in enumerate(OBJECT_TYPES)}


class TrackError(BeyondDriveError, ValueError):
    """The annotations of a scene contradict each other; the message names frame and track."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """Objects of the current frame and the ten after it, in order of their first appearance, then of class.

    Attributes:
        tokens: Track tokens, M of them.
        types: (M,) int8 indices into :data:`beyonddrive.structures.boxes.OBJECT_TYPES`, as first seen.
        size: (M, 2) length and width [m], as first seen.
        velocity: (M, 2) global velocity [m/s] as first seen; 0 for static classes.
        poses: (11, M, 3) global centre x, y [m] and heading [rad] per frame; NaN where not seen.
    """

    tokens: tuple[str, ...]
    types: NDArray[np.int8]
    size: Floats
    velocity: Floats
    poses: Floats

    def __len__(self) -> int:
        return len(self.tokens)

    def boxes(self, num_frames: int = NUM_FRAMES) -> Floats:
        """Centres and headings (51, M, 4) x, y, cos, sin every 0.1 s; NaN where absent.

        Between two frames that see an object it moves linearly, however far apart they are. An object that
        only one frame sees stands there all the time, before that frame as well.

        Args:
            num_frames: Look at fewer frames than there are: 9 give (41, M, 4) as EPDMS knows traffic.
        """
        return _interpolate(self.poses[:num_frames])

    def traffic(self, num_frames: int = NUM_FRAMES) -> Traffic:
        """The boxes as collision kernels take them."""
        boxes, half = self.boxes(num_frames), self.size * 0.5
        agent = IS_AGENT[self.types]
        speed = np.hypot(self.velocity[:, 0], self.velocity[:, 1])
        return Traffic(
            boxes,
            half,
            box_bounds(boxes, half),
            agent,
            ~agent | (speed <= STOPPED_TRACK_SPEED),
            np.zeros(len(self), dtype=bool),
            np.arange(len(boxes)),
        )


def tracks_of(scene: Scene, current: int, num_frames: int = NUM_FRAMES) -> Tracks:
    """Tracks of a scene, from frame ``current`` on.

    Args:
        scene: The scene.
        current: Index of the current frame.
        num_frames: Frames to look at; poses of the rest are NaN.

    Raises:
        TrackError: If the scene has too few frames after ``current``, a frame holds a track token twice, or a
            box has a negative size.
    """
    if scene.num_samples < current + num_frames:
        raise TrackError(
            f"{scene.num_samples - current - 1} frames after now, the score needs {num_frames - 1}; "
            f"{scene.remedy_if_short(num_frames - 1)}"
        )
    index: dict[str, int] = {}
    types: list[int] = []
    first: list[Floats] = []
    seen = []
    for j in range(num_frames):
        objects = scene.world_objects(current + j)
        kinds = np.array([TYPE_INDEX[name] for name in objects.types], dtype=np.int64)
        order = np.argsort(kinds, kind="stable")
        kinds, sizes, placed = kinds[order], objects.sizes[order], objects.poses[order]
        tokens = [objects.tokens[i] for i in order]
        if len(set(tokens)) < len(tokens):
            twice = next(token for token in tokens if tokens.count(token) > 1)
            raise TrackError(
                f"frame {current + j}: anns.track_tokens: {twice!r} is there twice; a track token names one "
                f"object of a frame"
            )
        if (sizes < 0).any():
            row = int(np.flatnonzero((sizes < 0).any(axis=1))[0])
            raise TrackError(
                f"frame {current + j}: anns.gt_boxes: track {tokens[row]!r} has length {sizes[row, 0]} and "
                f"width {sizes[row, 1]}; neither may be negative"
            )
        velocity = np.where(IS_AGENT[kinds][:, None], objects.velocity[order], 0.0)
        rows = np.empty(len(tokens), dtype=np.int64)
        for i, token in enumerate(tokens):
            row = index.setdefault(token, len(index))
            if row == len(types):
                types.append(int(kinds[i]))
                first.append(np.concatenate([sizes[i], velocity[i]]))
            rows[i] = row
        seen.append((rows, placed))
    poses = np.full((NUM_FRAMES, len(index), 3), np.nan)
    for j, (rows, placed) in enumerate(seen):
        poses[j, rows] = placed
    features = np.array(first, dtype=np.float64).reshape(-1, 4)
    classes = np.array(types, dtype=np.int8)
    present = np.isfinite(poses[..., 0])
    # What one frame sees is there from the start.
    appears = np.where(present.sum(axis=0) == 1, 0, present.argmax(axis=0))
    order = np.lexsort((classes, appears))
    names = list(index)
    return Tracks(
        tuple(names[i] for i in order),
        classes[order],
        np.ascontiguousarray(features[order, :2]),
        np.ascontiguousarray(features[order, 2:]),
        np.ascontiguousarray(poses[:, order]),
    )


@kernel
def _interpolate(poses: Floats) -> Floats:
    frames, count = poses.shape[0], poses.shape[1]
    maps = (frames - 1) * FRAME_STRIDE + 1
    out = np.full((maps, count, 4), np.nan)
    rows = np.empty(frames, np.int64)
    heading = np.empty(frames)
    for m in range(count):
        n = 0
        for j in range(frames):
            if poses[j, m, 0] == poses[j, m, 0]:
                rows[n] = j
                heading[n] = poses[j, m, 2]
                n += 1
        if n == 0:
            continue
        if n == 1:
            cos, sin = math.cos(heading[0]), math.sin(heading[0])
            for k in range(maps):
                out[k, m, 0], out[k, m, 1] = poses[rows[0], m, 0], poses[rows[0], m, 1]
                out[k, m, 2], out[k, m, 3] = cos, sin
            continue
        unwrap(heading[:n])
        i = 0
        for k in range(rows[0] * FRAME_STRIDE, rows[n - 1] * FRAME_STRIDE + 1):
            if k > rows[i + 1] * FRAME_STRIDE:
                i += 1
            start, end = rows[i], rows[i + 1]
            span = 0.5 * end - 0.5 * start
            since = k * STEP - 0.5 * start
            for c in range(2):
                slope = (poses[end, m, c] - poses[start, m, c]) / span
                out[k, m, c] = slope * since + poses[start, m, c]
            turn = heading[i + 1] - heading[i]
            if turn == 0.0 and k > rows[0] * FRAME_STRIDE and k != start * FRAME_STRIDE + 1:
                out[k, m, 2], out[k, m, 3] = out[k - 1, m, 2], out[k - 1, m, 3]
            else:
                angle = turn / span * since + heading[i]
                out[k, m, 2], out[k, m, 3] = math.cos(angle), math.sin(angle)
    return out
