"""LiDAR sweeps of the generated world: rays from the roof against the ground and boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.engine.jit import kernel
from beyonddrive.synth.rig import LIDAR_POSITION

_GROUND_REFLECTIVITY = 14.0
_REFLECTIVITY = {
    "vehicle": 62.0,
    "pedestrian": 34.0,
    "bicycle": 40.0,
    "traffic_cone": 150.0,
    "barrier": 90.0,
    "czone_sign": 190.0,
    "generic_object": 48.0,
}
"""Mean intensity, 0..255, of what is hit; anything else has that of masonry and leaves."""
_OTHER_REFLECTIVITY = 28.0


@dataclass(frozen=True)
class LidarConfig:
    """A spinning LiDAR.

    Attributes:
        beams: Number of beams (rings), the lowest first.
        columns: Number of azimuths per turn.
        lowest: Elevation of the lowest beam [rad].
        highest: Elevation of the highest beam [rad].
        max_range: Nothing farther is returned [m].
        noise: Standard deviation of the range [m].
        position: (3,) where the rays start, ego frame [m].
    """

    beams: int = 32
    columns: int = 720
    lowest: float = math.radians(-25.0)
    highest: float = math.radians(9.0)
    max_range: float = 90.0
    noise: float = 0.012
    position: tuple[float, float, float] = LIDAR_POSITION

    @property
    def elevations(self) -> NDArray[np.float64]:
        """Elevation of each beam [rad]; denser near the horizon, where the traffic is."""
        share = np.linspace(-1.0, 1.0, self.beams)
        bent = 0.55 * share + 0.45 * share**3
        middle = math.radians(-3.0)
        return np.where(
            bent < 0.0, middle + bent * (middle - self.lowest), middle + bent * (self.highest - middle)
        )


@kernel
def _cast(boxes, slopes, columns, position, reach):  # type: ignore[no-untyped-def]
    """Horizontal distance (beams, columns) to the first hit, inf if none, and its box (-1: the ground)."""
    beams = len(slopes)
    distance = np.full((beams, columns), np.inf)
    target = np.full((beams, columns), -1, dtype=np.int64)
    for b in range(beams):
        if slopes[b] < 0.0:
            distance[b, :] = -position[2] / slopes[b]
    step = 2.0 * math.pi / columns
    for i in range(len(boxes)):
        cos, sin = math.cos(boxes[i, 6]), math.sin(boxes[i, 6])
        half_length, half_width = boxes[i, 3] / 2.0, boxes[i, 4] / 2.0
        low, high = boxes[i, 2] - boxes[i, 5] / 2.0, boxes[i, 2] + boxes[i, 5] / 2.0
        dx, dy = boxes[i, 0] - position[0], boxes[i, 1] - position[1]
        # The sensor in the frame of the box.
        along, across = -(cos * dx + sin * dy), -(-sin * dx + cos * dy)
        if abs(along) <= half_length and abs(across) <= half_width:
            continue
        middle = math.atan2(dy, dx)
        radius = math.sqrt(half_length**2 + half_width**2)
        away = math.sqrt(dx * dx + dy * dy)
        if away - radius > reach:
            continue
        half_angle = math.asin(min(radius / away, 1.0)) if away > radius else math.pi
        first, last = (
            math.floor((middle - half_angle) / step),
            math.ceil((middle + half_angle) / step),
        )
        for unwrapped in range(first, min(last, first + columns - 1) + 1):
            angle = unwrapped * step
            ray_x, ray_y = math.cos(angle), math.sin(angle)
            u, v = cos * ray_x + sin * ray_y, -sin * ray_x + cos * ray_y
            enter, leave = 0.0, reach
            for start, slope, half in ((along, u, half_length), (across, v, half_width)):
                if abs(slope) < 1e-12:
                    if abs(start) > half:
                        leave = -1.0
                    continue
                a, b = (-half - start) / slope, (half - start) / slope
                enter, leave = max(enter, min(a, b)), min(leave, max(a, b))
            if enter > leave or enter <= 0.0:
                continue
            column = unwrapped % columns
            for beam in range(beams):
                if enter >= distance[beam, column]:
                    continue
                slope = slopes[beam]
                height = position[2] + slope * enter
                hit = enter
                if height > high:
                    hit = (high - position[2]) / slope if slope < 0.0 else np.inf
                elif height < low:
                    hit = (low - position[2]) / slope if slope > 0.0 else np.inf
                if hit <= leave and hit < distance[beam, column]:
                    distance[beam, column] = hit
                    target[beam, column] = i
    return distance, target


def scan(
    boxes: ArrayLike, kinds: Sequence[str], seed: int, config: LidarConfig | None = None
) -> NDArray[np.float32]:
    """One sweep.

    Args:
        boxes: (N, 7) x, y, z, length, width, height [m], heading [rad] in the ego frame (rear axle on the
            ground at z = 0).
        kinds: N class names; they only decide the intensity.
        seed: Range and intensity noise follow from it.
        config: The sensor; 32 beams of 720 azimuths by default.

    Returns:
        float32 (6, N): x, y, z [m] in the ego frame, intensity 0..255, ring from the lowest beam, LiDAR id 0.

    >>> ground = scan([], [], seed=1)
    >>> ground.shape[0], bool((abs(ground[2]) < 0.05).all())
    (6, True)
    """
    config = config or LidarConfig()
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
    if len(kinds) != len(array):
        raise ValueError(f"{len(array)} boxes have {len(kinds)} kinds; give one for each")
    elevations = config.elevations
    position = np.array(config.position, dtype=np.float64)
    slopes = np.tan(elevations)
    distance, target = _cast(array, slopes, config.columns, position, config.max_range)
    ranges = distance / np.cos(elevations)[:, None]
    ring, column = np.nonzero(ranges <= config.max_range)
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, 1.0, (2, config.beams, config.columns))[:, ring, column]
    # The sensor resolves its own noise to three deviations; a wild value would put ground into the air.
    measured = ranges[ring, column] + config.noise * np.clip(noise[0], -3.0, 3.0)
    angle = column * (2.0 * np.pi / config.columns)
    flat = measured * np.cos(elevations[ring])
    mean = np.array([*(_REFLECTIVITY.get(kind, _OTHER_REFLECTIVITY) for kind in kinds), _GROUND_REFLECTIVITY])
    intensity = np.clip(mean[target[ring, column]] * (1.0 + 0.15 * noise[1]), 0.0, 255.0)
    return np.stack(
        [
            position[0] + flat * np.cos(angle),
            position[1] + flat * np.sin(angle),
            position[2] + measured * np.sin(elevations[ring]),
            np.round(intensity),
            ring,
            np.zeros(len(ring)),
        ]
    ).astype(np.float32)
