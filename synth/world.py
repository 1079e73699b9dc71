"""The generated world on disk: towns of all splits in NAVSIM's layout.

::

    <root>/navsim_logs/<split>/<log_name>.pkl
    <root>/maps/nuplan-maps-v1.0.json, <root>/maps/<location>/<version>/map.gpkg
    <root>/sensor_blobs/<split>/<log_name>/CAM_F0/<token>.jpg, .../MergedPointCloud/<token>.pcd
    <root>/scene_filters/<split>.yaml      the chosen scenes, for SceneFilter.from_yaml
    <root>/synth.json                      settings and counts; written last, so it says that all is there

Every log is a row of chosen scenes that share no frame, so the default scene filter finds exactly those of
``scene_filters``. Splits never share a town. Work goes on in ``<root>/.synth``, town by town and log by log;
each is finished by a rename, so a killed run resumes. The folder is removed at the end.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from beyonddrive.datasets.maps.nuplan_map import open_map
from beyonddrive.datasets.navsim.logs import read_log
from beyonddrive.engine.executors import Executor
from beyonddrive.engine.files import LockedError, lock_if_possible, remove_leftovers, write_atomically
from beyonddrive.synth.builder import (
    ScoreExperts,
    TownSpec,
    make_town,
    map_offset,
    town_map_of,
    town_name,
    town_seed,
)
from beyonddrive.synth.frames import dump_log
from beyonddrive.synth.location_maps import ORIGINS, write_location_map, write_versions
from beyonddrive.synth.network import read_network
from beyonddrive.synth.sumo import sumo_home
from beyonddrive.synth.world_config import CAMERA_SETS, WorldConfig, WorldError

logger = logging.getLogger(__name__)

FEW_TOWNS, FEW_SCENES = 3, 50
"""A split has this many towns or more, unless they would have fewer scenes than this."""
MAX_TOWNS_MORE = 8
"""Towns added to a split at most, when its towns did not have enough good scenes."""

_LOCK = ".synth.lock"
"""File of the root that a process holds a lock on while it makes the world."""
_SAYS_NOTHING = "does not say what the world there was made with; choose another folder or remove it"

Chosen = dict[str, list[list[str]]]
"""Log name -> [token, kind of moment] of its scenes."""


def towns_of(wanted: int, scenes_per_town: int) -> int:
    """Towns that share the scenes of a split: even a small one has a few, so that it is varied.

    >>> [towns_of(scenes, 150) for scenes in (10, 100, 300, 2000)]
    [1, 2, 3, 14]
    """
    return max(-(-wanted // scenes_per_town), min(FEW_TOWNS, -(-wanted // FEW_SCENES)))


def town_specs(config: WorldConfig, extra: Sequence[str] = ()) -> list[TownSpec]:
    """Towns of a world: the same list for the same settings.

    Args:
        config: Settings.
        extra: Splits that get a further town each, at the end: those before keep their places in the maps.
    """
    plan: list[tuple[str, int, int]] = []
    for split, wanted in config.splits.items():
        towns = towns_of(wanted, config.scenes_per_town)
        plan += [(split, number, -(-wanted // towns)) for number in range(towns)]
    for split in extra:
        have = sum(name == split for name, _, _ in plan)
        plan.append((split, have, config.scenes_per_town))
    locations = list(ORIGINS)
    return [
        TownSpec(
            name=town_name(config.seed, split, number),
            split=split,
            location=locations[position % len(locations)],
            index=position // len(locations),
            seed=town_seed(config.seed, split, number),
            scenes=scenes,
            image_size=config.image_size,
            traffic=config.traffic,
            rule=config.rule,
            min_expert_score=config.min_expert_score,
        )
        for position, (split, number, scenes) in enumerate(plan)
    ]


def _make_town(item: tuple[TownSpec, Path, ScoreExperts | None]) -> int:
    """Make a town unless it is there; returns its number of scenes."""
    spec, folder, score_experts = item
    if not folder.exists():
        make_town(spec, folder, score_experts)
    return sum(len(scenes) for scenes in _scene_list(folder).values())


def _scene_list(folder: Path) -> Chosen:
    return json.loads((folder / "scenes.json").read_text())


def _make_towns(
    config: WorldConfig, towns: Path, executor: Executor, score_experts: ScoreExperts | None, progress: bool
) -> list[TownSpec]:
    """Make towns until every split has its scenes."""
    extra: list[str] = []
    while True:
        specs = town_specs(config, extra)
        items = [(spec, towns / spec.name, score_experts) for spec in specs]
        counts = list(executor.map(_make_town, items, desc="towns" if progress else ""))
        short: dict[str, int] = {}
        for split, wanted in config.splits.items():
            have = sum(count for spec, count in zip(specs, counts, strict=True) if spec.split == split)
            if have < wanted:
                short[split] = have
                extra.append(split)
        if not short:
            return specs
        if max(map(extra.count, config.splits)) > MAX_TOWNS_MORE:
            raise WorldError(
                f"found only {short} of {dict(config.splits)} scenes: make traffic denser or simulate longer "
                "(TrafficPlan), or choose less strictly (SelectionRule, min_expert_score)"
            )


def _choose(config: WorldConfig, towns: Path, specs: Sequence[TownSpec]) -> dict[str, Chosen]:
    """Scenes of every split, exactly as many as asked for, town by town."""
    chosen: dict[str, Chosen] = {split: {} for split in config.splits}
    left = dict(config.splits)
    for spec in specs:
        for log_name, scenes in _scene_list(towns / spec.name).items():
            part = scenes[: left[spec.split]]
            if part:
                chosen[spec.split][log_name] = part
                left[spec.split] -= len(part)
    return chosen


def _stage_logs(stage: Path, chosen: Mapping[str, Chosen], folder_of: Mapping[str, Path]) -> None:
    """Put logs into ``<stage>/logs/<split>``, without the frames after the last chosen scene."""
    for split, logs in chosen.items():
        for log_name, scenes in logs.items():
            target = stage / "logs" / split / f"{log_name}.pkl"
            if target.exists():
                continue
            source = folder_of[log_name] / "logs" / target.name
            whole = len(_scene_list(folder_of[log_name])[log_name])
            data = source.read_bytes()
            if len(scenes) < whole:
                frames = read_log(source)
                data = dump_log(frames[: len(frames) // whole * len(scenes)])
            write_atomically(target, data)


@dataclass(frozen=True)
class _LocationJob:
    maps_root: Path
    location: str
    towns: Path
    specs: tuple[TownSpec, ...]


def _write_map(job: _LocationJob) -> None:
    """Write the map of a location."""
    placed = [
        (map_offset(spec), town_map_of(spec, read_network(job.towns / spec.name / "town.net.xml"))[1])
        for spec in job.specs
    ]
    write_location_map(job.maps_root, job.location, placed)


@dataclass(frozen=True)
class _RenderJob:
    log: Path
    maps_root: Path
    out_dir: Path
    tokens: frozenset[str]
    config: WorldConfig


def _render(job: _RenderJob) -> int:
    """Write the sensor files of a log that are not there yet; returns how many it wrote."""
    from beyonddrive.synth.sensors import render_log

    frames = read_log(job.log)
    everything = job.config.sensor_frames == "all"
    count = render_log(
        frames,
        open_map(job.maps_root, frames[0]["map_location"]),
        job.out_dir,
        image_size=job.config.image_size,
        cameras=CAMERA_SETS[job.config.cameras],
        lidar=job.config.lidar,
        frames_to_render=[i for i, f in enumerate(frames) if everything or f["token"] in job.tokens],
        seed=job.config.seed,
    )
    return count.written


def _write_filter(path: Path, logs: Chosen) -> None:
    scene_filter = {
        # As in NAVSIM's own split files: hydra builds its filter from this one too.
        "_target_": "navsim.common.dataclasses.SceneFilter",
        "_convert_": "all",
        "num_history_frames": 4,
        "num_future_frames": 10,
        "frame_interval": 1,
        "has_route": True,
        "max_scenes": None,
        "log_names": list(logs),
        "tokens": [token for scenes in logs.values() for token, _ in scenes],
    }
    write_atomically(path, yaml.safe_dump(scene_filter, sort_keys=False).encode())


def create_world(
    root: Path,
    config: WorldConfig,
    executor: Executor,
    score_experts: ScoreExperts | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Generate a world, or resume it, and return what ``synth.json`` says.

    Args:
        root: Data root to write.
        config: Settings.
        executor: Where towns and logs are worked on; it does not change the result.
        score_experts: Scorer of experts, needed if ``config.min_expert_score`` is not 0.
        progress: Whether bars are shown.

    Raises:
        WorldError: If ``root`` holds another world or something else, another process makes one there, or
            scenes are not found.
        SumoError: If Eclipse SUMO is missing or fails.
    """
    summary_file = root / "synth.json"
    if summary_file.exists():
        return _finished(summary_file, config)
    sumo_home()
    with ExitStack() as held:
        try:
            held.enter_context(lock_if_possible(root / _LOCK, logger.warning))
        except LockedError as error:
            raise WorldError(
                f"{root}: another process makes a world there; wait until it has ended, or choose another "
                "folder"
            ) from error
        if summary_file.exists():  # (another process has finished it meanwhile)
            return _finished(summary_file, config)
        return _create(root, config, executor, score_experts, progress)


def _finished(summary_file: Path, config: WorldConfig) -> dict[str, Any]:
    """What ``synth.json`` of a finished world says."""
    summary = _read_keys(summary_file)
    if not isinstance(summary.get("settings"), dict):
        raise WorldError(f"{summary_file}: {_SAYS_NOTHING}")
    _refuse_other(summary_file, summary["settings"], config.to_json())
    return summary


def _read_keys(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WorldError(f"{path}: {_SAYS_NOTHING} ({error})") from error
    if not isinstance(found, dict):
        raise WorldError(f"{path}: {_SAYS_NOTHING}")
    return found


def _create(
    root: Path, config: WorldConfig, executor: Executor, score_experts: ScoreExperts | None, progress: bool
) -> dict[str, Any]:
    """Make a world, or go on with it, in a folder that no other process works in."""
    summary_file, stage = root / "synth.json", root / ".synth"
    settings = config.to_json()
    if any(path.name != _LOCK for path in root.iterdir()) and not stage.exists():
        raise WorldError(f"{root} is not empty and holds no generated world; choose another folder")
    if (stage / "settings.json").exists():
        _refuse_other(stage / "settings.json", _read_keys(stage / "settings.json"), settings)
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            remove_leftovers(folder)
    write_atomically(stage / "settings.json", json.dumps(settings, indent=1).encode())
    towns = stage / "towns"
    specs = _make_towns(config, towns, executor, score_experts, progress)
    locations = [
        _LocationJob(root / "maps", location, towns, tuple(s for s in specs if s.location == location))
        for location in ORIGINS
    ]
    for _ in executor.map(_write_map, locations, desc="maps" if progress else ""):
        pass
    write_versions(root / "maps")
    chosen = _choose(config, towns, specs)
    folder_of = {name: towns / spec.name for spec in specs for name in _scene_list(towns / spec.name)}
    _stage_logs(stage, chosen, folder_of)
    if CAMERA_SETS[config.cameras] or config.lidar:
        jobs = [
            _RenderJob(
                stage / "logs" / split / f"{log_name}.pkl",
                root / "maps",
                root / "sensor_blobs" / split,
                frozenset(token for token, _ in scenes),
                config,
            )
            for split, logs in chosen.items()
            for log_name, scenes in logs.items()
        ]
        for _ in executor.map(_render, jobs, desc="sensors" if progress else ""):
            pass
    kinds: dict[str, dict[str, int]] = {split: {} for split in chosen}
    for split, logs in chosen.items():
        for scenes in logs.values():
            for _, kind in scenes:
                kinds[split][kind] = kinds[split].get(kind, 0) + 1
        _write_filter(root / "scene_filters" / f"{split}.yaml", logs)
        (root / "navsim_logs").mkdir(exist_ok=True)
        if not (root / "navsim_logs" / split).exists():
            (stage / "logs" / split).rename(root / "navsim_logs" / split)
    summary = {
        "settings": settings,
        "scenes": {split: sum(len(s) for s in logs.values()) for split, logs in chosen.items()},
        "logs": {split: len(logs) for split, logs in chosen.items()},
        "towns": {
            split: {spec.name: spec.location for spec in specs if spec.split == split} for split in chosen
        },
        "kinds": {split: dict(sorted(counts.items())) for split, counts in kinds.items()},
    }
    write_atomically(summary_file, json.dumps(summary, indent=1).encode())
    shutil.rmtree(stage)
    return summary


def _refuse_other(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = sorted(key for key in set(there) | set(wanted) if there.get(key) != wanted.get(key))
    if differing:
        raise WorldError(
            f"{path}: the world there was made with other settings ({', '.join(differing)}); "
            "choose another folder or remove it"
        )
