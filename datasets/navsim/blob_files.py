"""Sensor files looked at without reading them whole: whether they are there and have their end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from beyonddrive.datasets.navsim.image_files import LOST, image_damage
from beyonddrive.datasets.navsim.sensors import SensorError, pcd_size, read_image, read_pcd

_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}
"""First two bytes of a JPEG and a PNG -> how a whole one ends, if nothing stands behind it."""
_HEADER = 4096


def image_problem(path: Path, decode: bool = False) -> str:
    """What is wrong with an image; empty if nothing is.

    Args:
        path: The file.
        decode: Read all of it, instead of its start, its end, and three places between.
    """
    if decode:
        return _of_reading(path, read_image)
    try:
        with path.open("rb") as file:
            head = file.read(2)
            if head not in _ENDS:
                return "" if head and _is_decodable(path) else "is no image"
            end = _ENDS[head]
            if _tail(file, len(end)) == end and not _is_blank_inside(file):
                return ""
            file.seek(0)  # bytes behind the end mean nothing, but then all of it has to be looked at
            return image_damage(file.read())
    except OSError as error:
        return _absence(error)


def sweep_problem(path: Path, decode: bool = False) -> str:
    """What is wrong with a LiDAR sweep; empty if nothing is. Arguments as for :func:`image_problem`."""
    if decode:
        return _of_reading(path, read_pcd)
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
            wanted = pcd_size(header)
        if wanted is None:  # of numbers written as text
            return _of_reading(path, read_pcd)
        size = path.stat().st_size
        return "" if size >= wanted else f"is truncated: {wanted} bytes are promised, {size} are there"
    except SensorError as error:
        return str(error)
    except OSError as error:
        return _absence(error)


def _absence(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def _of_reading(path: Path, read: Callable[[Path], object]) -> str:
    """What a reader says of a file, without its name and the remedy."""
    try:
        read(path)
    except SensorError as error:
        return str(error).removeprefix(f"{path}: ").partition(";")[0]
    return ""


def _is_decodable(path: Path) -> bool:
    return not _of_reading(path, read_image)


def _is_blank_inside(file: BinaryIO) -> bool:
    """Whether there are zeros at a quarter, a half or three quarters of a file."""
    size = file.seek(0, 2)
    for place in (size // 4, size // 2, 3 * size // 4):
        file.seek(place)
        if file.read(len(LOST)) == LOST:
            return True
    return False


def _tail(file: BinaryIO, size: int) -> bytes:
    file.seek(0, 2)
    file.seek(max(file.tell() - size, 0))
    return file.read()
