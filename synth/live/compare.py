"""Runs side by side: every row against the first, scenario by scenario."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.statistics.intervals import difference_of
from beyonddrive.synth.live.batch import EPISODE, SETTINGS
from beyonddrive.synth.live.summary import (
    FIGURES,
    RATE,
    fallback_line,
    figures_of,
    rate,
    rate_difference,
    rows_of,
    table_of,
)
from beyonddrive.synth.live.town import LiveError

OWN = ("config", "options", "checkpoint", "exported", "image_size", "lidar")
"""What rows of one table may differ in; all the rest of their settings has to be the same."""


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
class _Driven:
    row: Row
    episodes: list[dict[str, Any]]
    names: list[str]
    kinds: NDArray[np.str_]
    arrays: Mapping[str, NDArray[np.float64]]


def compare(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of all rows, and how much higher they are than those of the first, as JSON values.

    How many plans of each row were fallbacks comes first: its figures are not those of its planner alone.

    A row of one run, such as that of a driver without a training, pairs with every run of another.

    Raises:
        LiveError: If a folder holds no run, or runs are of other scenarios, seeds or settings.
    """
    driven = [_read(row) for row in rows]
    first = driven[0]
    for other in driven[1:]:
        _refuse_other(first, other)
    groups: dict[str, Any] = {}
    for group, columns in rows_of(first.kinds):
        table = {}
        for item in driven:
            cut = {key: values[:, columns] for key, values in item.arrays.items()}
            base = {key: values[:, columns] for key, values in first.arrays.items()}
            table[item.row.name] = {
                **figures_of(cut),
                "collision_rate": rate(cut["collided"], cut["kilometres"]),
                "difference": None if item is first else _differences(cut, base),
            }
        groups[group] = {"scenarios": int(columns.sum()), "rows": table}
    return {
        "fallbacks": {item.row.name: int(item.arrays["fallbacks"].sum()) for item in driven},
        "steps": {item.row.name: sum(int(e["steps"]) for e in item.episodes) for item in driven},
        "hugsim": _settings(first.row.runs[0]).get("hugsim", {}),
        "baseline": first.row.name,
        "groups": groups,
    }


def _differences(
    ours: Mapping[str, NDArray[np.float64]], base: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    shape = np.broadcast_shapes(ours["rc"].shape, base["rc"].shape)
    ours, base = (
        {key: np.broadcast_to(values, shape) for key, values in arrays.items()} for arrays in (ours, base)
    )
    return {
        **figures_of({key: difference_of(ours[key], base[key]) for key in FIGURES}),
        "collision_rate": rate_difference(ours, base),
    }


def _read(row: Row) -> _Driven:
    episodes: list[dict[str, Any]] = []
    runs = 0
    for folder in row.runs:
        if not (folder / SETTINGS).exists():
            raise LiveError(f"{folder}: holds no run; beyonddrive closed-loop run --out {folder} makes one")
        found = [json.loads(path.read_text()) for path in sorted(folder.glob(f"seed_*/*/{EPISODE}"))]
        seeds = sorted({int(episode["seed"]) for episode in found})
        for episode in found:
            place = {"run": str(folder), "traffic": episode["seed"]}
            episodes.append({**episode, **place, "seed": runs + seeds.index(int(episode["seed"]))})
        runs += len(seeds)
    try:
        names, _, arrays = table_of(episodes)
    except LiveError as error:
        raise LiveError(f"row {row.name}: {error}") from error
    kind_of = {str(episode["name"]): str(episode["difficulty"]) for episode in episodes}
    return _Driven(row, episodes, names, np.array([kind_of[name] for name in names]), arrays)


def _refuse_other(first: _Driven, other: _Driven) -> None:
    for folder in (*first.row.runs, *other.row.runs):
        there, wanted = (_settings(path) for path in (folder, first.row.runs[0]))
        differing = sorted(key for key in set(there) | set(wanted) if there.get(key) != wanted.get(key))
        if differing:
            raise LiveError(
                f"{folder / SETTINGS}: has another {', '.join(differing)} than {first.row.runs[0]}; "
                "compare runs of the same scenarios and settings"
            )
    lacking = sorted(set(first.names) ^ set(other.names))
    if lacking:
        raise LiveError(
            f"{first.row.name} and {other.row.name}: only one of them has driven {lacking[0]} "
            f"({len(lacking)} such); finish both runs"
        )
    counts = len(first.arrays["rc"]), len(other.arrays["rc"])
    if counts[0] != counts[1] and 1 not in counts:
        raise LiveError(
            f"{first.row.name} and {other.row.name}: {counts[0]} and {counts[1]} runs and seeds do not pair"
        )


def _settings(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / SETTINGS).read_text())
    return {key: value for key, value in found.items() if key not in OWN}


def comparison_text(result: Mapping[str, Any]) -> str:
    """A comparison as a table, x 100 but for the rate; differences from the baseline with their intervals.

    Rows with fallbacks are named first, HUGSIM's switches last.
    """
    warnings = [
        f"{name}: {fallback_line(count, result['steps'][name])}"
        for name, count in result["fallbacks"].items()
        if count
    ]
    head = ["", "", *FIGURES.values(), RATE]
    lines = [head]
    for group, part in result["groups"].items():
        for name, figures in part["rows"].items():
            means = [f"{100 * figures[key]['mean']:.1f}" for key in FIGURES]
            lines.append(
                [f"{group} ({part['scenarios']})", name, *means, f"{figures['collision_rate']['mean']:.2f}"]
            )
            if (apart := figures["difference"]) is not None:
                cells = [_signed(apart[key], 100.0, 1) for key in FIGURES]
                rates = _signed(apart["collision_rate"], 1.0, 2)
                lines.append(["", f"  less {result['baseline']}", *cells, rates])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    table = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    switches = ", ".join(f"{name}={value}" for name, value in result["hugsim"].items())
    return "\n".join([*warnings, *table, *([f"HUGSIM's switches: {switches}"] if switches else [])])


def _signed(value: Mapping[str, float], factor: float, digits: int) -> str:
    mean, low, high = (factor * value[key] for key in ("mean", "low", "high"))
    if np.isnan(low):  # (of one scenario)
        return f"{mean:+.{digits}f}"
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def pairs_csv(rows: Sequence[Row]) -> str:
    """A line per scenario and run, with the figures of every row beside each other.

    Raises:
        LiveError: As :func:`compare`.
    """
    driven = [_read(row) for row in rows]
    for other in driven[1:]:
        _refuse_other(driven[0], other)
    most = max(len(item.arrays["rc"]) for item in driven)
    keys = (*FIGURES, "collided", "kilometres", "fallbacks")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["run", "name", "difficulty", *(f"{item.row.name}: {key}" for item in driven for key in keys)]
    )
    for run in range(most):
        for i, name in enumerate(driven[0].names):
            cells = [
                repr(float(item.arrays[key][min(run, len(item.arrays[key]) - 1), i]))
                for item in driven
                for key in keys
            ]
            writer.writerow([run, name, driven[0].kinds[i], *cells])
    return file.getvalue()
