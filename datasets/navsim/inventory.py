"""What a data root has: splits, sensor files, maps, scene filters; by a few logs of each split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beyonddrive.datasets.maps.nuplan_map import VERSIONS_FILE, MapError, open_map
from beyonddrive.datasets.navsim import downloads
from beyonddrive.datasets.navsim.log_health import needed_frames
from beyonddrive.datasets.navsim.logs import Frame, LogError, read_log
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import HISTORY
from beyonddrive.datasets.navsim.scene_filter import SceneFilter, SceneFilterError
from beyonddrive.datasets.navsim.sensors import SensorError, camera_of, lidar_path_of
from beyonddrive.engine.checks import Check
from beyonddrive.engine.executors import Executor, SerialExecutor

NEEDED_LAYERS = ("lane_groups_polygons", "lane_connectors", "baseline_paths")
"""Layers that a stub of a map, as the devkit asks for, lacks or has no rows in."""
FILTERS_FOLDER = "scene_filters"
LIDAR = "lidar"


class NamedFilter(NamedTuple):
    """A scene filter, and the split whose scenes it names; empty for any."""

    name: str
    scene_filter: SceneFilter
    split: str = ""


GENERATED = "synth.json"
"""File that tells a generated world, which has only the sensors that its planners look at."""


class Blobs(NamedTuple):
    """Files of a sensor (a camera's name, or ``lidar``) of ``current``, ``history`` or ``all`` frames."""

    sensor: str
    seen: str


@dataclass
class LogInventory:
    """What a log has.

    Attributes:
        problem: Why it cannot be read; empty if it can.
        num_frames: Frames.
        locations: Map locations.
        named: Sensor files that its frames name.
        missing: Those of them that are not there.
    """

    problem: str = ""
    num_frames: int = 0
    locations: set[str] = field(default_factory=set)
    named: Counter[Blobs] = field(default_factory=Counter)
    missing: Counter[Blobs] = field(default_factory=Counter)


def data_checks(
    root: NavsimRoot,
    splits: Sequence[str] | None = None,
    filters: Sequence[NamedFilter] = (),
    num_logs: int | None = 8,
    executor: Executor | None = None,
) -> list[Check]:
    """Whether a data root has what its splits need.

    Args:
        root: The data root.
        splits: Which splits; None for all.
        filters: Scene filters. Where one is of a split, only sensor files that its scenes see are asked for.
        num_logs: Logs of a split that are read, spread over it; None for all of them.
        executor: Where logs are read; None is this process.
    """
    names = root.splits() if splits is None else list(splits)
    if not names:
        remedy = "run NAVSIM's download_mini for a start, or beyonddrive create-data"
        return [Check("data", "fail", f"{root.root / 'navsim_logs'} has no splits", remedy)]
    checks: list[Check] = []
    locations: set[str] = set()
    for split in names:
        checks += _split_checks(root, split, filters, num_logs, executor or SerialExecutor(), locations)
    checks += map_checks(root.maps_root, locations)
    return checks + [check for entry in filters for check in _filter_checks(root, entry, names)]


def filters_of(root: NavsimRoot) -> tuple[list[NamedFilter], list[Check]]:
    """Scene filters in the folder of a data root, each with the split that has its logs; and damaged ones."""
    logs = {split: {path.stem for path in root.log_paths(split)} for split in root.splits()}
    filters, checks = [], []
    for path in sorted((root.root / FILTERS_FOLDER).glob("*.yaml")):
        try:
            scene_filter = SceneFilter.from_yaml(path)
        except SceneFilterError as error:
            checks.append(Check("scene filter", "fail", str(error)))
            continue
        wanted = set(scene_filter.log_names or ())
        shares = {split: len(wanted & names) for split, names in logs.items()}
        split = max(shares, key=shares.__getitem__) if any(shares.values()) else ""
        filters.append(NamedFilter(path.stem, scene_filter, split))
    return filters, checks


# ------------------------------------------------------------------ splits
def _split_checks(
    root: NavsimRoot,
    split: str,
    filters: Sequence[NamedFilter],
    num_logs: int | None,
    executor: Executor,
    locations: set[str],
) -> Iterator[Check]:
    name, paths = f"split {split}", root.log_paths(split)
    if not paths:
        yield Check(name, "fail", "has no logs", downloads.log_download(split))
        return
    mine = [entry.scene_filter for entry in filters if entry.split == split]
    wanted = {log for scene_filter in mine for log in scene_filter.log_names or ()}
    among = [path for path in paths if path.stem in wanted] or paths
    chosen = among if num_logs is None else _spread(among, num_logs)
    look = _Look(root.sensor_root(split), tuple(mine))
    logs = list(executor.map(look, chosen, desc=f"logs of {split}" if len(chosen) > 100 else ""))
    for log in logs:
        locations |= log.locations
    looked = f"in {len(chosen)} of {len(paths)} logs" if len(chosen) < len(paths) else "in all of them"
    frames = sum(log.num_frames for log in logs)
    broken = [log.problem for log in logs if log.problem]
    facts = {"logs": len(paths), "read": len(chosen), "frames": frames, "unreadable": len(broken)}
    if broken:
        message = f"{len(paths)} logs; {len(broken)} of {len(chosen)} cannot be read, the first: {broken[0]}"
        yield Check(name, "fail", message, downloads.log_download(split), facts)
    else:
        yield Check(name, "ok", f"{len(paths)} logs, {frames} frames {looked}", facts=facts)
    is_generated = (root.root / GENERATED).is_file()
    yield from _blob_checks("" if is_generated else split, name, logs, looked)


def _blob_checks(split: str, name: str, logs: Iterable[LogInventory], looked: str) -> Iterator[Check]:
    """Checks of the sensor files; an empty split is one of a generated world."""
    named: Counter[Blobs] = Counter()
    missing: Counter[Blobs] = Counter()
    for log in logs:
        named += log.named
        missing += log.missing
    for seen, kind in sorted({(blobs.seen, _kind(blobs)) for blobs in named}):
        those = sorted(blobs for blobs in named if blobs.seen == seen and _kind(blobs) == kind)
        count, gone = sum(named[blobs] for blobs in those), sum(missing[blobs] for blobs in those)
        what = {"camera": "images", "lidar": "sweeps"}[kind]
        what += {"all": "", "current": " of current frames", "history": " of frames before"}[seen]
        whole = [blobs.sensor for blobs in those if missing[blobs] == named[blobs]]
        facts = {"kind": kind, "frames": seen, "named": count, "missing": gone, "missing_sensors": whole}
        if not gone:
            yield Check(name, "ok", f"{count} {what} {looked}, none missing", facts=facts)
            continue
        message = f"{gone} of {count} {what} missing {looked}"
        message += f" ({', '.join(whole)}: all)" if whole else ""
        if not split and gone == sum(named[blobs] for blobs in those if blobs.sensor in whole):
            yield Check(name, "ok", f"{message}; generated without them", facts=facts)
            continue
        # (planners of ego status or cameras alone do without)
        remedy = downloads.sensor_download(split or "a generated one", kind, seen)
        yield Check(name, "warn", message, remedy, facts)


def _kind(blobs: Blobs) -> str:
    return "lidar" if blobs.sensor == LIDAR else "camera"


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Some of the paths, the first and the last among them."""
    if count >= len(paths):
        return list(paths)
    return [paths[index] for index in np.linspace(0, len(paths) - 1, max(count, 1)).round().astype(int)]


@dataclass(frozen=True)
class _Look:
    """The work on one log."""

    sensor_root: Path
    filters: tuple[SceneFilter, ...]

    def __call__(self, path: Path) -> LogInventory:
        try:
            frames = read_log(path)
        except LogError as error:
            return LogInventory(str(error))
        found = LogInventory("", len(frames), {frame["map_location"] for frame in frames})
        listings: dict[Path, frozenset[str]] = {}
        for index, seen in self._needed(frames, path.stem).items():
            for sensor, file in _blobs_of(frames[index], self.sensor_root):
                blobs = Blobs(sensor, seen)
                found.named[blobs] += 1
                if file is None or file.name not in _listing(file.parent, listings):
                    found.missing[blobs] += 1
        return found

    def _needed(self, frames: Sequence[Frame], log: str) -> dict[int, str]:
        """Frames whose sensor files are needed, and what for."""
        if not self.filters:
            return dict.fromkeys(range(len(frames)), "all")
        needed: dict[int, str] = {}
        for scene_filter in self.filters:
            history = set(needed_frames(frames, scene_filter, log))
            tokens = None if scene_filter.tokens is None else frozenset(scene_filter.tokens)
            starts = scene_filter.window_starts(len(frames))
            now = {start + HISTORY - 1 for start in starts}
            current = {i for i in history & now if scene_filter.keeps(frames[i], tokens)}
            needed |= {i: "history" for i in history if needed.get(i) != "current"}
            needed |= dict.fromkeys(current, "current")
        return needed


def _blobs_of(frame: Frame, sensor_root: Path) -> Iterator[tuple[str, Path | None]]:
    """Sensor and place of each file that a frame names; None for one outside of the data root."""
    for name in frame["cams"]:
        try:
            yield name, camera_of(frame, name, sensor_root).path
        except SensorError:
            yield name, None
    if frame.get("lidar_path"):
        try:
            yield LIDAR, lidar_path_of(frame, sensor_root)
        except SensorError:
            yield LIDAR, None


def _listing(folder: Path, known: dict[Path, frozenset[str]]) -> frozenset[str]:
    """Names in a folder: one look at it is a thousand times cheaper than one at each of its files."""
    if folder not in known:
        try:
            known[folder] = frozenset(path.name for path in folder.iterdir())
        except OSError:
            known[folder] = frozenset()
    return known[folder]


# ------------------------------------------------------------------ maps and filters
def map_checks(maps_root: Path, used: Iterable[str] = ()) -> Iterator[Check]:
    """Maps and their versions; a location that logs use must have one with roads.

    Args:
        maps_root: Folder of the maps.
        used: Locations of the logs.
    """
    remedy = f"run NAVSIM's {downloads.MAPS}, or give --maps-root"
    try:
        versions = {
            str(location): str(entry["version"])
            for location, entry in json.loads((maps_root / VERSIONS_FILE).read_text()).items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield Check("maps", "fail", f"{maps_root / VERSIONS_FILE}: cannot be read ({error})", remedy)
        return
    for location in sorted({*versions, *used}):
        needed = location in set(used)
        try:
            nuplan_map = open_map(maps_root, location)
            stub = [name for name in NEEDED_LAYERS if name not in nuplan_map.layer_names]
        except MapError as error:
            yield Check(f"map {location}", "fail" if needed else "warn", str(error), remedy)
            continue
        facts = {"version": versions[location], "stub": bool(stub), "used": needed}
        if stub:
            message = f"version {facts['version']} is a stub, without the layer {stub[0]}"
            status = "fail" if needed else "ok"
            yield Check(f"map {location}", status, message, remedy if needed else "", facts)  # type: ignore[arg-type]
        else:
            yield Check(f"map {location}", "ok", f"version {versions[location]}", facts=facts)


def _filter_checks(root: NavsimRoot, entry: NamedFilter, splits: Sequence[str]) -> Iterator[Check]:
    name = f"filter {entry.name}"
    tokens, logs = entry.scene_filter.tokens, entry.scene_filter.log_names
    words = [f"{len(tokens)} tokens" if tokens is not None else "all windows"]
    words += [f"{len(logs)} logs"] if logs is not None else []
    facts = {"tokens": None if tokens is None else len(tokens), "logs": None if logs is None else len(logs)}
    if logs is None:
        yield Check(name, "ok", ", ".join(words), facts=facts)
        return
    there = {split: {path.stem for path in root.log_paths(split)} for split in root.splits()}
    anywhere = set().union(*there.values())
    absent = sorted(set(logs) - (there.get(entry.split, set()) if entry.split else anywhere))
    if not absent:
        where = f"split {entry.split}" if entry.split else "splits of the data root"
        yield Check(name, "ok", f"{', '.join(words)}, all in {where}", facts=facts)
        return
    message = f"{', '.join(words)}; {len(absent)} of its logs are "
    remedy = downloads.log_download(entry.split) if entry.split else "get the split that it is of"
    if elsewhere := sorted(set(absent) & anywhere):
        other = next(split for split, names in there.items() if elsewhere[0] in names)
        message += (
            f"not in split {entry.split}, {len(elsewhere)} of them in others: {elsewhere[0]} in {other}"
        )
        remedy = f"take the split that has its logs ({other}), or {remedy}"
    else:
        message += f"in no split, the first is {absent[0]}"
    yield Check(
        name, "fail" if entry.split in splits else "warn", message, remedy, {**facts, "absent": len(absent)}
    )
