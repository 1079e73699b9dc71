"""Scenarios of a town, from easy to extreme (HUGSIM, section 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.scenario import DIFFICULTIES, Agent, Scenario
from beyonddrive.structures.se2 import to_local
from beyonddrive.synth.curves import arc_length, at
from beyonddrive.synth.live.scenario import CARS, JOIN, STAY, Event, LiveScenario
from beyonddrive.synth.live.town import LiveError, LiveTown
from beyonddrive.synth.live.ways import Way, WayFinder
from beyonddrive.synth.tokens import seed_of

TRAFFIC = {"easy": 0.0, "medium": 15.0, "hard": 6.0, "extreme": 3.0}
"""Vehicles per kilometre of lane."""
PEDESTRIANS = {"easy": 0.0, "medium": 14.0, "hard": 8.0, "extreme": 4.0}
"""Pedestrians per kilometre of road."""
START_TIMES = (16.0, 28.0)
"""How long SUMO has run when the ego appears [s]."""
REACTION = (2.1, 2.8)
"""How long before it gets there the ego may see what is going to cross its way [s]."""
DRIVEN = 8.0
"""Speed that what happens is timed for [m/s]; an ego that is faster has less time."""
TRIES = 60
_CARS = ("hatchback", "sedan", "suv", "van")

Floats = NDArray[np.float64]
Draw = np.random.Generator


def scenarios_of(town: LiveTown, counts: dict[str, int]) -> Iterator[LiveScenario]:
    """Scenarios of a town, so many of each difficulty; the same town gives the same.

    Raises:
        LiveError: If the town does not have so many ways.
    """
    finder = WayFinder(town)
    for difficulty, count in counts.items():
        rng = np.random.default_rng([town.seed, 20, DIFFICULTIES.index(difficulty)])
        for number in range(count):
            yield _scenario(finder, difficulty, number, rng)


def _scenario(finder: WayFinder, difficulty: str, number: int, rng: Draw) -> LiveScenario:
    for _ in range(TRIES):
        way = finder.draw(rng)
        if way is None:
            break
        agents, events = _what_happens(finder, way, difficulty, number, rng)
        if difficulty in ("hard", "extreme") and not (agents or events):
            continue
        name = finder.town.name
        ego = Scenario(
            name, f"{difficulty}_{number:02d}", agents, False, (0.0, 0.0, 0.0), (0.0, 0.0), way.speed, 0.0
        )
        return LiveScenario(
            ego,
            name,
            way.place.lanes,
            way.place.station,
            way.length,
            TRAFFIC[difficulty],
            PEDESTRIANS[difficulty],
            0.25 * round(4 * rng.uniform(*START_TIMES)),
            seed_of(name, difficulty, number),
            events,
        )
    raise LiveError(f"town {finder.town.name}: no way for {difficulty}_{number:02d}; ask for fewer per town")


def _what_happens(
    finder: WayFinder, way: Way, difficulty: str, number: int, rng: Draw
) -> tuple[tuple[Agent, ...], tuple[Event, ...]]:
    if difficulty == "easy":
        return (), (_lead(way, rng),) if number % 2 else ()
    if difficulty == "hard":
        # In turn, so that every kind is there; what does not fit this way is another one's.
        kinds = (_late_turn, _jaywalk, _cut_in)
        first = kinds[number % 3](finder, way, rng)
        return (), (first,) if first is not None else ()
    if difficulty == "extreme":
        return (_attacker(way, number, rng),), ()
    return (), ()


def _place(way: Way, poses: Floats) -> tuple[tuple[float, float], ...]:
    """Points (N, 2) of the town as a, b."""
    local = to_local(poses[:, :2], way.place.origin)
    return tuple((float(-y), float(x)) for x, y in local)


def _seconds(rng: Draw) -> float:
    return float(rng.uniform(*REACTION))


def _lead(way: Way, rng: Draw) -> Event:
    """Somebody sets off ahead, for 39 m slower than the ego, and goes on with the traffic."""
    start = float(rng.uniform(20.0, 30.0))
    path = np.stack([way.beside(start + step, 0.0) for step in range(40)])
    speed = round(float(rng.uniform(4.0, 6.5)), 2)
    return Event("lead", str(rng.choice(_CARS)), 0.0, _place(way, path), speed, 2.0, JOIN)


def _jaywalk(finder: WayFinder, way: Way, rng: Draw) -> Event | None:
    """Somebody walks across the road ahead of the ego, from the right or the left."""
    for _ in range(TRIES):
        at_way = float(rng.uniform(30.0, way.length - 20.0))
        side = 1.0 if rng.random() < 0.35 else -1.0
        begin = side * float(rng.uniform(4.6, 5.6) if side < 0 else rng.uniform(6.0, 7.0))
        path = np.stack([way.beside(at_way, begin), way.beside(at_way, -side * 8.0)])
        speed = round(float(rng.uniform(1.5, 2.1)), 2)
        if finder.is_free(path[:, :2], 0.5):
            # It is in the way of the ego when it has come to 1 m beside the path.
            until = (abs(begin) - 1.0) / speed + 0.4
            trigger = at_way - DRIVEN * max(until + 0.4, _seconds(rng))
            if trigger > 3.0:
                return Event("jaywalk", "pedestrian", trigger, _place(way, path), speed, 4.0, STAY)
    return None


def _cut_in(finder: WayFinder, way: Way, rng: Draw) -> Event | None:
    """Somebody who stands beside the lane pulls out ahead of the ego."""
    network = finder.town.network
    for _ in range(TRIES):
        at_way = float(rng.uniform(28.0, way.length - 35.0))
        lane = finder.lanes[way.place.lanes[way.place.lane_at(at_way)]]
        road = network.roads[lane.id.rsplit("_", 1)[0]]
        beside = [other for other in road.lanes if abs(other.index - lane.index) == 1]
        beside = [other for other in beside if other.kind in ("parking", "car")]
        if not beside:
            continue
        other = beside[int(rng.integers(len(beside)))]
        left = (lane.width + other.width) / 2 * (1.0 if other.index > lane.index else -1.0)
        steps = np.arange(0.0, 34.0)
        share = 1.0 - np.clip((steps - 2.0) / 11.0, 0.0, 1.0)
        lateral = left * share * share * (3.0 - 2.0 * share)
        path = np.stack([way.beside(at_way + s, y) for s, y in zip(steps, lateral, strict=True)])
        car = str(rng.choice(_CARS))
        back = way.beside(at_way - CARS[car][0] / 2, left)
        if not finder.is_free(np.concatenate([back[None, :2], path[:, :2]]), CARS[car][1] / 2 + 0.2):
            continue
        trigger = at_way - CARS[car][0] - DRIVEN * _seconds(rng)
        if trigger > 3.0:
            speed = round(float(rng.uniform(4.5, 6.5)), 2)
            return Event("cut_in", car, trigger, _place(way, path), speed, 2.2, JOIN)
    return None


def _late_turn(finder: WayFinder, way: Way, rng: Draw) -> Event | None:
    """At a junction somebody turns or drives straight across the way of the ego when it is too late to."""
    lanes = way.place.lanes
    mine = {(c.from_lane, c.to_lane): c for c in finder.town.network.connections if c.from_lane in lanes}
    found = []
    for i in range(len(lanes) - 1):
        own = mine[lanes[i], lanes[i + 1]]
        line = shapely.LineString(own.center)
        for other in finder.town.network.connections:
            same = other.junction == own.junction and other.from_road not in (own.from_road, own.to_road)
            if not same or other.from_lane not in finder.lanes or other.to_lane not in finder.lanes:
                continue
            turns_in = other.direction in "lL" or rng.random() < 0.4
            meeting = shapely.LineString(other.center).intersection(line)
            if turns_in and not meeting.is_empty:
                found.append((other, np.array(meeting.representative_point().coords[0])))
    while found:
        other, point = found.pop(int(rng.integers(len(found))))
        crossing = way.place.progress(point)
        lane, onward = finder.lanes[other.from_lane], finder.lanes[other.to_lane]
        length = arc_length(lane.center)
        before = at(lane.center, length, np.arange(max(length[-1] - 5.0, 0.0), length[-1], 1.0))
        line = np.concatenate([before, other.center, onward.center[1:22]])
        way_to = shapely.LineString(line).project(shapely.Point(point))
        acceleration, speed = 2.5, round(float(rng.uniform(5.5, 7.5)), 2)
        gained = speed**2 / (2 * acceleration)
        needed = (
            np.sqrt(2 * way_to / acceleration)
            if way_to < gained
            else speed / acceleration + (way_to - gained) / speed
        )
        trigger = crossing - DRIVEN * max(float(needed) + float(rng.uniform(-0.2, 0.5)), REACTION[0])
        if trigger > 3.0 and crossing < way.length - 10.0 and finder.is_free(line, 1.1):
            car = str(rng.choice(_CARS))
            return Event("late_turn", car, trigger, _place(way, line), speed, acceleration, JOIN)
    return None


_ATTACKS: tuple[Callable[[Way, Draw], tuple[float, float, float]], ...] = (
    lambda way, rng: (float(rng.uniform(35.0, 55.0)), 3.5, np.pi),
    lambda way, rng: (float(rng.uniform(18.0, 28.0)), 0.0, 0.0),
    lambda way, rng: (float(rng.uniform(-18.0, -12.0)), 3.4, 0.0),
)
"""Where an attacker begins: ahead and left of the ego [m], and turned against it [rad]."""


def _attacker(way: Way, number: int, rng: Draw) -> Agent:
    ahead, left, turned = _ATTACKS[number % len(_ATTACKS)](way, rng)
    if ahead < 0:
        x, y, yaw = way.place.path[0]
        pose = np.array([x, y, yaw]) + ahead * np.array([np.cos(yaw), np.sin(yaw), 0.0])
        pose[:2] += left * np.array([-np.sin(yaw), np.cos(yaw)])
    else:
        pose = way.beside(ahead, left)
    local = to_local(pose, way.place.origin)
    speed = way.speed * (1.25 if ahead < 0 else 0.8)
    return Agent(
        (round(float(-local[1]), 3), round(float(local[0]), 3), round(float(local[2] + turned), 4),
         round(speed, 2)),
        0.0,
        str(rng.choice(_CARS)),
        "AttackPlanner",
        {"pred_steps": 20, "ATTACK_FREQ": 3, "best_k": 4},
    )  # fmt: skip
