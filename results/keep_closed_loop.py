"""Adds closed-loop runs to a table that is kept.

``python results/keep_closed_loop.py closed_loop/planners --row "LTF=closed/ltf_0,closed/ltf_1" ...``

A folder is one of ``beyonddrive closed-loop run --out``; those of a row are its trainings, in the order of
their seeds (or with them, ``NAME=0:DIR,2:DIR``), and take the place of what the table has of them. All must
have driven the same scenarios with the same settings. Scores are kept by scenario, of all and by difficulty,
with the shares of episodes by how they ended.

The digest of a list counts every byte, and another machine may round a value of a scenario otherwise:
``--same-by "constant velocity=DIR"`` takes a list for that of the table if this row, driven there, has the
figures that the table has of it, scenario by scenario.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.statistics.score_table import RunKey, table_of
from beyonddrive.results.tables import KeptTable
from beyonddrive.synth.live.compare import OWN

COLUMNS = {"rc": "RC", "nc": "NC", "dac": "DAC", "ttc": "TTC", "c": "COM", "collided": "collisions"}
"""Columns of ``episodes.csv`` and their names here."""
ENDS = {"Complete": "completed", "Far from preset trajectory": "left the way"}
"""Ends of an episode whose share is kept."""
NAMES = (*COLUMNS.values(), *ENDS.values(), "HD-Score")
"""Columns of the table; the last is the score."""


def episodes_of(
    folder: Path, with_fallbacks: bool = True
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    """Figures by scenario, and difficulties by scenario, of a run with one seed of the traffic."""
    with (folder / "episodes.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    fallbacks = sum(int(line["fallbacks"]) for line in lines)
    if fallbacks and not with_fallbacks:
        raise SystemExit(
            f"keep: {folder}: {fallbacks} plans were fallbacks; --with-fallbacks keeps it as it is"
        )
    names = [line["name"] for line in lines]
    if len(set(names)) != len(names):
        raise SystemExit(f"keep: {folder}: has several seeds of the traffic; a run of a table has one")
    scores = {
        line["name"]: np.array(
            [
                *(float(line[key]) for key in COLUMNS),
                *(float(end in line["ends"]) for end in ENDS),
                float(line["hdscore"]),
            ]
        )
        for line in lines
    }
    return scores, {line["name"]: line["difficulty"] for line in lines}


def same_list(table: KeptTable, text: str) -> dict[str, str]:
    """Digest of a list, and of the table's, if ``NAME=DIR`` shows that their scenarios are the same."""
    name, _, folder = text.partition("=")
    scores, _ = episodes_of(Path(folder))
    kept = table.scores("all")
    figures = dict(zip(kept.tokens, kept.values[kept.runs.index(RunKey(name, 0))], strict=True))
    if scores.keys() != figures.keys() or not all(
        np.allclose(scores[scenario], value, atol=1e-5) for scenario, value in figures.items()
    ):
        raise SystemExit(f"keep: {folder}: '{name}' has other figures there than in the table")
    own = json.loads((Path(folder) / "settings.json").read_text())["scenario_list"]
    return {own: table.made_with()[f"{name}/0"]["settings"]["scenario_list"]}


def main() -> int:
    """Keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", help="plan below results/, without the ending")
    parser.add_argument("--row", action="append", required=True, metavar="NAME=DIR,DIR")
    parser.add_argument("--with-fallbacks", action="store_true", help="keep runs with such plans, too")
    parser.add_argument("--same-by", metavar="NAME=DIR", help="shows that another list is the same")
    args = parser.parse_args()
    table = KeptTable(args.table)
    lists = same_list(table, args.same_by) if args.same_by else {}
    scores: dict[RunKey, dict[str, NDArray[np.float64]]] = {}
    made = table.made_with()
    untrained: set[str] = set()
    kinds: dict[str, str] = {}
    shared: dict[str, Any] | None = next((run["settings"] for run in made.values()), None)
    for text in args.row:
        name, _, folders = text.partition("=")
        for number, part in enumerate(folders.split(",")):
            given, _, path = part.rpartition(":")
            seed, folder = int(given or number), Path(path)
            settings = json.loads((folder / "settings.json").read_text())
            same = {key: value for key, value in settings.items() if key not in OWN}
            told = same.get("scenario_list")
            compared = {**same, "scenario_list": lists.get(told, told)} if told else same
            if shared not in (None, compared):
                raise SystemExit(f"keep: {folder}: was driven with other scenarios or settings than the rest")
            shared = compared
            if settings["checkpoint"] is None and "," not in folders:
                untrained.add(name)
            found, kinds = episodes_of(folder, args.with_fallbacks)
            scores[RunKey(table.plan.row(name).name, seed)] = found
            date = time.strftime("%Y-%m-%d", time.gmtime((folder / "episodes.csv").stat().st_mtime))
            own = {key: settings[key] for key in OWN}
            own["checkpoint"] = own["checkpoint"] and Path(own["checkpoint"]).name
            made[f"{name}/{seed}"] = {"date": date, **own, "settings": same}
    whole = table_of(scores, NAMES, untrained=untrained)
    parts = {"all": whole}
    for kind in sorted(set(kinds.values())):
        parts[kind] = whole.part([name for name, own in kinds.items() if own == kind])
    table.write(parts, made)
    print(f"{args.table}: {len(made)} runs of {len(whole.tokens)} scenarios")
    return 0


if __name__ == "__main__":
    sys.exit(main())
