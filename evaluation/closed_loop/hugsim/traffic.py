"""The other road users of a scenario, step by step (HUGSIM, section 5.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.agents import (
    STEP,
    IntelligentDriver,
    Replay,
    forecasts,
    moved_straight,
    neighbors_of,
)
from beyonddrive.evaluation.closed_loop.hugsim.attack import DrawNumbers, choose
from beyonddrive.evaluation.closed_loop.hugsim.route import Route
from beyonddrive.evaluation.closed_loop.hugsim.scenario import Agent, Scenario
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

Floats = NDArray[np.float64]
PathOf = Callable[[Floats], Floats]
"""Path (P, 3) a, b, yaw of the lane ahead of a state (4,) a, b, yaw, speed."""


@dataclass
class _Mover:
    """One agent on its way; ``shown`` is the yaw of its box, one step old."""

    agent: Agent
    size: Floats
    state: Floats
    shown: float
    time: float = 0.0
    replay: Replay | None = None
    rows: Floats | None = None
    next_row: int = 0
    replanned: int = 0


class Traffic:
    """Moves the agents of a scenario.

    Args:
        scenario: Who is there.
        route: The recorded path, for the height of the road.
        sizes: Car id -> (width, length, height) [m].
        replays: Id of a recorded car -> how it drove.
        path_of: Lanes for agents that follow them (IDM on a map); agents of scenarios without a map
            (``load_HD_map: false``) stand still without, as in the official code.
        kept_at_limit: (agent, number of its replanning) at which an attacker keeps the manoeuvre at the
            limit of acceleration; recorded official episodes need it where float32 kept it.

    Raises:
        HugsimError: If a size or a recorded car is missing, or the lanes that an IDM agent follows.
    """

    def __init__(
        self,
        scenario: Scenario,
        route: Route,
        sizes: Mapping[str, tuple[float, float, float]],
        replays: Mapping[str, Replay] | None = None,
        path_of: PathOf | None = None,
        kept_at_limit: Collection[tuple[int, int]] = (),
    ) -> None:
        self.route, self.path_of, self.kept_at_limit = route, path_of, kept_at_limit
        self._draws = DrawNumbers()
        self._movers: list[_Mover] = []
        for agent in scenario.agents:
            if agent.car not in sizes:
                raise HugsimError(f"scenario {scenario.scene}_{scenario.mode}: no size of car {agent.car!r}")
            if agent.planner == "IDM" and scenario.needs_map and path_of is None:
                raise HugsimError(
                    f"scenario {scenario.scene}_{scenario.mode}: load_HD_map is true, and its IDM agent "
                    f"{agent.car!r} follows lanes of that map, which is not read here; give Traffic the "
                    "lanes as path_of, or leave the scenario out"
                )
            state = np.array(agent.start)
            mover = _Mover(agent, np.array(sizes[agent.car], dtype=np.float64), state, state[2])
            if agent.planner == "UnicyclePlanner":
                name = str(agent.arguments["uc_id"])
                if name not in (replays or {}):
                    raise HugsimError(f"scenario {scenario.scene}_{scenario.mode}: no recorded car {name!r}")
                mover.replay = (replays or {})[name]
                mover.state = mover.replay.at(0.0)
                mover.shown = mover.state[2]
            self._movers.append(mover)
        attackers = [agent for agent in scenario.agents if agent.planner == "AttackPlanner"]
        # The official code keeps one frequency: that of the last attacker.
        self._attack_every = int(attackers[-1].arguments["ATTACK_FREQ"]) if attackers else 1

    def move(self, ego: Floats, time: float) -> None:
        """One step: everyone sees the ego (4,) a, b, yaw [positive to the right], speed before its move.

        Args:
            ego: State of the ego.
            time: Time after the step [s].
        """
        states = np.array([ego, *(mover.state for mover in self._movers)])
        expected = forecasts(states)
        new = [self._moved(i, mover, states, expected, time) for i, mover in enumerate(self._movers, 1)]
        for mover, state in zip(self._movers, new, strict=True):
            mover.shown = float(mover.state[2])
            # (the official code keeps states in float32)
            mover.state = state.astype(np.float32).astype(np.float64)

    def states(self) -> Floats:
        """States (A, 4) a, b, yaw, speed of the agents now."""
        return np.array([mover.state for mover in self._movers]).reshape(-1, 4)

    def boxes(self) -> Floats:
        """Boxes (A, 7) x, y, z, width, length, height, yaw in the record frame."""
        rows = []
        for mover in self._movers:
            a, b = mover.state[:2]
            height = self.route.road_height((a, b)) + mover.agent.height
            yaw = mover.shown - (math.pi / 2 if mover.replay is not None else 0.0)
            yaw = (yaw + 1.5 * math.pi) % (2 * math.pi) - 1.5 * math.pi  # within -270 to 90 degrees
            rows.append([b, -a, -height, *mover.size, yaw])
        return np.array(rows).reshape(-1, 7)

    def _moved(self, index: int, mover: _Mover, states: Floats, expected: Floats, time: float) -> Floats:
        kind = mover.agent.planner
        if kind == "ConstantPlanner":
            return moved_straight(mover.state)
        if kind == "UnicyclePlanner":
            assert mover.replay is not None
            mover.time += float(mover.agent.arguments["speed"]) * STEP
            return mover.replay.at(mover.time)
        if kind == "IDM":
            if self.path_of is None:
                return mover.state.copy()
            others = expected[neighbors_of(index, states)]
            return IntelligentDriver(**mover.agent.arguments).step(
                mover.state, self.path_of(mover.state), others
            )
        return self._attacked(index, mover, states, expected, time)

    def _attacked(self, index: int, mover: _Mover, states: Floats, expected: Floats, time: float) -> Floats:
        due = (time // STEP) % self._attack_every == 0
        if due or mover.rows is None or mover.next_row >= len(mover.rows):
            others = expected[[i for i in neighbors_of(index, states)[1:] if i != 0]]
            best = int(mover.agent.arguments.get("best_k", 1))
            with_limit = (index - 1, mover.replanned) in self.kept_at_limit
            mover.rows = choose(mover.state, expected[0], others, best, self._draws, with_limit)
            mover.replanned += 1
            if mover.rows is None:
                mover.rows = expected[index].copy()
                mover.rows[:, 2] -= math.pi / 2
            mover.next_row = 1
        row: Floats = mover.rows[mover.next_row]
        mover.next_row += 1
        return row.copy()
