"""Sensor files: what is written is read, and damage is named."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from beyonddrive.datasets.navsim.sensors import (
    SensorError,
    camera_of,
    lidar_path_of,
    read_image,
    read_pcd,
    write_pcd,
)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def points():
    rng = np.random.default_rng(1)
    cloud = rng.normal(0, 20, (6, 321)).astype(np.float32)
    cloud[4] = rng.integers(0, 64, 321)
    cloud[5] = rng.integers(0, 5, 321)
    return cloud


def test_image_is_rgb(tmp_path, picture):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), picture[..., ::-1])  # OpenCV writes BGR
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_damaged_images(tmp_path, picture, suffix):
    path = tmp_path / f"image{suffix}"
    with pytest.raises(SensorError, match=rf"image\{suffix}: image is missing; restore"):
        read_image(path)
    cv2.imwrite(str(path), picture)
    content = path.read_bytes()
    assert read_image(path).shape == picture.shape
    for size in (0, 1, 10, len(content) // 2, len(content) - 20):
        path.write_bytes(content[:size])
        with pytest.raises(SensorError, match=rf"image\{suffix}: .*restore"):
            read_image(path)
    path.write_bytes(content[:2] + bytes(500) + {".jpg": b"\xff\xd9", ".png": b"IEND"}[suffix])
    with pytest.raises(SensorError, match="not an image"):
        read_image(path)
    with pytest.raises(SensorError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pixels_are_as_stored_whatever_exif_says(tmp_path, picture, orientation):
    """As the official loader reads them, which opens the file and takes the array."""
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, quality=95, exif=exif)
    read = read_image(path)
    assert read.shape == picture.shape
    assert np.abs(read.astype(int) - np.array(Image.open(path)).astype(int)).max() <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("tail", [b"\0" * 4000, b"\xff\xd8" + bytes(3000)])
def test_bytes_behind_the_end_of_an_image_mean_nothing(tmp_path, picture, suffix, tail):
    path = tmp_path / f"padded{suffix}"
    Image.fromarray(picture).save(path)
    wanted = read_image(path)
    path.write_bytes(path.read_bytes() + tail)
    assert (read_image(path) == wanted).all()


def test_the_end_of_a_thumbnail_is_not_that_of_the_image(tmp_path, picture):
    """Cut in the middle of the scan; the thumbnail before it is whole."""
    path, small = tmp_path / "cut.jpg", io.BytesIO()
    Image.fromarray(picture).resize((8, 8)).save(small, "JPEG")
    thumbnail = small.getvalue()
    Image.fromarray(picture).save(path)
    content = path.read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = content[:2] + segment + content[2:]
    path.write_bytes(whole)
    assert read_image(path).shape == picture.shape
    path.write_bytes(whole[:-40])
    with pytest.raises(SensorError, match="truncated"):
        read_image(path)


def test_camera_of_a_frame(world, frames):
    frame = frames[3]
    camera = camera_of(frame, "CAM_F0", world / "sensor_blobs" / "mini")
    assert camera.path == world / "sensor_blobs" / "mini" / frame["cams"]["CAM_F0"]["data_path"]
    assert camera.image().shape == (54, 96, 3)
    np.testing.assert_array_equal(camera.intrinsic, frame["cams"]["CAM_F0"]["cam_intrinsic"])
    assert camera.rotation.shape == (3, 3) and camera.translation.shape == (3,)
    assert camera.distortion.shape == (5,)
    with pytest.raises(SensorError, match="no camera CAM_X"):
        camera_of(frame, "CAM_X", world)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../secret.jpg", "log/../../../x.jpg"])
def test_paths_that_leave_the_split(frames, tmp_path, path):
    frames[0]["cams"]["CAM_F0"]["data_path"] = path
    with pytest.raises(SensorError, match=r"cams\.CAM_F0\.data_path: .* leaves"):
        camera_of(frames[0], "CAM_F0", tmp_path)
    frames[0]["lidar_path"] = path
    with pytest.raises(SensorError, match=r"lidar_path: .* leaves"):
        lidar_path_of(frames[0], tmp_path)


def test_frame_without_lidar(frames, tmp_path):
    frames[0]["lidar_path"] = None
    with pytest.raises(SensorError, match="lidar_path is empty"):
        lidar_path_of(frames[0], tmp_path)


def test_sweep_round_trip(tmp_path, points):
    path = tmp_path / "sweep.pcd"
    write_pcd(path, points)
    read = read_pcd(path)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, points)
    write_pcd(path, np.zeros((6, 0), np.float32))
    assert read_pcd(path).shape == (6, 0)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda p: p[:3], "shape"),
        (lambda p: p.T, "shape"),
        (lambda p: np.where(p == p[0, 0], np.nan, p), "finite"),
        (lambda p: p + 0.5, "whole numbers"),
        (lambda p: p - 100.0, "0 to 255"),
    ],
)
def test_sweeps_that_cannot_be_written(tmp_path, points, change, complaint):
    points[:4] = np.round(points[:4])
    with pytest.raises(SensorError, match=rf"sweep\.pcd: .*{complaint}"):
        write_pcd(tmp_path / "sweep.pcd", change(points))
    assert not (tmp_path / "sweep.pcd").exists()


def header(fields, sizes, kinds, points, encoding, counts=None):
    counts = counts or "1 " * len(fields.split())
    return (
        f"# a comment\nVERSION .7\nFIELDS {fields}\nSIZE {sizes}\nTYPE {kinds}\nCOUNT {counts}\n"
        f"WIDTH {points}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {points}\nDATA {encoding}\n"
    ).encode()


def test_fields_are_found_by_name_in_any_order_and_type(tmp_path, points):
    path = tmp_path / "sweep.pcd"
    record = np.dtype(
        [
            ("intensity", "u1"),
            ("pad", "i2", (3,)),
            ("z", "<f8"),
            ("x", "<f4"),
            ("y", "<f4"),
            ("lidar_id", "u2"),
        ]
    )
    records = np.zeros(points.shape[1], record)
    for row, name in ((0, "x"), (1, "y"), (2, "z"), (5, "lidar_id")):
        records[name] = points[row]
    records["intensity"] = 7
    head = header(
        "intensity pad z x y lidar_id", "1 2 8 4 4 2", "U I F F F U", points.shape[1], "binary", "1 3 1 1 1 1"
    )
    path.write_bytes(head + records.tobytes())
    read = read_pcd(path)
    np.testing.assert_array_equal(read[[0, 1, 2, 5]], points[[0, 1, 2, 5]])
    assert (read[3] == 7).all() and (read[4] == 0).all()


def test_ascii_sweep(tmp_path, points):
    path = tmp_path / "sweep.pcd"
    rows = "\n".join(" ".join(repr(float(v)) for v in point[:4]) for point in points.T)
    path.write_bytes(
        header("x y z intensity", "4 4 4 4", "F F F F", points.shape[1], "ascii") + rows.encode()
    )
    np.testing.assert_array_equal(read_pcd(path)[:4], points[:4])
    path.write_bytes(path.read_bytes() + b"\n1.0")
    with pytest.raises(SensorError, match="1285 numbers, 321 points need 1284"):
        read_pcd(path)
    path.write_bytes(header("x y z", "4 4 4", "F F F", 1, "ascii") + b"1 2 three")
    with pytest.raises(SensorError, match="no number"):
        read_pcd(path)


def literals(data):
    """LZF without any reference."""
    return b"".join(
        bytes([len(part) - 1]) + part for part in (data[i : i + 32] for i in range(0, len(data), 32))
    )


def test_compressed_sweep(tmp_path, points):
    path = tmp_path / "sweep.pcd"
    plain = points[:3].tobytes()  # field after field
    head = header("x y z", "4 4 4", "F F F", points.shape[1], "binary_compressed")

    def write(packed, size):
        path.write_bytes(head + struct.pack("<II", len(packed), size) + packed)

    write(literals(plain), len(plain))
    np.testing.assert_array_equal(read_pcd(path)[:3], points[:3])
    for packed, size in (
        (literals(plain)[:-1], len(plain)),
        (literals(plain), 5),
        (b"\x20\xff" * 9, len(plain)),
    ):
        write(packed, size)
        with pytest.raises(SensorError, match=r"sweep\.pcd: point cloud"):
            read_pcd(path)
    path.write_bytes(path.read_bytes()[: len(head) + 4])
    with pytest.raises(SensorError, match="truncated"):
        read_pcd(path)


def test_compressed_references_short_long_and_overlapping(tmp_path):
    path = tmp_path / "sweep.pcd"
    # Four literals, the same four again, and forty bytes from four back: a run that overlaps itself.
    packed = bytes([3, 0, 0, 128, 63]) + bytes([2 << 5, 3]) + bytes([7 << 5, 40 - 9, 3])
    path.write_bytes(
        header("x y z", "4 4 4", "F F F", 4, "binary_compressed")
        + struct.pack("<II", len(packed), 48)
        + packed
    )
    np.testing.assert_array_equal(read_pcd(path)[:3], np.ones((3, 4)))


def test_damaged_sweeps(tmp_path, points):
    path = tmp_path / "sweep.pcd"
    with pytest.raises(SensorError, match=r"sweep\.pcd: point cloud is missing"):
        read_pcd(path)
    write_pcd(path, points)
    content = path.read_bytes()
    for size in (0, 20, 150, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(SensorError, match=r"sweep\.pcd: .*restore"):
            read_pcd(path)
    for old, new in (
        (b"FIELDS x", b"FIELDS q"),
        (b"SIZE 4", b"SIZE 3"),
        (b"SIZE 4", b"SIZE"),
        (b"TYPE F", b"TYPE Q"),
        (b"TYPE F F", b"TYPE F"),
        (b"POINTS 321", b"POINTS -1"),
        (b"POINTS 321", b"POINTS many"),
        (b"POINTS 321", b"PINTS 321"),
        (b"COUNT 1 1", b"COUNT 1 -1"),
        (b"COUNT 1 1", b"COUNT 0 1"),
        (b"TYPE F", b"TYPE M"),
        (b"SIZE 4", b"SIZE 4,01"),  # numpy would evaluate what follows a comma
        (b"DATA binary", b"DATA zipped"),
        (b"FIELDS x y", b"FIELDS x x"),
    ):
        assert old in content
        path.write_bytes(content.replace(old, new))
        with pytest.raises(SensorError, match=r"sweep\.pcd: .*restore"):
            read_pcd(path)
