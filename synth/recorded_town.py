"""A simulated town as arrays: where everybody and everything is at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beyonddrive.synth.motion import Motion
from beyonddrive.synth.network import Network
from beyonddrive.synth.recording import Signals
from beyonddrive.synth.roadside import StaticObject
from beyonddrive.synth.tokens import token_of
from beyonddrive.synth.town_map import TownMap

MOVING_RANGE = 90.0
"""Vehicles and bicycles are annotated up to this distance from the ego [m] ..."""
NEAR_RANGE = 60.0
"""... pedestrians and things that stand up to this one."""
LIGHT_RANGE = 120.0
"""Signals are listed up to this distance [m]."""


@dataclass(frozen=True)
class Snapshot:
    """Everybody and everything in a town at one step, town coordinates."""

    index: NDArray[np.int64]
    """Row of :class:`RecordedTown`'s tables of every object."""
    center: NDArray[np.float64]
    heading: NDArray[np.float64]
    velocity: NDArray[np.float64]


class RecordedTown:
    """A town and what happened in it.

    Args:
        name: Unique name of the town, part of every token.
        location: Map location.
        offset: (2,) added to the town's coordinates to place it in the map [m].
        network: Street network.
        town_map: Ids of its map rows.
        motions: Smooth motion of everybody, sorted by name.
        static: What stands.
        signals: States of signals.
    """

    def __init__(
        self,
        name: str,
        location: str,
        offset: tuple[float, float],
        network: Network,
        town_map: TownMap,
        motions: Sequence[Motion],
        static: Sequence[StaticObject],
        signals: Signals,
    ) -> None:
        self.name = name
        self.location = location
        self.offset = np.array(offset, dtype=np.float64)
        self.network = network
        self.town_map = town_map
        self.motions = list(motions)
        self.num_steps = max((motion.last for motion in motions), default=-1) + 1
        # Tables of all objects, first those that move.
        self.types = [m.type for m in motions] + [s.type for s in static]
        self.tokens = [token_of(name, "track", m.name) for m in motions]
        self.tokens += [token_of(name, "thing", s.name) for s in static]
        self.size = np.array([m.size for m in motions] + [s.size for s in static], np.float64).reshape(-1, 3)
        self.reach = np.array(
            [NEAR_RANGE if m.type == "pedestrian" else MOVING_RANGE for m in motions]
            + [NEAR_RANGE] * len(static)
        )
        shape = (self.num_steps, len(motions))
        self.center = np.full((*shape, 2), np.nan)
        """(steps, movers, 2) box centres [m], NaN while absent."""
        self.heading = np.full(shape, np.nan)
        self.velocity = np.full((*shape, 2), np.nan)
        for i, motion in enumerate(motions):
            steps = slice(motion.first, motion.last + 1)
            self.center[steps, i] = motion.center
            self.heading[steps, i] = motion.pose[:, 2]
            self.velocity[steps, i] = motion.center_velocity
        self.static_center = np.array([s.center for s in static], np.float64).reshape(-1, 2)
        self.static_heading = np.array([s.heading for s in static], np.float64)
        lights = [c for c in network.connections if c.signal is not None]
        self._light_ids = [town_map.connector[c.internal[0]] for c in lights]
        self._light_links = [c.signal for c in lights if c.signal is not None]
        self._light_xy = np.array([c.center[0] for c in lights], dtype=np.float64).reshape(-1, 2)
        self._signals = signals

    def around(self, step: int, point: NDArray[np.float64], without: int) -> Snapshot:
        """What is annotated at a step around ``point`` (2,); ``without`` is the row of the ego."""
        away = np.hypot(*(self.center[step] - point).T)
        movers = np.flatnonzero(away < self.reach[: len(self.motions)])
        movers = movers[movers != without]
        things = np.flatnonzero(np.hypot(*(self.static_center - point).T) < NEAR_RANGE)
        return Snapshot(
            np.concatenate([movers, things + len(self.motions)]),
            np.concatenate([self.center[step, movers], self.static_center[things]]),
            np.concatenate([self.heading[step, movers], self.static_heading[things]]),
            np.concatenate([self.velocity[step, movers], np.zeros((len(things), 2))]),
        )

    def traffic_lights(self, step: int, point: NDArray[np.float64]) -> list[tuple[int, bool]]:
        """(lane connector id, is red) of the signals near a point."""
        near = np.hypot(*(self._light_xy - point).T) < LIGHT_RANGE
        return [
            (self._light_ids[i], self._signals.is_red(self._light_links[i], step))
            for i in np.flatnonzero(near)
        ]
