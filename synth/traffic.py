"""Traffic of a town: who drives, rides and walks where, and the SUMO run that moves them.

Vehicles drive random walks over the street network, so that a town of constant traffic has many turns.
Besides them there are vehicles that stop in their lane for a while, and lanes that are closed: a closed
stretch is a standing vehicle for SUMO, so traffic changes lanes before it, and cones in the logs.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from beyonddrive.synth.curves import arc_length
from beyonddrive.synth.network import Network
from beyonddrive.synth.sumo import run_sumo_program
from beyonddrive.synth.vehicle_types import CLOSED_TYPE, VEHICLE_TYPES, types_xml

STEP = 0.1
"""Step of the simulation [s]."""
WARM_UP = 15.0
"""Seconds before anything is recorded."""
WALK_SPEED = 9.0
"""Random walks are as long as a vehicle of this speed drives in the whole run [m/s]."""


@dataclass(frozen=True)
class TrafficPlan:
    """How much traffic a town has."""

    duration: float = 60.0
    """Seconds recorded."""
    vehicles_per_km: float = 17.0
    """Moving vehicles and bicycles per kilometre of car lane."""
    pedestrians_per_km: float = 16.0
    """Pedestrians per kilometre of road."""
    closed_share: float = 0.22
    """Share of roads with two lanes that have a closed stretch."""
    stopping_share: float = 0.25
    """Share of roads with two lanes on which a vehicle stops in the lane for a while."""


@dataclass(frozen=True)
class Closure:
    """A closed stretch of a lane.

    Attributes:
        road: Its road.
        lane: Its lane.
        at: Where it ends on the lane [m].
        size: How long it is [m].
    """

    road: str
    lane: str
    at: float
    size: float


@dataclass(frozen=True)
class _Stopping:
    """A vehicle that stops on a road: when it comes [s], and the rest of its row."""

    road: str
    start: float
    row: str


class _Demand:
    """Rows of a route file, drawn one after the other from one random generator."""

    def __init__(self, network: Network, plan: TrafficPlan, rng: np.random.Generator) -> None:
        self._network, self._plan, self._rng = network, plan, rng
        usable = network.strongly_connected()
        self._roads = sorted(usable)
        self._onward = {
            road: [following for following in network.successors(road) if following in usable]
            for road in self._roads
        }
        self._length = {
            road: float(arc_length(network.roads[road].cars()[0].center)[-1]) for road in self._roads
        }
        self._end = WARM_UP + plan.duration
        self.types = types_xml()
        self.rows: list[tuple[float, str]] = []
        """(departure, row)."""

    def _walk(self, start: str) -> list[str]:
        """Random walk over roads; turns are preferred to going straight, since they are what is hard."""
        route, driven = [start], 0.0
        while driven < WALK_SPEED * self._end:
            options = self._onward[route[-1]]
            links = self._network.links
            weight = np.array(
                [1.0 if links[route[-1], road][0].direction == "s" else 1.4 for road in options]
            )
            # Not around the same block again if there is a choice.
            weight *= [0.3 if road in route[-8:] else 1.0 for road in options]
            route.append(options[int(self._rng.choice(len(options), p=weight / weight.sum()))])
            driven += self._length[route[-1]]
        return route

    def _stopped(self, name: str, kind: str, route: list[str], lane: str, at: float, wait: float) -> str:
        """End of the row of a vehicle that stands at ``at`` metres of a lane for ``wait`` seconds."""
        return (
            f'departPos="stop" departLane="{lane.rsplit("_", 1)[1]}" departSpeed="0" id="{name}" '
            f'type="{kind}"><route edges="{" ".join(route)}"/><stop lane="{lane}" '
            f'startPos="{at - 1.0:.2f}" endPos="{at:.2f}" duration="{wait:.1f}"/></vehicle>'
        )

    def draw_standing(self) -> tuple[list[Closure], list[_Stopping]]:
        """Closed stretches and vehicles that stop for a while, on roads with two lanes."""
        rng, plan = self._rng, self._plan
        closures: list[Closure] = []
        stopping: list[_Stopping] = []
        for road in self._roads:
            cars, length = self._network.roads[road].cars(), self._length[road]
            if len(cars) < 2 or length < 60.0:
                continue
            chance = rng.random()
            lane = (cars[0] if rng.random() < 0.7 else cars[-1]).id
            if chance < plan.closed_share:
                size = float(rng.uniform(7.0, min(16.0, length - 40.0)))
                at = float(rng.uniform(size + 12.0, length - 22.0))
                closures.append(Closure(road, lane, at, size))
            elif chance < plan.closed_share + plan.stopping_share:
                at = float(rng.uniform(25.0, length - 15.0))
                start, wait = float(rng.uniform(0.0, 0.5 * self._end)), float(rng.uniform(20.0, 80.0))
                kind = str(rng.choice(["van", "sedan", "truck"]))
                row = self._stopped(f"stopping_{road}", kind, self._walk(road), lane, at, wait)
                stopping.append(_Stopping(road, start, row))
        return closures, stopping

    def add_standing(self, closures: Sequence[Closure] | None = None, come_by: float | None = None) -> None:
        """Closed stretches and vehicles that stop for a while; no vehicle stops where a stretch is closed.

        Args:
            closures: Take the place of those that are drawn.
            come_by: When all who stop have come [s]; by default half of the run.
        """
        drawn, stopping = self.draw_standing()
        closures = drawn if closures is None else closures
        for closure in closures:
            name = f"{CLOSED_TYPE}_{closure.road}"
            self.types.append(
                f'<vType id="{name}" vClass="passenger" length="{closure.size:.2f}" width="2.3" '
                'minGap="1.5"/>'
            )
            row = self._stopped(name, name, [closure.road], closure.lane, closure.at, 1e5)
            self.rows.append((0.0, f'<vehicle depart="0.0" {row}'))
        closed = {closure.road for closure in closures}
        sooner = 1.0 if come_by is None else min(come_by / (0.5 * self._end), 1.0)
        for item in stopping:
            if item.road not in closed:
                start = item.start * sooner
                self.rows.append((start, f'<vehicle depart="{start:.1f}" {item.row}'))

    def add_vehicles(self) -> None:
        """Vehicles that drive all the time."""
        lanes = np.array([self._length[r] * len(self._network.roads[r].cars()) for r in self._roads])
        shares = np.array([kind.share for kind in VEHICLE_TYPES])
        for i in range(round(self._plan.vehicles_per_km * float(lanes.sum()) / 1000.0)):
            road = self._roads[int(self._rng.choice(len(lanes), p=lanes / lanes.sum()))]
            kind = VEHICLE_TYPES[int(self._rng.choice(len(shares), p=shares / shares.sum()))].name
            depart = float(self._rng.uniform(0.0, 0.7 * WARM_UP))
            row = (
                f'<vehicle depart="{depart:.1f}" departPos="random_free" departLane="random" departSpeed="0" '
                f'id="{kind}_{i}" type="{kind}"><route edges="{" ".join(self._walk(road))}"/></vehicle>'
            )
            self.rows.append((depart, row))

    def add_pedestrians(self) -> None:
        """People who walk from road to road."""
        for i in range(round(self._plan.pedestrians_per_km * sum(self._length.values()) / 1000.0)):
            stops = [self._roads[int(self._rng.integers(len(self._roads)))] for _ in range(5)]
            depart = float(self._rng.uniform(0.0, WARM_UP))
            walks = "".join(f'<personTrip from="{a}" to="{b}"/>' for a, b in pairwise(stops) if a != b)
            if walks:
                row = (
                    f'<person depart="{depart:.1f}" departPos="random" id="person_{i}" type="pedestrian">'
                    f"{walks}</person>"
                )
                self.rows.append((depart, row))


def closures_of(network: Network, plan: TrafficPlan, rng: np.random.Generator) -> list[Closure]:
    """Closed stretches that :func:`write_demand` draws from the same generator."""
    return _Demand(network, plan, rng).draw_standing()[0]


def write_demand(
    network: Network,
    plan: TrafficPlan,
    rng: np.random.Generator,
    folder: Path,
    closures: Sequence[Closure] | None = None,
    come_by: float | None = None,
) -> None:
    """Write SUMO's route file ``town.rou.xml`` and the file ``town.add.xml`` that records signals.

    Args:
        network: The streets.
        plan: How much traffic.
        rng: Everything is drawn from it, so that other numbers in the plan give other traffic.
        folder: Where the files go, beside the network.
        closures: Closed stretches in place of those that are drawn.
        come_by: When all vehicles that stop in their lane have come [s]; by default half of the run.
    """
    demand = _Demand(network, plan, rng)
    demand.add_standing(closures, come_by)
    demand.add_vehicles()
    demand.add_pedestrians()
    rows = [row for _, row in sorted(demand.rows, key=lambda item: (round(item[0], 1), item[1]))]
    (folder / "town.rou.xml").write_text("<routes>\n" + "\n".join(demand.types + rows) + "\n</routes>\n")
    net = ElementTree.parse(folder / "town.net.xml").getroot()
    records = "".join(
        f'<timedEvent type="SaveTLSStates" source="{logic.attrib["id"]}" dest="signals.xml"/>'
        for logic in net.iter("tlLogic")
    )
    (folder / "town.add.xml").write_text(f"<additional>{records}</additional>")


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
