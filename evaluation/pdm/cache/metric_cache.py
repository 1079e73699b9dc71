"""The metric cache: everything the score of a scene needs besides the plan (PDMS_V1, section 12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.cache.prepare import prepare, prepare_extended
from beyonddrive.evaluation.pdm.inputs.extended import ExtendedScene
from beyonddrive.evaluation.pdm.inputs.tracks import Tracks
from beyonddrive.evaluation.pdm.kernels.arrays import Flags, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import MAP_INTERVAL_US, NUM_FRAMES, NUM_MAPS
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings
from beyonddrive.evaluation.pdm.kernels.prepared import PreparedScene
from beyonddrive.evaluation.pdm.kernels.simulate import STATE_SIZE
from beyonddrive.structures.errors import BeyondDriveError

CACHE_VERSION = 3
"""Raised whenever stored caches must not be used any more."""


class MetricCacheError(BeyondDriveError, ValueError):
    """A scene cannot be scored; the message names the scene, the reason and the remedy."""


def check_history(extended: ExtendedScene, where: str, key: str = "ego_dynamic_state") -> None:
    """Whether history comfort can be computed from the last four frames (EPDMS_V2, section 8).

    Args:
        extended: What EPDMS needs of the scene.
        where: What to call the scene in errors.
        key: What the velocity and acceleration of a frame are called where they are from.

    Raises:
        MetricCacheError: If time stamps do not increase or a state is not finite.
    """
    stamps = extended.history_us
    if (np.diff(stamps) <= 0).any() or stamps[-1] - stamps[0] <= 2 * MAP_INTERVAL_US:
        raise MetricCacheError(
            f"{where}: the time stamps (timestamp) of the last four frames do not increase, or span less "
            f"than 0.2 s, and history comfort needs them: {stamps.tolist()}; leave the scene out"
        )
    bad = np.flatnonzero(~np.isfinite(extended.history).all(axis=1))
    if len(bad):
        raise MetricCacheError(
            f"{where}: {key} of a frame before now is not finite (frame {bad[0]}), and history comfort needs "
            f"it; leave the scene out"
        )


@dataclass(frozen=True, eq=False)
class MetricCache:
    """One scene as the score sees it; metres, radians, seconds, global frame, float64.

    Attributes:
        token: Token of the scene.
        log_name: Log it is of.
        time_us: Time stamp now [us].
        ego_state: (11,) x, y, heading of the rear axle, vx, vy, ax, ay, steering, steering rate, yaw rate,
            yaw acceleration.
        proposal: (51, 3) poses of the reference planner (PDM-Closed) every 0.1 s.
        centerline: (V, 3) x, y, heading of the vertices of the route's centre line.
        route_ids: (R,) int64 ids of the lanes and lane connectors of the corrected route, in order.
        polygons: Polygons of the drivable map.
        polygon_ids: (P,) int64.
        polygon_types: (P,) int8 indices into :data:`constants.POLYGON_TYPES`.
        tracks: Other road users, now and in the five seconds after.
        extended: What EPDMS needs besides; None if the scene is only scored by PDMS.
    """

    token: str
    log_name: str
    time_us: int
    ego_state: Floats
    proposal: Floats
    centerline: Floats
    route_ids: Ints
    polygons: PolygonRings = field(repr=False)
    polygon_ids: Ints = field(repr=False)
    polygon_types: NDArray[np.int8] = field(repr=False)
    tracks: Tracks = field(repr=False)
    extended: ExtendedScene | None = field(default=None, repr=False)

    @cached_property
    def prepared(self) -> PreparedScene:
        """What the kernels read; made at first use, never stored."""
        return prepare(
            self.ego_state,
            self.time_us,
            self.proposal,
            self.centerline,
            self.polygons,
            self.polygon_types,
            np.isin(self.polygon_ids, self.route_ids),
            self.tracks.traffic(),
        )

    @cached_property
    def prepared_extended(self) -> PreparedScene:
        """As :attr:`prepared`, for EPDMS.

        Raises:
            MetricCacheError: If the cache does not hold what EPDMS needs.
        """
        if self.extended is None:
            raise MetricCacheError(
                f"scene {self.token}: this metric cache serves PDMS only; EPDMS needs lights, history and "
                f"the human plan (MetricCache.extended)"
            )
        check_history(self.extended, f"scene {self.token}")
        return prepare_extended(self.prepared, self.time_us, self.tracks, self.extended)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("prepared")}

    # ------------------------------------------------------------------ storage
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The cache as plain numeric arrays, as a store of shards keeps them."""
        arrays = {name: getattr(self, name) for name in _PLAIN}
        parts: dict[str, Any] = {"polygons": self.polygons, "tracks": self.tracks}
        if self.extended is not None:
            parts |= {"extended": self.extended, "extended.lights": self.extended.lights}
        for prefix, part in parts.items():
            arrays |= {f"{prefix}.{name}": getattr(part, name) for name in _NESTED[prefix]}
        arrays = {key: a.view(np.uint8) if a.dtype == np.bool_ else a for key, a in arrays.items()}
        arrays["time_us"] = np.array(self.time_us, dtype=np.int64)
        arrays["version"] = np.array(CACHE_VERSION, dtype=np.int64)
        for key, text in (
            ("token", [self.token]),
            ("log_name", [self.log_name]),
            ("tracks.tokens", self.tracks.tokens),
        ):
            arrays[key] = _encode(text)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> MetricCache:
        """Inverse of :meth:`to_arrays`; gives the same scores, bit for bit.

        Raises:
            MetricCacheError: If an array is missing, of another version, or does not fit the others.
        """
        try:
            version = int(arrays["version"])
            if version != CACHE_VERSION:
                raise MetricCacheError(
                    f"this metric cache has version {version}, this release reads {CACHE_VERSION}; "
                    f"make it again"
                )
            plain = {name: _own(arrays[name], dtype) for name, dtype in _PLAIN.items()}
            extended = None
            if "extended.proposal" in arrays:
                lights = PolygonRings(**_part(arrays, "extended.lights"))
                extended = ExtendedScene(**_part(arrays, "extended"), lights=lights)
            cache = cls(
                token=_decode(arrays["token"])[0],
                log_name=_decode(arrays["log_name"])[0],
                time_us=int(arrays["time_us"]),
                polygons=PolygonRings(**_part(arrays, "polygons")),
                tracks=Tracks(_decode(arrays["tracks.tokens"]), **_part(arrays, "tracks")),
                extended=extended,
                **plain,
            )
            _check(cache)
            return cache
        except MetricCacheError:
            raise
        except KeyError as error:
            raise MetricCacheError(
                f"a metric cache without {error}: not one, or damaged; make it again"
            ) from None
        except (ValueError, TypeError, IndexError) as error:
            raise MetricCacheError(f"a metric cache that is damaged ({error}); make it again") from error


_PLAIN: dict[str, Any] = {
    "ego_state": np.float64,
    "proposal": np.float64,
    "centerline": np.float64,
    "route_ids": np.int64,
    "polygon_ids": np.int64,
    "polygon_types": np.int8,
}
_RINGS = {"vertices": np.float64, "ring_starts": np.int64, "polygon_starts": np.int64}
_NESTED: dict[str, dict[str, Any]] = {
    "polygons": _RINGS,
    "tracks": {"types": np.int8, "size": np.float64, "velocity": np.float64, "poses": np.float64},
    "extended": {
        "proposal": np.float64,
        "human": np.float64,
        "history_us": np.int64,
        "history": np.float64,
        "light_ids": np.int64,
        "light_red": np.bool_,
    },
    "extended.lights": _RINGS,
}


def _part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name: _own(arrays[f"{prefix}.{name}"], dtype) for name, dtype in _NESTED[prefix].items()}


def _check(cache: MetricCache) -> None:
    """Say which array does not fit the others: kernels would read beyond its end.

    Raises:
        ValueError: If there is one.
    """
    count, objects, tracks = len(cache.polygon_ids), len(cache.tracks), cache.tracks
    shapes: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
        "ego_state": (cache.ego_state, (STATE_SIZE,)),
        "proposal": (cache.proposal, (NUM_MAPS, 3)),
        "centerline": (cache.centerline, (max(len(cache.centerline), 2), 3)),
        "polygon_types": (cache.polygon_types, (count,)),
        "tracks.types": (tracks.types, (objects,)),
        "tracks.size": (tracks.size, (objects, 2)),
        "tracks.velocity": (tracks.velocity, (objects, 2)),
        "tracks.poses": (tracks.poses, (NUM_FRAMES, objects, 3)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    rings = {"polygons": (cache.polygons, count)}
    if cache.extended is not None:
        rings["extended.lights"] = (cache.extended.lights, len(cache.extended.light_ids))
    for name, (part, polygons) in rings.items():
        for key, starts, total in (
            ("ring_starts", part.ring_starts, len(part.vertices)),
            ("polygon_starts", part.polygon_starts, len(part.ring_starts) - 1),
        ):
            if not len(starts) or starts[0] != 0 or starts[-1] != total or (np.diff(starts) <= 0).any():
                raise ValueError(f"{name}.{key} does not count up from 0 to {total}")
        if len(part) != polygons:
            raise ValueError(f"{name} holds {len(part)} polygons, expected {polygons}")


def _own(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """A writable, contiguous array: kernels are compiled for those, not for views of a mapped file."""
    return np.require(array, dtype=dtype, requirements=["C", "W", "A"])


def _encode(texts: list[str] | tuple[str, ...]) -> Flags:
    """Texts as bytes, each ended by a zero."""
    return np.frombuffer("".join(text + "\0" for text in texts).encode(), dtype=np.uint8).copy()


def _decode(array: Flags) -> tuple[str, ...]:
    return tuple(np.asarray(array, dtype=np.uint8).tobytes().decode().split("\0")[:-1])
