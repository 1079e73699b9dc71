"""Whether calibrated rows have the best calibration that was found for their planner on validation scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beyonddrive.engine.sweeps.plan import Row
from beyonddrive.results.row_files import read_rows
from beyonddrive.results.tables import KeptTable

CALIBRATION = Path(__file__).parent / "calibration"
KEYS = ("turn", "stretch")
"""Of a calibration: columns of the files, and what the options ``model.calibration.<key>`` end in."""
SCORE = "PDMS"
TABLES = ("effect/planners", "effect/controls")
"""Tables with calibrated rows. In the second all rows are of LTF, which their names do not say."""


def check_calibration(rows: tuple[Row, ...] | None = None, folder: Path = CALIBRATION) -> list[str]:
    """Rows with other settings than the best of their file, and files that hold plans of another planner.

    Args:
        rows: Of a plan; those of :data:`TABLES` by default.
        folder: Files by the slug of the row whose weights are judged.
    """
    plans = [KeptTable(table).plan.rows for table in TABLES] if rows is None else [rows]
    return [problem for plan in plans for problem in _check_rows(plan, folder)] + _shared_plans(folder)


def _check_rows(rows: Sequence[Row], folder: Path) -> list[str]:
    problems = []
    named = {row.name: row for row in rows}
    for row in rows:
        setting = {key: row.options.get(f"model.calibration.{key}") for key in KEYS}
        if row.weights is None or set(setting.values()) == {None}:
            continue
        if lacking := [key for key, value in setting.items() if value is None]:
            problems.append(f"row '{row.name}' is calibrated, but has no model.calibration.{lacking[0]}")
            continue
        slug = named[row.weights].slug
        path = folder / f"ltf-{slug}.csv"
        if not path.exists():
            path = folder / f"{slug}.csv"
        lines = read_rows(path)
        if not lines:
            problems.append(f"{path.name}: is not there, but row '{row.name}' is calibrated")
            continue
        best = max(lines, key=lambda line: float(line[SCORE]))
        if any(float(str(setting[key])) != float(best[key]) for key in KEYS):
            problems.append(
                f"row '{row.name}' has {setting}, but the best of {path.name} is "
                f"{ {key: best[key] for key in KEYS} }"
            )
    return problems


def _shared_plans(folder: Path) -> list[str]:
    """Files of which a column of scores by file of plans is in another one, too."""
    seen: dict[tuple[tuple[str, ...], ...], str] = {}
    problems = []
    for path in sorted(folder.glob("*.csv")):
        lines = read_rows(path)
        for name in lines[0] if lines else ():
            if not name.startswith(f"{SCORE} of file"):
                continue
            column = tuple(sorted((*(line[key] for key in KEYS), line[name]) for line in lines))
            if column in seen:
                problems.append(f"{path.name}: '{name}' is that of {seen[column]}: plans of another planner")
            seen[column] = path.name
    return problems
