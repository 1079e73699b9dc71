"""Sensor files of a frame: camera images and LiDAR sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.image_files import image_damage
from beyonddrive.datasets.navsim.logs import Frame
from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.errors import BeyondDriveError

_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
"""Pixels as they are in the file, as the official loader has them, whatever EXIF says."""
_files_read: ContextVar[set[Path] | None] = ContextVar("files_read", default=None)
_REMEDY = "restore it from the data set or generate it again"

LIDAR_ROWS = ("x", "y", "z", "intensity", "ring", "lidar_id")
"""Rows of a point cloud; x, y, z in metres in the ego frame."""
_ALIASES = {"lidar_id": ("lidar_id", "lidar_info")}


class SensorError(BeyondDriveError, ValueError):
    """An image or a sweep is missing or damaged; the message names the file and the remedy."""


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera of one frame.

    Attributes:
        path: The image file.
        intrinsic: (3, 3) pinhole matrix [px].
        rotation: (3, 3) from camera axes (x right, y down, z forward) to LiDAR axes.
        translation: (3,) camera origin in the LiDAR frame [m].
        distortion: (5,) k1, k2, p1, p2, k3.
    """

    path: Path
    intrinsic: NDArray[np.float64]
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    distortion: NDArray[np.float64]

    def image(self) -> NDArray[np.uint8]:
        """The picture: uint8 (H, W, 3) RGB."""
        return read_image(self.path)

    def check_calibration(self) -> None:
        """Refuse matrices that are no numbers; a planner that looks at pictures alone needs none of them.

        Raises:
            SensorError: Naming the image and the key of the log.
        """
        for key, values in (
            ("cam_intrinsic", self.intrinsic),
            ("sensor2lidar_rotation", self.rotation),
            ("sensor2lidar_translation", self.translation),
            ("distortion", self.distortion),
        ):
            if not np.isfinite(values).all():
                raise SensorError(
                    f"{self.path}: {key} of its camera in the log is not finite; leave the scene out, or "
                    f"restore its log from the data set"
                )


def camera_of(frame: Frame, name: str, sensor_root: Path) -> Camera:
    """A camera of a frame, for example ``CAM_F0`` (NAVSIM_FORMAT, section 2).

    Raises:
        SensorError: If the frame has no such camera, or its path leaves ``sensor_root``.
    """
    try:
        camera = frame["cams"][name]
    except KeyError:
        raise SensorError(
            f"frame {frame.get('token')}: there is no camera {name}; it has {sorted(frame['cams'])}"
        ) from None
    return Camera(
        _below(sensor_root, camera["data_path"], f"frame {frame.get('token')}: cams.{name}.data_path"),
        np.asarray(camera["cam_intrinsic"], np.float64),
        np.asarray(camera["sensor2lidar_rotation"], np.float64),
        np.asarray(camera["sensor2lidar_translation"], np.float64),
        np.asarray(camera["distortion"], np.float64),
    )


def lidar_path_of(frame: Frame, sensor_root: Path) -> Path:
    """The sweep of a frame.

    Raises:
        SensorError: If the frame names none, or its path leaves ``sensor_root``.
    """
    if not frame.get("lidar_path"):
        raise SensorError(f"frame {frame.get('token')}: lidar_path is empty; use a planner without LiDAR")
    return _below(sensor_root, frame["lidar_path"], f"frame {frame.get('token')}: lidar_path")


def _below(root: Path, relative: Any, key: str) -> Path:
    path = PurePosixPath(str(relative))
    if path.is_absolute() or ".." in path.parts:
        raise SensorError(f"{key}: {str(relative)!r} leaves the folder of the split; do not trust this log")
    return Path(root) / path


# ------------------------------------------------------------------ images
def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image: uint8 (H, W, 3) RGB, rows and columns as they are in the file.

    Raises:
        SensorError: If the file is missing, truncated or no image, or has lost a part, see
            :func:`~beyonddrive.datasets.navsim.image_files.image_damage`.
    """
    path = Path(path)
    data = _read_bytes(path, "image")
    if damage := image_damage(data):
        raise SensorError(f"{path}: image {damage} ({len(data)} bytes); {_REMEDY}")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise SensorError(f"{path}: not an image that can be decoded ({len(data)} bytes); {_REMEDY}")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


@contextmanager
def noting_files() -> Iterator[set[Path]]:
    """Note which images and sweeps are read meanwhile."""
    files: set[Path] = set()
    token = _files_read.set(files)
    try:
        yield files
    finally:
        _files_read.reset(token)


def _read_bytes(path: Path, what: str) -> bytes:
    if (files := _files_read.get()) is not None:
        files.add(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SensorError(f"{path}: {what} is missing; {_REMEDY}, or check the data root and split") from None
    except OSError as error:
        raise SensorError(f"{path}: {what} cannot be read ({error}); {_REMEDY}") from error


# ------------------------------------------------------------------ point clouds
def read_pcd(path: Path) -> NDArray[np.float32]:
    """Read a sweep: float32 (6, N), rows :data:`LIDAR_ROWS`; rows that the file lacks are 0.

    Fields are found by name, in any order and type; ``DATA`` may be ``ascii``, ``binary`` or
    ``binary_compressed``.

    Raises:
        SensorError: If the file is missing, is no point cloud, or holds fewer points than it says.
    """
    path = Path(path)
    content = _read_bytes(path, "point cloud")
    try:
        points = _parse_pcd(content)
    except _PcdError as error:
        raise SensorError(f"{path}: {error}; {_REMEDY}") from None
    rows = np.zeros((len(LIDAR_ROWS), len(points)), np.float32)
    for row, name in enumerate(LIDAR_ROWS):
        found = next((key for key in _ALIASES.get(name, (name,)) if key in (points.dtype.names or ())), None)
        if found is not None:
            rows[row] = points[found]
        elif name in ("x", "y", "z"):
            raise SensorError(f"{path}: point cloud has no field {name!r} ({points.dtype.names}); {_REMEDY}")
    return rows


def write_pcd(path: Path, points: NDArray[Any], sync: bool = True) -> None:
    """Write a sweep (6, N), rows :data:`LIDAR_ROWS`, as a binary ``.pcd``; the file appears complete or not.

    x, y, z and intensity are stored as float32, ring and LiDAR id as bytes. ``sync`` is that of
    :func:`beyonddrive.engine.files.write_atomically`.

    Raises:
        SensorError: If the shape is another, a coordinate is not finite, or ring or id is no byte.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[0] != len(LIDAR_ROWS):
        raise SensorError(f"{path}: points must have shape (6, N) with rows {LIDAR_ROWS}, got {points.shape}")
    if not np.isfinite(points).all():
        raise SensorError(f"{path}: points must be finite")
    labels = points[4:]
    if ((labels < 0) | (labels > 255) | (labels != np.trunc(labels))).any():
        raise SensorError(f"{path}: ring and lidar_id must be whole numbers from 0 to 255")
    names = (*LIDAR_ROWS[:5], "lidar_info")
    records = np.empty(points.shape[1], dtype=[(n, "<f4" if i < 4 else "u1") for i, n in enumerate(names)])
    for name, row in zip(names, points, strict=True):
        records[name] = row
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\n"
        f"FIELDS {' '.join(names)}\nSIZE 4 4 4 4 1 1\nTYPE F F F F U U\nCOUNT 1 1 1 1 1 1\n"
        f"WIDTH {len(records)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(records)}\nDATA binary\n"
    )
    write_atomically(Path(path), header.encode("ascii") + records.tobytes(), sync)


_PCD_FORMATS = {"F4", "F8", "I1", "I2", "I4", "I8", "U1", "U2", "U4", "U8"}


class _PcdError(BeyondDriveError, ValueError):
    """A ``.pcd`` breaks its format; the caller adds the file."""


class _PcdLayout(NamedTuple):
    """What the header of a ``.pcd`` says."""

    record: np.dtype[Any]
    points: int
    columns: int
    encoding: str
    start: int


def pcd_size(head: bytes) -> int | None:
    """Bytes that a ``.pcd`` must have at least, by its first kilobytes; None if only reading it tells.

    Raises:
        SensorError: If that is no header of a point cloud.
    """
    try:
        layout = _parse_layout(head)
    except _PcdError as error:
        raise SensorError(str(error)) from None
    if layout.encoding == "binary":
        return layout.start + layout.points * layout.record.itemsize
    if layout.encoding == "binary_compressed" and len(head) >= layout.start + 8:
        return layout.start + 8 + int(np.frombuffer(head, "<u4", count=1, offset=layout.start)[0])
    return None


def _parse_pcd(content: bytes) -> NDArray[Any]:
    """Points of a ``.pcd`` as a structured array with one field per name."""
    record, points, columns, encoding, start = _parse_layout(content)
    if encoding == "ascii":
        return _parse_ascii(content[start:], record, points, columns)
    if encoding == "binary_compressed":
        return _parse_compressed(content[start:], record, points)
    if encoding != "binary":
        raise _PcdError(f"point cloud has DATA {encoding!r}; known are ascii, binary, binary_compressed")
    if len(content) - start < points * record.itemsize:
        raise _PcdError(
            f"point cloud is truncated: {points} points need {points * record.itemsize} bytes, "
            f"there are {len(content) - start}"
        )
    return np.frombuffer(content, record, count=points, offset=start)


def _parse_layout(content: bytes) -> _PcdLayout:
    """Header of a ``.pcd``."""
    header, encoding, start = _parse_header(content)
    try:
        names = header["FIELDS"]
        sizes = [int(size) for size in header["SIZE"]]
        counts = [int(count) for count in header.get("COUNT", ["1"] * len(names))]
        points = int(header["POINTS"][0])
        formats = [f"{kind}{size}" for kind, size in zip(header["TYPE"], sizes, strict=True)]
        # Checked here, because numpy reads far more into such a name than a point cloud may ask for.
        if unknown := set(formats) - _PCD_FORMATS:
            raise ValueError(f"no such number: {min(unknown)!r}")
        if min(counts, default=1) < 1:
            raise ValueError(f"COUNT {min(counts)}")
        record = np.dtype(
            [
                (name, f"<{kind.lower()}") if count == 1 else (name, f"<{kind.lower()}", (count,))
                for name, kind, count in zip(names, formats, counts, strict=True)
            ]
        )
    except KeyError as error:
        raise _PcdError(f"point cloud has no {error.args[0]} in its header") from None
    except (ValueError, TypeError, IndexError) as error:
        raise _PcdError(f"point cloud has a damaged header ({error})") from None
    if points < 0:
        raise _PcdError("point cloud has a negative number of points")
    return _PcdLayout(record, points, sum(counts), encoding, start)


def _parse_header(content: bytes) -> tuple[dict[str, list[str]], str, int]:
    """Header lines by key, the encoding, and where the data starts."""
    header: dict[str, list[str]] = {}
    start = 0
    while start < min(len(content), 4096):
        stop = content.find(b"\n", start)
        if stop < 0:
            break
        key, *values = content[start:stop].decode("latin1").split() or [""]
        start = stop + 1
        if key == "DATA":
            return header, values[0] if values else "", start
        header[key] = values
    raise _PcdError("not a point cloud: no DATA line in its header")


def _parse_ascii(text: bytes, record: np.dtype[Any], points: int, columns: int) -> NDArray[Any]:
    try:
        numbers = np.array(text.split(), dtype=np.float64)
    except ValueError as error:
        raise _PcdError(f"point cloud holds something that is no number ({error})") from None
    if numbers.size != points * columns:
        raise _PcdError(f"point cloud has {numbers.size} numbers, {points} points need {points * columns}")
    table = numbers.reshape(points, columns)
    result = np.empty(points, record)
    column = 0
    for name in record.names or ():
        field = result[name]
        width = 1 if field.ndim == 1 else field.shape[1]
        field[...] = table[:, column : column + width].reshape(field.shape)
        column += width
    return result


def _parse_compressed(data: bytes, record: np.dtype[Any], points: int) -> NDArray[Any]:
    """LZF blocks hold all values of the first field, then all of the second, and so on."""
    if len(data) < 8:
        raise _PcdError("point cloud is truncated")
    packed, size = (int(value) for value in np.frombuffer(data, "<u4", count=2))
    if len(data) - 8 < packed or size != points * record.itemsize:
        raise _PcdError("point cloud is truncated")
    flat = _unpack_lzf(data[8 : 8 + packed], size)
    result = np.empty(points, record)
    start = 0
    for name in record.names or ():
        field = result[name]
        result[name] = flat[start : start + field.nbytes].view(field.dtype).reshape(field.shape)
        start += field.nbytes
    return result


def _unpack_lzf(data: bytes, size: int) -> NDArray[np.uint8]:
    """LZF: a control byte c < 32 is followed by c + 1 literals, any other refers back."""
    out = bytearray()
    position = 0
    try:
        while position < len(data):
            control = data[position]
            position += 1
            if control < 32:
                out += data[position : position + control + 1]
                position += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[position]
                position += 1
            distance = ((control & 31) << 8) + data[position] + 1
            position += 1
            start, length = len(out) - distance, length + 2
            if start < 0 or len(out) + length > size:
                raise _PcdError("point cloud has a damaged compressed block")
            # A reference may overlap what it writes: then the last `distance` bytes repeat.
            chunk = out[start : start + length]
            out += (chunk * (length // len(chunk) + 1))[:length]
    except IndexError:
        raise _PcdError("point cloud has a truncated compressed block") from None
    if len(out) != size:
        raise _PcdError(f"point cloud unpacks to {len(out)} bytes, {size} were promised")
    return np.frombuffer(bytes(out), np.uint8)
