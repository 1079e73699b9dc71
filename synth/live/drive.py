"""One scenario driven: a driver's plans, HUGSIM's kinematics, SUMO's traffic, and the record left behind."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.episode import MAX_STEPS, Episode, Observation
from beyonddrive.evaluation.closed_loop.hugsim.hd_score import RunScore, score_run
from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import check_plan
from beyonddrive.evaluation.closed_loop.hugsim.points import PointGrid, to_record_frame
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame as RecordFrame
from beyonddrive.evaluation.closed_loop.hugsim.settings import PRESETS, HugsimSettings
from beyonddrive.evaluation.closed_loop.hugsim.tracker import WHEELBASE
from beyonddrive.structures.frame import Command, DrivenPlan, Driver, DriverReport, Frame
from beyonddrive.synth.live.eyes import Eyes
from beyonddrive.synth.live.place import CAMERA, Place, place_of, rear_of
from beyonddrive.synth.live.points import Points, ground_points, solid_points
from beyonddrive.synth.live.scenario import LiveScenario
from beyonddrive.synth.live.sumo_world import SumoWorld, sumo_world
from beyonddrive.synth.live.town import LiveError, LiveTown, open_live_town
from beyonddrive.synth.live.traffic import LiveTraffic
from beyonddrive.synth.traffic import TrafficPlan

Pivot = Literal["rear_axle", "camera"]
ROOM = 110.0
"""Seconds that a run of SUMO is prepared for after the ego appears."""
COMMANDS = (Command.RIGHT, Command.LEFT, Command.STRAIGHT)
"""By HUGSIM's number."""
Floats = NDArray[np.float64]
Answer = Callable[[Floats], NDArray[np.floating]]
"""Makes a plan (8, 3) of a driver what HUGSIM takes: (N, 2) right, ahead."""


@dataclass(frozen=True)
class LiveSettings:
    """How scenarios are driven; report it with every result.

    Attributes:
        image_size: Width and height of the images [px]; that of the world that planners were trained in.
        lidar: Whether the driver gets sweeps.
        hugsim: HUGSIM's switches. Its agents move once before the first frame (``resets`` 1).
        pivot: What HUGSIM's kinematics move: the ``rear_axle``, for which planners plan, with the cameras
            where they were in training; or the front ``camera``, as HUGSIM itself does.
        max_steps: An episode ends after so many steps, 400 in HUGSIM.
        seed: Added to the seed of every scenario: another seed is other traffic.

    Raises:
        LiveError: If a number makes no sense.
    """

    image_size: tuple[int, int] = (480, 270)
    lidar: bool = False
    hugsim: HugsimSettings = field(default_factory=lambda: PRESETS["pr57"].changed(resets=1))
    pivot: Pivot = "rear_axle"
    max_steps: int = MAX_STEPS
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_steps <= MAX_STEPS:
            raise LiveError(f"--max-steps: must be 1 to {MAX_STEPS}, got {self.max_steps}")
        if min(self.image_size) < 1:
            raise LiveError("--image-size: must be a pixel or more, got {}x{}".format(*self.image_size))


@dataclass
class Outcome:
    """What became of a scenario.

    Attributes:
        scenario: The scenario.
        frames: The record.
        score: Its HD-Score.
        ends: Why it ended.
        report: Of the driver.
        ground: (n, 3) points of the road, world frame.
        solid: (n, 3) points of what stands.
        seconds: Time spent, by what for.
        driven: How far the ego went, from where it started [m].
        film: For a video: per step what was seen and planned.
    """

    scenario: LiveScenario
    frames: list[RecordFrame]
    score: RunScore
    ends: tuple[str, ...]
    report: DriverReport
    ground: Points
    solid: Points
    seconds: Mapping[str, float]
    driven: float
    film: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kilometres(self) -> float:
        """Distance driven [km]."""
        return self.driven / 1000.0

    @property
    def collided(self) -> bool:
        """Whether it ended in a collision."""
        return any(frame.collision for frame in self.frames)


class Clock:
    """Seconds by what they were spent on.

    Attributes:
        timer: What tells the time; processor time for a benchmark where other programs run.
    """

    timer: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Count the time of a block."""
        started = self.timer()
        try:
            yield
        finally:
            self.seconds[name] += self.timer() - started


@dataclass
class Stage:
    """A scenario set up: everything but a driver."""

    scenario: LiveScenario
    settings: LiveSettings
    town: LiveTown
    place: Place
    world: SumoWorld
    traffic: LiveTraffic
    eyes: Eyes
    episode: Episode
    ground: Points
    solid: Points
    clock: Clock

    def look(self, seen: Observation) -> None:
        """Take in what the ego sees now."""
        self.eyes.look(self._camera(seen), self._state(seen), self.traffic.now, seen.time)

    def frame(self, seen: Observation, session: str) -> Frame:
        """The frame of an observation for a driver."""
        with self.clock.on("paint"):
            self.look(seen)
            views = self.eyes.images(self.settings.image_size)
        sweep = None
        if self.settings.lidar:
            with self.clock.on("lidar"):
                sweep = self.eyes.sweep()
        state = self._state(seen)
        return Frame(
            session=session,
            time=seen.time,
            cameras=views,
            velocity=np.array([seen.speed, 0.0]),
            acceleration=np.array([state["acceleration"], state["sideways"]]),
            command=COMMANDS[seen.command],
            pose=self.place.to_scene(rear_of(self._camera(seen))),
            steering=-seen.steering,
            lidar=sweep,
        )

    def _camera(self, seen: Observation) -> Floats:
        return self.place.camera_of([seen.position[0], seen.position[2], seen.euler[1]])

    def _state(self, seen: Observation) -> dict[str, float]:
        # The ego moves as its rear axle would: a bend accelerates it to its inside.
        sideways = -(seen.speed**2) * float(np.tan(seen.steering)) / WHEELBASE
        return {
            "speed": seen.speed,
            "acceleration": seen.acceleration,
            "sideways": sideways,
            "command": float(seen.command),
        }


@runtime_checkable
class PrivilegedDriver(Driver, Protocol):
    """A driver that is told the world, its map, route and everybody in it, instead of looking at images."""

    def attach(self, stage: Stage) -> None:
        """Be told the world of the session that was begun; it moves on before every frame."""


@contextmanager
def staged(
    scenario: LiveScenario, towns: Path, settings: LiveSettings, episode_type: type[Episode] = Episode
) -> Iterator[Stage]:
    """Set a scenario up in this process.

    Args:
        scenario: The scenario.
        towns: Folder of the towns.
        settings: How it is driven.
        episode_type: What moves the ego: HUGSIM's kinematics, or in a class of its own SUMO.

    Raises:
        LiveError: If there is no such town or the path is not in it.
        SumoError: If SUMO is missing or fails.
    """
    clock = Clock()
    with clock.on("set up"):
        town = _town(towns / scenario.town)
        place = place_of(town.network, scenario.lanes, scenario.station, scenario.length)
    moods = scenario.seed + settings.seed
    with sumo_world(town, traffic_plan(scenario), moods, settings.seed, scenario.start_time) as world:
        with clock.on("set up"):
            traffic = LiveTraffic(scenario, town, place, world, holds_ego=episode_type is Episode)
            eyes = Eyes(town, place, world, scenario.name, moods)
            ground, solid = ground_points(town, place), solid_points(place, eyes.standing())
            pivot = CAMERA[0] if settings.pivot == "rear_axle" else 0.0
            episode = episode_type(scenario.hugsim, place.route, traffic, solid, settings.hugsim, pivot)
        yield Stage(scenario, settings, town, place, world, traffic, eyes, episode, ground, solid, clock)


def traffic_plan(scenario: LiveScenario) -> TrafficPlan:
    """Traffic of a scenario; where no vehicles drive none stops in its lane, either."""
    stopping = TrafficPlan.stopping_share if scenario.vehicles_per_km > 0 else 0.0
    return TrafficPlan(
        scenario.start_time + ROOM,
        scenario.vehicles_per_km,
        scenario.pedestrians_per_km,
        stopping_share=stopping,
    )


_TOWNS: dict[Path, LiveTown] = {}


def _town(folder: Path) -> LiveTown:
    """Towns are kept: the next scenario is likely to be in the same one."""
    key = folder.resolve()
    if key not in _TOWNS:
        if len(_TOWNS) >= 4:
            _TOWNS.pop(next(iter(_TOWNS)))
        _TOWNS[key] = open_live_town(folder)
    return _TOWNS[key]


def drive(
    scenario: LiveScenario,
    towns: Path,
    driver: Driver,
    answer: Answer,
    settings: LiveSettings | None = None,
    keep_film: bool = False,
    record: list[RecordFrame] | None = None,
) -> Outcome:
    """Drive a scenario to its end.

    Args:
        scenario: The scenario.
        towns: Folder of the towns.
        driver: Who drives; a :class:`PrivilegedDriver` is told the world.
        answer: Makes its plans HUGSIM's.
        settings: How it is driven.
        keep_film: Keep what a video needs.
        record: An empty list, which gets every frame when it was driven: what is left of a drive that fails.

    Raises:
        LiveError: If there is no such town or the path is not in it.
        SumoError: If SUMO is missing or fails.
    """
    settings = settings or LiveSettings()
    film: list[dict[str, Any]] = []
    with staged(scenario, towns, settings) as stage:
        episode, clock = stage.episode, stage.clock
        if record is not None:
            episode.frames = record
        driver.reset(scenario.name, scenario.seed + settings.seed)
        if isinstance(driver, PrivilegedDriver):
            driver.attach(stage)
        try:
            goes_on = True
            while goes_on:
                seen = episode.observe()
                frame = stage.frame(seen, scenario.name)
                with clock.on("plan"):
                    plan = driver.plan(frame)
                if keep_film:
                    film.append(film_row(stage, frame, plan))
                with clock.on("move"):
                    points = check_plan(answer(plan.poses))
                    recorded = points if settings.pivot == "camera" else camera_points(plan.poses)
                    goes_on = episode.step(points, recorded) and len(episode.frames) < settings.max_steps
        finally:
            # (a session that nobody ends keeps its images)
            report = driver.close(scenario.name)
        ends = episode.ends or (f"{settings.max_steps} steps",)
        with clock.on("score"):
            score = score_of(episode.frames, stage.ground, stage.solid, settings.hugsim)
    return Outcome(
        scenario, episode.frames, score, ends, report, stage.ground, stage.solid, dict(clock.seconds),
        episode.driven, film,
    )  # fmt: skip


def camera_points(poses: Floats) -> Floats:
    """Points (N, 2) right, ahead of the front camera along a plan (N, 3) of the rear axle, from where it is.

    >>> camera_points(np.array([[2.0, 0.0, 0.0]])).tolist()
    [[-0.0, 2.0]]
    """
    x = poses[:, 0] + CAMERA[0] * (np.cos(poses[:, 2]) - 1.0)
    y = poses[:, 1] + CAMERA[0] * np.sin(poses[:, 2])
    return np.stack([-y, x], axis=1)


def score_of(
    frames: Sequence[RecordFrame], ground: Points, solid: Points, settings: HugsimSettings
) -> RunScore:
    """HD-Score of a record among points of the world frame."""
    grids = [PointGrid(to_record_frame(points)) for points in (ground, solid)]
    return score_run(frames, grids[0], grids[1], settings)


def film_row(stage: Stage, frame: Frame, plan: DrivenPlan) -> dict[str, Any]:
    """What a video shows of a step."""
    return {
        "view": frame.cameras["CAM_F0"],
        "frame": stage.eyes.frame,
        "plan": np.asarray(plan.poses, dtype=np.float64),
        "source": plan.source,
        "time": frame.time,
    }
