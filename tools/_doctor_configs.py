"""What configs need: the data they read, the stores they use, and the room that what they write takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from beyonddrive.apis import load_config
from beyonddrive.datasets.follow_up_dataset import TwoStageDataset
from beyonddrive.datasets.navsim.inventory import NamedFilter
from beyonddrive.datasets.navsim.root import NavsimRoot, SceneRef
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.stores import feature_cache
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.datasets.transforms.vocabulary import LoadVocabularyScores
from beyonddrive.engine.checks import Check
from beyonddrive.engine.evaluators import plan_metrics
from beyonddrive.engine.runner import default_work_dir
from beyonddrive.engine.wrapped_datasets import unwrapped_settings
from beyonddrive.evaluation import metric_caches
from beyonddrive.evaluation.pdm import build_metric_cache
from beyonddrive.registry import DATASETS, MODELS
from beyonddrive.structures.errors import BeyondDriveError, describe_error

LOADERS = ("train", "val", "test")
STATES = {"SGD": 1, "Adam": 2, "AdamW": 2, "NAdam": 2, "RAdam": 2}
"""Numbers that an optimizer keeps for each weight; two are taken for one that is not here."""
SPARE = 1.1
"""Less room than so many times what is needed is worth a warning."""
_SAMPLED_LOGS = 3


class Source(NamedTuple):
    """Data that a config reads."""

    data_root: Path
    maps_root: Path | None
    split: str
    filter: NamedFilter


class Write(NamedTuple):
    """Something that will be written: where, what, and how many bytes; why that is unknown otherwise."""

    folder: Path
    what: str
    size: int
    unknown: str = ""


@dataclass
class ConfigNeeds:
    """What a config needs.

    Attributes:
        name: The config.
        sources: Data it reads.
        stores: Caches and pools it uses.
        places: Store -> data root and maps root of the scenes that it is used for.
        writes: What it will write, caches that are there already left out.
    """

    name: str
    sources: list[Source] = field(default_factory=list)
    stores: list[Path] = field(default_factory=list)
    places: dict[Path, tuple[Path, Path | None]] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)


def read_configs(names: Sequence[str], options: Mapping[str, Any] | None) -> dict[str, Config]:
    """Read configs.

    Raises:
        ConfigError: If one cannot be read.
    """
    return {name: load_config(name, options) for name in names}


def needs_of_all(configs: Mapping[str, Config]) -> tuple[list[ConfigNeeds], list[Check]]:
    """What configs need, and a failed check for each of which that cannot be seen."""
    needs, failed = [], []
    for name, config in configs.items():
        try:
            needs.append(needs_of(name, config))
        except BeyondDriveError as error:
            failed.append(Check(f"config {name}", "fail", str(error)))
    return needs, failed


def needs_of(name: str, config: Any, loaders: Sequence[str] = LOADERS) -> ConfigNeeds:
    """What a config needs, or the part of it that some of its loaders need.

    Args:
        name: Of the config.
        config: The config.
        loaders: Of ``train``, ``val`` and ``test``.
    """
    needs = ConfigNeeds(name)
    for loader in loaders:
        given = (config.get(f"{loader}_dataloader") or {}).get("dataset")
        for settings in unwrapped_settings(given) if given else []:
            dataset = DATASETS.build({**settings, "lazy_init": True})
            filter_file = settings.get("scene_filter")
            if isinstance(dataset, TwoStageDataset):
                # (the original scenes, which its table names; who evaluates is told of follow-ups that lack)
                filter_file, dataset = dataset.two_stage, dataset.datasets[0]
            named = _named(dataset, filter_file)
            needs.sources.append(Source(dataset.data_root, dataset.maps_root, dataset.split, named))
            # (negatives are a transform of the pipeline, too)
            reading = [t for t in dataset.transforms if isinstance(t, (LoadNegatives, LoadVocabularyScores))]
            needs.stores += [transform.root for transform in reading if transform.root is not None]
            if dataset.cache_dir is not None:
                needs.stores.append(dataset.cache_dir)
                needs.writes.append(_features(dataset, dataset.cache_dir))
            metrics = plan_metrics(config, loader) if loader != "train" else []
            for folder in dict.fromkeys(metric.cache_dir for metric in metrics if metric.get("cache_dir")):
                needs.stores.append(Path(folder))
                needs.writes.append(_metrics(dataset, Path(folder)))
            for store in needs.stores:
                needs.places.setdefault(store, (dataset.data_root, dataset.maps_root))
    if "train" in loaders:
        needs.writes.append(_checkpoints(config))
    return needs


def _named(dataset: NavsimDataset, given: Any) -> NamedFilter:
    path = given.get("path") if isinstance(given, Mapping) else given
    return NamedFilter(Path(path).stem if path else "of the config", dataset.scene_filter, dataset.split)


# ------------------------------------------------------------------ sizes
def _features(dataset: NavsimDataset, folder: Path) -> Write:
    what = f"features of {dataset.split}"
    try:
        count = _num_scenes(dataset) - _stored(folder, feature_cache.KIND)
        if count <= 0:
            return Write(folder, what, 0)
        features = dataset.make_features(_first_scene(dataset))
        size = sum(getattr(value, "nbytes", len(str(value))) for value in features.values())
        return Write(folder, what, count * size)
    except Exception as error:
        return Write(folder, what, 0, describe_error(error))


def _metrics(dataset: NavsimDataset, folder: Path) -> Write:
    what = f"metric caches of {dataset.split}"
    try:
        count = _num_scenes(dataset) - _stored(folder, metric_caches.KIND)
        if count <= 0:
            return Write(folder, what, 0)
        scene = dataset.root.load(_first_scene(dataset), dataset.split)
        arrays = build_metric_cache(scene, dataset.root.map(scene.map_location)).to_arrays()
        return Write(folder, what, count * sum(array.nbytes for array in arrays.values()))
    except Exception as error:
        return Write(folder, what, 0, describe_error(error))


def _stored(folder: Path, kind: Any) -> int:
    """Scenes that a store has; 0 if it cannot be read, and all has to be made again."""
    try:
        return len(ShardStore(folder, kind, unique=False))
    except StoreError:
        return 0


def _first_scene(dataset: NavsimDataset) -> SceneRef:
    return next(iter(islice(dataset.root.refs(dataset.split, dataset.scene_filter), 1)))


def _num_scenes(dataset: NavsimDataset) -> int:
    """Scenes of a data set: those that its filter lists, or by some of its logs."""
    chosen: SceneFilter = dataset.scene_filter
    root: NavsimRoot = dataset.root
    if chosen.tokens is not None:
        count = len(chosen.tokens)
    else:
        paths = root.filtered_logs(dataset.split, chosen)
        some = paths[:: max(len(paths) // _SAMPLED_LOGS, 1)]
        count = round(sum(len(root.log_refs(path, chosen)) for path in some) / max(len(some), 1) * len(paths))
    return count if chosen.max_scenes is None else min(count, chosen.max_scenes)


def _checkpoints(config: Any) -> Write:
    """Checkpoints that a training keeps, and one more that is being written."""
    folder = Path(config.get("work_dir") or default_work_dir(config))
    try:
        model = MODELS.build(config.model)
        weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
        trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    except Exception as error:
        return Write(folder, "checkpoints", 0, describe_error(error))
    if not trained or not config.get("train_cfg"):
        return Write(folder, "checkpoints", 0)
    optimizer = (config.get("optim_wrapper") or {}).get("optimizer") or {}
    whole = weights + trained * STATES.get(str(optimizer.get("type")), 2)
    hook = (config.get("default_hooks") or {}).get("checkpoint") or {}
    kept = hook.get("max_keep_ckpts", -1)
    if kept < 0:
        cycle = config.train_cfg
        length = cycle.get("max_epochs") or cycle.get("max_iters") or 1
        kept = -(-length // max(hook.get("interval", 1), 1))
    best = hook.get("save_best") or []
    return Write(
        folder, "checkpoints", (kept + 1) * whole + weights * (1 if isinstance(best, str) else len(best))
    )


# ------------------------------------------------------------------ room
def disk_checks(needs: Sequence[ConfigNeeds]) -> Iterator[Check]:
    """Free room on each disk against what configs will write; a folder that several write counts once."""
    writes = {(write.folder.resolve(), write.what): write for need in needs for write in need.writes}
    by_disk: dict[int, list[Write]] = {Path.cwd().stat().st_dev: []}
    for write in writes.values():
        by_disk.setdefault(_existing(write.folder).stat().st_dev, []).append(write)
    for group in by_disk.values():
        folders = [_existing(write.folder) for write in group] or [Path.cwd()]
        place = _mount(folders[0])
        free, needed = shutil.disk_usage(place).free, sum(write.size for write in group)
        facts = {
            "free": free,
            "needed": needed,
            "writes": [{**write._asdict(), "folder": str(write.folder)} for write in group],
        }
        unknown = [write for write in group if write.unknown]
        parts = ", ".join(f"{write.what} {_size(write.size)}" for write in group if write.size)
        message = f"{place}: {_size(free)} free"
        if needed:
            message += f", {_size(needed)} needed ({parts})"
        closed = [folder for folder in folders if not os.access(folder, os.W_OK)]
        if needed > free:
            remedy = f"free {_size(needed - free)}, or set cache_root and work_dir to another disk"
            yield Check("disk", "fail", message, remedy, facts)
        elif closed:
            remedy = "set cache_root and work_dir to a place that can"
            yield Check("disk", "fail", f"{message}; {closed[0]} cannot be written to", remedy, facts)
        elif unknown:
            message += f"; unknown: {unknown[0].what} ({unknown[0].unknown})"
            yield Check("disk", "warn", message, "mend the data, then ask again", facts)
        elif needed * SPARE > free:
            yield Check("disk", "warn", message, "that is hardly enough", facts)
        else:
            yield Check("disk", "ok", message, facts=facts)


def _existing(path: Path) -> Path:
    """The nearest folder of a path that is there."""
    path = path.resolve()
    return next(place for place in (path, *path.parents) if place.is_dir())


def _mount(folder: Path) -> Path:
    """Where the disk of a folder is mounted."""
    return next(place for place in (folder, *folder.parents) if place.is_mount())


def _size(count: int) -> str:
    """A number of bytes for readers.

    >>> _size(1536), _size(3 * 10**9)
    ('1.5 kB', '3.0 GB')
    """
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000.0:
            break
        value, unit = value / 1000.0, larger
    return f"{value:.1f} {unit}" if unit != "B" else f"{count} B"
