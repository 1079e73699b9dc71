"""Recomputes every figure that README, docs and reports take from ``results/``: ``python results/check.py``.

A figure or a table of figures in a document stands between a mark and ``<!-- end -->``; :mod:`marks` says
which marks there are, and others are refused; results of the model zoo's metafiles name the row that they are
of. Held against the scores are, too, what is computed from those of a table (``runs.csv``, report, LaTeX,
pictures of intervals), what is computed from several tables or for a single document, the settings of
calibrated rows, and whether errors over towns and speeds are of the runs that are kept; how runs were made is
held against each other. The exit code is 1 if anything differs; ``--write`` writes it anew, but for settings,
for how runs were made, and for the picture of scenes, towns and speeds, which take worlds and records of
runs; of what it leaves the exit code is 1 still.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.sweeps.records import CHECKPOINT_DIGEST
from beyonddrive.evaluation.statistics.score_table import RunKey
from beyonddrive.results.closed_loop import relate
from beyonddrive.results.closed_loop.speeds import check_speeds
from beyonddrive.results.cpu import steps
from beyonddrive.results.effect import by_distance, won_and_lost
from beyonddrive.results.effect.calibrated import check_calibration
from beyonddrive.results.effect.towns import check_towns
from beyonddrive.results.marks import FigureError, text_of
from beyonddrive.results.metafiles import check_metafile
from beyonddrive.results.tables import MADE_WITH, RESULTS, KeptTable, kept_tables, name_of, run_of
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.visualization.picture_values import digest_of, shows

ROOT = RESULTS.parent
MARKED = re.compile(
    r"(<!-- (table|scores|power|parts|calibrated|cells|figure|value): ([^>]+?) -->)"
    r"((?:(?!<!-- ).)*)(<!-- end -->)",
    re.DOTALL,
)
"""A mark, what stands behind it, and its end; nothing of another mark, which belongs to that one."""
MARK = re.compile(r"<!-- ([\w ]+:|end\b)[^>]*-->")
"""What means to be a mark, or the end of one."""
DRAWINGS = (by_distance, relate)
"""Modules with a ``PICTURE``, the values that it has to show (``current``), and a ``main`` that draws it."""
OF_SCENES = (won_and_lost,)
"""The same, whose ``main`` needs the world that the scenes are of."""
CELLS = (relate, won_and_lost, steps)
"""Modules with a ``TABLE`` in CSV, and the text that it has to hold (``table``)."""
MEASURED = (check_calibration, check_towns, check_speeds)
"""What finds settings of plans that do not follow from what is kept, and what was measured, by worlds and
records of runs, for other runs than are kept now; nothing here writes them anew."""


def documents() -> Iterator[Path]:
    """Where figures may stand."""
    yield ROOT / "README.md"
    for pattern in ("docs/**/*.md", "plugins/*/README.md", "results/**/*.md"):
        yield from sorted(ROOT.glob(pattern))


def check_document(path: Path, write: bool) -> list[str]:
    """Differences of a document, which are mended if ``write``."""
    text = path.read_text()
    problems = []

    def renewed(match: re.Match[str]) -> str:
        start, kind, mark, old, end = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        try:
            new = text_of(kind, mark)
        except (FigureError, BeyondDriveError) as error:
            problems.append(f"{path.relative_to(ROOT)}:{line}: {error}")
            return match.group()
        if new != old:
            problems.append(
                f"{path.relative_to(ROOT)}:{line}: has {old.strip()}\nbut the scores give {new.strip()}"
            )
        return f"{start}{new}{end}"

    new_text = MARKED.sub(renewed, text)
    for match in MARK.finditer(MARKED.sub(lambda found: "\n" * found.group().count("\n"), text)):
        problems.append(f"{path.relative_to(ROOT)}: '{match.group()}' is no mark with an end")
    if write and new_text != text:
        write_atomically(path, new_text.encode())
    return problems


def check_computed(table: KeptTable, write: bool) -> list[str]:
    """Files of a table that are not what its scores give, and those of parts that it does not have."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        table.write_computed(place)
        names = [path.name for path in sorted(place.iterdir())]
        stale = [name for name in names if not _same(place / name, table.folder / name)]
        for name in stale if write else ():
            write_atomically(table.folder / name, (place / name).read_bytes())
    there = [path for form in ("intervals_*.png", "table_*.tex") for path in sorted(table.folder.glob(form))]
    left = [path.name for path in there if path.name not in names]
    for name in left if write else ():
        (table.folder / name).unlink()
    problems = [f"{name}: is not what its scores give" for name in stale]
    problems += [f"{name}: is of a part that is not computed from its scores" for name in left]
    return [f"{table.folder.relative_to(ROOT)}/{problem}" for problem in problems]


def check_origins(table: KeptTable) -> list[str]:
    """Runs that the plan of a table does not have, that nobody told how they were made, or made otherwise.

    Those of a row are of one recipe and of different checkpoints; a row with weights and the row that it has
    them of are of one checkpoint, seed by seed, as far as both tell it.
    """
    made, rows = table.made_with(), {row.name: row for row in table.plan.rows}
    scored = {name_of(run) for part in table.parts for run in table.scores(part).runs}
    problems = [f"{name}: has scores, but is not in {MADE_WITH}" for name in sorted(scored - made.keys())]
    problems += [f"{name}: is in {MADE_WITH}, but has no scores" for name in sorted(made.keys() - scored)]
    recipes: dict[str, str] = {}
    judged: dict[tuple[str, str], str] = {}
    for name, told in made.items():
        run = run_of(name)
        if run.row not in rows:
            problems.append(f"{name}: its plan has no such row")
            continue
        if "recipe" in told and recipes.setdefault(run.row, told["recipe"]) != told["recipe"]:
            problems.append(f"{name}: is of another recipe than the other seeds of its row")
        checkpoint = told.get(CHECKPOINT_DIGEST)
        if checkpoint is not None and (same := judged.setdefault((run.row, checkpoint), name)) != name:
            problems.append(f"{name}: judges the same checkpoint as {same}, and counts as another training")
        weights = rows[run.row].weights
        trained = made.get(name_of(RunKey(weights, run.seed)), {}) if weights else {}
        digests = {origin.get(CHECKPOINT_DIGEST) for origin in (told, trained)}
        if None not in digests and len(digests) > 1:
            problems.append(f"{name}: judges another checkpoint than '{weights}' has")
    return [f"results/{table.name}: {problem}" for problem in problems]


def _same(one: Path, other: Path) -> bool:
    if one.suffix == ".png":
        return digest_of(one) == digest_of(other)
    return other.exists() and one.read_bytes() == other.read_bytes()


def check_cells(write: bool) -> list[str]:
    """Tables in CSV that are not what the scores give."""
    problems = []
    for module in CELLS:
        text, path = module.table(), module.TABLE
        if not path.exists() or path.read_text() != text:
            problems.append(f"{path.relative_to(ROOT)}: is not what the scores give")
            if write:
                write_atomically(path, text.encode())
    return problems


def check_pictures(write: bool) -> list[str]:
    """Pictures that do not show what is in their tables."""
    problems = []
    for drawing in (*DRAWINGS, *OF_SCENES):
        if shows(drawing.PICTURE, drawing.current()):
            continue
        told = f"{drawing.PICTURE.relative_to(ROOT)}: was drawn from other scores"
        if drawing in OF_SCENES:
            told += f"; {drawing.__name__} draws it, with the world of its scenes"
        elif write:
            drawing.main()
        problems.append(told)
    return problems


def check_all(tables: Sequence[KeptTable], write: bool) -> list[str]:
    """All that differs, of which what can be is mended if ``write``."""
    problems = [problem for table in tables for problem in check_computed(table, write)]
    problems += [problem for table in tables for problem in check_origins(table)]
    problems += [problem for find in MEASURED for problem in find()]
    problems += check_cells(write)
    problems += check_pictures(write)
    for path in documents():
        problems += check_document(path, write)
    for path in sorted(ROOT.glob("configs/*/metafile.yml")):
        problems += check_metafile(path, str(path.relative_to(ROOT)), write)
    return problems


def main() -> int:
    """Check; 1 if something differs, with ``--write`` if something still does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write what differs anew")
    args = parser.parse_args()
    tables = list(kept_tables())
    problems = check_all(tables, args.write)
    for problem in problems:
        print(problem, file=sys.stderr)
    left, told = problems, f"{len(problems)} differ"
    if args.write:
        left = check_all(tables, write=False) if problems else []
        told = f"{len(problems) - len(left)} written anew"
        told += f", {len(left)} left, which nothing here writes anew" if left else ""
    marks = sum(len(MARKED.findall(path.read_text())) for path in documents())
    print(f"results: {len(tables)} tables, {marks} marks in documents, {told}")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
