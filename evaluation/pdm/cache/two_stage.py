"""Scenes in which traffic reacts to the plan, and their scores (EPDMS_TWO_STAGE, sections 2 to 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import shapely
from numpy.typing import ArrayLike

from beyonddrive.datasets.maps.nuplan_map import MapError, NuPlanMap
from beyonddrive.datasets.navsim.scene import HISTORY, Scene, SceneError
from beyonddrive.datasets.navsim.synthetic import SyntheticScene
from beyonddrive.evaluation.pdm.cache.build import scene_parts
from beyonddrive.evaluation.pdm.cache.metric_cache import MetricCacheError, check_history
from beyonddrive.evaluation.pdm.cache.prepare import history_states, proposal_reference
from beyonddrive.evaluation.pdm.inputs.extended import ExtendedScene, extended_scene
from beyonddrive.evaluation.pdm.inputs.map_index import MapIndex, map_index
from beyonddrive.evaluation.pdm.inputs.route import RouteError
from beyonddrive.evaluation.pdm.inputs.tracks import TrackError, Tracks, tracks_of
from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints
from beyonddrive.evaluation.pdm.kernels.collision import Traffic, remove_touching
from beyonddrive.evaluation.pdm.kernels.constants import NUM_FRAMES_V2
from beyonddrive.evaluation.pdm.kernels.lane_keeping import make_line
from beyonddrive.evaluation.pdm.kernels.lights import make_lights
from beyonddrive.evaluation.pdm.kernels.plan_states import plan_knots, plan_references, plan_stamps, sampling
from beyonddrive.evaluation.pdm.kernels.prepared import PreparedScene, scene_map
from beyonddrive.evaluation.pdm.kernels.simulate import simulate
from beyonddrive.evaluation.pdm.kernels.sub_scores import (
    DAC,
    EPDMS,
    EXTENDED_DDC,
    LANE_KEEPING,
    NC,
    TLC,
    TTC,
    World,
    score_references,
)
from beyonddrive.evaluation.pdm.reference.reactive import ReactiveMaps, react
from beyonddrive.evaluation.pdm.reference.reactive_scene import (
    ReactiveScene,
    ReactiveTrafficError,
    reactive_scene,
)
from beyonddrive.evaluation.pdm.reference.start_segments import lane_locator
from beyonddrive.evaluation.pdm.scores.epdms import EpdmsScores
from beyonddrive.evaluation.pdm.scores.scorer import score
from beyonddrive.structures.plan import check_plans

Policy = Literal["reactive", "replay"]
"""Traffic that reacts to the ego, or drives as it was recorded."""


@dataclass(frozen=True, eq=False)
class TwoStageScene:
    """One scene of either stage, ready to be scored.

    Attributes:
        token: Token of the scene; that of a follow-up scene has 17 characters.
        log_name: Log it is of.
        time_us: Time stamp now [us].
        ego_state: (11,) state now.
        is_synthetic: A follow-up scene, in which nobody drove: the human filter does not apply.
        world: What a plan is scored in, but for the traffic.
        extended: Reference planner, driver, history and lights.
        tracks: Other road users as recorded.
        index: The map, from which :attr:`traffic` is made at first use.
    """

    token: str
    log_name: str
    time_us: int
    ego_state: Floats
    is_synthetic: bool
    world: World = field(repr=False)
    extended: ExtendedScene = field(repr=False)
    tracks: Tracks = field(repr=False)
    index: MapIndex = field(repr=False)

    @cached_property
    def traffic(self) -> ReactiveScene:
        """Road users that can react; logged traffic does not need them.

        Raises:
            ReactiveTrafficError: If a vehicle stands where the map is damaged, or cannot be simulated.
        """
        try:
            return reactive_scene(self.tracks, self.ego_state, self.index, lane_locator(self.index))
        except (MapError, ReactiveTrafficError, shapely.errors.GEOSException) as error:
            raise ReactiveTrafficError(f"scene {self.token} of log {self.log_name}: {error}") from error

    def score(
        self, plans: ArrayLike, policy: Policy = "reactive", human_filter: bool = True
    ) -> list[EpdmsScores]:
        """Score plans (N, 8, 3), each in traffic of its own: one :class:`EpdmsScores` of one plan per plan.

        Args:
            plans: x [m], y [m], heading [rad] of the rear axle every 0.5 s, in the ego frame now.
            policy: What the traffic does.
            human_filter: Do not charge a plan with what the human driver fails as well; original scenes only.

        Raises:
            PlanError: If the plans have another shape, or cannot be simulated.
            ReactiveTrafficError: If the traffic cannot be simulated.
        """
        self._check_policy(policy)
        checked, states = self._simulated(plans)
        human = self.human_scores(policy) if human_filter and not self.is_synthetic else np.ones(8)
        scores = []
        for plan, driven in zip(checked, states, strict=True):
            view = _View(self.token, self._prepared(self._traffic(policy, driven), human))
            scores.append(score(view, plan[None], version="v2", human_filter=human_filter))
        return scores

    def sub_scores(self, plans: ArrayLike, policy: Policy = "reactive") -> tuple[Floats, Floats]:
        """Sub-scores (N, 8) of plans (N, 8, 3) before the human filter, and their motion (N, 41, 11).

        The values of :meth:`score` to the bit, but plans that meet the same traffic are scored together:
        all of them in logged traffic or where no vehicle can react, and those that are driven alike.

        Raises:
            PlanError: As :meth:`score`.
            ReactiveTrafficError: As :meth:`score`.
        """
        self._check_policy(policy)
        checked, states = self._simulated(plans)
        is_shared = policy == "replay" or not self.traffic.vehicles
        alike: dict[bytes, list[int]] = {}
        for row, driven in enumerate(states):
            alike.setdefault(b"" if is_shared else driven.tobytes(), []).append(row)
        values = np.empty((len(checked), 8))
        for rows in alike.values():
            view = _View(self.token, self._prepared(self._traffic(policy, states[rows[0]]), np.ones(8)))
            scored = score(view, checked[rows], version="v2", human_filter=False)
            values[rows] = scored.values[:, :8]
            states[rows] = scored.simulated
        return values, states

    def _simulated(self, plans: ArrayLike) -> tuple[Floats, Floats]:
        """Plans (N, 8, 3) that have been checked, and how they are driven (N, 41, 11)."""
        checked = np.ascontiguousarray(check_plans(plans, self.token))
        references = plan_references(plan_knots(checked, self.ego_state), *self._sampling)
        return checked, simulate(references, self.ego_state)

    @staticmethod
    def _check_policy(policy: Policy) -> None:
        if policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {get_args(Policy)}, got {policy!r}")

    def react(self, plan: ArrayLike) -> ReactiveMaps:
        """How the traffic reacts to one plan (8, 3)."""
        return react(self.traffic, self._simulated(np.asarray(plan)[None])[1][0])

    @cached_property
    def _sampling(self) -> tuple[Ints, Floats]:
        return sampling(self.time_us, plan_stamps(self.time_us))

    @cached_property
    def _replay(self) -> Traffic:
        traffic = self.tracks.traffic(NUM_FRAMES_V2)
        remove_touching(traffic, self.ego_state)
        return traffic

    def _traffic(self, policy: Policy, states: Floats) -> Traffic:
        # A plan that cannot be simulated is refused by the scorer, whatever the traffic.
        if policy == "replay" or not np.isfinite(states[-1]).all():
            return self._replay
        return react(self.traffic, states).traffic()

    def _prepared(self, traffic: Traffic, human: Floats) -> PreparedScene:
        """The scene with this traffic, in which the reference planner is scored, too."""
        world = self.world._replace(traffic=traffic)
        reference = proposal_reference(self.extended.proposal, self.time_us)
        _, _, scores, progress, _ = score_references(reference, self.ego_state, world, EPDMS)
        multiplier = scores[0, NC] * scores[0, DAC] * scores[0, EXTENDED_DDC] * scores[0, TLC]
        return PreparedScene(self.ego_state, *self._sampling, world, float(progress[0] * multiplier), human)

    def human_scores(self, policy: Policy = "reactive") -> Floats:
        """Sub-scores (8,) of the driver in traffic that reacts to the driver, as the filter sees them."""
        if policy not in self._humans:
            knots = plan_knots(self.extended.human[None], self.ego_state)
            references = plan_references(knots, *self._sampling)
            states = simulate(references, self.ego_state)
            world = self.world._replace(traffic=self._traffic(policy, states[0]))
            _, _, scores, _, _ = score_references(references, self.ego_state, world, EPDMS)
            nc, dac, ddc, tlc, ttc, lane = scores[0, [NC, DAC, EXTENDED_DDC, TLC, TTC, LANE_KEEPING]]
            self._humans[policy] = np.array([nc, dac, ddc, tlc, 1.0, ttc, lane, 1.0])
        return self._humans[policy]

    @cached_property
    def _humans(self) -> dict[Policy, Floats]:
        return {}


@dataclass(frozen=True)
class _View:
    """A scene as the scorer takes it."""

    token: str
    prepared_extended: PreparedScene

    @property
    def prepared(self) -> PreparedScene:
        """There is no PDM score in reactive traffic."""
        raise MetricCacheError(f"scene {self.token}: PDMS is not defined in reactive traffic; use EPDMS")


def build_two_stage_scene(scene: Scene, nuplan_map: NuPlanMap) -> TwoStageScene:
    """Everything the score of a scene of either stage needs.

    Args:
        scene: Four history and eight future frames, or a follow-up scene.
        nuplan_map: The map of its location.

    Raises:
        MetricCacheError: If the scene cannot be scored; names scene, reason and remedy.
    """
    where = f"scene {scene.token} of log {scene.log_name}"
    current, index = HISTORY - 1, map_index(nuplan_map)
    is_synthetic = isinstance(scene, SyntheticScene)
    try:
        tracks = tracks_of(scene, current, NUM_FRAMES_V2)
        parts = scene_parts(scene, index)
        human = np.full((8, 3), np.nan) if is_synthetic else scene.expert_plan
        extended = extended_scene(scene, index, current, parts.extended_proposal, human)
        if is_synthetic:
            keys = "ego_status.ego_velocity or ego_acceleration"
            check_history(extended, f"{where} ({scene.token}.pkl)", keys)
        else:
            check_history(extended, where)
        grid, masks = scene_map(
            parts.ego, parts.local.polygons, parts.local.types, np.isin(parts.local.ids, parts.route_ids)
        )
        world = World(
            grid,
            masks,
            tracks.traffic(NUM_FRAMES_V2),
            make_line(parts.centerline),
            make_lights(extended.lights, extended.light_red),
            history_states(extended.history_us, extended.history),
        )
    except (RouteError, TrackError, MapError) as error:
        raise MetricCacheError(f"{where}: {error}") from error
    except SceneError as error:
        raise MetricCacheError(str(error)) from error
    except shapely.errors.GEOSException as error:
        raise MetricCacheError(f"{where}: a polygon of {nuplan_map.path} is not valid ({error})") from error
    return TwoStageScene(
        scene.token,
        scene.log_name,
        scene.timestamp_us,
        parts.ego,
        is_synthetic,
        world,
        extended,
        tracks,
        index,
    )


def end_points(scene: TwoStageScene, plans: ArrayLike) -> Floats:
    """Last poses (N, 2) of plans in the global frame, by the logged pose now (section 6.3)."""
    last = np.asarray(plans, dtype=np.float64)[:, -1, :2]
    x, y, heading = scene.ego_state[:3]
    cos, sin = np.cos(heading), np.sin(heading)
    return np.column_stack([cos * last[:, 0] - sin * last[:, 1] + x, sin * last[:, 0] + cos * last[:, 1] + y])
