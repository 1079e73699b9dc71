"""What stands: parked cars, closed stretches, narrowings, street furniture, car parks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from beyonddrive.synth.curves import arc_length, at, headings, project
from beyonddrive.synth.network import Lane, Network
from beyonddrive.synth.recording import RawTrack
from beyonddrive.synth.vehicle_types import CLOSED_TYPE

CONE_SIZE = (0.38, 0.38, 0.75)
BARRIER_SIZE = (0.5, 2.0, 1.0)
SIGN_SIZE = (0.3, 0.8, 1.9)
BIN_SIZE = (0.6, 0.6, 1.1)
"""Length, width and height of things beside and on the road [m]; a barrier stands across the heading."""
PARKED_SIZES = ((4.1, 1.76, 1.5), (4.7, 1.85, 1.47), (4.8, 1.93, 1.75), (5.3, 2.0, 2.1))
"""Sizes of parked cars [m]."""
LOT_BAY = (2.7, 5.2)
"""Width and depth of a bay of a car park [m]."""


@dataclass(frozen=True)
class StaticObject:
    """One box that never moves; ``type`` is a class of NAVSIM."""

    name: str
    type: str
    center: tuple[float, float]
    heading: float
    size: tuple[float, float, float]


@dataclass(frozen=True)
class Lot:
    """A car park away from the road."""

    outline: Polygon
    bays: NDArray[np.float64]
    """(N, 3) x, y [m], heading [rad] of its bays."""


def _place(lane: Lane, station: float, lateral: float) -> tuple[tuple[float, float], float]:
    """Point beside a lane centre (left positive) and the lane's heading there."""
    length = arc_length(lane.center)
    station = float(np.clip(station, 0.0, length[-1]))
    x, y = at(lane.center, length, np.array([station]))[0]
    heading = float(np.interp(station, length, headings(lane.center)))
    return (float(x - lateral * np.sin(heading)), float(y + lateral * np.cos(heading))), heading


def parked_cars(network: Network, rng: np.random.Generator) -> Iterator[StaticObject]:
    """Cars on the parking strips, some a little askew or not quite inside."""
    for road in network.roads.values():
        for lane in road.lanes:
            if lane.kind != "parking":
                continue
            length = float(arc_length(lane.center)[-1])
            occupancy = rng.uniform(0.35, 0.9)
            station = rng.uniform(7.0, 10.0)
            while station < length - 9.0:
                size = PARKED_SIZES[int(rng.integers(len(PARKED_SIZES)))]
                if rng.random() < occupancy:
                    lateral = rng.normal(-0.05, 0.1)
                    center, heading = _place(lane, station + size[0] / 2, float(np.clip(lateral, -0.3, 0.2)))
                    turned = np.pi if rng.random() < 0.04 else 0.0
                    yield StaticObject(
                        f"parked_{lane.id}_{station:.1f}",
                        "vehicle",
                        center,
                        heading + turned + rng.normal(0.0, 0.02),
                        size,
                    )
                station += size[0] + rng.uniform(0.8, 1.8)


def closed_stretches(
    network: Network, tracks: Sequence[RawTrack], lengths: dict[str, float], rng: np.random.Generator
) -> Iterator[StaticObject]:
    """Cones, barriers and signs where the run had a standing vehicle of type ``closed``."""
    lanes = {lane.id: lane for road in network.roads.values() for lane in road.lanes}
    for track in tracks:
        if not track.kind.startswith(CLOSED_TYPE):
            continue
        lane = lanes[track.lane[0]]
        front, _ = project(lane.center, track.position[0])
        size = lengths[track.kind]
        rear = front - size
        inside = "barrier" if rng.random() < 0.4 else "traffic_cone"
        for station in np.arange(rear + 2.0, front, 2.4 if inside == "traffic_cone" else 3.0):
            for side in (-1.0, 1.0):
                center, heading = _place(lane, float(station), side * 0.95)
                turned = 0.0 if inside == "traffic_cone" else np.pi / 2
                size_3d = CONE_SIZE if inside == "traffic_cone" else BARRIER_SIZE
                yield StaticObject(
                    f"{track.name}_{station:.1f}_{side:.0f}", inside, center, heading + turned, size_3d
                )
        for lateral in (-0.6, 0.6):
            center, heading = _place(lane, rear + 0.4, lateral)
            yield StaticObject(f"{track.name}_cone_{lateral}", "traffic_cone", center, heading, CONE_SIZE)
        center, heading = _place(lane, front - 0.4, 0.0)
        yield StaticObject(f"{track.name}_end", "barrier", center, heading, BARRIER_SIZE)
        center, heading = _place(lane, rear + 1.2, 0.0)
        yield StaticObject(f"{track.name}_sign", "czone_sign", center, heading, SIGN_SIZE)


def street_furniture(network: Network, rng: np.random.Generator) -> Iterator[StaticObject]:
    """Narrowings (rows of cones or barriers right at the kerb) and bins on the sidewalks."""
    for road in network.roads.values():
        cars = road.cars()
        length = float(arc_length(cars[0].center)[-1])
        if road.lanes[1].kind == "car" and rng.random() < 0.35 and length > 40.0:
            begin = rng.uniform(6.0, length - 28.0)
            kind = "barrier" if rng.random() < 0.4 else "traffic_cone"
            for i in range(int(rng.integers(4, 9))):
                lateral = -cars[0].width / 2 - (0.05 if kind == "traffic_cone" else 0.25)
                center, heading = _place(cars[0], begin + 2.2 * i, lateral)
                turned = 0.0 if kind == "traffic_cone" else np.pi / 2
                size = CONE_SIZE if kind == "traffic_cone" else BARRIER_SIZE
                yield StaticObject(f"narrow_{road.id}_{i}", kind, center, heading + turned, size)
        for lane in road.lanes:
            if lane.kind == "sidewalk":
                for i in range(int(rng.poisson(length / 60.0))):
                    center, heading = _place(lane, rng.uniform(4.0, length - 4.0), -0.7)
                    yield StaticObject(f"bin_{lane.id}_{i}", "generic_object", center, heading, BIN_SIZE)


def plan_lots(network: Network, rng: np.random.Generator, share: float = 0.18) -> list[Lot]:
    """Car parks beside roads, with a driveway over the sidewalk, where they overlap no road or junction."""
    occupied = [Polygon(junction.shape).buffer(1.0) for junction in network.junctions.values()]
    for road in network.roads.values():
        line = shapely.LineString(road.lanes[0].center)
        occupied.append(line.buffer(road.lanes[0].width / 2 + 0.3))
        occupied.append(shapely.LineString(road.cars()[-1].center).buffer(8.0))
    tree = shapely.STRtree(occupied)
    lots: list[Lot] = []
    for road in network.roads.values():
        if rng.random() >= share:
            continue
        lane = road.lanes[0]
        length = float(arc_length(lane.center)[-1])
        columns = int(min(8, (length - 16.0) // LOT_BAY[0]))
        if columns < 4:
            continue
        (x, y), heading = _place(lane, length / 2, -lane.width / 2)
        along = np.array([np.cos(heading), np.sin(heading)])
        right = np.array([along[1], -along[0]])
        half, depth = columns * LOT_BAY[0] / 2 + 1.0, 2 * LOT_BAY[1] + 6.5
        near, far = 2.5, 2.5 + depth
        corners = [(-half, near), (half, near), (half, far), (-half, far)]
        body = Polygon([np.array([x, y]) + a * along + r * right for a, r in corners])
        if len(tree.query(body, predicate="intersects")) or any(body.intersects(lot.outline) for lot in lots):
            continue
        edge = -(lane.width + 0.3)
        drive = [(-3.2, edge), (3.2, edge), (3.2, near + 0.5), (-3.2, near + 0.5)]
        driveway = Polygon([np.array([x, y]) + a * along + r * right for a, r in drive])
        bays = [
            (*(np.array([x, y]) + (c + 0.5 - columns / 2) * LOT_BAY[0] * along + r * right), heading + turn)
            for r, turn in ((near + LOT_BAY[1] / 2, np.pi / 2), (far - LOT_BAY[1] / 2, -np.pi / 2))
            for c in range(columns)
            # The bays beside the driveway stay free.
            if r > near + LOT_BAY[1] or abs((c + 0.5 - columns / 2) * LOT_BAY[0]) > 4.7
        ]
        lots.append(Lot(Polygon(shapely.union(body, driveway).exterior), np.array(bays, dtype=np.float64)))
    return lots


def lot_cars(lots: Sequence[Lot], rng: np.random.Generator) -> Iterator[StaticObject]:
    """Cars in the bays of car parks."""
    for i, lot in enumerate(lots):
        for j, (x, y, heading) in enumerate(lot.bays):
            if rng.random() < 0.65:
                size = PARKED_SIZES[int(rng.integers(len(PARKED_SIZES)))]
                turned = np.pi if rng.random() < 0.5 else 0.0
                yield StaticObject(
                    f"lot_{i}_{j}",
                    "vehicle",
                    (float(x), float(y)),
                    float(heading + turned + rng.normal(0.0, 0.02)),
                    size,
                )
