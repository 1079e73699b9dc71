"""The metric cache: everything the score of a scene needs besides the plan (PDMS_V1, section 12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.arrays import Flags, Floats, Ints
from beyonddrive.evaluation.pdm.polygons import PolygonRings
from beyonddrive.evaluation.pdm.prepare import PreparedScene, prepare
from beyonddrive.evaluation.pdm.tracks import Tracks

CACHE_VERSION = 1
"""Raised whenever stored caches must not be used any more."""


class MetricCacheError(ValueError):
    """A scene cannot be scored; the message names the scene, the reason and the remedy."""


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
        polygon_types: (P,) int8 indices into :data:`beyonddrive.evaluation.pdm.constants.POLYGON_TYPES`.
        tracks: Other road users, now and in the five seconds after.
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

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "prepared"}

    # ------------------------------------------------------------------ storage
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The cache as plain numeric arrays, for a :class:`beyonddrive.datasets.shards.ShardStore`."""
        arrays = {name: getattr(self, name) for name in _PLAIN}
        for prefix, names in _NESTED.items():
            part = getattr(self, prefix)
            arrays |= {f"{prefix}.{name}": getattr(part, name) for name in names}
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
            MetricCacheError: If an array is missing or of another version.
        """
        try:
            version = int(arrays["version"])
            if version != CACHE_VERSION:
                raise MetricCacheError(
                    f"this metric cache has version {version}, this release reads {CACHE_VERSION}; "
                    f"make it again"
                )
            plain = {name: _own(arrays[name], dtype) for name, dtype in _PLAIN.items()}
            polygons = PolygonRings(
                **{key: _own(arrays[f"polygons.{key}"], dtype) for key, dtype in _NESTED["polygons"].items()}
            )
            tracks = Tracks(
                _decode(arrays["tracks.tokens"]),
                **{key: _own(arrays[f"tracks.{key}"], dtype) for key, dtype in _NESTED["tracks"].items()},
            )
            return cls(
                token=_decode(arrays["token"])[0],
                log_name=_decode(arrays["log_name"])[0],
                time_us=int(arrays["time_us"]),
                polygons=polygons,
                tracks=tracks,
                **plain,
            )
        except KeyError as error:
            raise MetricCacheError(
                f"a metric cache without {error}: not one, or damaged; make it again"
            ) from None


_PLAIN: dict[str, Any] = {
    "ego_state": np.float64,
    "proposal": np.float64,
    "centerline": np.float64,
    "route_ids": np.int64,
    "polygon_ids": np.int64,
    "polygon_types": np.int8,
}
_NESTED: dict[str, dict[str, Any]] = {
    "polygons": {"vertices": np.float64, "ring_starts": np.int64, "polygon_starts": np.int64},
    "tracks": {"types": np.int8, "size": np.float64, "velocity": np.float64, "poses": np.float64},
}


def _own(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """A writable, contiguous array: kernels are compiled for those, not for views of a mapped file."""
    return np.require(array, dtype=dtype, requirements=["C", "W", "A"])


def _encode(texts: list[str] | tuple[str, ...]) -> Flags:
    """Texts as bytes, each ended by a zero."""
    return np.frombuffer("".join(text + "\0" for text in texts).encode(), dtype=np.uint8).copy()


def _decode(array: Flags) -> tuple[str, ...]:
    return tuple(np.asarray(array, dtype=np.uint8).tobytes().decode().split("\0")[:-1])
