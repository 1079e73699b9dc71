"""Ways through a town that an ego may be sent: lanes that lead on, free of what stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.structures.boxes import box_corners
from beyonddrive.structures.se2 import to_global
from beyonddrive.synth.curves import arc_length
from beyonddrive.synth.live.place import Place, place_of
from beyonddrive.synth.live.town import LiveTown
from beyonddrive.synth.network import Connection, Lane

CLEARANCE = 1.2
"""Between the middle of the path and whatever stands [m]."""
START = (8.0, 30.0)
"""Where on its first lane a path starts [m] ..."""
START_LEFT = 30.0
"""... with so much of the lane ahead [m]."""
LENGTHS = (110.0, 175.0)
"""Lengths of paths [m]."""
SPARE = 60.0
"""Lanes go on behind the end of a path, where plans reach [m]."""
_TURN_WEIGHT = 1.6

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Way:
    """A path with what the choice of a scenario asks of it.

    Attributes:
        place: The path.
        length: Of it [m].
        speed: At which it is driven at its start [m/s].
    """

    place: Place
    length: float
    speed: float

    def beside(self, progress: float, left: float) -> Floats:
        """Pose (3,) beside the path, town coordinates, along its direction."""
        row = min(round(progress), len(self.place.path) - 1)
        return to_global([0.0, left, 0.0], self.place.path[row])


class WayFinder:
    """Finds ways in a town."""

    def __init__(self, town: LiveTown) -> None:
        self.town = town
        network = town.network
        usable = network.strongly_connected()
        self.lanes: dict[str, Lane] = {
            lane.id: lane for name in sorted(usable) for lane in network.roads[name].cars()
        }
        self.onward: dict[str, list[Connection]] = {name: [] for name in self.lanes}
        for connection in network.connections:
            if connection.from_lane in self.lanes and connection.to_lane in self.lanes:
                self.onward[connection.from_lane].append(connection)
        self._length = {name: float(arc_length(lane.center)[-1]) for name, lane in self.lanes.items()}
        things = town.static
        corners = box_corners(
            np.array([thing.center for thing in things]).reshape(-1, 2),
            np.array([thing.heading for thing in things]),
            np.array([thing.size[0] for thing in things]),
            np.array([thing.size[1] for thing in things]),
        )
        self.standing = shapely.STRtree(shapely.polygons(corners))

    def is_free(self, line: Floats, margin: float) -> bool:
        """Whether nothing stands within a margin [m] of a line (N, 2) of the town."""
        shape = shapely.LineString(line)
        return not len(self.standing.query(shape, predicate="dwithin", distance=margin))

    def draw(self, rng: np.random.Generator, tries: int = 200) -> Way | None:
        """A way, or None if none was found."""
        names = [name for name in self.lanes if self._length[name] > START[0] + START_LEFT]
        for _ in range(tries):
            lanes = [names[int(rng.integers(len(names)))]]
            first = self._length[lanes[0]]
            start = float(rng.uniform(START[0], min(START[1], first - START_LEFT)))
            length = float(rng.uniform(*LENGTHS))
            total = first
            while total < start + length + SPARE:
                options = [c for c in self.onward[lanes[-1]] if c.to_lane not in lanes]
                if not options:
                    break
                weight = np.array([1.0 if c.direction == "s" else _TURN_WEIGHT for c in options])
                chosen = options[int(rng.choice(len(options), p=weight / weight.sum()))]
                lanes.append(chosen.to_lane)
                total += float(arc_length(chosen.center)[-1]) + self._length[chosen.to_lane]
            roads = {lane.rsplit("_", 1)[0] for lane in lanes}
            if total < start + length + SPARE or len(roads) < len(lanes):
                continue
            start, length = round(start, 2), round(length, 2)
            place = place_of(self.town.network, lanes, start, length)
            if self.is_free(place.path[:, :2], CLEARANCE):
                speed = round(float(self.lanes[lanes[0]].speed * rng.uniform(0.5, 0.85)), 2)
                return Way(place, length, speed)
        return None
