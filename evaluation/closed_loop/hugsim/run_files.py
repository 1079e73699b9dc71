"""Files that an official run leaves behind: its record and its points (HUGSIM, sections 2, 3, 6.1)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.messages import MessageError, read_data
from beyonddrive.evaluation.closed_loop.hugsim.points import PointGrid, to_record_frame
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame, read_frames
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

RECORD, GROUND, SCENE = "data.pkl", "ground.ply", "scene.ply"
MAX_RECORD = 64 * 2**20
"""A record may have as many bytes; 5000 frames with 150 road users each are 57 MB, HUGSIM ends after 400."""
_MAX_HEADER = 2**20
"""The header of a ply file has ended after so many bytes."""


def read_record(path: Path) -> list[Frame]:
    """Frames of a record; the pickle may hold plain values and numpy arrays, and nothing in it is run.

    Raises:
        HugsimError: If it cannot be read, has more than :data:`MAX_RECORD` bytes or unfolds into far more
            than it has, holds anything else, or is no record.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # (one byte more shows a file without a size, such as a pipe, that goes on)
            content = b"" if size > MAX_RECORD else file.read(MAX_RECORD + 1)
        if max(size, len(content)) > MAX_RECORD:
            raise HugsimError(
                f"{path}: has more than the {MAX_RECORD} bytes that a record may have: it is none, or of "
                "many runs; write a record per run"
            )
        record = read_data(content, MAX_RECORD, "the record")
    except (MessageError, OSError) as error:
        raise HugsimError(f"{path}: {error}") from error
    return read_frames(record, str(path))


def read_points(path: Path) -> PointGrid:
    """Points of a ply file in the world frame, ready for the scorer.

    Raises:
        HugsimError: If it cannot be read, its header claims more than it has bytes for, or it holds no
            points.
    """
    from plyfile import PlyData, PlyParseError

    try:
        _check_header(path)
        vertex = PlyData.read(path)["vertex"]
        xyz: NDArray[np.float32] = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float32)
    except HugsimError:
        raise
    except (PlyParseError, OSError, KeyError, ValueError, MemoryError) as error:
        raise HugsimError(f"{path}: is no ply file with points x, y, z ({error})") from error
    try:
        return PointGrid(to_record_frame(xyz))
    except HugsimError as error:
        raise HugsimError(f"{path}: {error}") from error


def _check_header(path: Path) -> None:
    """Refuse a header that claims more rows than the file has bytes for, before memory is asked for them."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_MAX_HEADER)
    elements: list[tuple[str, int]] = []
    values: list[int] = []
    for line in head.splitlines():
        match line.split():
            case [b"element", name, count]:
                elements.append((name.decode("ascii"), int(count)))
                values.append(0)
            case [b"property", *_] if values:
                values[-1] += 1
            case [b"end_header"]:
                break
    else:
        raise HugsimError(f"{path}: is no ply file: no end_header in its first {_MAX_HEADER} bytes")
    left = size
    for (element, rows), columns in zip(elements, values, strict=True):
        # A value has a byte or more, as a number or as text.
        left -= rows * max(columns, 1)
        if left < 0:
            raise HugsimError(
                f"{path}: element {element}: the header claims {rows} rows of {columns} values, and the file "
                f"has {size} bytes: it is cut off or damaged; write it again"
            )
