"""A strip shows the same directions whatever rig the images are from."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from beyonddrive.datasets.transforms.strip_rig import CAMERAS, SIZE, StripError, navsim_rig, stitch, synth_rig
from beyonddrive.structures.frame import CameraView
from beyonddrive.structures.lenses import FTheta, Pinhole

SMALL = (64, 256)


def seen(rays):
    """Colours (..., 3) of a world at infinity, which change slowly with the direction."""
    x, y, z = np.moveaxis(rays / np.linalg.norm(rays, axis=-1, keepdims=True), -1, 0)
    return np.stack(
        [128 + 100 * np.sin(3 * y), 128 + 100 * np.sin(6 * z), 128 + 100 * np.cos(2 * x + y)], axis=-1
    )


def turn(yaw, pitch=0.0):
    yaw, pitch = np.radians([yaw, pitch])
    ahead = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    return np.array([right, np.cross(ahead, right), ahead]).T


def photo(lens, rotation, size):
    """What a camera sees of that world; for a pinhole only, whose rays are known."""
    pixels = np.stack(np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5), axis=-1)
    image = seen(lens.rays(pixels) @ rotation.T)
    return CameraView(image.round().astype(np.uint8), lens, rotation, np.array([1.5, 0.0, 1.5]))


def native(rig, scale=0.25):
    size = (round(SIZE[0] * scale), round(SIZE[1] * scale))
    lens = rig.lens.scaled(scale, scale)
    return {name: photo(lens, r, size) for name, r in zip(CAMERAS, rig.rotations, strict=True)}


def expected(rig):
    views = native(rig)
    return stitch(*(views[name].image for name in CAMERAS), SMALL)


def wide(yaw, pitch=0.0):
    lens = Pinhole.of_fields_of_view(400, 240, np.radians(75), np.radians(55), 205.0, 118.0)
    return photo(lens, turn(yaw, pitch), (400, 240))


@pytest.mark.parametrize("rig", [synth_rig(), navsim_rig()], ids=lambda rig: rig.name)
def test_images_of_the_rig_are_stitched_as_in_training(rig):
    views = native(rig)
    assert rig.is_native(views)
    assert np.array_equal(rig.strip(views, SMALL), expected(rig))
    # (a car of the fleet, whose cameras are mounted a little otherwise)
    tilted = {
        name: replace(view, rotation=view.rotation @ turn(1.0) @ turn(0.0).T) for name, view in views.items()
    }
    assert not rig.is_native({**views, "CAM_F0": replace(views["CAM_F0"], rotation=turn(3.0))})
    assert rig.is_native(views | {"CAM_B0": views["CAM_F0"]}) and tilted


@pytest.mark.parametrize("rig", [synth_rig(), navsim_rig()], ids=lambda rig: rig.name)
def test_other_cameras_show_what_the_rig_would(rig):
    """Other mounts, other fields of view, a pitch, and a fourth camera that is not needed."""
    cameras = {"a": wide(58, 2.0), "b": wide(1.0, -3.0), "c": wide(-53, 1.0), "behind": wide(180)}
    assert min(rig.coverage(cameras)) > 0.98
    difference = np.abs(rig.strip(cameras, SMALL).astype(int) - expected(rig).astype(int))
    assert difference.mean() < 1.0 and np.percentile(difference, 99) <= 3


def test_one_rig_in_the_images_of_the_other():
    """The generated world's cameras, brought to lenses that distort."""
    rig = navsim_rig()
    views = {f"camera {name}": view for name, view in native(synth_rig()).items()}
    difference = np.abs(rig.strip(views, SMALL).astype(int) - expected(rig).astype(int))
    assert difference.mean() < 1.5


def test_an_f_theta_lens_is_understood():
    rig = synth_rig()
    lens = FTheta(500.0, 300.0, (0.0, 480.0, 0.0, -20.0), 1.2)
    cameras = {}
    for name, yaw in (("left", 60.0), ("front", 0.0), ("right", -60.0)):
        # The image of a fisheye, made from its own projection run backwards by search over a table.
        angles = np.linspace(0.0, 1.2, 4000)
        radii = np.polynomial.polynomial.polyval(angles, lens.angle_to_radius)
        u, v = np.meshgrid(np.arange(1000) + 0.5 - 500.0, np.arange(600) + 0.5 - 300.0)
        radius = np.hypot(u, v)
        angle = np.interp(radius, radii, angles)
        rays = np.stack([np.sin(angle) * u / radius, np.sin(angle) * v / radius, np.cos(angle)], axis=-1)
        image = seen(rays @ turn(yaw).T).round().astype(np.uint8)
        cameras[name] = CameraView(image, lens, turn(yaw), np.zeros(3))
    difference = np.abs(rig.strip(cameras, SMALL).astype(int) - expected(rig).astype(int))
    assert difference.mean() < 1.0
    half = lens.scaled(0.5, 0.5)
    small = {
        name: replace(view, image=cv2.resize(view.image, (500, 300), interpolation=cv2.INTER_AREA), lens=half)
        for name, view in cameras.items()
    }
    difference = np.abs(rig.strip(small, SMALL).astype(int) - expected(rig).astype(int))
    assert difference.mean() < 1.5


def test_what_no_camera_sees_continues_its_edge():
    """Flat fields of view, as HUGSIM has them on Waymo."""
    rig = synth_rig()
    lens = Pinhole.of_fields_of_view(400, 220, np.radians(64), np.radians(32.5), 200.0, 110.0)
    cameras = {str(yaw): photo(lens, turn(yaw), (400, 220)) for yaw in (55, 0, -55)}
    left, front, right = rig.coverage(cameras)
    assert min(left, front, right) > 0.8 and front < 0.95
    strip = rig.strip(cameras, SMALL)
    assert strip.any(axis=0).all() and np.abs(strip.astype(int) - expected(rig).astype(int)).mean() < 6


def test_black_images_are_used_for_nothing_and_named():
    rig = synth_rig()
    cameras = {"left": wide(55), "front": wide(0), "right": wide(-55)}
    black = replace(wide(110), image=np.zeros((240, 400, 3), np.uint8))
    assert np.array_equal(rig.strip(cameras | {"rear": black}, SMALL), rig.strip(cameras, SMALL))
    with pytest.raises(StripError, match=r"with right all black, show \d+% of what the right") as caught:
        rig.strip(cameras | {"right": black}, SMALL)
    assert caught.value.kind == "camera_black"
    with pytest.raises(StripError, match="one is missing") as caught:
        rig.strip({"left": wide(55), "front": wide(0)}, SMALL)
    assert caught.value.kind == "camera_missing"
    with pytest.raises(StripError, match=r"\(none\) show 0%"):
        rig.strip({}, SMALL)


def test_as_released_stretches_whatever_the_calibration():
    """HUGSIM, section 7: front left, front and front right, each resized to 1920 x 1080, then cropped."""
    rig = navsim_rig(as_released=True)
    names = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT")
    rng = np.random.default_rng(0)
    images = [rng.integers(1, 256, (450, 800, 3), dtype=np.uint8) for _ in names]
    lens = Pinhole(300.0, 300.0, 0.0, 0.0)
    cameras = {n: CameraView(i, lens, np.eye(3), np.zeros(3)) for n, i in zip(names, images, strict=True)}
    large = [cv2.resize(image, (1920, 1080)) for image in images]
    strip = np.concatenate([large[0][28:-28, 416:-416], large[1][28:-28], large[2][28:-28, 416:-416]], axis=1)
    wanted = np.moveaxis(cv2.resize(strip, (1024, 256)), -1, 0)
    assert np.array_equal(rig.strip(cameras, (256, 1024)), wanted)
    del cameras["CAM_FRONT_LEFT"]
    with pytest.raises(StripError, match="no camera CAM_FRONT_LEFT"):
        rig.strip(cameras, (256, 1024))
