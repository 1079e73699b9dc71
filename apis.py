"""The suite from a notebook: read a config, build a planner, plan, make caches."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel

from beyonddrive.checkpoints.loading import has_weights, load_weights
from beyonddrive.checkpoints.zoo import ZOO, ZooError, find_released
from beyonddrive.datasets.feature_caching import cache_features
from beyonddrive.datasets.navsim.log_jobs import CacheReport
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.engine.build_errors import build_planner
from beyonddrive.engine.configs import change_config
from beyonddrive.engine.evaluators import plan_metrics
from beyonddrive.engine.executors import Executor, SerialExecutor
from beyonddrive.engine.runner import ConfigError, load_config
from beyonddrive.engine.wrapped_datasets import unwrapped_settings
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.registry import DATASETS
from beyonddrive.structures.sample import PlanSample

__all__ = ["cache_features_of", "cache_metrics_of", "init_planner", "load_config", "plan"]

logger = logging.getLogger(__name__)


def init_planner(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    options: Mapping[str, Any] | None = None,
    zoo: str | Path | None = None,
) -> BaseModel:
    """Build a planner in evaluation mode, ready for ``planner(inputs, mode='tensor')``; it keeps its ``cfg``.

    Args:
        config: Config file, or a config as :func:`load_config` returns it.
        checkpoint: Weights: of this suite, or of an original release, which are converted on the way. Without
            one, a planner that has weights keeps its initial ones, and a warning is logged. ``"zoo"`` is the
            released checkpoint of the config, whose checksum is compared.
        device: Where it runs.
        options: Values by dotted key that replace those of the config, as :func:`load_config` takes them.
        zoo: Folder of released checkpoints, made by ``beyonddrive make-zoo``; by default those that are
            installed: the folder ``zoo`` of this package, or of one that brings planners.

    Raises:
        ConfigError: If the config cannot be read, nothing reads an option, or no planner can be built of it.
        FileNotFoundError: If there is no such checkpoint.
        ZooError: If no zoo has one of this config; or ``zoo`` is given and the checkpoint is not ``"zoo"``.
        PublishedError: If the released checkpoint has not the checksum that the zoo's index names.
        CheckpointError: If the checkpoint is damaged, of another planner or size, or holds NaN.
        ConversionError: If it is an original's, and incomplete or of no known planner.
    """
    if not isinstance(config, Config):
        config = load_config(config, options)
    elif options:
        config = copy.deepcopy(config)
        change_config(config, options)
    if checkpoint == ZOO:
        checkpoint = find_released(Path(config.filename or "unnamed").stem, zoo)
    elif zoo is not None:
        raise ZooError(f"zoo={str(zoo)!r} is looked at for checkpoint={ZOO!r} only, got {checkpoint!r}")
    planner: BaseModel = build_planner(config.model)
    if checkpoint is None and has_weights(planner):
        logger.warning(
            "%s has its initial weights, for no checkpoint was given: its plans mean nothing",
            type(planner).__name__,
        )
    else:
        load_weights(planner, checkpoint)
    planner.cfg = config
    planner.to(device).eval()
    return planner


@torch.no_grad()
def plan(planner: BaseModel, samples: Sequence[dict[str, Any]]) -> list[PlanSample]:
    """Plan for samples of a data set (``dict(inputs=..., data_samples=...)``); sets ``pred`` of each.

    Returns:
        One sample per scene with ``pred.trajectory`` (8, 3): x [m], y [m], heading [rad], ego frame at t = 0.
    """
    predicted: list[PlanSample] = planner.test_step(pseudo_collate(list(samples)))
    return predicted


def cache_features_of(
    config: Config, loaders: Sequence[str] = ("train", "val", "test"), executor: Executor | None = None
) -> Iterator[tuple[str, CacheReport]]:
    """Make the feature caches that the data loaders of a config read.

    Args:
        config: As :func:`load_config` returns it.
        loaders: Which of ``train``, ``val``, ``test``.
        executor: What runs the work; default: this process.

    Yields:
        Name of the split and what was done for it.

    Raises:
        ConfigError: If no data set of the config has a ``cache_dir``.
        StoreError: If a folder holds something else.
    """
    executor = executor or SerialExecutor()
    found = False
    for settings in _datasets(config, loaders):
        if settings.get("cache_dir"):
            found = True
            dataset = _unread_dataset(settings)
            yield dataset.split, cache_features(dataset, settings["cache_dir"], executor)
    if not found:
        raise ConfigError(
            f"{config.filename}: no data set of {', '.join(loaders)} has a cache_dir, so there is nothing to "
            "make; set it by --cfg-options, for instance train_dataloader.dataset.cache_dir=data/cache/train"
        )


def cache_metrics_of(
    config: Config, loaders: Sequence[str] = ("val", "test"), executor: Executor | None = None
) -> Iterator[tuple[str, CacheReport]]:
    """Make the metric caches that the evaluators of a config read.

    Args:
        config: As :func:`load_config` returns it.
        loaders: Which of ``val``, ``test``.
        executor: What runs the work; default: this process.

    Yields:
        Name of the split and what was done for it.

    Raises:
        ConfigError: If no metric of the config that scores plans has a ``cache_dir``.
        StoreError: If a folder holds something else.
    """
    executor = executor or SerialExecutor()
    found = False
    for name in loaders:
        folders = [metric.cache_dir for metric in plan_metrics(config, name) if metric.get("cache_dir")]
        for folder, settings in itertools.product(dict.fromkeys(folders), _datasets(config, [name])):
            found = True
            dataset = _unread_dataset(settings)
            report = cache_metrics(dataset.root, dataset.split, dataset.scene_filter, folder, executor)
            yield dataset.split, report
    if not found:
        raise ConfigError(
            f"{config.filename}: no metric of {', '.join(loaders)} has a cache_dir: nothing to make; "
            "set it by --cfg-options, for instance test_evaluator.cache_dir=data/cache/metrics/test"
        )


def _datasets(config: Config, loaders: Sequence[str]) -> list[Mapping[str, Any]]:
    """Configs of the data sets that data loaders read, without mmengine's wrappers."""
    given = [(config.get(f"{name}_dataloader") or {}).get("dataset") for name in loaders]
    return [settings for dataset in given if dataset for settings in unwrapped_settings(dataset)]


def _unread_dataset(settings: Mapping[str, Any]) -> NavsimDataset:
    """Build a data set that reads logs, not caches, and has not looked for its scenes yet."""
    dataset: NavsimDataset = DATASETS.build({**settings, "cache_dir": None, "lazy_init": True})
    return dataset
