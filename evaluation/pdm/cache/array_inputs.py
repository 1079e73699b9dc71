"""Checks on arrays that describe a scene: what comes through is what the score can work with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import ArrayLike

from beyonddrive.evaluation.pdm.cache.metric_cache import MetricCacheError
from beyonddrive.evaluation.pdm.inputs.tracks import IS_AGENT, TYPE_INDEX, Tracks
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import NUM_FRAMES
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonError, PolygonRings
from beyonddrive.structures.plan import POSE_INTERVAL
from beyonddrive.structures.se2 import wrap_angle

MAX_COORDINATE = 1e9
"""Coordinates beyond this are no metres on Earth, and too coarse to score with [m]."""


def as_numbers(token: str, name: str, values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """``values`` as finite float64 of a shape; -1 in it is any length.

    Raises:
        MetricCacheError: If they are not; the message names the argument.
    """
    array = _numbers(token, name, values)
    fits = array.ndim == len(shape) and all(
        want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = str(shape).replace("-1", "N")
        raise MetricCacheError(f"{token}: {name} must have shape {wanted}, got {array.shape}")
    if not (np.abs(array) <= MAX_COORDINATE).all():
        raise MetricCacheError(f"{token}: {name} holds NaN, infinity or a number beyond {MAX_COORDINATE:g}")
    return array


def as_centerline(token: str, values: ArrayLike) -> Floats:
    """Vertices (V, 3) x, y and the direction to the next one, of a line (V', 2); repeated vertices left out.

    Raises:
        MetricCacheError: If it has no length.
    """
    xy = as_numbers(token, "centerline", values, (-1, 2))
    kept = np.ones(len(xy), dtype=bool)
    kept[1:] = (np.diff(xy, axis=0) != 0.0).any(axis=1)
    xy = xy[kept]
    if len(xy) < 2:
        raise MetricCacheError(f"{token}: centerline must have two or more different vertices, got {len(xy)}")
    step = np.diff(xy, axis=0)
    heading = np.arctan2(step[:, 1], step[:, 0])
    return np.column_stack([xy, np.append(heading, heading[-1])])


def as_polygons(token: str, name: str, polygons: Sequence[ArrayLike | shapely.Geometry]) -> PolygonRings:
    """Polygons given as vertices (V, 2) each, or as shapely polygons and multi-polygons.

    Raises:
        MetricCacheError: If one has fewer than three vertices, is empty, or is no polygon.
    """
    shapes = []
    for row, polygon in enumerate(polygons):
        if not isinstance(polygon, shapely.Geometry):
            vertices = as_numbers(token, f"{name}[{row}]", polygon, (-1, 2))
            if len(vertices) < 3:
                raise MetricCacheError(
                    f"{token}: {name}[{row}] has {len(vertices)} vertices; a polygon has three or more"
                )
            polygon = shapely.Polygon(vertices)
        shapes.append(polygon)
    try:
        return PolygonRings.from_geometries(shapes)
    except PolygonError as error:
        raise MetricCacheError(f"{token}: {name}: {error}") from None


def agent_tracks(
    token: str,
    poses: ArrayLike | None,
    sizes: ArrayLike | None,
    types: Sequence[str],
    velocities: ArrayLike | None,
    tokens: Sequence[str] | None,
) -> Tracks:
    """Tracks as :func:`tracks.tracks_of` makes them; agents never there left out.

    Raises:
        MetricCacheError: If the arrays do not fit each other, an agent has no size, an unknown class or the
            name of another.
    """
    if poses is None:
        poses, sizes = np.zeros((NUM_FRAMES, 0, 3)), np.zeros((0, 2))
    array = _numbers(token, "agent_poses", poses)
    if array.ndim != 3 or array.shape[0] != NUM_FRAMES or array.shape[2] != 3:
        raise MetricCacheError(
            f"{token}: agent_poses must have shape ({NUM_FRAMES}, M, 3): x, y, heading now and every "
            f"{POSE_INTERVAL} s after; got {array.shape}"
        )
    count = array.shape[1]
    missing = np.isnan(array)
    if (missing != missing[..., :1]).any():
        raise MetricCacheError(f"{token}: agent_poses: a pose is NaN in part; make all three NaN, or none")
    present = ~missing[..., 0]
    as_numbers(token, "agent_poses", array[present], (-1, 3))
    if sizes is None:
        raise MetricCacheError(
            f"{token}: agent_sizes is missing; give length and width of the {count} agents"
        )
    size = as_numbers(token, "agent_sizes", sizes, (count, 2))
    if (size <= 0).any():
        raise MetricCacheError(
            f"{token}: agent_sizes: agent {int(np.argmax((size <= 0).any(axis=1)))} has length "
            f"and width {size[(size <= 0).any(axis=1)][0].tolist()}; both must be above 0"
        )
    names = [f"agent {m}" for m in range(count)] if tokens is None else [str(name) for name in tokens]
    if len(types) != count or len(names) != count:
        raise MetricCacheError(
            f"{token}: {count} agents in agent_poses, {len(types)} agent_types and {len(names)} agent_tokens"
        )
    unknown = [kind for kind in types if kind not in TYPE_INDEX]
    if unknown:
        raise MetricCacheError(f"{token}: agent_types: {unknown[0]!r} is none of {', '.join(TYPE_INDEX)}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise MetricCacheError(f"{token}: agent_tokens: {twice[0]!r} is there twice; a token names one agent")
    kinds = np.array([TYPE_INDEX[kind] for kind in types], dtype=np.int8)
    if velocities is None:
        velocity = _first_velocities(array, present)
    else:
        velocity = as_numbers(token, "agent_velocities", velocities, (count, 2)).copy()
    velocity[~IS_AGENT[kinds]] = 0.0
    times_seen = present.sum(axis=0)
    # What one frame sees is there from the start.
    appears = np.where(times_seen == 1, 0, present.argmax(axis=0))
    order = np.lexsort((kinds, appears))
    order = order[times_seen[order] > 0]
    array = array.copy()
    array[present, 2] = wrap_angle(array[present, 2])
    return Tracks(
        tuple(names[m] for m in order),
        kinds[order],
        np.ascontiguousarray(size[order]),
        np.ascontiguousarray(velocity[order]),
        np.ascontiguousarray(array[:, order]),
    )


def now_of(tracks: Tracks) -> tuple[Ints, Floats, Floats, Floats]:
    """Classes (N,), boxes (N, 3), sizes (N, 2) and velocities (N, 2) of the objects seen now."""
    here = np.isfinite(tracks.poses[0, :, 0])
    return (
        tracks.types[here].astype(np.int64),
        tracks.poses[0, here],
        tracks.size[here],
        tracks.velocity[here],
    )


def _first_velocities(poses: Floats, present: Bools) -> Floats:
    """Velocities (M, 2) between the first two poses of each track (11, M, 3), 0 where there are not two."""
    velocity = np.zeros((poses.shape[1], 2))
    for m in range(poses.shape[1]):
        seen = np.flatnonzero(present[:, m])
        if len(seen) > 1:
            way = poses[seen[1], m, :2] - poses[seen[0], m, :2]
            velocity[m] = way / (POSE_INTERVAL * (seen[1] - seen[0]))
    return velocity


def _numbers(token: str, name: str, values: ArrayLike) -> Floats:
    try:
        return np.ascontiguousarray(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        raise MetricCacheError(f"{token}: {name} must be an array of numbers") from None
