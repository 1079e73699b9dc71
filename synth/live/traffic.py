"""Everybody but the ego: SUMO's traffic, HUGSIM's agents, and what is to happen on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.evaluation.closed_loop.hugsim.agents import STEP
from beyonddrive.evaluation.closed_loop.hugsim.traffic import Traffic
from beyonddrive.synth.curves import arc_length, headings
from beyonddrive.synth.live.place import CAMERA, Place, rear_of
from beyonddrive.synth.live.scenario import CARS, JOIN, Event, LiveScenario
from beyonddrive.synth.live.sumo_world import EGO, Everybody, SumoWorld
from beyonddrive.synth.live.town import LiveTown

MOVING_RANGE, STANDING_RANGE = 90.0, 60.0
"""Who moves, and what stands, is told up to this distance from the ego [m]."""

RECORD_RANGE = 50.0
"""The record tells of those up to this distance [m]: farther than a plan gets."""

Floats = NDArray[np.float64]


class _Actor:
    """Somebody who waits for the ego, and then moves along a path."""

    def __init__(self, event: Event, place: Place, name: str) -> None:
        self.event, self.name = event, name
        self._path = place.to_town(np.array([[b, -a] for a, b in event.path]))
        self._length = arc_length(self._path)
        self._yaw = headings(self._path)
        self.started = self.joined = False
        self._done, self.speed = 0.0, 0.0

    @property
    def has_arrived(self) -> bool:
        return self._done >= self._length[-1]

    @property
    def pose(self) -> Floats:
        columns = (self._path[:, 0], self._path[:, 1], self._yaw)
        return np.array([np.interp(self._done, self._length, column) for column in columns])

    def move(self, progress: float) -> None:
        self.started |= progress >= self.event.trigger
        if not self.started or self.has_arrived:
            self.speed = self.speed if self.event.then == JOIN else 0.0
            return
        self.speed = min(self.speed + self.event.acceleration * STEP, self.event.speed)
        self._done = min(self._done + self.speed * STEP, float(self._length[-1]))


class LiveTraffic:
    """Moves everybody, as HUGSIM's :class:`~beyonddrive.evaluation.closed_loop.hugsim.episode.Episode` asks.

    Args:
        scenario: The scenario.
        town: Its town.
        place: Its path.
        world: The running SUMO.
        holds_ego: Whether the ego is moved from outside; otherwise SUMO drives it.
    """

    def __init__(
        self, scenario: LiveScenario, town: LiveTown, place: Place, world: SumoWorld, holds_ego: bool = True
    ) -> None:
        self.place, self.world, self._holds_ego = place, world, holds_ego
        self._begun = self._let_go = False
        self._agents = Traffic(
            scenario.hugsim, place.route, {car: (w, length, h) for car, (length, w, h) in CARS.items()}
        )
        self._cars = [agent.car for agent in scenario.hugsim.agents]
        self._actors = [_Actor(event, place, f"event-{i}") for i, event in enumerate(scenario.events)]
        things = town.static
        self._things = Everybody(
            tuple(thing.name for thing in things),
            tuple(thing.type for thing in things),
            np.array([[*thing.center, thing.heading] for thing in things]).reshape(-1, 3),
            np.array([thing.size for thing in things], dtype=np.float64).reshape(-1, 3),
            np.zeros(len(things)),
        )
        self._start(scenario)

    def _start(self, scenario: LiveScenario) -> None:
        world, place = self.world, self.place
        world.warm_up(scenario.start_time)
        ego = np.array([*scenario.hugsim.start, np.deg2rad(scenario.hugsim.euler[1]), scenario.hugsim.speed])
        self._ego = place.camera_of(ego)
        lane = int(place.lanes[0].rsplit("_", 1)[1])
        station = place.station + place.progress(self._ego[:2])
        world.add_ego(place.roads, lane, station, rear_of(self._ego), float(ego[3]))
        for name, car, _, _, _ in self._guests():
            kind = car if car != "pedestrian" else "hatchback"
            world.add_guest(name, kind, np.array(CARS[car]), place.roads)
        self.now = self._look()

    def move(self, ego: ArrayLike, time: float) -> None:
        """One step: everyone sees the ego (4,) a, b, heading [to the right], speed before its move."""
        state = np.asarray(ego, dtype=np.float64)
        self._ego = self.place.camera_of(state)
        progress = self.place.progress(self._ego[:2])
        for actor in self._actors:
            actor.move(progress)
        self._agents.move(state, time)
        if self._holds_ego or not self._begun:
            # SUMO puts the ego there at the end of the step, when it will have moved on.
            ahead = rear_of(self._ego)
            ahead[:2] += state[3] * STEP * np.array([np.cos(ahead[2]), np.sin(ahead[2])])
            self.world.hold_ego(ahead, float(state[3]))
        elif not self._let_go:
            self.world.let_go(EGO)
            self._let_go = True
        self._begun = True
        for name, _, pose, size, speed in self._guests():
            self.world.hold_guest(name, pose, size[0], speed)
        for actor in self._actors:
            if actor.has_arrived and actor.event.then == JOIN and not actor.joined:
                self.world.let_go(actor.name)
                actor.joined = True
        self.world.step()
        self.now = self._look()

    def boxes(self) -> Floats:
        """Boxes (A, 7) x, y, z, width, length, height, yaw in the record frame of those who are near."""
        now = self.now.chosen(np.hypot(*(self.now.pose[:, :2] - self._ego[:2]).T) < RECORD_RANGE)
        local = self.place.to_scene(now.pose)
        length, width, height = now.size.T
        return np.column_stack([local[:, :2], height / 2 - CAMERA[2], width, length, height, local[:, 2]])

    def _look(self) -> Everybody:
        moving = self.world.everybody()
        guests = self._guests()
        if guests:
            moving = moving.joined(
                Everybody(
                    tuple(name for name, *_ in guests),
                    tuple("pedestrian" if car == "pedestrian" else "vehicle" for _, car, *_ in guests),
                    np.stack([pose for _, _, pose, _, _ in guests]),
                    np.array([size for _, _, _, size, _ in guests], dtype=np.float64),
                    np.array([speed for *_, speed in guests], dtype=np.float64),
                )
            )
        self.everybody = moving
        away = np.hypot(*(moving.pose[:, :2] - self._ego[:2]).T)
        reach = np.where(np.array(moving.kinds) == "pedestrian", STANDING_RANGE, MOVING_RANGE)
        near = np.hypot(*(self._things.pose[:, :2] - self._ego[:2]).T) < STANDING_RANGE
        return moving.chosen(away < reach).joined(self._things.chosen(near))

    def _guests(self) -> list[tuple[str, str, Floats, tuple[float, float, float], float]]:
        """Name, car, pose in the town, size and speed of those whom SUMO does not move."""
        found = []
        states = self._agents.states()
        for i, (car, (a, b, yaw, speed)) in enumerate(zip(self._cars, states, strict=True)):
            found.append((f"agent-{i}", car, self.place.to_town([b, -a, yaw]), CARS[car], float(speed)))
        for actor in self._actors:
            if not actor.joined:
                car = actor.event.car
                found.append((actor.name, car, actor.pose, CARS[car], actor.speed))
        return found
