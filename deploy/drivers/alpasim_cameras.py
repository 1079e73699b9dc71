"""The cameras that an AlpaSim runtime declares, and their images (ALPASIM, sections 1, 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from beyonddrive.datasets.navsim.image_files import image_damage, image_size
from beyonddrive.deploy.drivers.frame_inputs import FrameError
from beyonddrive.structures.frame import CameraView
from beyonddrive.structures.lenses import FTheta, Lens, LensError, Pinhole

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_MOST_PIXELS = 2**26
"""Of an image: a few kilobytes of PNG may unfold into gigabytes, while other sessions need the memory."""
_DEGREE = 7
"""Of the polynomial that a table of a lens is fitted by."""


@dataclass(frozen=True, eq=False)
class DeclaredCamera:
    """A camera as a session declares it.

    Attributes:
        lens: For images of the declared size.
        size: (width, height), declared; (0, 0) if it is not.
        rotation: (3, 3) from camera axes to the rig.
        translation: (3,) in the rig [m].
        reduction: Images are decoded at 1, 1/2, 1/4 or 1/8 of their size.
    """

    lens: Lens
    size: tuple[int, int]
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    reduction: int = 1

    def view_of(self, content: bytes) -> CameraView:
        """An image that was sent, with the lens of its size.

        Raises:
            FrameError: If it is empty, half, damaged, or no image.
        """
        image = decoded_image(content, self.reduction)
        height, width = image.shape[:2]
        # (what is declared need not be what is rendered)
        scale = (
            (width / self.size[0], height / self.size[1]) if min(self.size) > 0 else (1 / self.reduction,) * 2
        )
        return CameraView(image, self.lens.scaled(*scale), self.rotation, self.translation)

    def unseen(self) -> CameraView:
        """A view without an image, of the declared size."""
        width, height = self.size if min(self.size) > 0 else (1920, 1080)
        blank = np.broadcast_to(np.zeros(1, np.uint8), (height, width, 3))
        return CameraView(blank, self.lens, self.rotation, self.translation)


def declared_cameras(available: Mapping[str, Any]) -> tuple[dict[str, DeclaredCamera], dict[str, str]]:
    """The cameras of a session by name, and why others are none.

    Args:
        available: ``AvailableCamera`` messages by name.
    """
    cameras, problems = {}, {}
    for name, message in available.items():
        quaternion = np.array([getattr(message.rig_to_camera.quat, axis) for axis in "xyzw"], np.float64)
        place = np.array([getattr(message.rig_to_camera.vec, axis) for axis in "xyz"], np.float64)
        if not np.isfinite([*place, *quaternion]).all():
            problems[name] = "its place in the rig is not finite"
            continue
        turned = quaternion / max(float(np.abs(quaternion).max()), 1e-12)
        # (what the renderer of the nuPlan track declares of a scene without cameras)
        if not place.any() and not turned[:3].any():
            problems[name] = "is a placeholder without a mount"
            continue
        try:
            lens = _lens(message.intrinsics)
            turn = Rotation.from_quat(quaternion)
        except (LensError, ValueError, ArithmeticError) as error:
            problems[name] = str(error)
            continue
        spec = message.intrinsics
        size = (int(spec.resolution_w), int(spec.resolution_h))
        if size[0] * size[1] > _MOST_PIXELS:
            problems[name] = f"declares {size[0]} x {size[1]} pixels"
            continue
        cameras[name] = DeclaredCamera(lens, size, turn.as_matrix(), place)
    return cameras, problems


def decoded_image(content: bytes, reduction: int = 1) -> NDArray[np.uint8]:
    """A JPEG or PNG, at 1, 1/2, 1/4 or 1/8 of its size: uint8 (H, W, 3) RGB.

    Raises:
        FrameError: If it is empty, half, damaged, or no image, or has more than :data:`_MOST_PIXELS` pixels.
    """
    image, (width, height) = None, image_size(content)
    if width * height > _MOST_PIXELS:
        raise FrameError(
            f"an image of {len(content)} bytes has {width} x {height} pixels, {_MOST_PIXELS} are allowed"
        )
    if width and not image_damage(content):
        try:
            image = cv2.imdecode(
                np.frombuffer(content, np.uint8), _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
            )
        except cv2.error:
            image = None
    if image is None:
        raise FrameError(
            f"an image of {len(content)} bytes cannot be decoded: it is empty, half, damaged or no image"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def reduction_of(lens: Lens, finest: float) -> int:
    """By how much images may be reduced so that they stay as fine as ``finest`` pixels per radian.

    >>> reduction_of(Pinhole(1545.0, 1545.0, 960.0, 560.0), 386.0)
    4
    """
    return max(by for by in _REDUCED if by == 1 or lens.focal / by >= 0.99 * finest)


def _lens(spec: Any) -> Lens:
    kind = spec.WhichOneof("camera_param")
    if spec.WhichOneof("external_distortion") is not None:
        raise LensError("a windshield in front of a camera is not understood")
    if kind == "opencv_pinhole_param":
        return _pinhole(spec.opencv_pinhole_param)
    if kind == "opencv_fisheye_param":
        return _fisheye(spec.opencv_fisheye_param)
    if kind == "ftheta_param":
        return _ftheta(spec.ftheta_param)
    raise LensError("declares no lens")


def _pinhole(lens: Any) -> Pinhole:
    radial = [*lens.radial_coeffs, *([0.0] * (6 - len(lens.radial_coeffs)))]
    tangential = [*lens.tangential_coeffs, 0.0, 0.0]
    if any(radial[3:]) or any(lens.thin_prism_coeffs):
        raise LensError("k4, k5, k6 and thin prisms of a pinhole are not understood")
    distortion = (radial[0], radial[1], tangential[0], tangential[1], radial[2])
    return Pinhole(
        lens.focal_length_x, lens.focal_length_y, lens.principal_point_x, lens.principal_point_y, distortion
    )


def _fisheye(lens: Any) -> FTheta:
    fx, fy = lens.focal_length_x, lens.focal_length_y
    if min(fx, fy) <= 0:
        raise LensError(f"a fisheye needs positive focal lengths, got {fx}, {fy}")
    odd = [1.0, *lens.radial_coeffs]
    powers = [value for pair in zip([0.0] * len(odd), odd, strict=True) for value in pair]
    polynomial = tuple(fy * value for value in powers)
    largest = lens.max_angle or np.pi / 2
    return FTheta(lens.principal_point_x, lens.principal_point_y, polynomial, largest, (fx / fy, 0.0, 0.0))


def _ftheta(lens: Any) -> FTheta:
    polynomial = tuple(lens.angle_to_pixeldist_poly)
    if not polynomial:
        polynomial = _inverted(tuple(lens.pixeldist_to_angle_poly), lens.max_angle)
    linear = (1.0, 0.0, 0.0)
    if lens.HasField("linear_cde"):
        cde = lens.linear_cde
        linear = (cde.linear_c, cde.linear_d, cde.linear_e)
    # (there the middle of the first pixel is 0, here it is a half)
    return FTheta(
        lens.principal_point_x + 0.5, lens.principal_point_y + 0.5, polynomial, lens.max_angle, linear
    )


def _inverted(to_angle: tuple[float, ...], max_angle: float) -> tuple[float, ...]:
    """Angle to pixels, of a lens that declares pixels to angle."""
    if not to_angle or not 0 < max_angle <= np.pi:
        raise LensError("an f-theta lens needs a polynomial and a largest angle")
    radii = np.linspace(0.0, 4000.0, 4001)
    angles = np.polynomial.polynomial.polyval(radii, to_angle)
    end = int(np.argmax(angles > max_angle)) or len(radii)
    end = min(end, int(np.argmax(np.diff(angles) <= 0)) or end)
    if end < _DEGREE + 2:
        raise LensError("the polynomial of an f-theta lens does not grow")
    fitted = np.polynomial.Polynomial.fit(angles[: end + 1], radii[: end + 1], _DEGREE).convert()
    return tuple(float(value) for value in fitted.coef)
