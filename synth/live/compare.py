"""Runs side by side: every row against the first, scenario by scenario."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.config_values import is_folder
from beyonddrive.evaluation.statistics.intervals import difference_of
from beyonddrive.synth.live.episode_files import EPISODE, read_episode
from beyonddrive.synth.live.run_folder import SETTINGS, differing_settings, read_settings
from beyonddrive.synth.live.summary import (
    FIGURES,
    RATE,
    fallback_line,
    figures_of,
    interval_cell,
    interval_words,
    rate,
    rate_difference,
    rows_of,
    table_of,
    traffic_words,
    unscored_line,
    unscored_of,
)
from beyonddrive.synth.live.town import LiveError

OWN = ("config", "options", "recipe", "checkpoint", "exported", "image_size", "lidar", "planner")
"""What rows of one table may differ in; all the rest of their settings has to be the same."""
OF_A_ROW = ("config", "options", "exported", "image_size", "lidar")
"""What runs of one row, which are trainings of one planner, may not differ in.

Scripts of planners that were served over pipes name the weights, so that each training has its own.
"""


@dataclass(frozen=True)
class Row:
    """Runs of one planner; several are those of its trainings, which pair in this order.

    Attributes:
        name: For readers.
        runs: Folders of ``closed-loop run``.
    """

    name: str
    runs: tuple[Path, ...]


@dataclass(frozen=True)
class _Run:
    folder: Path
    episodes: list[dict[str, Any]]
    names: list[str]
    traffic: list[int]
    arrays: Mapping[str, NDArray[np.float64]]  # (V, T): seeds of the traffic, scenarios


@dataclass(frozen=True)
class _Driven:
    row: Row
    runs: list[_Run]
    arrays: Mapping[str, NDArray[np.float64]]  # (R, V, T): trainings, seeds of the traffic, scenarios

    def cut(self, columns: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
        """Figures in some of the scenarios."""
        return {key: values[..., columns] for key, values in self.arrays.items()}


def compare(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of all rows, and how much higher they are than those of the first, as JSON values.

    How many plans of each row were fallbacks comes first: its figures are not those of its planner alone.
    Episodes that have no score, and count as 0, are told by why (``unscored``).

    All runs have to be of the same seeds of the traffic. Intervals are over scenarios and trainings, each
    judged by its mean over the traffic, whose seeds are no trainings. Where one run stands against one, such
    as that of a driver without a training, they are over scenarios and seeds of the traffic, and say nothing
    of another training. A row of one run pairs with every run of another, traffic by traffic.

    Raises:
        LiveError: If a folder holds no run, runs are of other scenarios, seeds or settings, or those of a
            row of other planners.
    """
    driven = _read(rows)
    first = driven[0]
    traffic, kinds = first.runs[0].traffic, _kinds(first.runs[0])
    groups: dict[str, Any] = {}
    for group, columns in rows_of(kinds):
        table = {}
        for item in driven:
            cut = item.cut(columns)
            own = {key: _by_seed(values) for key, values in cut.items()}
            table[item.row.name] = {
                **figures_of(own),
                "collision_rate": rate(own["collided"], own["kilometres"]),
                "difference": None if item is first else _differences(cut, first.cut(columns)),
            }
        groups[group] = {"scenarios": int(columns.sum()), "rows": table}
    return {
        "fallbacks": {item.row.name: int(item.arrays["fallbacks"].sum()) for item in driven},
        "steps": {
            item.row.name: sum(int(e["steps"]) for run in item.runs for e in run.episodes) for item in driven
        },
        "unscored": {
            item.row.name: unscored_of([episode for run in item.runs for episode in run.episodes])
            for item in driven
        },
        "hugsim": _settings(first.row.runs[0]).get("hugsim", {}),
        "baseline": first.row.name,
        "traffic": traffic,
        "intervals": {
            item.row.name: {
                "figures": _interval_words(len(item.runs), traffic),
                "difference": None
                if item is first
                else _interval_words(max(len(item.runs), len(first.runs)), traffic),
            }
            for item in driven
        },
        "groups": groups,
    }


def _by_seed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Figures (R, V, T) as (S, T): means over V seeds of the traffic, or these themselves of one training."""
    found: NDArray[np.float64] = values.mean(axis=1) if len(values) > 1 else values[0]
    return found


def _interval_words(trainings: int, traffic: Sequence[int]) -> str:
    """What the intervals of :func:`_by_seed` are over."""
    seeds = traffic_words(traffic)
    if trainings > 1:
        averaged = f", each the mean of {seeds}" if len(traffic) > 1 else ""
        return interval_words(f"{trainings} trainings{averaged}")
    return interval_words(f"{seeds} of one run" if len(traffic) > 1 else "")


def _differences(
    ours: Mapping[str, NDArray[np.float64]], base: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    shape = np.broadcast_shapes(ours["rc"].shape, base["rc"].shape)
    ours, base = (
        {key: _by_seed(np.broadcast_to(values, shape)) for key, values in arrays.items()}
        for arrays in (ours, base)
    )
    return {
        **figures_of({key: difference_of(ours[key], base[key]) for key in FIGURES}),
        "collision_rate": rate_difference(ours, base),
    }


def _read(rows: Sequence[Row]) -> list[_Driven]:
    """Runs of all rows, which are of the same scenarios, seeds of the traffic and settings."""
    found = [[_read_run(folder) for folder in row.runs] for row in rows]
    first = found[0][0]
    driven = []
    for row, runs in zip(rows, found, strict=True):
        for run in runs:
            _refuse_other(first, run)
        counts = len(found[0]), len(runs)
        if counts[0] != counts[1] and 1 not in counts:
            raise LiveError(
                f"{rows[0].name} and {row.name}: {counts[0]} and {counts[1]} trainings do not pair"
            )
        arrays = {key: np.stack([run.arrays[key] for run in runs]) for key in first.arrays}
        driven.append(_Driven(row, runs, arrays))
    for row in rows:
        _refuse_other_planners(row)
        _refuse_copies(row)
    return driven


def _refuse_other_planners(row: Row) -> None:
    """The mean of two planners is no figure of either."""
    wanted = _planner_of(row.runs[0])
    for folder in row.runs[1:]:
        there = _planner_of(folder)
        differing = [key for key in wanted.keys() & there.keys() if wanted[key] != there[key]]
        if differing:
            raise LiveError(
                f"{row.name}: {folder / SETTINGS} has another {', '.join(sorted(differing))} than "
                f"{row.runs[0]}; a row has trainings of one planner, so give each planner a row of its own"
            )


def _planner_of(folder: Path) -> dict[str, Any]:
    """What a run says of its planner but for the weights; where its files lie is no matter."""
    told = {key: value for key, value in read_settings(folder).items() if key in OF_A_ROW}
    if isinstance(options := told.get("options"), dict):
        told["options"] = {key: value for key, value in options.items() if not is_folder(key)}
    return told


def _refuse_copies(row: Row) -> None:
    """Two runs of the same weights are one training: as two they would make the interval too narrow."""
    known: dict[Any, Path] = {}
    for folder in row.runs:
        for key in (folder.resolve(), read_settings(folder).get("checkpoint")):
            if key is not None and key in known:
                raise LiveError(
                    f"{row.name}: {known[key]} and {folder} are of one training; give a row each of its "
                    "trainings once"
                )
            known[key] = folder


def _read_run(folder: Path) -> _Run:
    if not (folder / SETTINGS).exists():
        raise LiveError(f"{folder}: holds no run; beyonddrive closed-loop run --out {folder} makes one")
    episodes = []
    for path in sorted(folder.glob(f"seed_*/*/{EPISODE}")):
        found = read_episode(path.parent)
        if found is None:
            raise LiveError(f"{path}: cannot be read; remove it, and run the same command again")
        episodes.append(found)
    if not episodes:
        raise LiveError(f"{folder}: has no episode yet; finish the run")
    try:
        run = _Run(folder, episodes, *table_of(episodes))
    except LiveError as error:
        raise LiveError(f"{folder}: {error}") from error
    wanted = read_settings(folder).get("scenarios", len(run.names))
    if len(run.names) != wanted:
        raise LiveError(f"{folder}: has driven {len(run.names)} of {wanted} scenarios; finish the run")
    return run


def _kinds(run: _Run) -> NDArray[np.str_]:
    """Difficulties (T,) of its scenarios."""
    kind_of = {str(episode["name"]): str(episode["difficulty"]) for episode in run.episodes}
    return np.array([kind_of[name] for name in run.names])


def _refuse_other(first: _Run, other: _Run) -> None:
    there, wanted = (_settings(run.folder) for run in (other, first))
    differing = differing_settings(there, wanted)
    if differing:
        raise LiveError(
            f"{other.folder / SETTINGS}: has another {', '.join(differing)} than {first.folder}; "
            "compare runs of the same scenarios and settings"
        )
    if other.traffic != first.traffic:
        raise LiveError(
            f"{other.folder}: was driven with {traffic_words(other.traffic)}, {first.folder} with "
            f"{traffic_words(first.traffic)}; drive both with the same --seeds"
        )
    lacking = sorted(set(first.names) ^ set(other.names))
    if lacking:
        raise LiveError(
            f"{first.folder} and {other.folder}: only one of them has driven {lacking[0]} "
            f"({len(lacking)} such); finish both runs"
        )


def _settings(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in read_settings(folder).items() if key not in OWN}


def comparison_text(result: Mapping[str, Any]) -> str:
    """A comparison as a table, x 100 but for the rate; differences from the baseline with their intervals.

    Rows with fallbacks, and with episodes without a score, are named first; what the intervals are over and
    HUGSIM's switches come last.
    """
    warnings = [
        f"{name}: {fallback_line(count, result['steps'][name])}"
        for name, count in result["fallbacks"].items()
        if count
    ]
    warnings += [f"{name}: {unscored_line(why)}" for name, why in result["unscored"].items() if why]
    head = ["", "", *FIGURES.values(), RATE]
    lines = [head]
    for group, part in result["groups"].items():
        for name, figures in part["rows"].items():
            means = [f"{100 * figures[key]['mean']:.1f}" for key in FIGURES]
            lines.append(
                [f"{group} ({part['scenarios']})", name, *means, f"{figures['collision_rate']['mean']:.2f}"]
            )
            if (apart := figures["difference"]) is not None:
                cells = [interval_cell(apart[key], 100.0, 1, sign="+") for key in FIGURES]
                rates = interval_cell(apart["collision_rate"], 1.0, 2, sign="+")
                lines.append(["", f"  less {result['baseline']}", *cells, rates])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    table = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    rows_by_words: dict[str, list[str]] = {}
    for name, words in result["intervals"].items():
        if words["difference"] is not None:
            rows_by_words.setdefault(words["difference"], []).append(name)
    intervals = [
        f"intervals of {', '.join(names)} less {result['baseline']}: {words}"
        for words, names in rows_by_words.items()
    ]
    switches = ", ".join(f"{name}={value}" for name, value in result["hugsim"].items())
    last = [*intervals, *([f"HUGSIM's switches: {switches}"] if switches else [])]
    return "\n".join([*warnings, *table, *last])


def pairs_csv(rows: Sequence[Row]) -> str:
    """A line per run, seed of the traffic and scenario, with the figures of every row beside each other.

    A row of one run has its figures in the lines of every run; where a row of several has no such run, its
    cells are empty.

    Raises:
        LiveError: As :func:`compare`.
    """
    driven = _read(rows)
    first = driven[0].runs[0]
    kinds = _kinds(first)
    keys = (*FIGURES, "collided", "kilometres", "fallbacks")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    figures = [f"{item.row.name}: {key}" for item in driven for key in keys]
    writer.writerow(["run", "traffic", "name", "difficulty", *figures])
    for run in range(max(len(item.runs) for item in driven)):
        own = [_run_at(item.runs, run) for item in driven]
        for place, seed in enumerate(first.traffic):
            for i, name in enumerate(first.names):
                cells = [
                    "" if one is None else repr(float(one.arrays[key][place, i]))
                    for one in own
                    for key in keys
                ]
                writer.writerow([run, seed, name, kinds[i], *cells])
    return file.getvalue()


def _run_at(runs: Sequence[_Run], number: int) -> _Run | None:
    """The run of a row that pairs with others of this number."""
    if len(runs) == 1:
        return runs[0]
    return runs[number] if number < len(runs) else None
