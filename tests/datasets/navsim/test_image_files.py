"""Parts of images that a disk has lost are noticed; whole images of any kind are not taken for such."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from beyonddrive.datasets.navsim.blob_files import image_problem
from beyonddrive.datasets.navsim.image_files import LOST, image_damage
from beyonddrive.datasets.navsim.sensors import SensorError, read_image

KINDS = ({}, {"optimize": True}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1})


def picture(mode="RGB"):
    noise = np.random.default_rng(0).integers(0, 256, (270, 480, 3), dtype=np.uint8)
    return Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 2)).convert(mode)


def jpeg(image, **settings):
    file = io.BytesIO()
    image.save(file, "JPEG", **settings)
    return file.getvalue()


def lose(data, start, stop):
    return data[:start] + bytes(stop - start) + data[stop:]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("settings", [{}, {"subsampling": 0}, {"quality": 95, "optimize": True}])
def test_a_part_that_reads_as_zeros_is_noticed_where_it_is(mode, settings):
    data = jpeg(picture(mode), **settings)
    third, end = len(data) // 3, len(data) - 4096
    assert cv2.imdecode(np.frombuffer(lose(data, third, end), np.uint8), cv2.IMREAD_COLOR) is not None
    damage = image_damage(lose(data, third, end))
    assert damage.startswith("has lost a part of its pixels, from byte ")
    assert third - 2 <= int(damage.split()[-2]) <= third  # (a zero may stand before it)
    for start in (third, len(data) // 2, end):
        assert image_damage(lose(data, start, start + len(LOST)))
    assert image_damage(data) == ""


def test_reader_and_validation_name_the_file(tmp_path):
    path, data = tmp_path / "lost.jpg", jpeg(picture())
    path.write_bytes(lose(data, len(data) // 3, len(data) - 4096))
    with pytest.raises(SensorError, match=r"lost\.jpg: image has lost a part of its pixels.*; restore"):
        read_image(path)
    assert "has lost a part" in image_problem(path) and "has lost a part" in image_problem(path, decode=True)
    path.write_bytes(lose(data, len(data) // 8, len(data) // 8 + len(LOST)))
    assert image_problem(path) == "" and "has lost a part" in image_problem(path, decode=True)
    path.write_bytes(data)
    assert image_problem(path) == image_problem(path, decode=True) == ""


@pytest.mark.parametrize("settings", KINDS)
def test_flat_images_are_whole_whatever_their_codes(settings):
    for size in ((8, 8), (64, 48), (1920, 1080)):
        for colour in ((0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 30, 90)):
            for mode in ("RGB", "L"):
                for quality in (1, 75, 100):
                    data = jpeg(Image.new("RGB", size, colour).convert(mode), quality=quality, **settings)
                    assert image_damage(data) == "", (size, colour, mode, quality)


def test_there_are_whole_images_with_many_zeros_in_their_pixels():
    """So that the tests of whole images say something."""
    for settings in ({"optimize": True}, {"progressive": True}):
        assert bytes(4096) in jpeg(Image.new("RGB", (1920, 1080), (200, 30, 90)), **settings)


def test_gradients_stripes_and_dots_are_whole():
    """Blocks that are all alike, or differ from the one before by the same step."""
    ramp = np.tile(np.arange(1024) // 4, (256, 1)).astype(np.uint8)
    stripes = np.tile((np.arange(1024) % 8 < 4) * np.uint8(255), (256, 1))
    dots = np.zeros((256, 1024), np.uint8)
    dots[::8, ::8] = 255
    for pixels in (ramp, ramp.T.copy(), stripes, dots):
        for quality in (1, 20, 75, 100):
            for settings in KINDS:
                assert image_damage(jpeg(Image.fromarray(pixels), quality=quality, **settings)) == ""


def test_zeros_outside_of_the_pixels_mean_nothing():
    data = jpeg(picture())
    described = jpeg(picture(), comment=bytes(4000))
    assert LOST in described and image_damage(described) == ""
    assert image_damage(data + bytes(4000)) == ""
    assert image_damage(data + bytes(4000) + data) == ""  # a preview behind the image
