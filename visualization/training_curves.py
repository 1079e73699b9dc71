"""Curves of trainings, from the figures that mmengine writes to ``vis_data/scalars.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.hooks.run_record import RECORD
from beyonddrive.structures.errors import BeyondDriveError

BOOKKEEPING = (
    "time",
    "data_time",
    "memory",
    "epoch",
    "iter",
    "step",
    "*num_*",
    "*grad_norm",
    "*lr*",
    "*momentum*",
)
"""Figures that are no result: left out unless asked for."""
LOWER_IS_BETTER = ("*loss*", "*/A[TSOV]E_*", "*/[AF]DE")
"""Losses, errors of ``DetectionMetric``, displacements; of other figures the largest value is the best."""
COLUMNS = 3
PANEL = (5.0, 3.2)
"""Size of one curve's panel [inches]."""


class LogError(BeyondDriveError, ValueError):
    """A log is missing, damaged, or has no such figure."""


class Point(NamedTuple):
    """A value of a figure."""

    iteration: int
    epoch: float
    value: float


@dataclass(frozen=True)
class Run:
    """What was logged of a training.

    Attributes:
        name: What the pictures call it.
        curves: Points by name of the figure, in the order of their iterations.
    """

    name: str
    curves: Mapping[str, Sequence[Point]] = field(default_factory=dict)


class Summary(NamedTuple):
    """Where a curve ends, and its best point: the smallest of a loss or an error, the largest of a score."""

    last: Point
    best: Point


def read_run(name: str, path: Path) -> Run:
    """Read a training: a work folder, with all its resumed parts, or one file of figures.

    What a start has logged from the step on at which a later one began does not count: a training that was
    begun anew in the folder, or went on from an earlier checkpoint, is another one from there on.

    Raises:
        LogError: If there is no log, or a line of it cannot be read.
    """
    files = sorted(path.glob("*/vis_data/scalars.json")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise LogError(f"{path}: no log here; give a work folder of a training, or its vis_data/scalars.json")
    curves: dict[str, dict[int, Point]] = {}
    ends: dict[int, int] = {}
    by_steps = False
    for file in files:
        first = _first_step(file)
        for points in curves.values():
            for at in [at for at in points if at >= first]:
                del points[at]
        lines = _lines(file)
        if steps := [line for line in lines if "iter" in line]:
            by_steps = all("epoch" not in line for line in steps)
        for key, point in _points(lines, ends, by_steps):
            # A training that was resumed repeats what came after its checkpoint; the later value counts.
            curves.setdefault(key, {})[point.iteration] = point
    return Run(name, {key: [points[at] for at in sorted(points)] for key, points in curves.items() if points})


def _first_step(file: Path) -> float:
    """The step that the start of a log began with; infinity if nobody tells, as of earlier versions."""
    try:
        return float(json.loads((file.parents[1] / RECORD).read_text())["first_step"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return math.inf


def _lines(file: Path) -> list[dict[str, Any]]:
    """Lines of a log; each has a ``step``."""
    lines = []
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LogError(f"{file}: cannot be read as a log of figures ({error})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            logged: dict[str, Any] = json.loads(line)
            logged["step"] = int(logged["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise LogError(
                f"{file}: line {number} is no line of figures ({error}); delete it if the training was "
                "killed while it wrote"
            ) from error
        lines.append(logged)
    return lines


def _points(
    lines: Iterable[dict[str, Any]], ends: dict[int, int], by_steps: bool
) -> Iterable[tuple[str, Point]]:
    """Figures of one part of a training.

    Args:
        lines: Its log.
        ends: Last logged iteration by epoch, of the parts before; those of this one are added.
        by_steps: Whether it is a training by iterations, whose validations count these and no epochs.
    """
    iteration = 0
    for logged in lines:
        step = logged["step"]
        if "iter" in logged:
            iteration, epoch = int(logged["iter"]), int(logged.get("epoch", 0))
            at, when = iteration, float(epoch)
            ends[epoch] = iteration
        elif by_steps:
            at, when = step or iteration, 0.0
        else:  # a validation counts epochs, and comes after the iterations that were logged before it
            # (a part that begins with one makes up for what the part before did not come to)
            at, when = iteration or ends.get(step, step), float(step)
        for key, value in logged.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield key, Point(at, when, float(value))


def choose_keys(runs: Sequence[Run], patterns: Sequence[str] = ()) -> list[str]:
    """Names of figures that fit a pattern such as ``loss*``; by default all results.

    Raises:
        LogError: If a pattern fits nothing; the message names the figures.
    """
    known = list(dict.fromkeys(key for run in runs for key in run.curves))
    if not patterns:
        chosen = [key for key in known if not any(fnmatchcase(key, pattern) for pattern in BOOKKEEPING)]
    else:
        for pattern in patterns:
            if not any(fnmatchcase(key, pattern) for key in known):
                raise LogError(f"{pattern}: no figure fits; logged are {', '.join(known) or 'none'}")
        chosen = [key for key in known if any(fnmatchcase(key, pattern) for pattern in patterns)]
    if not chosen:
        raise LogError("the logs hold no figures yet")
    return sorted(chosen, key=lambda key: (key != "loss", "loss" not in key, known.index(key)))


def summarise(curve: Sequence[Point], key: str) -> Summary:
    """Last and best point of a curve."""
    finite = [point for point in curve if math.isfinite(point.value)] or list(curve)
    choose = min if any(fnmatchcase(key, pattern) for pattern in LOWER_IS_BETTER) else max
    return Summary(curve[-1], choose(finite, key=lambda point: point.value))


def format_summary(runs: Sequence[Run], keys: Sequence[str]) -> str:
    """A table: a row for each figure and run, with its last and its best value and where that was.

    >>> print(format_summary([Run('a', {'loss': [Point(1, 1, 0.5), Point(2, 1, 0.75)]})], ['loss']))
    figure  run    last    best  at epoch  at iteration
    loss    a    0.7500  0.5000         1             1
    """
    rows = [("figure", "run", "last", "best", "at epoch", "at iteration")]
    for key in keys:
        for run in runs:
            if key in run.curves:
                last, best = summarise(run.curves[key], key)
                at = (f"{best.epoch:g}", str(best.iteration))
                rows.append((key, run.name, f"{last.value:.4f}", f"{best.value:.4f}", *at))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    form = "  ".join(f"{{:{'<' if column < 2 else '>'}{width}}}" for column, width in enumerate(widths))
    return "\n".join(form.format(*row) for row in rows)


def draw_curves(runs: Sequence[Run], keys: Sequence[str], path: Path) -> None:
    """Write a picture with a panel for each figure, and a line in it for each run."""
    columns = min(COLUMNS, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, key in zip(panels, keys, strict=False):
        for index, run in enumerate(runs):
            curve = run.curves.get(key, ())
            marker = "o" if len(curve) < 40 else None
            at, values = [point.iteration for point in curve], [point.value for point in curve]
            panel.plot(at, values, label=run.name, color=f"C{index % 10}", marker=marker, markersize=3)
        panel.set_title(key, fontsize=10)
        panel.set_xlabel("iteration", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    for panel in panels[len(keys) :]:
        panel.set_axis_off()
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
