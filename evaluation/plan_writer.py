"""``PlanWriter``: writes the plans of scenes that nobody can score here, such as those of a private test."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from numpy.typing import NDArray

from beyonddrive.engine.configs import ConfigError
from beyonddrive.engine.environment import write_made_with
from beyonddrive.engine.evaluators import component_class
from beyonddrive.engine.runner.result_paths import check_results, files_read
from beyonddrive.engine.wrapped_datasets import not_planned, unwrapped_settings
from beyonddrive.evaluation.plan_files import write_arrays
from beyonddrive.registry import METRICS
from beyonddrive.structures.errors import BeyondDriveError


class NoPlanError(BeyondDriveError, RuntimeError):
    """Not a single scene could be planned for."""


class PlannedScene(NamedTuple):
    """The plan (1, 8, 3) of a scene, or the reason why there is none; ``name`` is its token or lost log."""

    name: str
    plan: NDArray[np.floating] | None
    reason: str = ""


@METRICS.register_module()
class PlanWriter(BaseMetric):
    """Writes one plan per scene and counts them; needs neither annotations nor maps, and scores nothing.

    A scene that cannot be read or planned for, or that the loader left out, is listed in ``failures`` and
    counted as ``num_failed``.

    Args:
        plans_file: npz file with the chosen plan (1, 8, 3) of each scene by token, as ``beyonddrive score``
            reads it.
        prefix: Prefix of the names of all figures.

    Raises:
        NoPlanError: By ``evaluate``, if there is not a single plan.
    """

    default_prefix = "plans"
    counts_all_scenes: ClassVar[bool] = True
    """Tells the runner that it needs a loop that tells of all scenes: a :class:`SceneLoop`."""

    def __init__(self, plans_file: str, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.plans_file = Path(plans_file)
        self.failures: dict[str, str] = {}
        self.unwritten: list[str] = []
        self._expected: Sequence[str] = ()

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the plans of a batch."""
        batch = data_batch or {}
        self._expected = batch.get("expected_scenes", self._expected)
        for bad in (*batch.get("bad_scenes", ()), *batch.get("lost_scenes", ())):
            self.results.append(PlannedScene(bad.token or bad.log_name, None, bad.reason))
        for sample in data_samples:
            plan = sample["pred"]["trajectory"].detach().cpu().numpy()[None]
            self.results.append(PlannedScene(sample["token"], plan))

    def evaluate(self, size: int) -> dict[str, float]:
        """Write the plans of all ranks and count them.

        Args:
            size: Scenes in the data set.
        """
        found: list[PlannedScene] = list(self.results)
        self.results.clear()
        if get_world_size() > 1:
            found = [scene for part in all_gather_object(found) for scene in part]
        left_out = not_planned(self._expected, {scene.name for scene in found})
        self._expected = ()
        metrics = self.compute_metrics(
            found + [PlannedScene(scene.token, None, scene.reason) for scene in left_out]
        )
        return {f"{self.prefix}/{name}": value for name, value in metrics.items()}

    def compute_metrics(self, results: list[PlannedScene]) -> dict[str, float]:
        """Write the file, and return how many scenes have a plan and how many have none."""
        plans = {scene.name: scene.plan for scene in results if scene.plan is not None}
        self.failures = {scene.name: scene.reason for scene in results if scene.name not in plans}
        if not plans:
            first = "".join(f"; the first, {name}: {why}" for name, why in list(self.failures.items())[:1])
            raise NoPlanError(f"none of {len(self.failures)} scenes could be planned for{first}")
        self.unwritten = []
        if is_main_process():
            try:
                write_arrays(self.plans_file, sorted(plans.items()))
                write_made_with(self.plans_file)
            except OSError as error:
                self.unwritten.append(f"{self.plans_file}: cannot be written ({error.strerror})")
                print_log(self.unwritten[0], "current", level=logging.ERROR)
        return {"num_scenes": float(len(plans)), "num_failed": float(len(self.failures))}


def plan_only(config: Config, plans_file: str | Path, inputs: Sequence[str | Path] = ()) -> None:
    """Make the test of a config plan for its scenes and score nothing, in place.

    Its data sets make inputs only (``inputs_only=True``), from logs and sensor files; a :class:`PlanWriter`
    takes the place of the metrics.

    Args:
        config: The config.
        plans_file: npz file with the plan of each scene.
        inputs: Files that are read besides those that the config names, such as the checkpoint.

    Raises:
        ConfigError: If there is no test, a data set cannot make inputs only, or the file cannot be written
            or is read.
    """
    check_results({"--plans": plans_file}, [*files_read(config), *inputs])
    loader = config.get("test_dataloader")
    if not loader:
        raise ConfigError("test_dataloader: the config has none, so there are no scenes to plan for")
    scope = config.get("default_scope", "beyonddrive")
    for settings in unwrapped_settings(loader["dataset"]):
        kind = component_class(settings, DATASETS, scope, "test_dataloader.dataset")
        taken = inspect.signature(kind).parameters
        if "inputs_only" not in taken:
            raise ConfigError(
                f"test_dataloader.dataset: {kind.__name__} has no argument inputs_only, so it cannot leave "
                "out what only training and scoring need; use NavsimDataset, or give it one"
            )
        settings.update(inputs_only=True)
        if "cache_dir" in taken:
            settings.update(cache_dir=None)
    config.test_evaluator = ConfigDict(type="PlanWriter", plans_file=str(plans_file))
