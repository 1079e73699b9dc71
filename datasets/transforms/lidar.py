"""The LiDAR input: how many points fall into each cell around the ego."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.sensors import lidar_path_of, read_pcd
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.frame import Frame
from beyonddrive.structures.geometry import LIDAR_EXTENT


@TRANSFORMS.register_module()
class LoadLidarHistogram(BaseTransform):
    """Adds ``lidar``: float32 (C, size, size), counts of points per cell, capped and scaled to [0, 1].

    Rows run along x from behind to ahead, columns along y from right to left. C is 1 (points above
    ``split_height``) or, with ``use_ground_plane``, 2 (below, above) (MODELS, section 1).

    Args:
        extent: Half side of the square around the rear axle [m].
        size: Cells per side.
        split_height: Points at or below this z are ground [m].
        max_height: Points at or above this z are left out [m].
        max_count: Count that is worth 1.
        use_ground_plane: Whether to keep the ground as a channel of its own.
    """

    def __init__(
        self,
        extent: float = 32.0,
        size: int = 256,
        split_height: float = 0.2,
        max_height: float = 100.0,
        max_count: int = 5,
        use_ground_plane: bool = False,
    ) -> None:
        if extent <= 0 or size < 1 or max_count < 1:
            raise ValueError("LoadLidarHistogram: extent, size and max_count must be positive")
        self.extent = extent
        self.size = size
        self.split_height = split_height
        self.max_height = max_height
        self.max_count = max_count
        self.use_ground_plane = use_ground_plane

    @property
    def geometry(self) -> Mapping[str, float]:
        """Half side of the square."""
        return {LIDAR_EXTENT: self.extent}

    def transform(self, results: Results) -> Results:
        """Read ``scene`` and ``root``; add ``lidar``."""
        scene: Scene = results["scene"]
        points = read_pcd(lidar_path_of(scene.now, results["root"].sensor_root(scene.split)))
        results["lidar"] = self.histogram(points[:3])
        return results

    def observe(self, frame: Frame, results: Results) -> Results:
        """Add ``lidar``; without a sweep no point is anywhere."""
        points = np.empty((3, 0), np.float32) if frame.lidar is None else frame.lidar[:3]
        results["lidar"] = self.histogram(points)
        return results

    def histogram(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (3, N), x, y, z [m] in the ego frame -> (C, size, size).

        >>> LoadLidarHistogram(extent=1, size=2).histogram(np.array([[0.5], [-0.5], [1.0]]))[0].tolist()
        [[0.0, 0.0], [0.20000000298023224, 0.0]]
        """
        # Heights are compared in the precision of the file, as the published code does.
        points = points[:, points[2] < self.max_height]
        ground = points[2] <= self.split_height
        channels = [points[:2, ~ground]]
        if self.use_ground_plane:
            channels.insert(0, points[:2, ground])
        return np.stack([self._count(xy) for xy in channels])

    def _count(self, xy: NDArray[np.float32]) -> NDArray[np.float32]:
        edges = np.linspace(-self.extent, self.extent, self.size + 1)
        cells = np.searchsorted(edges, xy.astype(np.float64), side="right") - 1
        cells[xy == self.extent] = self.size - 1  # the last cell is closed
        row, column = cells[:, ((cells >= 0) & (cells < self.size)).all(axis=0)]
        counts = np.bincount(row * self.size + column, minlength=self.size**2)
        scaled = np.minimum(counts, self.max_count).astype(np.float32) / np.float32(self.max_count)
        return scaled.reshape(self.size, self.size)
