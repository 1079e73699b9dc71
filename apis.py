"""The suite from a notebook: read a config, build a planner, plan, make caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel

from beyonddrive.datasets.feature_cache import cache_features
from beyonddrive.datasets.log_caches import CacheReport
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.engine.executors import make_executor
from beyonddrive.engine.mmengine_compat import load_checkpoint_file
from beyonddrive.engine.runner import ConfigError, has_weights, load_config, pdm_metrics
from beyonddrive.engine.weights import check_weights
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.registry import DATASETS, MODELS
from beyonddrive.structures.sample import PlanSample

__all__ = ["cache_features_of", "cache_metrics_of", "init_planner", "load_config", "plan"]


def init_planner(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    options: Mapping[str, Any] | None = None,
) -> BaseModel:
    """Build a planner in evaluation mode, with all of its weights.

    Args:
        config: Config file, or a config as :func:`load_config` returns it.
        checkpoint: Weights; None leaves a planner without weights as it is, and is an error for others.
        device: Where it runs.
        options: Values by dotted key that replace those of the config file.

    Raises:
        ConfigError: If the planner has weights and no checkpoint is given.
        CheckpointError: If the checkpoint is damaged, of another planner, or holds NaN.
    """
    if not isinstance(config, Config):
        config = load_config(config, options)
    elif options:
        config = config.copy()
        config.merge_from_dict(dict(options))
    planner: BaseModel = MODELS.build(config.model)
    if checkpoint is not None:
        loaded = load_checkpoint_file(checkpoint)
        check_weights(planner, loaded, str(checkpoint))
        # Not strict, because mmengine's counters of batches may be absent; all else has been checked.
        planner.load_state_dict(loaded["state_dict"], strict=False)
    elif has_weights(planner):
        raise ConfigError(f"planner {type(planner).__name__} has weights: give a checkpoint")
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
    config: Config, loaders: Sequence[str] = ("train", "val", "test"), num_workers: int = 0
) -> Iterator[tuple[str, CacheReport]]:
    """Make the feature caches that the data loaders of a config read.

    Args:
        config: As :func:`load_config` returns it.
        loaders: Which of ``train``, ``val``, ``test``.
        num_workers: Processes.

    Yields:
        Name of the split and what was done for it.

    Raises:
        ConfigError: If no data set of the config has a ``cache_dir``.
        StoreError: If a folder holds something else.
    """
    executor = make_executor(num_workers)
    found = False
    for name in loaders:
        settings = (config.get(f"{name}_dataloader") or {}).get("dataset", {})
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
    config: Config, loaders: Sequence[str] = ("val", "test"), num_workers: int = 0
) -> Iterator[tuple[str, CacheReport]]:
    """Make the metric caches that the evaluators of a config read.

    Args:
        config: As :func:`load_config` returns it.
        loaders: Which of ``val``, ``test``.
        num_workers: Processes.

    Yields:
        Name of the split and what was done for it.

    Raises:
        ConfigError: If no PDMSMetric of the config has a ``cache_dir``.
        StoreError: If a folder holds something else.
    """
    executor = make_executor(num_workers)
    found = False
    for name in loaders:
        for metric in pdm_metrics(config, name):
            if not metric.get("cache_dir"):
                continue
            found = True
            dataset = _unread_dataset(config[f"{name}_dataloader"].dataset)
            report = cache_metrics(
                dataset.root, dataset.split, dataset.scene_filter, metric.cache_dir, executor
            )
            yield dataset.split, report
    if not found:
        raise ConfigError(
            f"{config.filename}: no PDMSMetric of {', '.join(loaders)} has a cache_dir: nothing to make; "
            "set it by --cfg-options, for instance test_evaluator.cache_dir=data/cache/metrics/test"
        )


def _unread_dataset(settings: Mapping[str, Any]) -> NavsimDataset:
    """Build a data set that reads logs, not caches, and has not looked for its scenes yet."""
    dataset: NavsimDataset = DATASETS.build({**settings, "cache_dir": None, "lazy_init": True})
    return dataset
