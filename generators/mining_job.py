"""From a config to a mining job: what the tool, a notebook or a hook calls."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from beyonddrive.datasets.stores.manifests import MANIFEST, read_manifest
from beyonddrive.datasets.stores.negative_pool import KIND, NegativePool, PoolDescription, hash_tokens
from beyonddrive.datasets.stores.selection import DEFAULT_THRESHOLD
from beyonddrive.datasets.stores.selectors import NearestNegativesPerColumn, Selector
from beyonddrive.engine.evaluators import component_class
from beyonddrive.engine.wrapped_datasets import unwrapped_settings
from beyonddrive.evaluation.scene_scoring import SceneScorer, ScoreSettings
from beyonddrive.generators.coverage import CoverageReport, measure_coverage
from beyonddrive.generators.mining import GeneratorModel, Miner, MiningOptions
from beyonddrive.generators.mining_source import OF_TRAINING, DatasetSource, MiningError
from beyonddrive.generators.strategies import build_strategy, check_generator, idle_guidance
from beyonddrive.registry import DATASETS, SCOPE, SELECTORS, TRANSFORMS
from beyonddrive.structures.digests import sha256_of

DEFAULTS: dict[str, Any] = {
    "strategy": {"type": "SamplingStrategy"},
    "progress": "pair",
    "seed": 0,
    "shard_size": 64,
    "metric_cache_dir": None,
    "dataset": None,
}
"""What ``negative_mining`` of a config may set; see ``configs/_base_/negatives/published.py``."""

_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_INPUTS = "inputs_hash"
"""Key of a pool's generator: hash of what it was shown."""
_OTHERWISE_KNOWN = (
    *("data_root", "maps_root", "cache_dir", "lazy_init"),
    *("split", "scene_filter", "indices", "allow_lost"),
)
"""Settings of a data set that say where its scenes are, or which: a pool knows these otherwise."""


def build_miner(
    config: Config,
    planner: GeneratorModel,
    checkpoint: str | Path,
    root: str | Path,
    split: str | None = None,
    strategy: Mapping[str, Any] | None = None,
    seed: int | None = None,
    options: MiningOptions | None = None,
) -> Miner:
    """Make a mining job from the config of a generator.

    Args:
        config: Config of the generator. ``negative_mining`` may hold ``strategy``, ``progress``, ``seed``,
            ``shard_size``, ``metric_cache_dir`` (a store of metric caches; without it they are built from
            logs and maps) and ``dataset`` (by default that of the training).
        planner: The generator, in eval mode, on its device.
        checkpoint: File of its weights; its hash is kept in the pool.
        root: Folder of the pool.
        split: Split to mine instead of the data set's own.
        strategy: Values that replace those of the strategy, or a whole strategy if they name another type.
        seed: Seed of the noise instead of the config's.
        options: How the job runs.

    Raises:
        MiningError: If the config is not understood or has no data set.
        StrategyError: If the strategy samples and the planner cannot; no pool is begun then.
        StoreError: If the folder holds a pool of something else.
    """
    settings = mining_settings(config)
    chosen = build_strategy(merge_strategy(settings["strategy"], strategy or {}))
    check_generator(planner, chosen)
    if (idle := idle_guidance(planner, chosen)) is not None:
        print_log(idle, "current", level=logging.WARNING)
    data = mining_dataset(config, settings["dataset"], split)
    source = DatasetSource(DATASETS.build(data))
    generator = fingerprint(config, checkpoint)
    if _knows_inputs(Path(root)):
        generator[_INPUTS] = hash_inputs(data)
    description = PoolDescription(
        split=data["split"],
        generator=generator,
        strategy=chosen.config,
        seed=settings["seed"] if seed is None else seed,
        progress=settings["progress"],
        num_scenes=len(source.tokens),
        tokens_hash=hash_tokens(source.tokens),
        shard_size=settings["shard_size"],
    )
    scorer = SceneScorer(
        split=data["split"],
        cache_dir=_path(settings["metric_cache_dir"]),
        data_root=_path(data.get("data_root")),
        maps_root=_path(data.get("maps_root")),
        settings=ScoreSettings(settings["progress"], with_times=True),
    )
    sources = {**source.sources, **scorer.open().map_sources()}
    origin = f"{data.get('data_root')}, split {data['split']}"
    return Miner(planner, source, scorer, chosen, root, description, origin, options, sources)


def share_cores(num_workers: int | None = None) -> int:
    """Divide the cores between torch, which draws proposals, and the processes that score them.

    Left alone, torch's threads would wait for each other on cores that the scorers hold, and burn time.

    Args:
        num_workers: Processes that score; by default all cores but one, at most 16.

    Returns:
        Processes that score.
    """
    cores = len(os.sched_getaffinity(0))
    num_workers = min(max(cores - 1, 1), 16) if num_workers is None else num_workers
    torch.set_num_threads(max(cores - num_workers, 1))
    return num_workers


def mining_settings(config: Config) -> dict[str, Any]:
    """``negative_mining`` of a config, completed.

    Raises:
        MiningError: If it has a key that is not understood.

    >>> mining_settings(Config(dict(negative_mining=dict(seed=3))))['seed']
    3
    """
    given = config.get("negative_mining") or {}
    if unknown := sorted(set(given) - set(DEFAULTS)):
        raise MiningError(f"negative_mining: unknown keys {unknown}, choose from {sorted(DEFAULTS)}")
    return {**DEFAULTS, **_plain(given)}


def merge_strategy(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change some values of a strategy, or all of it if the changes name another type.

    >>> merge_strategy(dict(type='SamplingStrategy', noise=0.4), dict(steps=10))
    {'type': 'SamplingStrategy', 'noise': 0.4, 'steps': 10}
    >>> merge_strategy(dict(type='SamplingStrategy', noise=0.4), dict(type='PlainSampling'))
    {'type': 'PlainSampling'}
    """
    if changes.get("type", base.get("type")) != base.get("type"):
        return dict(changes)
    return {**base, **changes}


def mining_dataset(
    config: Config, dataset: Mapping[str, Any] | None = None, split: str | None = None
) -> dict[str, Any]:
    """Config of the data set to mine.

    By default that of the training. A split is looked for among the data sets of the config, so that its
    scene filter and feature cache are used; a split that none of them reads is read from the logs of the
    training's data root, all of its scenes.

    Raises:
        MiningError: If the config has no data set, or the training reads several and none is chosen.
    """
    sources = [dataset, *(config[name]["dataset"] for name in _LOADERS if config.get(name))]
    known = [
        [_plain(data) for data in unwrapped_settings(source)] for source in sources if source is not None
    ]
    if not known:
        raise MiningError("the config has no data set: set train_dataloader or negative_mining.dataset")
    fitting = [[data for data in part if split in (None, data.get("split"))] for part in known]
    found = next((part for part in fitting if part), None)
    if found is not None and len(found) > 1:
        raise MiningError(
            f"the config reads {len(found)} data sets together, of splits "
            f"{', '.join(str(data.get('split')) for data in found)}: give --split, or the one to mine as "
            "negative_mining.dataset"
        )
    whole = {"split": split, "cache_dir": None, "scene_filter": None, "indices": None}
    data: dict[str, Any] = found[0] if found else {**known[0][0], **whole}
    # The generator must not ask for the pool that is about to be made, and plans for scenes as they are.
    data.pop("negatives", None)
    data["pipeline"] = [step for step in data.get("pipeline", []) if not _is_of_training(step)]
    return data


def _is_of_training(step: Mapping[str, Any]) -> bool:
    kind = component_class(step, TRANSFORMS, SCOPE, "pipeline")
    return isinstance(kind, type) and issubclass(kind, OF_TRAINING)


def fingerprint(config: Config, checkpoint: str | Path) -> dict[str, str]:
    """Name of a generator's config and hashes of its model and weights.

    Raises:
        MiningError: If the checkpoint cannot be read.
    """
    model = json.dumps(_plain(config.model), sort_keys=True, default=str)
    try:
        digest = sha256_of(Path(checkpoint))
    except OSError as error:
        raise MiningError(f"{checkpoint}: cannot be read ({error})") from error
    return {
        "name": Path(config.filename).stem if config.filename else "unnamed",
        "config_hash": hashlib.sha256(model.encode()).hexdigest()[:16],
        "checkpoint_hash": digest[:16],
    }


def hash_inputs(data: Mapping[str, Any]) -> str:
    """Hash of what a data set shows of its scenes: its class and transforms, without those of targets.

    Args:
        data: Settings of the data set, wherever its files are.
    """
    shown = {key: value for key, value in _plain(data).items() if key not in _OTHERWISE_KNOWN}
    for key in ("feature_pipeline", "pipeline"):
        shown[key] = [
            [step, getattr(kind, "version", 1)]
            for step in shown.get(key) or ()
            if not getattr(kind := component_class(step, TRANSFORMS, SCOPE, key), "is_target", False)
        ]
    return hashlib.sha256(json.dumps(shown, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _knows_inputs(root: Path) -> bool:
    """Whether a pool there says what its generator was shown, as those begun by earlier versions do not."""
    if not (root / MANIFEST).exists():
        return True
    generator = read_manifest(root, KIND)["config"].get("generator")
    return not isinstance(generator, Mapping) or _INPUTS in generator


def report_pool(
    pool: NegativePool,
    config: Config | None = None,
    column: str | None = None,
    threshold: float | None = None,
) -> CoverageReport:
    """Measure the coverage of a pool with a progress bar.

    Args:
        pool: The pool.
        config: How negatives are selected: by its ``negative_selection``, as in a training.
        column: Column that makes a proposal a negative, instead.
        threshold: A proposal is a negative if its column is strictly below, instead.

    Raises:
        SelectionError: If they cannot be selected by that.
    """
    from tqdm import tqdm

    return measure_coverage(
        pool,
        selector=_selector(config, column, threshold),
        progress=lambda tokens: tqdm(
            tokens, "measuring coverage", len(pool), unit="scene", dynamic_ncols=True
        ),
    )


def _selector(config: Config | None, column: str | None, threshold: float | None) -> Selector:
    """The selector of a config, with another column or threshold if they are given."""
    given = _plain((config.get("negative_selection") if config is not None else None) or {})
    selection: dict[str, Any] = {"type": "NearestNegatives", **given}
    kind = component_class(selection, SELECTORS, SCOPE, "negative_selection")
    if column is not None and isinstance(kind, type) and issubclass(kind, NearestNegativesPerColumn):
        selection["columns"] = [column]
        if isinstance(limits := selection.get("threshold"), Mapping):
            selection["threshold"] = {column: limits.get(column, DEFAULT_THRESHOLD)}
    elif column is not None:
        selection["column"] = column
    if threshold is not None:
        selection["threshold"] = threshold
    selector: Selector = SELECTORS.build(selection)
    return selector


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def _plain(value: Any) -> Any:
    """A config node as plain dicts and lists, not shared with the config."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
