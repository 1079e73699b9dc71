"""The LiDAR input as points, for planners that learn their own raster of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.sensors import LIDAR_ROWS, SensorError, lidar_path_of, read_pcd
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.digests import number_of
from beyonddrive.structures.frame import Frame

_ROWS = [LIDAR_ROWS.index(name) for name in ("x", "y", "z", "intensity")]


@TRANSFORMS.register_module()
class LoadPoints(BaseTransform):
    """Adds ``points``: float32 (N, 4) of the current sweep: x, y, z [m] in the ego frame, scaled intensity.

    Points out of range, and those without a position (NaN), are left out. The rest is shuffled, because
    voxelization keeps the first points of a full pillar and a merged sweep is sorted by sensor; of more than
    ``max_points`` only the first are kept. The order follows from ``seed`` and the token of the scene, so it
    depends neither on the process nor on the scenes before.

    Args:
        point_range: x, y, z from, x, y, z to [m]; lower bounds belong to the range, upper ones do not.
        max_points: Most points of a scene.
        intensity_scale: Intensity that is worth 1; NAVSIM's goes from 0 to 255.
        seed: Seed of the order.

    Raises:
        SensorError: If the sweep is missing or damaged, or a point in range has no finite intensity.
    """

    def __init__(
        self,
        point_range: Sequence[float] = (-32.0, -32.0, -2.0, 32.0, 32.0, 6.0),
        max_points: int = 60_000,
        intensity_scale: float = 255.0,
        seed: int = 0,
    ) -> None:
        lower, upper = point_range[:3], point_range[3:]
        if len(point_range) != 6 or not all(a < b for a, b in zip(lower, upper, strict=True)):
            raise ValueError(
                f"LoadPoints: point_range must be three lower and three larger upper bounds, "
                f"got {tuple(point_range)}"
            )
        if max_points < 1 or intensity_scale <= 0:
            raise ValueError("LoadPoints: max_points and intensity_scale must be positive")
        self.point_range = tuple(float(value) for value in point_range)
        self.max_points = max_points
        self.intensity_scale = intensity_scale
        self.seed = seed

    def transform(self, results: Results) -> Results:
        """Read ``scene``, ``root`` and ``token``; add ``points``."""
        scene: Scene = results["scene"]
        path = lidar_path_of(scene.now, results["root"].sensor_root(scene.split))
        points = self.select(read_pcd(path)[_ROWS], results["token"])
        if not np.isfinite(points).all():
            raise SensorError(f"{path}: an intensity is NaN or infinite; restore the file from the data set")
        results["points"] = points
        return results

    def observe(self, frame: Frame, results: Results) -> Results:
        """Add ``points``; without a sweep there are none."""
        sweep = np.empty((4, 0), np.float32) if frame.lidar is None else frame.lidar
        results["points"] = self.select(sweep, results["token"])
        return results

    def select(self, points: NDArray[np.float32], token: str) -> NDArray[np.float32]:
        """Points (4, N), x, y, z [m] and intensity -> (n, 4), those in range, shuffled, intensity scaled.

        >>> far, near = [40.0, 0.0, 1.0, 51.0], [4.0, 0.0, 1.0, 51.0]
        >>> LoadPoints().select(np.array([far, near], np.float32).T, 'a').tolist()
        [[4.0, 0.0, 1.0, 0.20000000298023224]]
        """
        lower, upper = np.array(self.point_range, np.float32).reshape(2, 3, 1)
        inside = points[:, ((points[:3] >= lower) & (points[:3] < upper)).all(axis=0)]
        rng = np.random.default_rng(number_of(f"{self.seed}/{token}"))
        chosen = inside[:, rng.permutation(inside.shape[1])[: self.max_points]]
        chosen[3] /= np.float32(self.intensity_scale)
        return np.ascontiguousarray(chosen.T)
