"""One town from seed to logs: network, traffic, smooth motion, chosen scenes, frames."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely

from beyonddrive.datasets.synth.curves import headings, project
from beyonddrive.datasets.synth.frames import Frame, Town, build_frames
from beyonddrive.datasets.synth.motion import Motion, pedestrian_motion, vehicle_motion
from beyonddrive.datasets.synth.network import Network, read_network
from beyonddrive.datasets.synth.recording import RawTrack, Signals, read_tracks
from beyonddrive.datasets.synth.rig import FULL_SIZE, rig
from beyonddrive.datasets.synth.roadside import (
    Lot,
    StaticObject,
    closed_stretches,
    lot_cars,
    parked_cars,
    plan_lots,
    street_furniture,
)
from beyonddrive.datasets.synth.routes import Route, read_routes
from beyonddrive.datasets.synth.selection import SelectionRule, plan_drives
from beyonddrive.datasets.synth.tokens import seed_of, token_of
from beyonddrive.datasets.synth.town import build_network
from beyonddrive.datasets.synth.town_map import TownMap, build_town_map
from beyonddrive.datasets.synth.traffic import VEHICLE_TYPES, TrafficPlan, simulate, write_demand

FIRST_STAMP_US = 1_620_000_000_000_000
"""Time stamp at which the generated world begins [us]; towns follow a day after each other."""


@dataclass(frozen=True)
class TownSpec:
    """Everything that a town follows from."""

    name: str
    split: str
    location: str
    index: int
    """Position among the towns of its location: where it lies on the map and which ids it gets."""
    seed: int
    scenes: int
    image_size: tuple[int, int] = FULL_SIZE
    traffic: TrafficPlan = field(default_factory=TrafficPlan)
    rule: SelectionRule = field(default_factory=SelectionRule)


def first_id(spec: TownSpec) -> int:
    """First id of the town's map rows; towns of one location never share an id."""
    return 20_000 * (spec.index + 1)


def town_map_of(spec: TownSpec, network_file: Path) -> tuple[Network, list[Lot], TownMap]:
    """Network, car parks and map of a town, from its network file alone."""
    network = read_network(network_file)
    lots = plan_lots(network, np.random.default_rng([spec.seed, 2]))
    return network, lots, build_town_map(network, [lot.outline for lot in lots], first_id(spec))


def _motions(network: Network, vehicles: list[RawTrack], persons: list[RawTrack], seed: int) -> list[Motion]:
    kinds = {kind.name: kind for kind in VEHICLE_TYPES}
    shapes = {lane.id: lane.center for road in network.roads.values() for lane in road.lanes}
    shapes |= {part: c.center for c in network.connections for part in c.internal}
    motions = []
    for track in vehicles:
        if track.kind in kinds and len(track.position) > 1:
            heading = 0.0
            if (center := shapes.get(track.lane[0])) is not None:
                station, _ = project(center, track.position[0])
                heading = float(headings(center)[min(int(round(station)), len(center) - 1)])
            motions.append(vehicle_motion(track, kinds[track.kind], heading))
    rng = np.random.default_rng([seed, 3])
    for track in persons:
        size = (0.55, float(rng.uniform(0.5, 0.7)), float(rng.uniform(1.5, 1.9)))
        if len(track.position) > 1:
            motions.append(pedestrian_motion(track, size))
    return sorted(motions, key=lambda motion: motion.name)


def record_town(spec: TownSpec, folder: Path) -> tuple[Town, dict[str, Route], shapely.Geometry]:
    """Build and simulate a town in ``folder``; returns it with the routes of its egos and its drivable area."""
    network_file = build_network(spec.location, spec.seed, folder)
    network, lots, town_map = town_map_of(spec, network_file)
    write_demand(network, spec.traffic, np.random.default_rng([spec.seed, 4]), folder)
    simulate(spec.traffic, spec.seed, folder)
    vehicles, persons = read_tracks(folder / "vehicles.csv"), read_tracks(folder / "persons.csv")
    lengths = {track.kind: 0.0 for track in vehicles} | closed_lengths(folder / "town.rou.xml")
    static: list[StaticObject] = [
        *parked_cars(network, np.random.default_rng([spec.seed, 5])),
        *closed_stretches(network, vehicles, lengths, np.random.default_rng([spec.seed, 6])),
        *street_furniture(network, np.random.default_rng([spec.seed, 7])),
        *lot_cars(lots, np.random.default_rng([spec.seed, 8])),
    ]
    town = Town(
        spec.name,
        spec.location,
        map_offset(spec),
        network,
        town_map,
        _motions(network, vehicles, persons, spec.seed),
        static,
        Signals(folder / "signals.xml"),
    )
    planned = read_routes(folder / "town.rou.xml")
    routes = {
        track.name: Route(network, planned[track.name], track) for track in vehicles if track.name in planned
    }
    layers = town_map.layers
    areas = [
        geometry
        for name in ("lane_groups_polygons", "intersections", "carpark_areas")
        for geometry in layers[name].geometries
    ]
    drivable = shapely.union_all(areas)
    shapely.prepare(drivable)
    return town, routes, drivable


def closed_lengths(route_file: Path) -> dict[str, float]:
    """Lengths [m] of the closed stretches by the type of the vehicle that stands for them."""
    import xml.etree.ElementTree as ElementTree

    return {
        kind.attrib["id"]: float(kind.attrib["length"])
        for kind in ElementTree.parse(route_file).getroot().iter("vType")
    }


ORIGINS: dict[str, tuple[int, float, float]] = {
    "us-nv-las-vegas-strip": (32611, 664_000.0, 3_997_000.0),
    "us-ma-boston": (32619, 329_000.0, 4_689_000.0),
    "us-pa-pittsburgh-hazelwood": (32617, 587_000.0, 4_473_000.0),
    "sg-one-north": (32648, 365_000.0, 143_000.0),
}
"""EPSG code of each location's projected system and where its first town lies [m]."""
TOWN_DISTANCE = 2_000.0
"""Distance between towns of one location [m]."""


def map_offset(spec: TownSpec) -> tuple[float, float]:
    """Where the origin of a town lies in the projected system of its location [m]."""
    _, x, y = ORIGINS[spec.location]
    return x + TOWN_DISTANCE * (spec.index % 4), y + TOWN_DISTANCE * (spec.index // 4)


ExpertCheck = Callable[[list[Frame], list[int], TownSpec, TownMap], list[bool]]
"""Says of each scene of a log, given by its current frame, whether its expert is good enough."""


def make_town(spec: TownSpec, folder: Path) -> None:
    """Write logs, scene list and network of a town to ``folder``, which appears only when all is there.

    ``folder`` then holds ``logs/<log_name>.pkl``, ``town.net.xml`` and ``scenes.json``: log name ->
    list of [token, kind of moment].
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    work = partial / "work"
    work.mkdir(parents=True)
    town, routes, drivable = record_town(spec, work)
    drives = plan_drives(town, drivable, spec.rule, spec.scenes, np.random.default_rng([spec.seed, 9]))
    cameras = rig(spec.image_size)
    day = seed_of(spec.name, "day") % 365 * 86_400_000_000
    scenes: dict[str, list[list[str]]] = {}
    (partial / "logs").mkdir()
    left = spec.scenes
    for number, drive in enumerate(drives):
        if left <= 0:
            break
        ego = town.motions[drive.ego]
        log_name = f"{spec.name}_{number:04d}"
        start = FIRST_STAMP_US + day + drive.first_step * 100_000 + number * 1_000_003
        frames = build_frames(
            town, ego, routes[ego.name], drive.first_step, drive.count, log_name, start, cameras
        )
        listed = [[frames[now]["token"], kind] for now, kind in drive.scenes if frames[now]["roadblock_ids"]]
        scenes[log_name] = listed[:left]
        left -= len(scenes[log_name])
        with (partial / "logs" / f"{log_name}.pkl").open("wb") as file:
            pickle.dump(frames, file, protocol=4)
    (partial / "scenes.json").write_text(json.dumps(scenes, indent=0))
    shutil.move(work / "town.net.xml", partial / "town.net.xml")
    shutil.rmtree(work)
    partial.rename(folder)


def town_seed(seed: int, split: str, number: int) -> int:
    """Seed of a town; towns of different splits never share one."""
    return seed_of("town", seed, split, number)


def town_name(seed: int, split: str, number: int) -> str:
    """Name of a town, which its logs' names begin with."""
    return f"synth-{split}-{number:03d}-{token_of('town', seed, split, number)[:6]}"
