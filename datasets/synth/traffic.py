"""Traffic of a town: who drives, rides and walks where, and the SUMO run that moves them.

Vehicles drive random walks over the street network, so that a town of constant traffic has many turns.
Besides them there are vehicles that stop in their lane for a while, and lanes that are closed: a closed stretch
is a standing vehicle for SUMO, so traffic changes lanes before it, and cones and barriers in the logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beyonddrive.datasets.synth.curves import arc_length
from beyonddrive.datasets.synth.network import Network
from beyonddrive.datasets.synth.sumo import run_sumo_program
from beyonddrive.structures.boxes import EGO_LENGTH, EGO_WIDTH

STEP = 0.1
"""Step of the simulation [s]."""
WARM_UP = 20.0
"""Seconds before anything is recorded."""
EGO_TYPE = "ego"
CLOSED_TYPE = "closed"


@dataclass(frozen=True)
class VehicleType:
    """A kind of vehicle; dimensions in metres, speeds in m/s, ``share`` among all vehicles."""

    name: str
    vehicle_class: str
    length: float
    width: float
    height: float
    share: float
    max_speed: float = 40.0
    acceleration: float = 2.0
    deceleration: float = 3.0


VEHICLE_TYPES: tuple[VehicleType, ...] = (
    VehicleType(EGO_TYPE, "passenger", EGO_LENGTH, EGO_WIDTH, 1.777, 0.40),
    VehicleType("hatchback", "passenger", 4.1, 1.76, 1.5, 0.12),
    VehicleType("sedan", "passenger", 4.7, 1.85, 1.47, 0.14),
    VehicleType("suv", "passenger", 4.8, 1.95, 1.75, 0.10),
    VehicleType("van", "delivery", 5.9, 2.05, 2.5, 0.06),
    VehicleType("truck", "truck", 8.6, 2.5, 3.2, 0.04, 20.0, 1.2),
    VehicleType("bus", "bus", 11.5, 2.55, 3.1, 0.03, 18.0, 1.2),
    VehicleType("bicycle", "bicycle", 1.75, 0.65, 1.75, 0.11, 5.0, 1.2, 2.5),
)
"""All kinds of vehicles. Those of type ``ego`` have the dimensions of the ego and may become one."""


@dataclass(frozen=True)
class TrafficPlan:
    """How much traffic a town has."""

    duration: float = 60.0
    """Seconds recorded."""
    vehicles_per_km: float = 17.0
    """Moving vehicles and bicycles per kilometre of car lane."""
    pedestrians_per_km: float = 22.0
    """Pedestrians per kilometre of road."""
    closed_share: float = 0.22
    """Share of roads with two lanes that have a closed stretch."""
    stopping_share: float = 0.25
    """Share of roads with two lanes on which a vehicle stops in the lane for a while."""


def _types_xml() -> list[str]:
    rows = []
    for kind in VEHICLE_TYPES:
        bicycle = kind.vehicle_class == "bicycle"
        rows.append(
            f'<vType id="{kind.name}" vClass="{kind.vehicle_class}" length="{kind.length}" width="{kind.width}" '
            f'maxSpeed="{kind.max_speed}" accel="{kind.acceleration}" decel="{kind.deceleration}" '
            'emergencyDecel="6.0" sigma="0.15" tau="1.1" '
            f'minGap="{1.2 if bicycle else 2.3}" minGapLat="{0.3 if bicycle else 0.5}" '
            f'speedFactor="normc({"1.0,0.1,0.8,1.2" if bicycle else "1.03,0.08,0.85,1.2"})" '
            f'latAlignment="{"right" if bicycle else "center"}" lcSpeedGain="2.0" lcStrategic="2.0" '
            'lcAssertive="1.3" lcAccelLat="0.7" maxSpeedLat="1.1" lcMaxSpeedLatStanding="0" '
            'lcMaxSpeedLatFactor="0.22" jmTimegapMinor="1.2" impatience="0.15"/>'
        )
    rows.append(
        '<vType id="pedestrian" vClass="pedestrian" length="0.5" width="0.6" maxSpeed="1.7" '
        'speedFactor="normc(0.9,0.15,0.6,1.3)"/>'
    )
    return rows


def _walk(
    network: Network, start: str, length: float, usable: set[str], rng: np.random.Generator
) -> list[str]:
    """Random walk over roads; turns are preferred to going straight, since they are what is hard."""
    route = [start]
    driven = 0.0
    while driven < length:
        options = [road for road in network.successors(route[-1]) if road in usable]
        if not options:
            break
        weight = np.array(
            [1.0 if network.links[route[-1], road][0].direction == "s" else 1.4 for road in options]
        )
        # Not twice in a row the same way around a block, and not back where it came from, if there is a choice.
        weight *= [0.3 if road in route[-8:] else 1.0 for road in options]
        route.append(options[int(rng.choice(len(options), p=weight / weight.sum()))])
        driven += float(arc_length(network.roads[route[-1]].cars()[0].center)[-1])
    return route


def strongly_connected(network: Network) -> set[str]:
    """Return the largest set of roads each of which can be reached from every other."""
    forward = {road: network.successors(road) for road in network.roads}
    backward: dict[str, list[str]] = {road: [] for road in network.roads}
    for road, following in forward.items():
        for other in following:
            backward[other].append(road)

    def reach(start: str, graph: dict[str, list[str]]) -> set[str]:
        seen, stack = {start}, [start]
        while stack:
            for other in graph[stack.pop()]:
                if other not in seen:
                    seen.add(other)
                    stack.append(other)
        return seen

    best: set[str] = set()
    rest = set(network.roads)
    while rest:
        start = min(rest)
        component = reach(start, forward) & reach(start, backward)
        rest -= component
        if len(component) > len(best):
            best = component
    return best


def write_demand(network: Network, plan: TrafficPlan, rng: np.random.Generator, folder: Path) -> None:
    """Write SUMO's route file ``town.rou.xml`` and the file ``town.add.xml`` that records signals."""
    usable = strongly_connected(network)
    roads = sorted(usable)
    end = WARM_UP + plan.duration
    length = {road: float(arc_length(network.roads[road].cars()[0].center)[-1]) for road in roads}
    lane_km = sum(length[road] * len(network.roads[road].cars()) for road in roads) / 1000.0
    rows: list[tuple[float, str]] = []
    extra: list[str] = []

    def walk_length() -> float:
        return 9.0 * end

    closed = 0
    for road in roads:
        cars = network.roads[road].cars()
        if len(cars) < 2 or length[road] < 50.0:
            continue
        chance = rng.random()
        lane = cars[0] if rng.random() < 0.7 else cars[-1]
        if chance < plan.closed_share:
            size = float(rng.uniform(7.0, 16.0))
            at = float(rng.uniform(size + 12.0, length[road] - 22.0)) if length[road] > size + 40.0 else 30.0
            extra.append(
                f'<vType id="{CLOSED_TYPE}{closed}" vClass="passenger" length="{size:.2f}" width="2.3" minGap="1.5"/>'
            )
            rows.append(
                (
                    0.0,
                    _stopped(f"{CLOSED_TYPE}{closed}", f"{CLOSED_TYPE}{closed}", road, lane.id, at, 1e5, 0.0),
                )
            )
            closed += 1
        elif chance < plan.closed_share + plan.stopping_share:
            at = float(rng.uniform(25.0, length[road] - 15.0))
            start = float(rng.uniform(0.0, 0.5 * end))
            kind = str(rng.choice(["van", "sedan", "truck"]))
            route = _walk(network, road, walk_length(), usable, rng)
            wait = float(rng.uniform(20.0, 80.0))
            rows.append(
                (start, _stopped(f"stopping_{road}", kind, " ".join(route), lane.id, at, wait, start))
            )
    weights = np.array([length[road] * len(network.roads[road].cars()) for road in roads])
    shares = np.array([kind.share for kind in VEHICLE_TYPES])
    count = int(round(plan.vehicles_per_km * lane_km))
    for i in range(count):
        road = roads[int(rng.choice(len(roads), p=weights / weights.sum()))]
        kind = VEHICLE_TYPES[int(rng.choice(len(VEHICLE_TYPES), p=shares / shares.sum()))].name
        depart = float(np.round(rng.uniform(0.0, 0.7 * WARM_UP), 1))
        route = _walk(network, road, walk_length(), usable, rng)
        rows.append(
            (
                depart,
                f'<vehicle id="{kind}_{i}" type="{kind}" depart="{depart:.1f}" departPos="random_free" '
                f'departLane="random" departSpeed="0"><route edges="{" ".join(route)}"/></vehicle>',
            )
        )
    for i in range(int(round(plan.pedestrians_per_km * sum(length.values()) / 1000.0))):
        stops = [roads[int(rng.integers(len(roads)))] for _ in range(5)]
        depart = float(np.round(rng.uniform(0.0, WARM_UP), 1))
        walks = "".join(
            f'<personTrip from="{a}" to="{b}"/>' for a, b in zip(stops[:-1], stops[1:], strict=True) if a != b
        )
        if walks:
            rows.append(
                (
                    depart,
                    f'<person id="person_{i}" type="pedestrian" depart="{depart:.1f}" '
                    f'departPos="random">{walks}</person>',
                )
            )
    body = [row for _, row in sorted(rows)]
    (folder / "town.rou.xml").write_text(
        "<routes>\n" + "\n".join(_types_xml() + extra + body) + "\n</routes>\n"
    )
    (folder / "town.add.xml").write_text(_signal_record(folder))


def _stopped(name: str, kind: str, route: str, lane: str, at: float, duration: float, depart: float) -> str:
    index = lane.rsplit("_", 1)[1]
    return (
        f'<vehicle id="{name}" type="{kind}" depart="{depart:.1f}" departPos="stop" departLane="{index}" '
        f'departSpeed="0"><route edges="{route}"/>'
        f'<stop lane="{lane}" startPos="{at - 1.0:.2f}" endPos="{at:.2f}" duration="{duration:.1f}"/></vehicle>'
    )


def _signal_record(folder: Path) -> str:
    import xml.etree.ElementTree as ElementTree

    signals = [
        logic.attrib["id"] for logic in ElementTree.parse(folder / "town.net.xml").getroot().iter("tlLogic")
    ]
    rows = "".join(
        f'<timedEvent type="SaveTLSStates" source="{name}" dest="signals.xml"/>' for name in signals
    )
    return f"<additional>{rows}</additional>"


def simulate(plan: TrafficPlan, seed: int, folder: Path) -> None:
    """Run SUMO on the files in ``folder``; writes ``vehicles.csv``, ``persons.csv`` and ``signals.xml``.

    Raises:
        SumoError: If SUMO is missing or fails.
    """
    options = {
        "net-file": "town.net.xml",
        "route-files": "town.rou.xml",
        "additional-files": "town.add.xml",
        "step-length": str(STEP),
        "lateral-resolution": "0.8",
        "end": f"{WARM_UP + plan.duration:.1f}",
        "seed": str(seed % 2**31),
        "fcd-output": "vehicles.csv",
        "fcd-output.attributes": "id,type,x,y,speed,lane,pos",
        "person-fcd-output": "persons.csv",
        "device.fcd.begin": f"{WARM_UP:.1f}",
        "precision": "4",
        "time-to-teleport": "60",
        "time-to-teleport.remove": "true",
        "collision.action": "none",
        "extrapolate-departpos": "false",
        "max-depart-delay": f"{WARM_UP:.0f}",
        "ignore-route-errors": "true",
        "no-step-log": "true",
    }
    run_sumo_program("sumo", [f"--{key}={value}" for key, value in options.items()], folder)
