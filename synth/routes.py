"""The route of a simulated vehicle: its blocks in driving order, and what it tells the planner to do next."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.synth.curves import arc_length, at, headings, project
from beyonddrive.synth.network import Connection, Lane, Network
from beyonddrive.synth.recording import RawTrack
from beyonddrive.synth.town_map import TownMap

AHEAD = 20.0
"""The driving command looks this far along the route [m] ..."""
TURN_OFFSET = 2.0
"""... and says left or right if the route is this far to the side there [m]."""
ROADS_AHEAD = 7
"""Roads that a route names after the present one."""
LEFT, FORWARD, RIGHT = 0, 1, 2
"""Positions in the one-hot driving command (NAVSIM_FORMAT, section 2)."""


_Path = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Points (N, 2), arc lengths (N,) and headings (N,) of a polyline."""


def read_routes(path: Path) -> dict[str, list[str]]:
    """Planned roads of every vehicle in a route file of SUMO."""
    return {
        vehicle.attrib["id"]: route.attrib["edges"].split()
        for vehicle in ElementTree.parse(path).getroot().iter("vehicle")
        for route in vehicle.iter("route")
    }


class Route:
    """Where a vehicle is on its planned roads at every sample of its raw track.

    Args:
        network: Street network.
        planned: Roads of the vehicle in order.
        track: What it did.
    """

    def __init__(self, network: Network, planned: list[str], track: RawTrack) -> None:
        self._network = network
        self._planned = planned
        self._track = track
        self._lanes = {lane.id: lane for road in network.roads.values() for lane in road.lanes}
        through = {part: c for c in network.connections for part in c.internal}
        self._through = through
        self._paths: dict[tuple[int, str], _Path] = {}
        index = 0
        places = []
        for lane in track.lane:
            connection = through.get(lane)
            road = connection.from_road if connection is not None else lane.rsplit("_", 1)[0]
            while index < len(planned) - 1 and planned[index] != road:
                index += 1
            places.append(2 * index + (connection is not None or lane.startswith(":")))
        self.place = np.array(places, dtype=np.int64)
        """(N,) twice the index of the road, plus one in the junction behind it."""

    def blocks(self, place: int, town: TownMap) -> list[str]:
        """Ids of roadblocks and roadblock connectors from ``place`` on; ends before a road comes twice."""
        blocks: list[str] = []
        seen: set[str] = set()
        for i in range(place // 2, min(place // 2 + ROADS_AHEAD + 1, len(self._planned))):
            road = self._planned[i]
            if road in seen:
                break
            seen.add(road)
            if i > place // 2:
                pair = (self._planned[i - 1], road)
                if pair not in town.block_connector:
                    break
                blocks.append(str(town.block_connector[pair]))
            if i > place // 2 or place % 2 == 0:
                blocks.append(str(town.roadblock[road]))
        return blocks

    def _choice(self, road: int, lane: Lane | None, point: NDArray[np.float64]) -> Connection | None:
        """Connection from a planned road to the next, from ``lane`` or else the closest lane."""
        if road + 1 >= len(self._planned):
            return None
        options = self._network.links.get((self._planned[road], self._planned[road + 1]), [])
        best, cost = None, np.inf
        for option in options:
            lateral = abs(project(self._lanes[option.from_lane].center, point)[1])
            if lane is not None and option.from_lane == lane.id:
                lateral = -1.0
            if lateral < cost:
                best, cost = option, lateral
        return best

    def command(self, sample: int, point: NDArray[np.float64]) -> NDArray[np.int64]:
        """One-hot command (4,) for a vehicle at ``point`` (2,), where it was at ``sample`` of its track."""
        path, length, direction = self._path_ahead(sample, point)
        command = np.zeros(4, dtype=np.int64)
        command[FORWARD] = 1
        if len(path) < 2:
            return command
        station, _ = project(path, point)
        ends = at(path, length, np.array([station, station + AHEAD]))
        yaw = float(np.interp(station, length, direction))
        step = ends[1] - ends[0]
        lateral = -np.sin(yaw) * step[0] + np.cos(yaw) * step[1]
        if abs(lateral) > TURN_OFFSET:
            command[:] = 0
            command[LEFT if lateral > 0 else RIGHT] = 1
        return command

    def _path_ahead(self, sample: int, point: NDArray[np.float64]) -> _Path:
        """Centre line from the present lane on, over the next two junctions of the route.

        Kept per lane: if the present lane does not lead on, the closest that does when it is first asked for.
        """
        place = int(self.place[sample])
        key = (place, self._track.lane[sample])
        if key in self._paths:
            return self._paths[key]
        lane = self._lanes.get(self._track.lane[sample])
        pieces: list[NDArray[np.float64]] = []
        connection = self._through.get(self._track.lane[sample]) if place % 2 else None
        if connection is None:
            connection = self._choice(place // 2, lane, point)
            if connection is not None:
                pieces.append(self._lanes[connection.from_lane].center)
            elif lane is not None:
                pieces.append(lane.center)
        if connection is not None:
            following = self._lanes[connection.to_lane]
            pieces += [connection.center, following.center]
            onward = self._choice(place // 2 + 1, following, following.center[-1])
            if onward is not None and onward.from_lane == following.id:
                pieces += [onward.center, self._lanes[onward.to_lane].center]
        if pieces:
            path = np.concatenate([pieces[0], *[piece[1:] for piece in pieces[1:]]])
            self._paths[key] = path, arc_length(path), headings(path)
        else:
            self._paths[key] = np.zeros((0, 2)), np.zeros(0), np.zeros(0)
        return self._paths[key]
