"""The table of all bases, as text, CSV and JSON, and the scenes of each for ``beyonddrive report``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.engine.environment import MADE_WITH, write_made_with
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.text_tables import csv_text
from beyonddrive.evaluation.bases.results import BasisResult
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.score_labels import BASES
from beyonddrive.evaluation.score_rows import ScoredScene, scenes_to_csv

SUB_SCORES = ("NC", "DAC", "DDC", "TLC", "EP", "TTC", "LK", "HC", "EC", "C")
"""Columns of the table besides the score; those that a basis does not have stay empty."""
_TEXT_COLUMNS = ("basis", "score", *SUB_SCORES, "scenes")


def format_bases(results: Sequence[BasisResult]) -> str:
    """The table for a terminal, in percent; below it what each basis is, and what was left out."""
    several = len({result.plan for result in results}) > 1
    lines = []
    for result in results:
        name = result.label.basis + (f" [{result.plan}]" if several else "")
        share = f"{len(result.rows)}/{_asked(result)}"
        if not result.means:
            lines.append([name, "-", *[""] * len(SUB_SCORES), share])
        for part, means in result.means.items():
            cells = _cells(result, means)
            head = [name, cells["score"]] if not part else [f"  {part}", cells["score"]]
            lines.append([*head, *(cells.get(column, "") for column in SUB_SCORES), "" if part else share])
    widths = [max(map(len, column)) for column in zip(_TEXT_COLUMNS, *lines, strict=True)]
    table = [
        "  ".join(
            cell.ljust(width) if not number else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (list(_TEXT_COLUMNS), ["-" * width for width in widths], *lines)
    ]
    first = [result for result in results if result.plan == results[0].plan]
    return "\n".join([*table, "", *(str(result.label) for result in first)])


def table_rows(results: Sequence[BasisResult]) -> Iterator[dict[str, Any]]:
    """Rows of the table: a row per basis, plan and part, in [0, 1]; a basis without a result has one too."""
    for result in results:
        label = result.label.to_dict()
        parts: Mapping[str, Floats | None] = result.means or {"": None}
        for part, means in parts.items():
            values = {} if means is None else dict(zip(result.columns, means.tolist(), strict=True))
            score = values.pop(result.columns[-1], None)
            yield {
                "basis": label["basis"],
                "plan": result.plan,
                "part": part or "result",
                "score": score,
                **{column: _number(values.get(column)) for column in SUB_SCORES},
                "num_scenes": len(result.rows),
                "num_failed": len(result.failures),
                "num_missing": len(result.missing),
                "score_name": label["score"],
                **{
                    key: label[key]
                    for key in ("stages", "traffic", "human_filter", "scorer_version", "scenes")
                },
                "note": result.note,
            }


def to_csv(results: Sequence[BasisResult]) -> str:
    """The table as csv text; an empty cell is a sub-score that a basis does not have."""
    return csv_text(list(table_rows(results)))


def to_json(results: Sequence[BasisResult], plans: Path, problems: Sequence[str]) -> dict[str, Any]:
    """The table as JSON values, with the label, the failures and the missing scenes of each basis."""
    return {
        "plans": plans.name,
        "rows": list(table_rows(results)),
        "bases": [
            {
                "label": result.label.to_dict(),
                "plan": result.plan,
                "note": result.note,
                "failures": result.failures,
                "missing": list(result.missing),
            }
            for result in results
        ],
        "problems": list(problems),
    }


def write_bases(
    stem: Path, results: Sequence[BasisResult], plans: Path, problems: Sequence[str]
) -> list[Path]:
    """Write ``STEM.csv``, ``STEM.json`` and ``STEM_scenes/BASIS.csv``, whole or not at all each.

    The files of scenes are as ``beyonddrive test --out`` writes them; with several plans per scene there is
    one of each, ``BASIS-I.csv``. Those of an earlier table of the name are deleted.

    Returns:
        The table, as csv and JSON.
    """
    table, values = (stem.with_name(f"{stem.name}.{ending}") for ending in ("csv", "json"))
    folder = stem.with_name(f"{stem.name}_scenes")
    several = len({result.plan for result in results}) > 1
    _delete_scenes(folder)
    for result in results:
        if not result.rows:
            continue
        scenes = [
            ScoredScene(token, result.logs.get(token, ""), values_of, "", *result.details.get(token, ()))
            for token, values_of in result.rows.items()
        ]
        scenes += [
            ScoredScene(token, result.logs.get(token, ""), None, reason or "no score")
            for token, reason in result.failures.items()
        ]
        name = f"{result.label.basis}-{result.plan}" if several else result.label.basis
        text = scenes_to_csv(scenes, result.columns, result.label)
        rows = folder / f"{name}.csv"
        write_atomically(rows, text.encode())
        write_made_with(rows)
    write_atomically(table, to_csv(results).encode())
    write_atomically(values, (json.dumps(to_json(results, plans, problems), indent=1) + "\n").encode())
    for path in (table, values):
        write_made_with(path)
    return [table, values]


def _delete_scenes(folder: Path) -> None:
    """Delete the scenes of an earlier table, which may have other bases or more plans; nothing else."""
    for path in folder.glob("*.csv"):
        if re.sub(r"-\d+$", "", path.stem) in BASES:
            path.unlink()
            path.with_name(path.name + MADE_WITH).unlink(missing_ok=True)


def _asked(result: BasisResult) -> int:
    return len(result.rows.keys() | result.failures.keys() | set(result.missing))


def _cells(result: BasisResult, means: Floats) -> Mapping[str, str]:
    named = dict(zip(result.columns, means.tolist(), strict=True))
    cells = {name: "" if np.isnan(value) else f"{100 * value:.2f}" for name, value in named.items()}
    return {**cells, "score": cells[result.columns[-1]]}


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value
