"""Expert plans of a split, read from its logs alone: no sensors, no maps, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.account import SplitAccount, places_of
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.executors import Executor
from beyonddrive.structures.plan import NUM_POSES, PlanError, check_plans


class SceneSource(NamedTuple):
    """Where the scenes of a job are.

    Attributes:
        root: The data root.
        split: Name of the split.
        scene_filter: Which windows of its logs are scenes.
    """

    root: NavsimRoot
    split: str
    scene_filter: SceneFilter

    @classmethod
    def from_dataset(cls, settings: Mapping[str, Any]) -> SceneSource:
        """The scenes of a ``NavsimDataset``'s settings.

        Raises:
            ConfigError: If they are those of a wrapper of data sets, or take a part of the scenes.
        """
        if settings.get("indices") is not None:
            raise ConfigError(
                f"indices={settings['indices']} takes a part of the scenes, and plans are read for all; "
                "choose scenes by scene_filter"
            )
        missing = [key for key in ("data_root", "split") if settings.get(key) is None]
        if missing:
            raise ConfigError(
                f"data set {settings.get('type')} has no {' and no '.join(missing)}; name the one it wraps"
            )
        parsed = SceneFilter.from_config(settings.get("scene_filter"))
        maps_root = settings.get("maps_root")
        root = NavsimRoot(Path(settings["data_root"]), None if maps_root is None else Path(maps_root))
        return cls(root, settings["split"], parsed)


class ExpertPlans(NamedTuple):
    """Expert plans of a split.

    Attributes:
        tokens: Tokens of the scenes, log by log in time order.
        plans: (S, 8, 3) float64 x [m], y [m], heading [rad], ego frame at t = 0.
        account: Of how many scenes the plans are, and what is missing, with file and reason.
    """

    tokens: list[str]
    plans: NDArray[np.float64]
    account: SplitAccount


class _Found(NamedTuple):
    """What a pass over logs gave: scenes (token and log), plans of those that did not fail, lost logs."""

    scenes: list[tuple[str, str]]
    plans: NDArray[np.float64]
    failures: dict[str, str]
    lost_logs: dict[str, str]


def read_expert_plans(source: SceneSource, executor: Executor) -> ExpertPlans:
    """Read the expert plans of all scenes of a split; what cannot be read is named and passed over.

    Raises:
        NavsimRootError: If there is no such split.
    """
    root, split, scene_filter = source
    root.forget_problems()
    if scene_filter.max_scenes is None:
        jobs = root.filtered_logs(split, scene_filter)
        lost_logs = dict(root.lost_logs)
        results = executor.map(_read_log, jobs, f"expert plans of {split}", _start, source)
    else:  # which scenes are the first ones is known only in order
        lost_logs = {}
        _start(root, split, scene_filter)
        results = iter([_read_scenes()])
    scenes: list[tuple[str, str]] = []
    failures: dict[str, str] = {}
    plans: list[NDArray[np.float64]] = []
    for result in results:
        scenes += result.scenes
        plans.append(result.plans)
        failures |= result.failures
        lost_logs |= result.lost_logs
    places = places_of(scene_filter, scenes, failures, lost_logs)
    tokens = [place.token for place in places if not place.reason]
    # (A lost log within max_scenes leaves room for fewer than were found.)
    found = np.concatenate([np.zeros((0, NUM_POSES, 3)), *plans])[: len(tokens)]
    return ExpertPlans(tokens, found, SplitAccount.of(places))


# ------------------------------------------------------------------ in a worker
_worker: SceneSource | None = None


def _start(root: NavsimRoot, split: str, scene_filter: SceneFilter) -> None:
    global _worker
    _worker = SceneSource(root, split, scene_filter)


def _read_log(path: Path) -> _Found:
    return _read_scenes(path)


def _read_scenes(path: Path | None = None) -> _Found:
    """Expert plans of one log, or of all."""
    assert _worker is not None, "the executor did not run the initializer"
    root, split, scene_filter = _worker
    root.forget_problems()
    refs = root.refs(split, scene_filter) if path is None else root.log_refs(path, scene_filter)
    scenes: list[tuple[str, str]] = []
    plans: list[NDArray[np.float64]] = []
    failures: dict[str, str] = {}
    for ref in refs:
        scenes.append((ref.token, ref.log_path.stem))
        try:
            plan = check_plans(root.load(ref, split).expert_plan[None], f"{ref.log_path}: scene {ref.token}")
        except (ValueError, PlanError) as error:
            failures[ref.token] = str(error)
            continue
        plans.append(plan)
    return _Found(
        scenes,
        np.concatenate([np.zeros((0, NUM_POSES, 3)), *plans]),
        failures,
        dict(root.lost_logs),
    )
