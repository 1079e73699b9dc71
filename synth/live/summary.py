"""Figures of a run: means and rates with intervals over scenarios and seeds.

Intervals are those of :mod:`~beyonddrive.evaluation.statistics.intervals`, with scenarios as its scenes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.scenario import DIFFICULTIES
from beyonddrive.evaluation.statistics.intervals import Estimate, estimate, estimates
from beyonddrive.synth.live.town import LiveError

FIGURES = {"hdscore": "HD-Score", "rc": "RC", "nc": "NC", "dac": "DAC", "ttc": "TTC", "c": "COM"}
"""Figures of an episode, by their names in HUGSIM's ``eval.json`` and in tables."""
RATE = "collisions per km"
ALL = "all"

Episode = Mapping[str, Any]
Floats = NDArray[np.float64]


def table_of(episodes: Sequence[Episode]) -> tuple[list[str], list[int], dict[str, Floats]]:
    """Episodes as arrays: names of T scenarios, S seeds, and arrays (S, T) by figure.

    Raises:
        LiveError: If a scenario was not driven with every seed, or an episode lacks a figure.
    """
    seeds = sorted({int(e["seed"]) for e in episodes})
    names = sorted({str(e["name"]) for e in episodes})
    found = {(int(e["seed"]), str(e["name"])): e for e in episodes}
    lacking = [(seed, name) for seed in seeds for name in names if (seed, name) not in found]
    if lacking:
        raise LiveError(
            f"{lacking[0][1]} was not driven with seed {lacking[0][0]} ({len(lacking)} episodes lack); "
            "run the same command again"
        )
    rows = [[_figures_of(found[seed, name]) for name in names] for seed in seeds]
    return names, seeds, {key: np.array([[e[key] for e in row] for row in rows]) for key in rows[0][0]}


def _figures_of(episode: Episode) -> dict[str, float]:
    try:
        own = {key: float(episode["scores"][key]) for key in FIGURES}
        own |= {key: float(episode[key]) for key in ("collided", "kilometres")}
        return {**own, "fallbacks": float(episode["driver"]["fallbacks"])}
    except (KeyError, TypeError) as error:
        raise LiveError(
            f"{episode['name']}, seed {episode['seed']}: its episode.json lacks {error}: drive it anew"
        ) from error


def rate(collisions: Floats, kilometres: Floats) -> dict[str, float]:
    """Collisions per kilometre of (S, T) episodes, with its interval over both."""
    return _rate(_shares(collisions, kilometres))


def rate_difference(ours: Mapping[str, Floats], base: Mapping[str, Floats]) -> dict[str, float]:
    """How many more collisions per kilometre than a baseline's, on the same episodes (S, T)."""
    mine, its = (_shares(driven["collided"], driven["kilometres"]) for driven in (ours, base))
    return _rate(mine - its)


def _shares(collisions: Floats, kilometres: Floats) -> Floats:
    """What each of (S, T) episodes says of the rate of all; their mean is that rate, NaN if none drove.

    The rate of an episode alone would count one that drove little as much as the others. This is the rate of
    all and the episode's collisions beyond it by the mean distance, the usual linearisation of a ratio.
    """
    driven = float(kilometres.mean())
    if not driven > 0.0:
        return np.full(collisions.shape, np.nan)
    every = float(collisions.sum()) / float(kilometres.sum())
    found: Floats = every + (collisions - every * kilometres) / driven
    return found


def _rate(shares: Floats) -> dict[str, float]:
    """The mean of shares (S, T) with its interval; NaN where nobody drove."""
    if np.isnan(shares).any():
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    return _figure(estimate(shares))


def _figure(found: Estimate) -> dict[str, float]:
    """A mean and its interval as JSON values."""
    return {"mean": found.mean, "low": found.interval[0], "high": found.interval[1]}


def interval_words(seeds: str) -> str:
    """What intervals are of, and over which seeds, if there are several.

    >>> interval_words("")
    '95 % over scenarios (bootstrap)'
    >>> interval_words("3 trainings")
    '95 % over scenarios and 3 trainings'
    """
    if not seeds:
        return "95 % over scenarios (bootstrap)"
    return f"95 % over scenarios and {seeds}"


def traffic_words(seeds: Sequence[int]) -> str:
    """Seeds of the traffic, for readers.

    >>> traffic_words([0, 1, 2])
    'traffic seeds 0, 1, 2'
    """
    return f"traffic seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def rows_of(kinds: NDArray[np.str_]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Groups of scenarios and which are theirs: by difficulty, then all."""
    there = set(kinds.tolist())
    groups = [kind for kind in DIFFICULTIES if kind in there] + sorted(there - set(DIFFICULTIES))
    return [*((group, kinds == group) for group in groups), (ALL, np.ones(len(kinds), dtype=bool))]


def summarise(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Figures by difficulty and of all episodes of one driver, as JSON values.

    Its intervals are over scenarios and seeds of the traffic; of another training they say nothing.

    Raises:
        LiveError: If a scenario was not driven with every seed.
    """
    names, seeds, arrays = table_of(episodes)
    kind_of = {str(e["name"]): str(e["difficulty"]) for e in episodes}
    kinds = np.array([kind_of[name] for name in names])
    result: dict[str, Any] = {"seeds": seeds, "scenarios": len(names)}
    result["intervals"] = interval_words(traffic_words(seeds) if len(seeds) > 1 else "")
    result["groups"] = {}
    for group, columns in rows_of(kinds):
        result["groups"][group] = {
            "scenarios": int(columns.sum()),
            **figures_of({key: arrays[key][:, columns] for key in FIGURES}),
            "collision_rate": rate(arrays["collided"][:, columns], arrays["kilometres"][:, columns]),
            "kilometres": float(arrays["kilometres"][:, columns].sum()),
        }
    ends: dict[str, int] = {}
    for episode in episodes:
        for reason in episode["ends"]:
            ends[reason] = ends.get(reason, 0) + 1
    result["ends"] = dict(sorted(ends.items(), key=lambda item: -item[1]))
    result["fallbacks"] = sum(int(e["driver"]["fallbacks"]) for e in episodes)
    result["steps"] = sum(int(e["steps"]) for e in episodes)
    if unscored := unscored_of(episodes):
        result["unscored"] = unscored
    return result


def unscored_of(episodes: Sequence[Episode]) -> dict[str, int]:
    """How many episodes have no score, by why."""
    return dict(Counter(str(e["unscored"]) for e in episodes if e.get("unscored")))


def figures_of(arrays: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """Means with intervals of all figures (seeds, scenarios), or of their differences, as JSON values."""
    found = estimates(arrays[key] for key in FIGURES)
    return {key: _figure(value) for key, value in zip(FIGURES, found, strict=True)}


def as_text(summary: Mapping[str, Any]) -> str:
    """A summary as a table; x 100 but for the rate. Fallbacks come first, what intervals are of after it."""
    lines = []
    if summary["fallbacks"]:
        lines.append(fallback_line(summary["fallbacks"], summary["steps"]))
    if "unscored" in summary:
        lines.append(unscored_line(summary["unscored"]))
    head = ["", *FIGURES.values(), RATE]
    rows = [head]
    for group, figures in summary["groups"].items():
        cells = [f"{group} ({figures['scenarios']})"]
        cells += [interval_cell(figures[key], 100.0, 1) for key in FIGURES]
        cells.append(interval_cell(figures["collision_rate"], 1.0, 2))
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.append(f"intervals: {summary['intervals']}")
    lines.append("ends: " + ", ".join(f"{name} {count}" for name, count in summary["ends"].items()))
    return "\n".join(lines)


def as_json(figures: Mapping[str, Any]) -> str:
    """Figures as a file of JSON, which knows no NaN: null where there is none, such as an interval of one.

    >>> print(as_json({"low": float("nan"), "high": 1.0}))
    {
     "low": null,
     "high": 1.0
    }
    """
    return json.dumps(_without_nan(figures), indent=1, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def fallback_line(fallbacks: int, steps: int) -> str:
    """What a table of figures says first.

    >>> fallback_line(2, 60)
    "2 of 60 plans were fallbacks, not the planner's"
    """
    return f"{fallbacks} of {steps} plans were fallbacks, not the planner's"


def unscored_line(unscored: Mapping[str, int]) -> str:
    """What it says next, of what :func:`unscored_of` gives.

    >>> unscored_line({"the record has no frames": 2})
    'without a score, counted as 0: 2 episodes: the record has no frames'
    """
    told = "; ".join(f"{count} episode{'s' * (count > 1)}: {reason}" for reason, count in unscored.items())
    return f"without a score, counted as 0: {told}"


def interval_cell(value: Mapping[str, float], factor: float, digits: int, sign: str = "") -> str:
    """A figure with its interval as tables show it; of one scenario there is no interval.

    Args:
        value: ``mean``, ``low`` and ``high``.
        factor: What they are multiplied by.
        digits: Behind the point.
        sign: ``+`` writes the sign of positive numbers, too.

    >>> interval_cell({"mean": 0.012, "low": -0.004, "high": 0.028}, 100.0, 1, sign="+")
    '+1.2 [-0.4, +2.8]'
    """
    form = f"{sign}.{digits}f"
    mean, low, high = (factor * value[key] for key in ("mean", "low", "high"))
    return f"{mean:{form}}" if np.isnan(low) else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def as_csv(episodes: Sequence[Episode]) -> str:
    """A line per episode."""
    file = io.StringIO()
    columns = ["seed", "name", "difficulty", *FIGURES, "steps", "kilometres", "collided", "fallbacks", "ends"]
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for e in episodes:
        plain = {key: e[key] for key in ("seed", "name", "difficulty", "steps", "kilometres")}
        writer.writerow(
            {
                **plain,
                **{key: repr(float(e["scores"][key])) for key in FIGURES},
                "collided": int(e["collided"]),
                "fallbacks": e["driver"]["fallbacks"],
                "ends": "; ".join(e["ends"]),
            }
        )
    return file.getvalue()
