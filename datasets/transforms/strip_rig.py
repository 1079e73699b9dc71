"""The strip of three front cameras from images of any rig, by its calibration.

A planner is trained on images of one rig. Another rig's images are brought to it direction by direction, as
if everything were far away: for each pixel of the strip the ray that it shows in training, and where that ray
falls in the images that there are. A ray that no camera sees is taken from the nearest edge.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from beyonddrive.datasets.transforms.camera_rig import CROP_COLUMNS, CROP_ROWS
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.frame import CameraView
from beyonddrive.structures.lenses import Pinhole

CAMERAS = ("CAM_L0", "CAM_F0", "CAM_R0")
"""From left to right."""
SIZE = (1920, 1080)
"""Width and height of the images of a rig that planners are trained on [px]."""
PANELS = ("left", "front", "right")
MIN_COVERAGE = 0.5
"""Less of a panel than this, and the strip is refused."""
_RELEASED = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT")
_SAME_TURN = np.radians(2.5)
"""Cameras that look as near to a rig's as this are that rig's: cars of one fleet differ by as much."""
_SAME_LENS = 0.02
_EDGE = 0.3
"""Edges are continued by at most this share of an image."""
_SHARPNESS = 4.0
"""Images of training have this many pixels for one of the strip; finer ones are averaged first."""
_WORTH = 0.01
"""A camera that adds less than this share of a panel is left out."""
_KEPT = 32
_T = TypeVar("_T")


class StripError(BeyondDriveError, ValueError):
    """No strip can be made from the cameras of a frame.

    Attributes:
        kind: ``camera_missing`` or ``camera_black``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Part(NamedTuple):
    """What one camera gives to a strip."""

    name: str
    image_size: tuple[int, int]
    rows: slice
    columns: slice
    maps: tuple[NDArray[np.int16], NDArray[np.uint16]]
    owned: NDArray[np.bool_] | None
    """Pixels of the part that are this camera's; None for all."""


class _Sampling(NamedTuple):
    parts: list[_Part]
    coverage: tuple[float, float, float]


@dataclass(eq=False)
class StripRig:
    """The rig of the images that a planner was trained on.

    Attributes:
        name: For reports.
        lens: Of all three cameras, for images of :data:`SIZE`.
        rotations: (3, 3, 3) from camera axes to the ego frame: left, front, right.
        as_released: Take images as the published LTF client for HUGSIM does: stretched to :data:`SIZE`,
            whatever their calibration (HUGSIM, section 7).
    """

    name: str
    lens: Pinhole
    rotations: NDArray[np.float64]
    as_released: bool = False
    _samplings: dict[object, _Sampling] = field(default_factory=dict, init=False, repr=False)
    _natives: dict[object, bool] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def strip(self, cameras: Mapping[str, CameraView], size: tuple[int, int]) -> NDArray[np.uint8]:
        """The strip: uint8 (3, H, W).

        Args:
            cameras: By name; images of this very rig, named as in :data:`CAMERAS`, are stitched as they are.
            size: (H, W) [px].

        Raises:
            StripError: If a camera that is needed is missing or all black.
        """
        if self.as_released:
            return self._released(cameras, size)
        if self.is_native(cameras):
            views = [cameras[name] for name in CAMERAS]
            for name, view in zip(CAMERAS, views, strict=True):
                _check_not_black(name, view)
            return stitch(views[0].image, views[1].image, views[2].image, size)
        # (HUGSIM has no images of some scenes' rear cameras, which a strip does not need)
        black = [name for name, view in cameras.items() if _is_black(view)]
        sampling = self._sampling({name: cameras[name] for name in cameras if name not in black}, size)
        self._check_coverage(cameras, sampling.coverage, black)
        strip = np.zeros((*size, 3), np.uint8)
        for part in sampling.parts:
            image = cameras[part.name].image
            if (image.shape[1], image.shape[0]) != part.image_size:
                image = np.asarray(cv2.resize(image, part.image_size, interpolation=cv2.INTER_AREA), np.uint8)
            shown = cv2.remap(image, *part.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            window = strip[part.rows, part.columns]
            if part.owned is None:
                window[:] = shown
            else:
                np.copyto(window, shown, where=part.owned[..., None])
        return np.ascontiguousarray(np.moveaxis(strip, -1, 0))

    def pixels_per_radian(self, width: int) -> float:
        """How fine a strip of this width is near the axis of its cameras."""
        return self.lens.focal * width / _strip_size()[0]

    def needed(self, cameras: Mapping[str, CameraView]) -> tuple[str, ...]:
        """Names of the cameras whose images a strip is made from; of the images only the sizes are looked at.

        Raises:
            StripError: If the cameras show too little of what the rig shows.
        """
        if self.is_native(cameras):
            return CAMERAS
        sampling = self._sampling(cameras, (64, 256))
        self._check_coverage(cameras, sampling.coverage)
        return tuple(part.name for part in sampling.parts)

    def coverage(self, cameras: Mapping[str, CameraView]) -> tuple[float, float, float]:
        """Shares of the left, front and right panel that the cameras show."""
        if self.as_released or self.is_native(cameras):
            return (1.0, 1.0, 1.0)
        return self._sampling(cameras, (64, 256)).coverage

    def is_native(self, cameras: Mapping[str, CameraView]) -> bool:
        """Whether the cameras are those of this rig, by name, lens and direction."""
        if any(name not in cameras for name in CAMERAS):
            return False
        own = {name: cameras[name] for name in CAMERAS}
        return self._kept(self._natives, _calibration(own), lambda: self._are_native(list(own.values())))

    def _are_native(self, views: Sequence[CameraView]) -> bool:
        if len({view.image.shape for view in views}) != 1:
            return False
        height, width = views[0].image.shape[:2]
        wanted = self.lens.scaled(width / SIZE[0], height / SIZE[1])
        for view, rotation in zip(views, self.rotations, strict=True):
            lens = view.lens
            if not isinstance(lens, Pinhole):
                return False
            off = np.abs(np.subtract((lens.fx, lens.cx), (wanted.fx, wanted.cx))).max() / wanted.fx
            off = max(off, np.abs(np.subtract((lens.fy, lens.cy), (wanted.fy, wanted.cy))).max() / wanted.fy)
            turn = Rotation.from_matrix(rotation.T @ view.rotation).magnitude()
            if off > _SAME_LENS or turn > _SAME_TURN:
                return False
        return True

    def _check_coverage(
        self, cameras: Mapping[str, CameraView], coverage: tuple[float, ...], black: Sequence[str] = ()
    ) -> None:
        worst = int(np.argmin(coverage))
        if coverage[worst] >= MIN_COVERAGE:
            return
        without = f", with {', '.join(black)} all black," if black else ""
        raise StripError(
            "camera_black" if black else "camera_missing",
            f"the cameras {', '.join(sorted(cameras)) or '(none)'}{without} show {coverage[worst]:.0%} of "
            f"what the {PANELS[worst]} camera of rig {self.name!r} shows: one is missing, or looks elsewhere",
        )

    def _released(self, cameras: Mapping[str, CameraView], size: tuple[int, int]) -> NDArray[np.uint8]:
        images = []
        for ours, theirs in zip(CAMERAS, _RELEASED, strict=True):
            name = next((name for name in (theirs, ours) if name in cameras), None)
            if name is None:
                raise StripError(
                    "camera_missing", f"there is no camera {theirs}; there are {sorted(cameras)}"
                )
            _check_not_black(name, cameras[name])
            images.append(cv2.resize(cameras[name].image, SIZE, interpolation=cv2.INTER_LINEAR))
        left, front, right = (np.asarray(image, np.uint8) for image in images)
        return stitch(left, front, right, size)

    def _sampling(self, cameras: Mapping[str, CameraView], size: tuple[int, int]) -> _Sampling:
        return self._kept(
            self._samplings, (size, _calibration(cameras)), lambda: self._compute(cameras, size)
        )

    def _kept(self, store: dict[object, _T], key: object, make: Callable[[], _T]) -> _T:
        """What follows from a calibration is found once for it."""
        with self._lock:
            if key not in store:
                while len(store) >= _KEPT:
                    del store[next(iter(store))]
                store[key] = make()
            return store[key]

    def _compute(self, cameras: Mapping[str, CameraView], size: tuple[int, int]) -> _Sampling:
        rays, panels = self._rays(size)
        finest = _SHARPNESS * self.pixels_per_radian(size[1])
        pixels, sizes, inside = {}, {}, {}
        for name, view in cameras.items():
            height, width = view.image.shape[:2]
            ratio = max(view.lens.focal / finest, 1.0)
            small = (round(width / ratio), round(height / ratio)) if ratio > 1.25 else (width, height)
            lens = view.lens.scaled(small[0] / width, small[1] / height)
            # (a pixel far away does no harm, and its number stays within what OpenCV takes)
            found = np.clip(lens.project(rays @ view.rotation), -4.0 * max(small), 5.0 * max(small))
            pixels[name], sizes[name] = found, small
            with np.errstate(invalid="ignore"):
                inside[name] = np.asarray(((found >= 0) & (found < small)).all(axis=-1), bool)
        owner = np.full(size, -1)
        names = list(cameras)
        coverage = []
        for panel in range(3):
            here = panels == panel
            shares = [float(inside[name][here].mean()) for name in names]
            order = sorted(range(len(names)), key=lambda index: -shares[index])
            for index in order:
                new = here & (owner < 0) & inside[names[index]]
                # (a camera is not decoded for a few pixels at an edge)
                if new.sum() >= _WORTH * here.sum():
                    owner[new] = index
            coverage.append(float((owner[here] >= 0).mean()))
            for index in order[:1] if order and shares[order[0]] > 0 else ():
                where, extent = pixels[names[index]], np.array(sizes[names[index]])
                with np.errstate(invalid="ignore"):
                    near = ((where > -_EDGE * extent) & (where < (1 + _EDGE) * extent)).all(axis=-1)
                owner[here & (owner < 0) & near] = index
        parts = []
        for index, name in enumerate(names):
            mine = owner == index
            if not mine.any():
                continue
            rows, columns = (_span(mine.any(axis=axis)) for axis in (1, 0))
            # (OpenCV counts from the centre of the first pixel)
            table = np.nan_to_num(pixels[name][rows, columns], nan=-1e4).astype(np.float32) - np.float32(0.5)
            maps = cv2.convertMaps(table[..., 0], table[..., 1], cv2.CV_16SC2)
            owned = None if mine[rows, columns].all() else mine[rows, columns]
            parts.append(_Part(name, sizes[name], rows, columns, maps, owned))  # type: ignore[arg-type]
        return _Sampling(parts, (coverage[0], coverage[1], coverage[2]))

    def _rays(self, size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Directions (H, W, 3) in the ego frame that a strip shows, and to which panel its pixels belong."""
        width, height = _strip_size()
        rows, columns = round(CROP_ROWS * SIZE[1]), round(CROP_COLUMNS * SIZE[0])
        outer = SIZE[0] - 2 * columns
        x = (np.arange(size[1]) + 0.5) * width / size[1]
        y = (np.arange(size[0]) + 0.5) * height / size[0] + rows
        panel = np.searchsorted([outer, outer + SIZE[0]], x, side="right")
        x = x - np.array([-columns, outer, outer + SIZE[0] - columns])[panel]
        grid = np.stack(np.meshgrid(x, y), axis=-1)
        rays = np.einsum("wij,hwj->hwi", self.rotations[panel], self.lens.rays(grid))
        return rays, np.broadcast_to(panel, size)


def stitch(
    left: NDArray[np.uint8], front: NDArray[np.uint8], right: NDArray[np.uint8], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Crop three (h, w, 3) images, put them side by side and resize: uint8 (3, H, W).

    >>> image = np.zeros((1080, 1920, 3), np.uint8)
    >>> stitch(image, image, image, (256, 1024)).shape
    (3, 256, 1024)
    """
    height, width = front.shape[:2]
    rows, columns = round(CROP_ROWS * height), round(CROP_COLUMNS * width)
    outer = (slice(rows, height - rows), slice(columns, width - columns))
    strip = np.concatenate([left[outer], front[rows : height - rows], right[outer]], axis=1)
    resized = cv2.resize(strip, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.moveaxis(resized, -1, 0), dtype=np.uint8)


def _calibration(cameras: Mapping[str, CameraView]) -> tuple[object, ...]:
    return tuple(
        (name, view.image.shape[:2], view.lens.key, view.rotation.tobytes())
        for name, view in sorted(cameras.items())
    )


def _strip_size() -> tuple[int, int]:
    """Width and height of a strip before it is resized [px]."""
    rows, columns = round(CROP_ROWS * SIZE[1]), round(CROP_COLUMNS * SIZE[0])
    return 3 * SIZE[0] - 4 * columns, SIZE[1] - 2 * rows


def _span(flags: NDArray[np.bool_]) -> slice:
    found = np.flatnonzero(flags)
    return slice(int(found[0]), int(found[-1]) + 1)


def _is_black(view: CameraView) -> bool:
    # (every sixteenth row is looked at, then all of it: no night is that dark)
    return not view.image[::16].any() and not view.image.any()


def _check_not_black(name: str, view: CameraView) -> None:
    if _is_black(view):
        raise StripError("camera_black", f"the image of {name} is all black: the simulator did not render it")


def _optical(yaw: float) -> NDArray[np.float64]:
    """Axes of a level camera that looks to ``yaw`` [rad], as columns in the ego frame."""
    right, down = (np.sin(yaw), -np.cos(yaw), 0.0), (0.0, 0.0, -1.0)
    return np.array([right, down, (np.cos(yaw), np.sin(yaw), 0.0)]).T


def navsim_rig(as_released: bool = False) -> StripRig:
    """NAVSIM's rig: a typical car of nuPlan, lenses as they distort (ALPASIM, section 4)."""
    turns = [
        (0.679354, -0.207915, 0.215233, -0.670018),
        (0.509222, -0.503331, 0.495086, -0.492180),
        (0.205424, -0.674057, 0.676355, -0.214458),
    ]
    distortion = (-0.356123, 0.172545, -0.002130, 0.000464, -0.052310)
    lens = Pinhole(1545.0, 1545.0, 960.0, 560.0, distortion)
    return StripRig("navsim", lens, Rotation.from_quat(turns).as_matrix(), as_released)


def synth_rig(as_released: bool = False) -> StripRig:
    """The rig of the generated world: level cameras, 55 degrees apart, without distortion."""
    turns = np.stack([_optical(np.radians(yaw)) for yaw in (55.0, 0.0, -55.0)])
    return StripRig("synth", Pinhole(1545.0, 1545.0, 960.0, 560.0), turns, as_released)


RIGS = {"navsim": navsim_rig, "synth": synth_rig}
"""Rigs by name."""
