"""One SUMO run in this process (libsumo): traffic that sees the ego and what the scenario adds.

A process holds one run at a time; several at once are several processes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.agents import STEP
from beyonddrive.structures.boxes import EGO_LENGTH, EGO_REAR_AXLE_TO_CENTER
from beyonddrive.synth.live.town import NETWORK, LiveTown
from beyonddrive.synth.sumo import SumoError, sumo_home
from beyonddrive.synth.traffic import TrafficPlan
from beyonddrive.synth.vehicle_types import CLOSED_TYPE, EGO_TYPE, VEHICLE_TYPES

EGO = "the-ego"
"""Name of the ego in the run."""
FRONT = EGO_LENGTH / 2 + EGO_REAR_AXLE_TO_CENTER
"""From the rear axle of the ego to its front [m]."""
CLEAR = 12.0
"""Nobody may be nearer to the ego than this when it appears [m] ..."""
CLEAR_BEHIND = 25.0
"""... or on its lane behind it [m]."""
_ONWARD = 10
"""Roads that a guest who is let go has before it."""
_FREE = 0
"""Modes of SUMO that check nothing."""
_EXACT = 2
"""``keepRoute`` of ``moveToXY``: exactly there, on the nearest road."""

Floats = NDArray[np.float64]
SIZES = {kind.name: (kind.length, kind.width, kind.height) for kind in VEHICLE_TYPES}
"""Type of vehicle -> length, width, height [m]."""
PERSON_SIZE = (0.55, 0.6, 1.72)


@dataclass(frozen=True)
class Everybody:
    """Who is where, town coordinates; rows of all arrays belong together.

    Attributes:
        names: Names that stay.
        kinds: NAVSIM's classes: vehicle, bicycle, pedestrian.
        pose: (N, 3) x, y, heading of the boxes' centres.
        size: (N, 3) length, width, height.
        speed: (N,) along the heading [m/s].
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    pose: Floats
    size: Floats
    speed: Floats

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, rows: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Everybody:
        """Some rows."""
        picked = np.arange(len(self))[np.asarray(rows)]
        return Everybody(
            tuple(self.names[i] for i in picked),
            tuple(self.kinds[i] for i in picked),
            self.pose[picked],
            self.size[picked],
            self.speed[picked],
        )

    def joined(self, other: Everybody) -> Everybody:
        """These, then others."""
        return Everybody(
            self.names + other.names,
            self.kinds + other.kinds,
            np.concatenate([self.pose, other.pose]),
            np.concatenate([self.size, other.size]),
            np.concatenate([self.speed, other.speed]),
        )


@dataclass
class SumoWorld:
    """A running SUMO; use :func:`sumo_world`.

    Attributes:
        town: Where it runs.
        time: Seconds since its beginning.
    """

    town: LiveTown
    _sumo: Any
    time: float = 0.0
    _lengths: dict[str, tuple[str, tuple[float, float, float]]] = field(default_factory=dict)
    _guests: dict[str, tuple[str, float, float]] = field(default_factory=dict)

    def warm_up(self, until: float) -> None:
        """Run without an ego until a time [s]."""
        while self.time < until - 1e-9:
            self.step()

    def step(self) -> None:
        """One step; who was moved before it is there after it."""
        self._sumo.simulationStep()
        self.time += STEP

    def add_ego(self, roads: Sequence[str], lane: int, station: float, rear: Floats, speed: float) -> None:
        """Put the ego on its route, and take away who is too near.

        Args:
            roads: Its route.
            lane: Index of its lane.
            station: Where its front is on it [m].
            rear: (3,) its rear axle.
            speed: [m/s]
        """
        vehicle = self._sumo.vehicle
        here = self.everybody()
        ahead, aside = _local(here.pose[:, :2], rear)
        near = (np.abs(ahead) < CLEAR) & (np.abs(aside) < 3.0)
        near |= (ahead < 0) & (ahead > -CLEAR_BEHIND) & (np.abs(aside) < 2.0)
        for row in np.flatnonzero(near):
            (self._sumo.person if here.kinds[row] == "pedestrian" else vehicle).remove(here.names[row])
        self._sumo.route.add(EGO, list(roads))
        vehicle.add(
            EGO, EGO, typeID=EGO_TYPE, depart="now", departLane=str(lane), departPos=str(station),
            departSpeed=str(speed),
        )  # fmt: skip

    def hold_ego(self, rear: Floats, speed: float) -> None:
        """The ego will be there after the next step: x, y, heading of its rear axle (3,), and its speed."""
        self._move(EGO, rear, FRONT, speed)

    def add_guest(self, name: str, kind: str, size: Floats, roads: Sequence[str]) -> None:
        """Add a vehicle that is moved from outside, so that traffic sees it.

        Args:
            name: Its name.
            kind: Type of SUMO.
            size: (3,) length, width, height [m].
            roads: A route for it, in case it is let go.
        """
        self._sumo.route.add(f"route-{name}", list(roads))
        self._guests[name] = kind, float(size[0]), float(size[1])
        self._enter(name)

    def hold_guest(self, name: str, pose: Floats, length: float, speed: float) -> None:
        """A guest will be there after the next step: centre and heading (3,), speed along it."""
        self._move(name, pose, length / 2, speed)

    def let_go(self, name: str) -> None:
        """From now on SUMO drives this guest, or the ego."""
        vehicle = self._sumo.vehicle
        if name in self._guests:
            # (of its route SUMO has left what leads to where it was moved, and takes it away at its end)
            ahead = list(vehicle.getRoute(name)[vehicle.getRouteIndex(name) :])
            vehicle.setRoute(name, [*ahead, *self.town.network.onward(ahead[-1], _ONWARD)])
        vehicle.setSpeed(name, -1)
        vehicle.setSpeedMode(name, 31)
        vehicle.setLaneChangeMode(name, 1621)
        self._guests.pop(name, None)

    def _enter(self, name: str) -> None:
        """Bring the ego or a guest into the run; where it is, it is told before the next step."""
        vehicle = self._sumo.vehicle
        anywhere = {"depart": "now", "departLane": "free", "departPos": "random_free"}
        if name == EGO:
            vehicle.add(EGO, EGO, typeID=EGO_TYPE, **anywhere)
            return
        kind, length, width = self._guests[name]
        vehicle.add(name, f"route-{name}", typeID=kind, **anywhere)
        vehicle.setLength(name, length)
        vehicle.setWidth(name, width)

    def _move(self, name: str, pose: Floats, front: float, speed: float) -> None:
        vehicle = self._sumo.vehicle
        x, y = pose[:2] + front * np.array([np.cos(pose[2]), np.sin(pose[2])])
        if name in vehicle.getIDList() and not vehicle.getLaneID(name):
            # On no lane: SUMO 1.27 may crash, and the process with it, when it is to move such a vehicle on.
            vehicle.remove(name)
            self._enter(name)
        try:
            vehicle.setSpeedMode(name, _FREE)
        except self._sumo.TraCIException:  # (SUMO takes away who has not moved for a minute)
            self._enter(name)
            vehicle.setSpeedMode(name, _FREE)
        vehicle.setLaneChangeMode(name, _FREE)
        vehicle.setSpeed(name, max(float(speed), 0.0))
        angle = (90.0 - np.degrees(pose[2])) % 360.0
        vehicle.moveToXY(name, "", -1, float(x), float(y), float(angle), _EXACT)

    def ego_is_there(self) -> bool:
        """Whether the ego drives in the run: SUMO takes away who has arrived."""
        return EGO in self._sumo.vehicle.getIDList()

    def ego_state(self) -> tuple[Floats, float]:
        """Rear axle (3,) and speed of the ego as SUMO has it."""
        heading = _heading(self._sumo.vehicle.getAngle(EGO))
        front = np.array(self._sumo.vehicle.getPosition(EGO))
        rear = front - FRONT * np.array([np.cos(heading), np.sin(heading)])
        return np.array([*rear, heading]), float(self._sumo.vehicle.getSpeed(EGO))

    def everybody(self) -> Everybody:
        """All who move by themselves, without the ego and without guests."""
        vehicle, person = self._sumo.vehicle, self._sumo.person
        names, kinds, rows = [], [], []
        for name in vehicle.getIDList():
            if name == EGO or name in self._guests:
                continue
            kind, size = self._kind(name)
            if kind == "closed":
                continue
            x, y = vehicle.getPosition(name)
            names.append(name)
            kinds.append(kind)
            rows.append((x, y, vehicle.getAngle(name), size[0] / 2, *size, vehicle.getSpeed(name)))
        for name in person.getIDList():
            x, y = person.getPosition(name)
            names.append(name)
            kinds.append("pedestrian")
            rows.append((x, y, person.getAngle(name), 0.0, *PERSON_SIZE, person.getSpeed(name)))
        table = np.array(rows, dtype=np.float64).reshape(-1, 8)
        heading = _heading(table[:, 2])
        along = np.stack([np.cos(heading), np.sin(heading)], axis=1)
        center = table[:, :2] - table[:, 3:4] * along
        return Everybody(
            tuple(names), tuple(kinds), np.column_stack([center, heading]), table[:, 4:7], table[:, 7]
        )

    def _kind(self, name: str) -> tuple[str, tuple[float, float, float]]:
        if name not in self._lengths:
            kind = self._sumo.vehicle.getTypeID(name).partition("@")[0]
            if kind.startswith(CLOSED_TYPE):
                self._lengths[name] = ("closed", (0.0, 0.0, 0.0))
            else:
                self._lengths[name] = ("bicycle" if kind == "bicycle" else "vehicle", SIZES[kind])
        return self._lengths[name]

    def is_red(self, signal: str, link: int) -> bool:
        """Whether a link of a signal shows red (also red with yellow)."""
        return self._sumo.trafficlight.getRedYellowGreenState(signal)[link] in "ru"


def _heading(angle: Any) -> Any:
    """SUMO's angle (degrees from north, clockwise) as a heading [rad]."""
    return np.deg2rad(90.0 - np.asarray(angle, dtype=np.float64))


def _local(points: Floats, pose: Floats) -> tuple[Floats, Floats]:
    """Points (N, 2) ahead of and to the left of a pose (3,)."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    dx, dy = points[:, 0] - pose[0], points[:, 1] - pose[1]
    return cos * dx + sin * dy, cos * dy - sin * dx


@contextmanager
def sumo_world(
    town: LiveTown, plan: TrafficPlan, seed: int, demand: int = 0, come_by: float | None = None
) -> Iterator[SumoWorld]:
    """Run SUMO in a town.

    Args:
        town: The town.
        plan: How much traffic; its ``duration`` is how long the run may last.
        seed: Of the drivers' moods; the same seeds give the same run if the same is done to it.
        demand: Seed of who drives where, and when.
        come_by: When all who stop in their lane have come [s].

    Raises:
        SumoError: If SUMO or libsumo is missing, another run goes on in this process, or SUMO fails.
    """
    os.environ.setdefault("SUMO_HOME", str(sumo_home()))
    try:
        import libsumo
    except ImportError as error:
        raise SumoError(
            f"the live world needs libsumo: pip install 'beyonddrive[synth]' ({error})"
        ) from error
    if libsumo.isLoaded():
        raise SumoError("another SUMO runs in this process; run scenarios at once in processes of their own")
    with tempfile.TemporaryDirectory(prefix="beyonddrive-sumo-") as folder:
        town.write_traffic(plan, Path(folder), demand, come_by)
        options = {
            "net-file": f"{folder}/{NETWORK}",
            "route-files": f"{folder}/town.rou.xml",
            "step-length": str(STEP),
            "lateral-resolution": "0.8",
            "seed": str(seed % 2**31),
            "precision": "4",
            "time-to-teleport": "60",
            "time-to-teleport.remove": "true",
            "collision.action": "none",
            "extrapolate-departpos": "false",
            "max-depart-delay": "15",
            "ignore-route-errors": "true",
            "no-step-log": "true",
            "no-warnings": "true",
            "xml-validation": "never",
        }
        arguments = ["sumo", *(f"--{key}={value}" for key, value in options.items())]
        try:
            libsumo.start(arguments)
            yield SumoWorld(town, libsumo)
        except libsumo.TraCIException as error:
            raise SumoError(f"SUMO in town {town.name}: {error}") from error
        finally:
            if libsumo.isLoaded():
                libsumo.close()
