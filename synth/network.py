"""SUMO's ``.net.xml`` as plain data: roads, lanes, connections, junctions, crossings and signal links."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.synth.curves import arc_length, resample

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Lane:
    """One lane of a road: ``kind`` is car, bicycle, parking or sidewalk; ``center`` is (N, 2) [m]."""

    id: str
    index: int
    kind: str
    width: float
    speed: float
    center: Points


@dataclass(frozen=True)
class Road:
    """One direction of a street (an edge of SUMO); lanes from right to left."""

    id: str
    start: str
    end: str
    lanes: tuple[Lane, ...]

    def cars(self) -> list[Lane]:
        """Lanes that cars may use, from right to left."""
        return [lane for lane in self.lanes if lane.kind == "car"]


@dataclass(frozen=True)
class Connection:
    """A way for cars through a junction, from the end of one lane to the start of another."""

    from_road: str
    to_road: str
    from_lane: str
    to_lane: str
    junction: str
    internal: tuple[str, ...]
    """Ids of the internal lanes it consists of, in driving order."""
    direction: str
    """SUMO's letter: s straight, l and L left, r and R right."""
    center: Points
    speed: float
    signal: tuple[str, int] | None
    """Signal and index of the link in its state string."""


@dataclass(frozen=True)
class Junction:
    """A junction: ``shape`` (N, 2) is its outline including sidewalk corners."""

    id: str
    kind: str
    shape: Points


@dataclass
class Network:
    """A street network."""

    roads: dict[str, Road] = field(default_factory=dict)
    connections: list[Connection] = field(default_factory=list)
    junctions: dict[str, Junction] = field(default_factory=dict)
    crossings: dict[str, Points] = field(default_factory=dict)
    """Outlines of pedestrian crossings by id."""
    walking_areas: dict[str, Points] = field(default_factory=dict)
    """Outlines of sidewalk corners by id."""
    links: dict[tuple[str, str], list[Connection]] = field(default_factory=dict)
    """Connections between a pair of roads."""

    def successors(self, road: str) -> list[str]:
        """Roads that cars can reach from the end of ``road``, in a fixed order."""
        return sorted({to_road for from_road, to_road in self.links if from_road == road})

    def onward(self, road: str, count: int) -> list[str]:
        """The next roads from the end of ``road``, straight on where possible; fewer at a dead end."""
        found: list[str] = []
        while len(found) < count and (options := self.successors(road)):
            road = min(options, key=lambda to: (self.links[road, to][0].direction != "s", to))
            found.append(road)
        return found

    def strongly_connected(self) -> set[str]:
        """Return the largest set of roads each of which can be reached from every other."""
        forward = {road: self.successors(road) for road in self.roads}
        backward: dict[str, list[str]] = {road: [] for road in self.roads}
        for road, following in forward.items():
            for other in following:
                backward[other].append(road)
        best: set[str] = set()
        rest = set(self.roads)
        while rest:
            start = min(rest)
            component = _reach(start, forward) & _reach(start, backward)
            rest -= component
            if len(component) > len(best):
                best = component
        return best

    def lane_length(self) -> float:
        """Length of all car lanes from which the whole town can be reached [m]."""
        lanes = [lane for road in self.strongly_connected() for lane in self.roads[road].cars()]
        return float(sum(arc_length(lane.center)[-1] for lane in lanes))


def _reach(start: str, graph: dict[str, list[str]]) -> set[str]:
    seen, stack = {start}, [start]
    while stack:
        for other in graph[stack.pop()]:
            if other not in seen:
                seen.add(other)
                stack.append(other)
    return seen


def _shape(text: str) -> Points:
    return np.array([[float(v) for v in pair.split(",")[:2]] for pair in text.split()], dtype=np.float64)


def _kind(lane: ElementTree.Element) -> str:
    if lane.get("allow") == "pedestrian":
        return "sidewalk"
    if lane.get("allow") == "bicycle":
        return "bicycle"
    return "parking" if lane.get("disallow") == "all" else "car"


def read_network(path: Path) -> Network:
    """Read a network of :func:`beyonddrive.synth.town.build_network`."""
    root = ElementTree.parse(path).getroot()
    network = Network()
    internal: dict[str, ElementTree.Element] = {}
    for edge in root.iter("edge"):
        lanes = list(edge.iter("lane"))
        function = edge.get("function")
        if function == "internal":
            internal.update({lane.attrib["id"]: lane for lane in lanes})
        elif function == "crossing":
            outline = lanes[0].get("outlineShape") or lanes[0].attrib["shape"]
            network.crossings[edge.attrib["id"]] = _shape(outline)
        elif function == "walkingarea":
            network.walking_areas[edge.attrib["id"]] = _shape(lanes[0].attrib["shape"])
        elif function is None:
            network.roads[edge.attrib["id"]] = Road(
                edge.attrib["id"],
                edge.attrib["from"],
                edge.attrib["to"],
                tuple(
                    Lane(
                        lane.attrib["id"],
                        int(lane.attrib["index"]),
                        _kind(lane),
                        float(lane.get("width", 3.2)),
                        float(lane.attrib["speed"]),
                        resample(_shape(lane.attrib["shape"])),
                    )
                    for lane in lanes
                ),
            )
    for junction in root.iter("junction"):
        if junction.get("type") != "internal" and junction.get("shape"):
            network.junctions[junction.attrib["id"]] = Junction(
                junction.attrib["id"], junction.attrib["type"], _shape(junction.attrib["shape"])
            )
    # An internal lane may end inside the junction, where its connection goes on with another internal lane.
    onward = {
        f"{c.attrib['from']}_{c.attrib['fromLane']}": c.get("via")
        for c in root.iter("connection")
        if c.attrib["from"].startswith(":")
    }
    for c in root.iter("connection"):
        if c.attrib["from"] not in network.roads or c.attrib["to"] not in network.roads:
            continue
        start = network.roads[c.attrib["from"]].lanes[int(c.attrib["fromLane"])]
        end = network.roads[c.attrib["to"]].lanes[int(c.attrib["toLane"])]
        if start.kind != "car" or end.kind != "car":
            continue
        parts = [c.attrib["via"]]
        while (following := onward.get(parts[-1])) is not None:
            parts.append(following)
        shapes = [_shape(internal[part].attrib["shape"]) for part in parts]
        center = np.concatenate([shapes[0], *[shape[1:] for shape in shapes[1:]]])
        center[0], center[-1] = start.center[-1], end.center[0]
        connection = Connection(
            c.attrib["from"],
            c.attrib["to"],
            start.id,
            end.id,
            network.roads[c.attrib["from"]].end,
            tuple(parts),
            c.attrib["dir"],
            resample(center),
            float(internal[parts[0]].attrib["speed"]),
            (c.attrib["tl"], int(c.attrib["linkIndex"])) if "tl" in c.attrib else None,
        )
        network.connections.append(connection)
        network.links.setdefault((connection.from_road, connection.to_road), []).append(connection)
    return network
