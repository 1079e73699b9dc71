"""From the ground into an image: pinhole projection with lens distortion and clipping at the near plane."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.structures.lenses import distorted, square_limit

NEAR = 0.3
"""Nothing nearer to the camera than this is drawn [m]."""


@dataclass(frozen=True)
class Projection:
    """A camera of one frame (NAVSIM_FORMAT, section 2; axes x right, y down, z forward).

    Attributes:
        intrinsic: (3, 3) matrix; pixel i covers the interval [i, i + 1).
        rotation: (3, 3) camera axes -> ego axes (``sensor2lidar_rotation``).
        translation: (3,) camera position in the ego frame [m] (``sensor2lidar_translation``).
        distortion: (5,) k1, k2, p1, p2, k3 of the usual radial-tangential model.

    >>> axes = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # looks forward
    >>> lens = np.array([[100.0, 0.0, 50.0], [0.0, 100.0, 40.0], [0.0, 0.0, 1.0]])
    >>> view = Projection(lens, axes, np.array([0.0, 0.0, 1.5]), np.zeros(5))
    >>> view.to_pixels([[10.0, 0.0, 1.5], [10.0, -1.0, 0.0]]).tolist()
    [[50.0, 40.0], [60.0, 55.0]]
    """

    intrinsic: NDArray[np.float64]
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    distortion: NDArray[np.float64]

    def to_camera(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (..., 3) of the ego frame in camera axes [m]."""
        return (np.asarray(points, dtype=np.float64) - self.translation) @ self.rotation

    def from_camera(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (..., 2) of points (..., 3) in camera axes; NaN where the lens does not see."""
        with np.errstate(divide="ignore", invalid="ignore"):
            flat = points[..., :2] / points[..., 2:3]
        x, y = flat[..., 0], flat[..., 1]
        distortion = np.asarray(self.distortion, dtype=np.float64).ravel()[:5]
        # Beyond its turning point the polynomial folds the world back into the image.
        seen = (points[..., 2] > 0.0) & (x * x + y * y <= square_limit(distortion))
        xd, yd = distorted(x, y, distortion)
        homogeneous = np.stack([xd, yd, np.ones_like(xd)], axis=-1)
        pixels = homogeneous @ np.asarray(self.intrinsic, dtype=np.float64)[:2].T
        return np.where(seen[..., None], pixels, np.nan)

    def to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Pixels (..., 2) of points (..., 3) in the ego frame; NaN where the lens does not see."""
        return self.from_camera(self.to_camera(points))

    def ring(self, points: ArrayLike) -> NDArray[np.float64] | None:
        """A closed ring (n, 3) of the ego frame as pixels (m, 2), cut at the near plane; None if unseen."""
        inside = clip_near(self.to_camera(points), closed=True)
        pixels = self.from_camera(inside)
        return pixels if len(pixels) >= 3 and np.isfinite(pixels).all() else None

    def line(self, points: ArrayLike) -> list[NDArray[np.float64]]:
        """A polyline (n, 3) of the ego frame as the pieces (m, 2) that are seen."""
        pieces = []
        camera = self.to_camera(points)
        for start, stop in pairwise(camera):
            part = clip_near(np.stack([start, stop]), closed=False)
            pixels = self.from_camera(part)
            if len(pixels) == 2 and np.isfinite(pixels).all():
                pieces.append(pixels)
        return join_lines(pieces)

    def scaled(self, factor_x: float, factor_y: float) -> Projection:
        """The camera of an image that was resized by these factors."""
        scale = np.diag([factor_x, factor_y, 1.0])
        return Projection(scale @ self.intrinsic, self.rotation, self.translation, self.distortion)


def clip_near(points: NDArray[np.float64], closed: bool, near: float = NEAR) -> NDArray[np.float64]:
    """Cut a ring or polyline (n, 3) in camera axes at depth ``near``: (m, 3), empty if all of it is behind.

    >>> line = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 3.0]])
    >>> clip_near(line, closed=False, near=1.0)[:, 2].tolist()
    [1.0, 3.0]
    """
    kept: list[NDArray[np.float64]] = []
    count = len(points)
    for index in range(count):
        here = points[index]
        if here[2] >= near:
            kept.append(here)
        if index == count - 1 and not closed:
            break
        there = points[(index + 1) % count]
        if (here[2] >= near) != (there[2] >= near):
            share = (near - here[2]) / (there[2] - here[2])
            kept.append(here + share * (there - here))
    return np.array(kept).reshape(-1, 3)


def join_lines(pieces: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Join consecutive segments that share an end."""
    joined: list[list[NDArray[np.float64]]] = []
    for piece in pieces:
        if joined and np.array_equal(joined[-1][-1], piece[0]):
            joined[-1].append(piece[1])
        else:
            joined.append([piece[0], piece[1]])
    return [np.array(line) for line in joined]
