"""Towns on disk that can be driven in: network, map, and what stands in them.

::

    <towns>/<name>/town.json       what the town follows from; written last, so it says that all is there
    <towns>/<name>/town.net.xml    SUMO's street network
    <towns>/<name>/map.gpkg        its nuPlan map
    <towns>/<name>/ids.json        which lane and road is which row of it
    <towns>/<name>/static.json     parked cars, cones, bins
"""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.synth.builder import TownSpec, map_offset, town_map_of, town_name, town_seed
from beyonddrive.synth.curves import arc_length, at
from beyonddrive.synth.geopackage import write_map
from beyonddrive.synth.location_maps import ORIGINS, location_layers
from beyonddrive.synth.network import Network, read_network
from beyonddrive.synth.recording import RawTrack
from beyonddrive.synth.roadside import (
    StaticObject,
    closed_stretches,
    lot_cars,
    parked_cars,
    street_furniture,
)
from beyonddrive.synth.town import build_network
from beyonddrive.synth.traffic import Closure, TrafficPlan, closures_of, write_demand
from beyonddrive.synth.vehicle_types import CLOSED_TYPE

TOWN, NETWORK, MAP, STATIC, IDS = "town.json", "town.net.xml", "map.gpkg", "static.json", "ids.json"
FORMAT = 1
BUILT_FOR = TrafficPlan()
"""Traffic that a town is built for: its closed stretches are those of this plan. Another plan needs another
:data:`FORMAT`."""
SPLIT = "closed-loop"
"""Towns to drive in are those of this split, which no planner is trained on."""


class LiveError(BeyondDriveError, ValueError):
    """A town, a scenario or a setting of the live world cannot be used; names file, key and remedy."""


@dataclass(frozen=True)
class MapIds:
    """Ids of the rows of a town's map.

    Attributes:
        connector: First internal SUMO lane of a connection -> lane connector.
        roadblock: Road -> roadblock.
        block_connector: Pair of roads -> roadblock connector.
    """

    connector: Mapping[str, int]
    roadblock: Mapping[str, int]
    block_connector: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class LiveTown:
    """A town to drive in; coordinates are those of its network [m].

    Attributes:
        folder: Where it is.
        name: Name.
        location: Which location's style it has.
        seed: What it follows from.
        offset: (x, y) of its origin in the map [m].
    """

    folder: Path
    name: str
    location: str
    seed: int
    offset: tuple[float, float]

    @cached_property
    def network(self) -> Network:
        """Its streets."""
        return read_network(self.folder / NETWORK)

    @cached_property
    def nuplan_map(self) -> NuPlanMap:
        """Its map."""
        return NuPlanMap(self.location, self.folder / MAP)

    @cached_property
    def static(self) -> tuple[StaticObject, ...]:
        """What stands in it."""
        rows = json.loads((self.folder / STATIC).read_text())
        return tuple(
            StaticObject(r["name"], r["type"], tuple(r["center"]), r["heading"], tuple(r["size"]))
            for r in rows
        )

    @cached_property
    def ids(self) -> MapIds:
        """Ids of its map's rows."""
        rows = json.loads((self.folder / IDS).read_text())
        return MapIds(
            rows["connector"], rows["roadblock"], {(a, b): fid for a, b, fid in rows["block_connector"]}
        )

    @cached_property
    def closures(self) -> list[Closure]:
        """Its closed stretches, where its cones stand."""
        return closures_of(self.network, BUILT_FOR, _demand_rng(self.seed))

    def write_traffic(
        self, plan: TrafficPlan, folder: Path, seed: int = 0, come_by: float | None = None
    ) -> None:
        """Write SUMO's files of a run to an empty folder: network and demand.

        Closed stretches are those of the town whatever plan and seed, and the plan's share of them is not
        looked at.

        Args:
            plan: How much traffic.
            folder: Where the files go.
            seed: Another one is other traffic: who drives where, when, and who stops.
            come_by: When all who stop in their lane have come [s], so that nobody appears there later.
        """
        (folder / NETWORK).symlink_to((self.folder / NETWORK).resolve())
        write_demand(self.network, plan, _demand_rng(self.seed, seed), folder, self.closures, come_by)


def _demand_rng(seed: int, traffic: int = 0) -> np.random.Generator:
    """The generator of a town's traffic; from that of seed 0 its closed stretches are drawn, too."""
    return np.random.default_rng([seed, 4, traffic] if traffic else [seed, 4])


def _spec(name: str, location: str, seed: int) -> TownSpec:
    return TownSpec(name, SPLIT, location, 0, seed, 0)


def town_of(seed: int, number: int) -> tuple[str, str, int]:
    """Name, location and seed of a town of the live world.

    >>> town_of(0, 1)[1]
    'us-ma-boston'
    """
    return (
        town_name(seed, SPLIT, number),
        list(ORIGINS)[number % len(ORIGINS)],
        town_seed(seed, SPLIT, number),
    )


def build_live_town(towns: Path, seed: int, number: int) -> LiveTown:
    """Build a town below ``towns`` unless it is there; it appears only when all of it is.

    Raises:
        SumoError: If SUMO is missing or fails.
    """
    name, location, own_seed = town_of(seed, number)
    folder = towns / name
    if not (folder / TOWN).exists():
        partial = towns / f".{name}.partial"
        for left in (partial, folder):
            shutil.rmtree(left, ignore_errors=True)
        work = partial / "work"
        work.mkdir(parents=True)
        spec = _spec(name, location, own_seed)
        network = build_network(location, own_seed, work)
        lots, town_map = town_map_of(spec, network)
        write_demand(network, BUILT_FOR, _demand_rng(own_seed), work)
        tracks, lengths = _closed(work / "town.rou.xml", network)
        static: list[StaticObject] = [
            *parked_cars(network, np.random.default_rng([own_seed, 5])),
            *closed_stretches(network, tracks, lengths, np.random.default_rng([own_seed, 6])),
            *street_furniture(network, np.random.default_rng([own_seed, 7])),
            *lot_cars(lots, np.random.default_rng([own_seed, 8])),
        ]
        layers = location_layers([(map_offset(spec), town_map)])
        write_map(partial / MAP, layers, ORIGINS[location][0])
        ids = {
            "connector": town_map.connector,
            "roadblock": town_map.roadblock,
            "block_connector": [[*pair, fid] for pair, fid in town_map.block_connector.items()],
        }
        (partial / IDS).write_text(json.dumps(ids))
        (partial / STATIC).write_text(json.dumps([asdict(thing) for thing in static]))
        shutil.move(work / NETWORK, partial / NETWORK)
        shutil.rmtree(work)
        about = {
            "format": FORMAT, "name": name, "location": location, "seed": own_seed, "offset": map_offset(spec)
        }  # fmt: skip
        (partial / TOWN).write_text(json.dumps(about, indent=1))
        partial.rename(folder)
    return open_live_town(folder)


def open_live_town(folder: Path) -> LiveTown:
    """Open a town.

    Raises:
        LiveError: If there is none, or it is of another format.
    """
    path = folder / TOWN
    try:
        about: Mapping[str, Any] = json.loads(path.read_text())
        if about["format"] != FORMAT:
            raise LiveError(
                f"{path}: has format {about['format']}, this version reads {FORMAT}: make it anew"
            )
        x, y = about["offset"]
        return LiveTown(folder, about["name"], about["location"], int(about["seed"]), (float(x), float(y)))
    except FileNotFoundError as error:
        there = sorted(p.parent.name for p in folder.parent.glob(f"*/{TOWN}"))
        raise LiveError(
            f"{folder}: there is no such town; there are {', '.join(there) or 'none'} (towns come with their "
            "scenarios: beyonddrive closed-loop scenarios --out DIR)"
        ) from error
    except (KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, LiveError):
            raise
        raise LiveError(f"{path}: describes no town ({error}): make it anew") from error


def _closed(route_file: Path, network: Network) -> tuple[list[RawTrack], dict[str, float]]:
    """Where lanes are closed, as tracks that stand there, and the lengths of the closed stretches [m]."""
    root = ElementTree.parse(route_file).getroot()
    lengths = {kind.attrib["id"]: float(kind.attrib["length"]) for kind in root.iter("vType")}
    lanes = {lane.id: lane for road in network.roads.values() for lane in road.lanes}
    tracks = []
    for vehicle in root.iter("vehicle"):
        if not vehicle.attrib["type"].startswith(CLOSED_TYPE):
            continue
        (stop,) = vehicle.iter("stop")
        lane = lanes[stop.attrib["lane"]]
        front = at(lane.center, arc_length(lane.center), np.array([float(stop.attrib["endPos"])]))
        name = vehicle.attrib["id"]
        tracks.append(RawTrack(name, vehicle.attrib["type"], 0, front, np.zeros(1), [lane.id]))
    return tracks, lengths
