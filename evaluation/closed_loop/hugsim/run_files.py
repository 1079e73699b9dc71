"""Files that an official run leaves behind: its record and its points (HUGSIM, sections 2, 3, 6.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.plain_pickle import PlainPickleError, load_plain_pickle
from beyonddrive.evaluation.closed_loop.hugsim.points import PointGrid, to_record_frame
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame, read_frames
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

RECORD, GROUND, SCENE = "data.pkl", "ground.ply", "scene.ply"


def read_record(path: Path) -> list[Frame]:
    """Frames of a record; the pickle may hold plain values and numpy arrays, and nothing in it is run.

    Raises:
        HugsimError: If it cannot be read, holds anything else, or is no record.
    """
    try:
        return read_frames(load_plain_pickle(path), str(path))
    except (PlainPickleError, OSError) as error:
        raise HugsimError(f"{path}: {error}") from error


def read_points(path: Path) -> PointGrid:
    """Points of a ply file in the world frame, ready for the scorer.

    Raises:
        HugsimError: If it cannot be read, or holds no points.
    """
    from plyfile import PlyData, PlyParseError

    try:
        vertex = PlyData.read(path)["vertex"]
        xyz: NDArray[np.float32] = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float32)
    except (PlyParseError, OSError, KeyError, ValueError) as error:
        raise HugsimError(f"{path}: is no ply file with points x, y, z ({error})") from error
    try:
        return PointGrid(to_record_frame(xyz))
    except HugsimError as error:
        raise HugsimError(f"{path}: {error}") from error
