"""Daylight of a log: sun, sky and haze, and numbers drawn from names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.digests import number_of

Color = tuple[float, float, float]

NOISE_SIZE = 256
"""Side of the tile of ground noise; a power of two."""


@dataclass(frozen=True)
class _Weather:
    """Look of the sky; colours are RGB in 0..255."""

    zenith: Color
    horizon: Color
    cloud: Color
    cloud_share: float
    sun_strength: float
    sun_elevation: float
    haze_reach: float


_WEATHERS = (
    _Weather((74, 124, 190), (198, 213, 226), (246, 247, 250), 0.35, 0.46, 0.95, 260.0),
    _Weather((92, 138, 192), (224, 213, 196), (252, 240, 226), 0.45, 0.50, 0.45, 220.0),
    _Weather((150, 161, 173), (206, 210, 213), (188, 193, 199), 0.95, 0.16, 1.1, 170.0),
    _Weather((98, 134, 172), (208, 214, 218), (228, 230, 233), 0.7, 0.32, 0.8, 200.0),
)


@dataclass(frozen=True)
class Daylight:
    """What the sky gives to a picture.

    Attributes:
        sun: (3,) vector towards the sun in the global frame, its length the strength of direct light.
        haze: (3,) colour that far things fade to.
        haze_reach: Distance at which haze is half of what it can be [m].
        panorama: uint8 (rows, columns, 3) sky over tan(elevation) 0..0.7 and azimuth -pi..pi.
        noise: (256, 256) ground grain in [-1, 1].
    """

    sun: NDArray[np.float64]
    haze: NDArray[np.float64]
    haze_reach: float
    panorama: NDArray[np.uint8]
    noise: NDArray[np.float64]


def _smooth_noise(rng: np.random.Generator, rows: int, columns: int, cells: int) -> NDArray[np.float64]:
    """Values in [-1, 1] that vary over ``columns / cells`` pixels and join at the left and right border."""
    coarse = rng.uniform(-1.0, 1.0, (max(rows * cells // columns, 2) + 1, cells))
    wrapped = np.concatenate([coarse, coarse[:, :2]], axis=1)
    wide = cv2.resize(wrapped, (columns + 2 * columns // cells, rows), interpolation=cv2.INTER_CUBIC)
    start = columns // (2 * cells)
    return np.asarray(wide[:, start : start + columns], dtype=np.float64)


@lru_cache(maxsize=1)
def _ground_noise() -> NDArray[np.float64]:
    noise = np.random.default_rng(7).uniform(-1.0, 1.0, (NOISE_SIZE, NOISE_SIZE))
    blurred = cv2.blur(noise, (3, 3), borderType=cv2.BORDER_REFLECT)
    return np.clip(0.45 * noise + 1.1 * blurred, -1.0, 1.0)


def daylight(*seed: object) -> Daylight:
    """The daylight that belongs to a seed, for example (seed, log name)."""
    rng = np.random.default_rng(number_of("daylight", *seed))
    weather = _WEATHERS[int(rng.integers(len(_WEATHERS)))]
    azimuth = rng.uniform(-np.pi, np.pi)
    flat = np.cos(weather.sun_elevation)
    sun = np.array([np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(weather.sun_elevation)])

    rows, columns = 128, 1024
    slope = (np.arange(rows) + 0.5)[:, None, None] / rows * 0.7
    height = slope / (slope + 0.28)
    sky = np.array(weather.horizon) * (1.0 - height) + np.array(weather.zenith) * height
    clouds = sum(
        (
            _smooth_noise(rng, rows, columns, cells) * gain
            for cells, gain in ((14, 0.6), (37, 0.4), (90, 0.22))
        ),
        start=np.zeros((rows, columns)),
    )
    cover = np.clip((clouds - 0.55 + weather.cloud_share) * 1.5, 0.0, 0.9)[..., None]
    cover = cover * np.clip(slope * 9.0, 0.0, 1.0)
    sky = sky * (1.0 - cover) + np.array(weather.cloud) * cover
    # A far line of trees and roofs: without it the world would end in a knife edge.
    skyline = (
        0.018
        + 0.014 * _smooth_noise(rng, 2, columns, 60)[:1]
        + 0.010 * _smooth_noise(rng, 2, columns, 170)[:1]
    )
    far = np.clip((np.abs(skyline).T[None, :, :] - slope) * 180.0, 0.0, 1.0) * 0.5
    sky = sky * (1.0 - far) + np.array((112.0, 124.0, 128.0)) * far
    panorama = np.clip(sky.reshape(rows, columns, 3) + 0.5, 0, 255).astype(np.uint8)

    return Daylight(
        sun * weather.sun_strength,
        np.array(weather.horizon, dtype=np.float64),
        weather.haze_reach,
        panorama,
        _ground_noise(),
    )
