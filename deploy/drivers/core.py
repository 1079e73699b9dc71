"""The core of a driver: sessions, a plan for every frame, and an account of what was not the planner's."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from beyonddrive.datasets.transforms.strip_rig import StripError
from beyonddrive.deploy.drivers.engines import DriverError, Engine
from beyonddrive.deploy.drivers.fallbacks import (
    FASTEST,
    USUAL_STEP,
    LastPlan,
    Whereabouts,
    moved_plan,
    straight_on,
)
from beyonddrive.deploy.drivers.frame_inputs import FrameInputs, check_frame
from beyonddrive.structures.errors import clipped, describe_error
from beyonddrive.structures.frame import (
    CACHED_PLAN,
    PLANNER,
    STRAIGHT_ON,
    DrivenPlan,
    DriverReport,
    Floats,
    Frame,
)
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL, PlanError, check_plans

logger = logging.getLogger(__name__)

_SAME_MOMENT = 0.13
"""An earlier frame stands for a moment if it is so near: half a step of a simulator at 4 Hz [s]."""


@dataclass(frozen=True)
class DriverSettings:
    """How a driver drives.

    Attributes:
        max_cached_age: A plan is driven on for this long when no new one comes [s].
        seed: Of the noise of planners that sample: every session then has the same, for paired runs. None
            takes the seed that each session is given.

    Raises:
        DriverError: If ``max_cached_age`` leaves nothing of a plan.
    """

    max_cached_age: float = 1.5
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_cached_age < NUM_POSES * POSE_INTERVAL:
            raise DriverError(f"max_cached_age: must be at least 0 and below 4 s, got {self.max_cached_age}")


@dataclass
class _Session:
    seed: int
    report: DriverReport = field(default_factory=DriverReport)
    index: int = 0
    last: LastPlan | None = None
    time: float | None = None
    speed: float = 0.0
    earlier: deque[Frame] = field(default_factory=deque)


class PlannerDriver:
    """Drives sessions by a planner (:class:`~beyonddrive.structures.frame.Driver`).

    Several threads may plan at once, each for another session.

    Args:
        engine: The planner.
        inputs: What makes its inputs.
        settings: How it drives.
    """

    def __init__(self, engine: Engine, inputs: FrameInputs, settings: DriverSettings | None = None) -> None:
        self.engine, self.inputs = engine, inputs
        self.settings = settings or DriverSettings()
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    @property
    def wants_lidar(self) -> bool:
        """Whether the planner reads a sweep."""
        return bool({"lidar", "points"} & set(self.engine.required_inputs))

    def reset(self, session: str, seed: int | None = None) -> None:
        """Begin a session, or begin it anew.

        Args:
            session: Its name.
            seed: Of its noise; 0 if None. The ``seed`` of the settings comes first.
        """
        fixed = self.settings.seed
        with self._lock:
            self._sessions[session] = _Session(int(seed or 0) if fixed is None else fixed)

    def plan(self, frame: Frame) -> DrivenPlan:
        """The plan for a frame; whatever a frame holds or a planner raises ends in a counted fallback.

        Raises:
            DriverError: If the session was not begun.
        """
        state, index = self._step(frame.session)
        try:
            check_frame(frame)
        except Exception as error:  # (what a peer sends may be of any type)
            return self._fall_back(state, frame.session, "bad_frame", describe_error(error), _known(frame))
        _note(state, _known(frame))
        frame = self._remember(state, frame)
        try:
            packed = self.inputs(frame, f"{state.seed}/{index}")
            poses = self._checked(self.engine(packed))
        except StripError as error:
            return self._fall_back(state, frame.session, error.kind, str(error), _known(frame))
        except PlanError as error:
            return self._fall_back(state, frame.session, "bad_plan", str(error), _known(frame))
        except Exception as error:  # (a planner is anybody's code, and the simulator waits for an answer)
            logger.warning("session %s: the planner raised", frame.session, exc_info=True)
            return self._fall_back(
                state, frame.session, "planner_error", describe_error(error), _known(frame)
            )
        state.report.count("inference")
        state.last = LastPlan(poses, frame.time, np.asarray(frame.pose, np.float64))
        return DrivenPlan(poses, PLANNER)

    def plan_without_frame(
        self, session: str, kind: str, reason: str, known: Whereabouts | None = None
    ) -> DrivenPlan:
        """The plan for a moment whose frame cannot be read.

        Args:
            session: Its name.
            kind: What to count it as.
            reason: Why there is no frame.
            known: What is known of the moment all the same. Without a time it comes a usual step after the
                one before; without a pose the ego is where its plan has it.
        """
        state, _ = self._step(session)
        return self._fall_back(state, session, kind, reason, known or Whereabouts())

    def fall_back(self, frame: Frame, kind: str, reason: str) -> DrivenPlan:
        """The plan for a frame that lacks something, such as its images.

        Args:
            frame: With the pose and the motion of the ego.
            kind: What to count it as.
            reason: What it lacks.
        """
        state, _ = self._step(frame.session)
        return self._fall_back(state, frame.session, kind, reason, _known(frame))

    def forget_history(self, session: str) -> int:
        """Let go of the frames of before that a session keeps for its planner; returns how many these were.

        A session that goes on has none of them; one that never began has nothing.
        """
        with self._lock:
            state = self._sessions.get(session)
        if state is None:
            return 0
        kept, state.earlier = state.earlier, deque()
        return len(kept)

    def close(self, session: str) -> DriverReport:
        """End a session; one that never began has an empty report."""
        with self._lock:
            state = self._sessions.pop(session, None)
        return DriverReport() if state is None else state.report

    def report(self, session: str) -> DriverReport:
        """What became of a session so far; a transport counts its own troubles in it.

        Raises:
            DriverError: If the session was not begun.
        """
        return self._session(session).report

    def _session(self, name: str) -> _Session:
        with self._lock:
            state = self._sessions.get(name)
        if state is None:
            raise DriverError(f"session {name!r} was not begun: call reset first")
        return state

    def _step(self, name: str) -> tuple[_Session, int]:
        """A session, and the number of its step that begins, which the noise of the step follows from."""
        state = self._session(name)
        state.index += 1
        return state, state.index - 1

    def _remember(self, state: _Session, frame: Frame) -> Frame:
        """The frame with its history, if the planner's inputs need one."""
        count = self.inputs.num_history_frames
        if not count:
            return frame
        # (time that stands still, or goes back, must not fill the memory with frames)
        while state.earlier and state.earlier[-1].time >= frame.time:
            state.earlier.pop()
        while state.earlier and state.earlier[0].time < frame.time - POSE_INTERVAL * count - _SAME_MOMENT:
            state.earlier.popleft()
        known = [*state.earlier, frame]
        history = []
        for back in range(count, 0, -1):
            moment = frame.time - POSE_INTERVAL * back
            nearest = min(known, key=lambda earlier: abs(earlier.time - moment))
            # (a session that is younger has its oldest frame in place of what was before)
            near = abs(nearest.time - moment) <= _SAME_MOMENT
            history.append(nearest if near or moment < known[0].time else known[0])
        state.earlier.append(frame)
        return replace(frame, history=tuple(history))

    def _fall_back(
        self, state: _Session, session: str, kind: str, reason: str, known: Whereabouts
    ) -> DrivenPlan:
        reason = clipped(reason)
        if known.time is None and state.time is not None:
            known = known._replace(time=state.time + USUAL_STEP)
        _note(state, known)
        cached = None
        if state.time is not None and state.last is not None:
            cached = moved_plan(state.last, state.time, known.pose, self.settings.max_cached_age)
        source = STRAIGHT_ON if cached is None else CACHED_PLAN
        state.report.count(kind, reason)
        state.report.count(source)
        logger.warning("session %s: %s instead of a plan, for %s: %s", session, source, kind, reason)
        return DrivenPlan(straight_on(state.speed) if cached is None else cached, source, reason)

    def _checked(self, plan: Floats) -> Floats:
        poses = check_plans(np.asarray(plan)[None], "the planner's answer")[0]
        steps = np.diff(np.vstack([np.zeros(2), poses[:, :2]]), axis=0)
        fastest = float(np.linalg.norm(steps, axis=1).max()) / POSE_INTERVAL
        if fastest > FASTEST:
            raise PlanError(f"the planner's answer drives {fastest:.0f} m/s: check its checkpoint and inputs")
        return poses


def _note(state: _Session, known: Whereabouts) -> None:
    """Keep when it is and how fast the ego is, if that is known."""
    if known.time is not None:
        state.time = known.time
    if known.speed is not None:
        state.speed = known.speed


def _known(frame: Frame) -> Whereabouts:
    """What a frame says of its moment, whatever else is wrong with it."""
    velocity = frame.velocity
    ahead = velocity[0] if isinstance(velocity, np.ndarray) and velocity.shape == (2,) else None
    return Whereabouts.of(frame.time, frame.pose, ahead)
