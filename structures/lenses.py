"""How cameras project: rays in camera axes (x right, y down, z ahead) to pixels and back.

Pixels are continuous: pixel i covers the interval [i, i + 1), so that scaling an image scales its intrinsics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.errors import BeyondDriveError

Floats = NDArray[np.float64]
AnyFloats = NDArray[Any]

_UNDISTORT_STEPS = 50
"""Of the fixed-point iteration that takes a distortion back."""
_ANGLES = 1001
"""So many angles are looked at for where an f-theta lens folds back."""


def distorted(
    x: AnyFloats, y: AnyFloats, distortion: Sequence[float] | AnyFloats
) -> tuple[AnyFloats, AnyFloats]:
    """Where a lens shows what a pinhole would show at x, y.

    Args:
        x: (...) at depth 1, to the right.
        y: (...) at depth 1, down.
        distortion: OpenCV's k1, k2, p1, p2, k3; as an array, of the type of ``x`` and ``y``.

    >>> [float(value) for value in distorted(np.array(0.5), np.array(0.0), (0.4, 0.0, 0.0, 0.0, 0.0))]
    [0.55, 0.0]
    """
    k1, k2, p1, p2, k3 = distortion
    square = x * x + y * y
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    return (
        x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
        y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
    )


def square_limit(distortion: Sequence[float] | AnyFloats) -> float:
    """Squared radius (at depth 1) beyond which the polynomial folds the world back into the image.

    Infinite for a lens without distortion; ``distortion`` as for :func:`distorted`, in double precision.

    >>> square_limit((-1.0, 0.0, 0.0, 0.0, 0.0))
    0.3333333333333333
    """
    k1, k2, _, _, k3 = distortion
    roots = np.roots([7.0 * k3, 5.0 * k2, 3.0 * k1, 1.0])
    real = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0.0)]
    return float(real.min()) if len(real) else float("inf")


class LensError(BeyondDriveError, ValueError):
    """Numbers that no lens has; the message names them."""


class Lens(Protocol):
    """What projects."""

    @property
    def key(self) -> tuple[object, ...]:
        """The same for lenses that project alike."""

    @property
    def focal(self) -> float:
        """Pixels per radian near the axis."""

    def project(self, rays: Floats) -> Floats:
        """Rays (..., 3) of any length -> pixels (..., 2) u, v; NaN where the lens does not see."""

    def scaled(self, x: float, y: float) -> Lens:
        """The lens of an image that has been resized by these factors."""


@dataclass(frozen=True)
class Pinhole:
    """A pinhole with the distortion of OpenCV's five numbers.

    Attributes:
        fx, fy: Focal lengths [px].
        cx, cy: Principal point [px].
        distortion: k1, k2, p1, p2, k3.

    >>> Pinhole(100.0, 100.0, 50.0, 40.0).project(np.array([0.5, 0.0, 1.0])).tolist()
    [100.0, 40.0]
    """

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = (0.0,) * 5

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if len(self.distortion) != 5 or not np.isfinite(numbers).all() or min(self.fx, self.fy) <= 0:
            raise LensError(
                f"a pinhole needs positive focal lengths and five finite numbers of distortion, got fx, fy, "
                f"cx, cy, k1, k2, p1, p2, k3 = {numbers}"
            )

    @classmethod
    def of_fields_of_view(
        cls, width: int, height: int, fovx: float, fovy: float, cx: float, cy: float
    ) -> Pinhole:
        """By its fields of view [rad].

        Args:
            width: Of the image [px].
            height: Likewise.
            fovx: Across, between 0 and pi [rad].
            fovy: Up and down, likewise.
            cx: Principal point [px].
            cy: Likewise.

        Raises:
            LensError: If a field of view is out of range, or a number is not finite.
        """
        for name, value in (("fovx", fovx), ("fovy", fovy)):
            if not 0 < value < np.pi:
                raise LensError(f"{name}: must be between 0 and pi, got {value}")
        return cls(width / (2 * np.tan(fovx / 2)), height / (2 * np.tan(fovy / 2)), cx, cy)

    @property
    def focal(self) -> float:
        """Pixels per radian near the axis."""
        return float(np.sqrt(self.fx * self.fy))

    @property
    def key(self) -> tuple[object, ...]:
        """All numbers."""
        return ("pinhole", self.fx, self.fy, self.cx, self.cy, *self.distortion)

    def scaled(self, x: float, y: float) -> Pinhole:
        """The lens of an image resized by these factors."""
        return Pinhole(self.fx * x, self.fy * y, self.cx * x, self.cy * y, self.distortion)

    def project(self, rays: Floats) -> Floats:
        """Rays (..., 3) -> pixels (..., 2); NaN behind the camera and where the distortion folds back."""
        rays = np.asarray(rays, np.float64)
        depth = np.where(rays[..., 2] > 1e-6, rays[..., 2], np.nan)
        x, y = rays[..., 0] / depth, rays[..., 1] / depth
        with np.errstate(invalid="ignore"):
            folded = x * x + y * y > self._square_limit
        x, y = distorted(x, y, self.distortion)
        pixels = np.stack([self.fx * x + self.cx, self.fy * y + self.cy], axis=-1)
        pixels[folded] = np.nan
        return pixels

    def rays(self, pixels: Floats) -> Floats:
        """Pixels (..., 2) -> rays (..., 3) at depth 1."""
        shown_x = (pixels[..., 0] - self.cx) / self.fx
        shown_y = (pixels[..., 1] - self.cy) / self.fy
        x, y = shown_x.copy(), shown_y.copy()
        for _ in range(_UNDISTORT_STEPS if any(self.distortion) else 0):
            there = distorted(x, y, self.distortion)
            x, y = x + shown_x - there[0], y + shown_y - there[1]
        return np.stack([x, y, np.ones_like(x)], axis=-1)

    @cached_property
    def _square_limit(self) -> float:
        """Squared radius beyond which the polynomial folds the world back into the image."""
        return square_limit(self.distortion)


@dataclass(frozen=True)
class FTheta:
    """A lens whose radius in the image is a polynomial of the angle to its axis (ALPASIM, section 4).

    Attributes:
        cx, cy: Principal point [px].
        angle_to_radius: Coefficients, ascending: radius [px] of an angle [rad].
        max_angle: Rays farther from the axis than this are not seen [rad], nor those beyond where the radius
            grows: the polynomial folds the world back into the image there.
        linear: c, d, e of the matrix ((c, d), (e, 1)) that the image coordinates are multiplied by.
        scale: Factors by which the image has been resized since.

    >>> FTheta(50.0, 50.0, (0.0, 100.0), 1.0).project(np.array([1.0, 0.0, 1.0])).round(3).tolist()
    [128.54, 50.0]
    """

    cx: float
    cy: float
    angle_to_radius: tuple[float, ...]
    max_angle: float
    linear: tuple[float, float, float] = (1.0, 0.0, 0.0)
    scale: tuple[float, float] = field(default=(1.0, 1.0))

    def __post_init__(self) -> None:
        numbers = (self.cx, self.cy, *self.angle_to_radius, self.max_angle, *self.linear)
        if not self.angle_to_radius or not np.isfinite(numbers).all() or not 0 < self.max_angle <= np.pi:
            raise LensError(f"an f-theta lens needs a polynomial and a largest angle, got {self!r}")

    @property
    def focal(self) -> float:
        """Pixels per radian near the axis."""
        slope = self.angle_to_radius[1] if len(self.angle_to_radius) > 1 else 0.0
        return float(abs(slope) * np.sqrt(self.scale[0] * self.scale[1]))

    @property
    def key(self) -> tuple[object, ...]:
        """All numbers."""
        return (
            "f-theta",
            self.cx,
            self.cy,
            *self.angle_to_radius,
            self.max_angle,
            *self.linear,
            *self.scale,
        )

    def scaled(self, x: float, y: float) -> FTheta:
        """The lens of an image resized by these factors."""
        scale = (self.scale[0] * x, self.scale[1] * y)
        return FTheta(self.cx, self.cy, self.angle_to_radius, self.max_angle, self.linear, scale)

    def project(self, rays: Floats) -> Floats:
        """Rays (..., 3) -> pixels (..., 2); NaN beyond the largest angle and where the radius falls."""
        rays = np.asarray(rays, np.float64)
        x, y, z = np.moveaxis(rays, -1, 0)
        across = np.hypot(x, y)
        angle = np.arctan2(across, z)
        radius = np.polynomial.polynomial.polyval(angle, self.angle_to_radius)
        share = np.divide(radius, across, out=np.zeros_like(across), where=across > 1e-12)
        c, d, e = self.linear
        u = self.cx + (c * x + d * y) * share
        v = self.cy + (e * x + y) * share
        pixels = np.stack([u * self.scale[0], v * self.scale[1]], axis=-1)
        pixels[angle > self._angle_limit] = np.nan
        return pixels

    @cached_property
    def _angle_limit(self) -> float:
        """Up to here the radius grows with the angle, or up to the largest one."""
        angles = np.linspace(0.0, self.max_angle, _ANGLES)
        slope = np.polynomial.polynomial.polyder(self.angle_to_radius)
        falls = np.polynomial.polynomial.polyval(angles, slope) < 0
        return float(angles[falls.argmax()]) if falls.any() else self.max_angle
