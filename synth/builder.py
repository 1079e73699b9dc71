"""One town from seed to logs: network, traffic, smooth motion, chosen scenes, frames."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.synth.clearance import Clearance
from beyonddrive.synth.curves import headings, project
from beyonddrive.synth.frames import Frame, build_frames, dump_log
from beyonddrive.synth.geopackage import write_map
from beyonddrive.synth.location_maps import ORIGINS, TOWN_DISTANCE, location_layers
from beyonddrive.synth.motion import Motion, pedestrian_motion, vehicle_motion
from beyonddrive.synth.network import Network
from beyonddrive.synth.recorded_town import RecordedTown
from beyonddrive.synth.recording import RawTrack, Signals, read_tracks
from beyonddrive.synth.rig import FULL_SIZE, rig
from beyonddrive.synth.roadside import (
    Lot,
    StaticObject,
    closed_stretches,
    lot_cars,
    parked_cars,
    plan_lots,
    street_furniture,
)
from beyonddrive.synth.routes import Route, read_routes
from beyonddrive.synth.selection import HISTORY_FRAMES, SCENE_FRAMES, SelectionRule, plan_drives
from beyonddrive.synth.tokens import seed_of, token_of
from beyonddrive.synth.town import build_network
from beyonddrive.synth.town_map import TownMap, build_town_map
from beyonddrive.synth.traffic import TrafficPlan, simulate, write_demand
from beyonddrive.synth.vehicle_types import EGO_TYPE, VEHICLE_TYPES

FIRST_STAMP_US = 1_620_000_000_000_000
"""Time stamp at which the generated world begins [us]; a town is of one of the 365 days from then on."""


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
    min_expert_score: float = 0.0
    """Scenes whose expert scores less are left out; 0 does not ask the scorer."""


IDS_PER_TOWN = 20_000
"""Ids of map rows that a town may use; towns of one location never share an id."""


def town_map_of(spec: TownSpec, network: Network) -> tuple[list[Lot], TownMap]:
    """Car parks and map of a town, from its network alone.

    Raises:
        ValueError: If the town is too large for its range of ids.
    """
    lots = plan_lots(network, np.random.default_rng([spec.seed, 2]))
    first = IDS_PER_TOWN * (spec.index + 1)
    town_map = build_town_map(network, [lot.outline for lot in lots], first)
    if town_map.next_id > first + IDS_PER_TOWN:
        raise ValueError(
            f"town {spec.name}: its map has {town_map.next_id - first} rows, more than {IDS_PER_TOWN}; "
            "give TownStyle.skeleton fewer streets"
        )
    return lots, town_map


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
                heading = float(headings(center)[min(round(station), len(center) - 1)])
            motions.append(vehicle_motion(track, kinds[track.kind], heading))
    rng = np.random.default_rng([seed, 3])
    for track in persons:
        size = (0.55, float(rng.uniform(0.5, 0.7)), float(rng.uniform(1.5, 1.9)))
        if len(track.position) > 1:
            motions.append(pedestrian_motion(track, size))
    return sorted(motions, key=lambda motion: motion.name)


def record_town(spec: TownSpec, folder: Path) -> tuple[RecordedTown, dict[str, Route]]:
    """Build and simulate a town in ``folder``; returns it with the routes of its egos by name."""
    network = build_network(spec.location, spec.seed, folder)
    lots, town_map = town_map_of(spec, network)
    write_demand(network, spec.traffic, np.random.default_rng([spec.seed, 4]), folder)
    simulate(spec.traffic, spec.seed, folder)
    vehicles, persons = read_tracks(folder / "vehicles.csv"), read_tracks(folder / "persons.csv")
    lengths = _type_lengths(folder / "town.rou.xml")
    static: list[StaticObject] = [
        *parked_cars(network, np.random.default_rng([spec.seed, 5])),
        *closed_stretches(network, vehicles, lengths, np.random.default_rng([spec.seed, 6])),
        *street_furniture(network, np.random.default_rng([spec.seed, 7])),
        *lot_cars(lots, np.random.default_rng([spec.seed, 8])),
    ]
    town = RecordedTown(
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
        track.name: Route(network, planned[track.vehicle], track)
        for track in vehicles
        if track.kind.startswith(EGO_TYPE)
    }
    return town, routes


def _type_lengths(route_file: Path) -> dict[str, float]:
    """Lengths [m] of all types of vehicles; those of closed stretches are types of their own."""
    return {
        kind.attrib["id"]: float(kind.attrib["length"])
        for kind in ElementTree.parse(route_file).getroot().iter("vType")
    }


def map_offset(spec: TownSpec) -> tuple[float, float]:
    """Where the origin of a town lies in the projected system of its location [m]."""
    _, x, y = ORIGINS[spec.location]
    return x + TOWN_DISTANCE * (spec.index % 4), y + TOWN_DISTANCE * (spec.index // 4)


ScoreExperts = Callable[[Sequence[Scene], NuPlanMap], list[float]]
"""Returns the score of each scene's expert, in [0, 1]."""


def make_town(spec: TownSpec, folder: Path, score_experts: ScoreExperts | None = None) -> None:
    """Write logs, scene list and network of a town to ``folder``, which appears only when all is there.

    ``folder`` then holds ``logs/<log_name>.pkl``, ``town.net.xml`` and ``scenes.json``: log name ->
    list of [token, kind of moment].

    Args:
        spec: The town.
        folder: Where it goes.
        score_experts: Needed if ``spec.min_expert_score`` is not 0.

    Raises:
        SumoError: If SUMO is missing or fails.
        ValueError: If a score is asked for and ``score_experts`` is missing.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    work = partial / "work"
    work.mkdir(parents=True)
    (partial / "logs").mkdir()
    town, routes = record_town(spec, work)
    spare = 1.0 if spec.min_expert_score <= 0.0 else 1.25
    rng = np.random.default_rng([spec.seed, 9])
    drives = plan_drives(town, Clearance(town), spec.rule, int(np.ceil(spare * spec.scenes)), rng)
    cameras = rig(spec.image_size)
    day = seed_of(spec.name, "day") % 365 * 86_400_000_000
    logs: list[tuple[str, list[Frame], tuple[str, ...]]] = []
    for number, drive in enumerate(drives):
        route = routes[town.motions[drive.ego].name]
        log_name = f"{spec.name}_{number:04d}"
        start = FIRST_STAMP_US + day + drive.first_step * 100_000 + number * 1_000_003
        frames = build_frames(
            town, drive.ego, route, drive.first_step, drive.num_frames, log_name, start, cameras
        )
        logs.append((log_name, frames, drive.kinds))
    if spec.min_expert_score > 0.0:
        if score_experts is None:
            raise ValueError(f"town {spec.name}: min_expert_score needs score_experts")
        nuplan_map = _own_map(spec, town.town_map, work)
        logs = [log for log in logs if _experts_pass(log[1], spec, nuplan_map, score_experts)]
    scenes: dict[str, list[list[str]]] = {}
    left = spec.scenes
    for log_name, frames, kinds in logs:
        if left <= 0:
            break
        # A log is cut rather than left with scenes that nobody asked for.
        count = min(left, len(kinds))
        scenes[log_name] = [
            [frames[SCENE_FRAMES * i + HISTORY_FRAMES]["token"], kinds[i]] for i in range(count)
        ]
        left -= count
        (partial / "logs" / f"{log_name}.pkl").write_bytes(dump_log(frames[: SCENE_FRAMES * count]))
    (partial / "scenes.json").write_text(json.dumps(scenes, indent=0))
    shutil.move(work / "town.net.xml", partial / "town.net.xml")
    shutil.rmtree(work)
    partial.rename(folder)


def _own_map(spec: TownSpec, town_map: TownMap, work: Path) -> NuPlanMap:
    path = work / "map.gpkg"
    write_map(path, location_layers([(map_offset(spec), town_map)]), ORIGINS[spec.location][0])
    return NuPlanMap(spec.location, path)


def _experts_pass(
    frames: list[Frame], spec: TownSpec, nuplan_map: NuPlanMap, score_experts: ScoreExperts
) -> bool:
    scenes = [
        Scene(frames[0]["log_name"], spec.split, frames[start : start + SCENE_FRAMES])
        for start in range(0, len(frames), SCENE_FRAMES)
    ]
    return min(score_experts(scenes, nuplan_map)) >= spec.min_expert_score


def town_seed(seed: int, split: str, number: int) -> int:
    """Seed of a town; towns of different splits never share one."""
    return seed_of("town", seed, split, number)


def town_name(seed: int, split: str, number: int) -> str:
    """Name of a town, which its logs' names begin with."""
    return f"synth-{split}-{number:03d}-{token_of('town', seed, split, number)[:6]}"
