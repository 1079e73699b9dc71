"""Targets of a detector: the agents around the ego as boxes with height and velocity."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.scene import HISTORY, FrameObjects, Scene
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.agent_boxes import AGENT_CLASSES, BOX_DIM
from beyonddrive.structures.geometry import BOX_EXTENT


def agent_boxes(objects: FrameObjects) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Boxes (N, 9) and labels (N,) of the agents of a frame, in the order of the log.

    As :mod:`beyonddrive.structures.agent_boxes` has them.

    >>> boxes = np.array([[1.0, 0, 0.5, 4, 2, 1.5, 0], [9.0, 0, 0.5, 1, 1, 1, 0]])
    >>> cars = FrameObjects(["a", "b"], ["vehicle", "barrier"], boxes, np.ones((2, 2)))
    >>> agent_boxes(cars)[0].tolist(), agent_boxes(cars)[1].tolist()
    ([[1.0, 0.0, 0.5, 4.0, 2.0, 1.5, 0.0, 1.0, 1.0]], [0])
    """
    kept = np.array([kind in AGENT_CLASSES for kind in objects.types], dtype=bool)
    labels = [AGENT_CLASSES.index(kind) for kind in objects.types if kind in AGENT_CLASSES]
    boxes = np.concatenate([objects.boxes, objects.velocity], axis=1)[kept].astype(np.float32)
    return boxes.reshape(-1, BOX_DIM), np.array(labels, np.int64)


def points_in_boxes(points: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many of the points (M, 3+) lie in each of the boxes (N, 7+).

    >>> points = np.array([[2.9, 0, 0], [2.9, 0.9, 0], [2.9, 1.1, 0]])
    >>> points_in_boxes(points, np.array([[1, 0, 0, 4, 2, 1, 0]]))
    array([2])
    """
    counts = [len(inside_boxes(points, box)) for box in boxes.astype(np.float64)]
    return np.array(counts, np.int64)


def inside_boxes(points: NDArray[np.floating], box: NDArray[np.floating]) -> NDArray[np.int64]:
    """Which of the points (M, 3+) lie in one box (7+,): their indices, ascending."""
    x, y, z, length, width, height, heading = (float(value) for value in box[:7])
    offset = points[:, :3] - np.array([x, y, z])
    # (only what is near is turned)
    near = np.flatnonzero((np.abs(offset[:, :2]) <= 0.5 * math.hypot(length, width)).all(axis=1))
    offset = offset[near]
    along = offset[:, 0] * math.cos(heading) + offset[:, 1] * math.sin(heading)
    left = offset[:, 1] * math.cos(heading) - offset[:, 0] * math.sin(heading)
    inside = (
        (np.abs(along) <= length / 2) & (np.abs(left) <= width / 2) & (np.abs(offset[:, 2]) <= height / 2)
    )
    return near[inside]


@TRANSFORMS.register_module()
class AgentBoxTargets(BaseTransform):
    """Adds the agents around the ego as boxes, in the order of the log.

    ``boxes``: float32 (N, 9), ``box_labels``: int64 (N,), as :mod:`beyonddrive.structures.agent_boxes` has
    them. ``box_points``: int64 (N,) LiDAR points in each box, of those that the planner is given
    (``points``, by a :class:`LoadPoints` before); without ``points`` it is not added.

    Args:
        extent: Agents whose centre has abs(x) or abs(y) beyond this are left out [m].
    """

    is_target = True

    def __init__(self, extent: float = 32.0) -> None:
        if extent <= 0:
            raise ValueError("AgentBoxTargets: extent must be positive")
        self.extent = extent

    @property
    def geometry(self) -> Mapping[str, float]:
        """How far away agents are targets."""
        return {BOX_EXTENT: self.extent}

    def transform(self, results: Results) -> Results:
        """Read ``scene`` and ``points``; add ``boxes``, ``box_labels`` and ``box_points``."""
        scene: Scene = results["scene"]
        boxes, labels = agent_boxes(scene.objects(HISTORY - 1))
        near = (np.abs(boxes[:, :2]) <= self.extent).all(axis=1)
        results["boxes"], results["box_labels"] = boxes[near], labels[near]
        if "points" in results:
            results["box_points"] = points_in_boxes(results["points"], boxes[near])
        return results


@TRANSFORMS.register_module()
class BlankInputs(BaseTransform):
    """Takes what inputs hold away, to see what a planner makes of it: clouds become empty, the rest zeros.

    Args:
        keys: The inputs; points, camera, lidar or status.
    """

    def __init__(self, keys: tuple[str, ...] | list[str]) -> None:
        if not keys:
            raise ValueError("BlankInputs: keys must name at least one input")
        self.keys = tuple(keys)

    def transform(self, results: Results) -> Results:
        """Replace the inputs.

        Raises:
            KeyError: If one of them was not made.
        """
        for key in self.keys:
            if key not in results:
                raise KeyError(f"BlankInputs: there is no input {key!r}; the arrays are {sorted(results)}")
            value = results[key]
            results[key] = value[:0] if key == "points" else np.zeros_like(value)
        return results
