"""The generated world on disk: towns of all splits in NAVSIM's layout.

::

    <root>/navsim_logs/<split>/<log_name>.pkl
    <root>/maps/nuplan-maps-v1.0.json, <root>/maps/<location>/<version>/map.gpkg
    <root>/sensor_blobs/<split>/<log_name>/CAM_F0/<token>.jpg, .../MergedPointCloud/<token>.pcd
    <root>/scene_filters/<split>.yaml      the chosen scenes, for SceneFilter.from_yaml
    <root>/synth.json                      settings and counts; written last, so it says that all is there

Splits never share a town. Work goes on in ``<root>/.synth``, town by town and log by log, each finished by a
rename, so a killed run resumes; the folder is removed at the end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import shapely
import yaml
from shapely.geometry import LineString

from beyonddrive.datasets.logs import read_log
from beyonddrive.datasets.synth.builder import (
    ORIGINS,
    TownSpec,
    make_town,
    map_offset,
    town_map_of,
    town_name,
    town_seed,
)
from beyonddrive.datasets.synth.geopackage import LayerTable, write_map
from beyonddrive.datasets.synth.selection import SelectionRule
from beyonddrive.datasets.synth.sumo import sumo_home
from beyonddrive.datasets.synth.town_map import GEOMETRY_TYPES
from beyonddrive.datasets.synth.traffic import TrafficPlan
from beyonddrive.engine.executors import Executor
from beyonddrive.engine.files import write_atomically
from beyonddrive.version import __version__

MAP_VERSIONS = {
    "us-nv-las-vegas-strip": "9.15.1915",
    "us-ma-boston": "9.12.1817",
    "us-pa-pittsburgh-hazelwood": "9.17.1937",
    "sg-one-north": "9.17.1964",
}
"""Version folder of each location's map, as users of the real data have it."""
SCENES_PER_TOWN = 150
"""Scenes that one town gives."""
MAX_TOWNS_MORE = 8
"""Towns added to a split at most, when its towns did not have enough good scenes."""


class WorldError(ValueError):
    """The settings of a world contradict what is on disk, or cannot be met."""


@dataclass(frozen=True)
class WorldConfig:
    """Settings of a world; two worlds with the same settings have the same bytes.

    Attributes:
        splits: Scenes per split.
        seed: Everything follows from it.
        image_size: Width and height of images [px].
        cameras: ``all``, ``front`` (CAM_L0, CAM_F0 and CAM_R0) or ``none``.
        lidar: Whether sweeps are written.
        sensor_frames: ``scenes``: sensors of the current frame of each chosen scene only; ``all``: of every frame.
        scenes_per_town: Fewer scenes per town give a more varied world and take longer.
        traffic: How much traffic.
        rule: Which moments become scenes.
    """

    splits: Mapping[str, int]
    seed: int = 0
    image_size: tuple[int, int] = (480, 270)
    cameras: str = "all"
    lidar: bool = True
    sensor_frames: str = "scenes"
    scenes_per_town: int = SCENES_PER_TOWN
    traffic: TrafficPlan = field(default_factory=TrafficPlan)
    rule: SelectionRule = field(default_factory=SelectionRule)

    def to_json(self) -> dict[str, Any]:
        """Settings as plain data."""
        return json.loads(json.dumps({**asdict(self), "splits": dict(self.splits), "version": __version__}))


def town_specs(config: WorldConfig, extra: Mapping[str, int] | None = None) -> list[TownSpec]:
    """Towns of a world: the same list for the same settings; ``extra`` adds towns to splits, at the end."""
    plan: list[tuple[str, int, int]] = []
    for split, wanted in config.splits.items():
        towns = max(1, -(-wanted // config.scenes_per_town))
        plan += [(split, number, -(-wanted // towns)) for number in range(towns)]
    for split, more in (extra or {}).items():
        have = sum(name == split for name, _, _ in plan)
        plan += [(split, have + i, config.scenes_per_town) for i in range(more)]
    locations = list(ORIGINS)
    return [
        TownSpec(
            town_name(config.seed, split, number),
            split,
            locations[position % len(locations)],
            position // len(locations),
            town_seed(config.seed, split, number),
            scenes,
            config.image_size,
            config.traffic,
            config.rule,
        )
        for position, (split, number, scenes) in enumerate(plan)
    ]


def _make_town(item: tuple[TownSpec, Path]) -> int:
    """Make a town unless it is there; returns its number of scenes."""
    spec, folder = item
    if not folder.exists():
        make_town(spec, folder)
    return sum(len(scenes) for scenes in _scene_list(folder).values())


def _scene_list(folder: Path) -> dict[str, list[list[str]]]:
    return json.loads((folder / "scenes.json").read_text())


def _write_maps(root: Path, stage: Path, specs: Sequence[TownSpec]) -> None:
    for location, (epsg, x, y) in ORIGINS.items():
        layers = {name: LayerTable(kind) for name, kind in GEOMETRY_TYPES.items()}
        towns = [spec for spec in specs if spec.location == location]
        for spec in towns:
            _, _, town = town_map_of(spec, stage / "towns" / spec.name / "town.net.xml")
            offset = map_offset(spec)
            for name, table in town.layers.items():
                shifted = shapely.transform(table.geometries, lambda points, o=offset: points + o)
                layers[name].ids += table.ids
                layers[name].geometries += list(shifted)
                for key, values in table.columns.items():
                    layers[name].columns.setdefault(key, []).extend(values)
        if not towns:
            # The official loader opens all four maps: a location without towns gets the two layers it touches.
            layers = {"lane_connectors": LayerTable("LineString")}
            layers["lane_connectors"].add(
                1,
                LineString([(x, y), (x + 1.0, y)]),
                exit_lane_fid=-1,
                entry_lane_fid=-1,
                lane_group_connector_fid=-1,
                intersection_fid=-1,
                speed_limit_mps=10.0,
            )
        write_map(root / "maps" / location / MAP_VERSIONS[location] / "map.gpkg", layers, epsg)
    versions = {location: {"version": version} for location, version in MAP_VERSIONS.items()}
    write_atomically(root / "maps" / "nuplan-maps-v1.0.json", json.dumps(versions, indent=1).encode())


def _choose(
    config: WorldConfig, stage: Path, specs: Sequence[TownSpec]
) -> dict[str, dict[str, list[list[str]]]]:
    """Scenes of every split: log name -> [token, kind]; exactly as many as asked for, town by town."""
    chosen: dict[str, dict[str, list[list[str]]]] = {split: {} for split in config.splits}
    left = dict(config.splits)
    for spec in specs:
        for log_name, scenes in _scene_list(stage / "towns" / spec.name).items():
            part = scenes[: left[spec.split]]
            if part:
                chosen[spec.split][log_name] = part
                left[spec.split] -= len(part)
    return chosen


def create_world(
    root: Path, config: WorldConfig, executor: Executor, progress: bool = True
) -> dict[str, Any]:
    """Generate a world, or resume it, and return what ``synth.json`` says.

    Args:
        root: Data root to write.
        config: Settings.
        executor: Where towns and logs are worked on; it does not change the result.
        progress: Whether bars are shown.

    Raises:
        WorldError: If ``root`` holds a world of other settings, or the settings cannot be met.
        SumoError: If Eclipse SUMO is missing or fails.
    """
    summary_file, stage = root / "synth.json", root / ".synth"
    settings = config.to_json()
    if summary_file.exists():
        summary = json.loads(summary_file.read_text())
        _refuse_other(summary_file, summary["settings"], settings)
        return summary
    if root.exists() and any(root.iterdir()) and not stage.exists():
        raise WorldError(f"{root} is not empty and holds no generated world; choose another folder")
    sumo_home()
    if (stage / "settings.json").exists():
        _refuse_other(stage / "settings.json", json.loads((stage / "settings.json").read_text()), settings)
    write_atomically(stage / "settings.json", json.dumps(settings, indent=1).encode())
    extra = dict.fromkeys(config.splits, 0)
    while True:
        specs = town_specs(config, extra)
        items = [(spec, stage / "towns" / spec.name) for spec in specs]
        counts = list(executor.map(_make_town, items, desc="towns" if progress else ""))
        short = False
        for split, wanted in config.splits.items():
            have = sum(count for spec, count in zip(specs, counts, strict=True) if spec.split == split)
            if have < wanted:
                short = True
                extra[split] += 1
                if extra[split] > MAX_TOWNS_MORE:
                    raise WorldError(
                        f"split {split}: only {have} of {wanted} scenes found in {counts.count} towns; "
                        "make towns denser or the selection less strict"
                    )
        if not short:
            break
    _write_maps(root, stage, specs)
    chosen = _choose(config, stage, specs)
    town_of_log = {log_name: spec for spec in specs for log_name in _scene_list(stage / "towns" / spec.name)}
    _render(root, stage, config, chosen, town_of_log, executor, progress)
    kinds: dict[str, dict[str, int]] = {}
    for split, logs in chosen.items():
        kinds[split] = {}
        for log_name, scenes in logs.items():
            source = stage / "towns" / town_of_log[log_name].name / "logs" / f"{log_name}.pkl"
            write_atomically(root / "navsim_logs" / split / f"{log_name}.pkl", source.read_bytes())
            for _, kind in scenes:
                kinds[split][kind] = kinds[split].get(kind, 0) + 1
        scene_filter = {
            "num_history_frames": 4,
            "num_future_frames": 10,
            "frame_interval": 1,
            "has_route": True,
            "max_scenes": None,
            "log_names": list(logs),
            "tokens": [token for scenes in logs.values() for token, _ in scenes],
        }
        text = yaml.safe_dump(scene_filter, sort_keys=False, default_style=None)
        write_atomically(root / "scene_filters" / f"{split}.yaml", text.encode())
    summary = {
        "settings": settings,
        "scenes": {split: sum(len(s) for s in logs.values()) for split, logs in chosen.items()},
        "logs": {split: len(logs) for split, logs in chosen.items()},
        "towns": {split: [spec.name for spec in specs if spec.split == split] for split in config.splits},
        "kinds": kinds,
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


def _render(
    root: Path,
    stage: Path,
    config: WorldConfig,
    chosen: Mapping[str, Mapping[str, list[list[str]]]],
    town_of_log: Mapping[str, TownSpec],
    executor: Executor,
    progress: bool,
) -> None:
    if config.cameras == "none" and not config.lidar:
        return
    raise NotImplementedError(str(read_log))
