"""How fast planners drive: ``python results/closed_loop/speeds.py --run LTF=closed/ltf-0,closed/ltf-1 ...``.

Each run is what ``beyonddrive closed-loop run`` wrote; runs of a name are its trainings. ``speeds.csv``, or
with ``--settings`` ``settings_speeds.csv`` for those of ``settings.yml``, gets the mean speed [m/s] in the
second quarter of a second (``start``: a record begins after the first step) and 1, 2 and 4 s later, of the
episodes that have not ended by then, and the share [%] of all steps but the first in which the ego stands
(slower than 0.5 m/s); and a digest of recipes and weights of its runs, by which ``results/check.py`` tells
whether these are the ones that are kept. ``--out FILE`` takes the rows of runs that are not kept here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.agents import STEP
from beyonddrive.evaluation.closed_loop.hugsim.run_files import RECORD, read_record
from beyonddrive.results.keep_closed_loop import TRAFFIC
from beyonddrive.results.row_files import add_rows, read_rows
from beyonddrive.results.tables import KeptTable, name_of
from beyonddrive.structures.digests import digest_of_lines
from beyonddrive.synth.live.run_folder import SETTINGS as SETTINGS_FILE

TIMES = {"start": 0, "1 s": 4, "2 s": 8, "4 s": 16}
"""In steps of a quarter of a second, from the first frame of a record on, which is of the first step."""
STANDS = 0.5
"""Slower than this the ego stands [m/s]."""
OUT, SETTINGS = (Path(__file__).with_name(name) for name in ("speeds.csv", "settings_speeds.csv"))


def speeds(record: Path) -> NDArray[np.float64]:
    """Speeds (T,) of an episode between the frames of its record, from the second step on [m/s]."""
    places = np.array([frame.ego_box[:2] for frame in read_record(record)])
    found: NDArray[np.float64] = np.hypot(*np.diff(places, axis=0).T) / STEP
    return found


def runs_digest(runs: Iterable[Mapping[str, Any]]) -> str:
    """Digest of how runs were driven and with which weights, from their settings or what is kept of these."""
    return digest_of_lines(f"{run['recipe']} {run['checkpoint']}" for run in runs)


def cells_of(episodes: list[NDArray[np.float64]]) -> dict[str, str]:
    """Figures of a row."""
    cells = {"episodes": str(len(episodes))}
    for key, step in TIMES.items():
        driven = [episode[step] for episode in episodes if len(episode) > step]
        cells[key] = f"{np.mean(driven):.2f}" if driven else ""
    return cells | {"stands": f"{100.0 * np.mean(np.concatenate(episodes) < STANDS):.1f}"}


def check_speeds() -> list[str]:
    """Rows of both files that are of other runs, or other numbers of episodes, than those that are kept."""
    problems = []
    for path, name in ((OUT, "planners"), (SETTINGS, "settings")):
        kept = KeptTable(f"closed_loop/{name}")
        table, made = kept.scores("all"), kept.made_with()
        for line in read_rows(path):
            runs = [run for run in table.runs if run.row == line["row"]]
            traffic = sum(len(made[name_of(run)].get("traffic", TRAFFIC)) for run in runs)
            if (wanted := traffic * len(table.tokens)) != int(line["episodes"]):
                problems.append(
                    f"{path.name}: '{line['row']}' is of {line['episodes']} episodes, but runs of {wanted} "
                    "are kept; run results/closed_loop/speeds.py with all of them"
                )
            elif line.get("runs") != runs_digest(made[name_of(run)] for run in runs):
                problems.append(
                    f"{path.name}: '{line['row']}' is of runs with other weights or settings than those that "
                    "are kept; run results/closed_loop/speeds.py with these"
                )
    return problems


def main() -> None:
    """Measure, and add the rows to the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", nargs="+", action="extend", required=True, metavar="NAME=DIR,DIR")
    parser.add_argument("--settings", action="store_true", help="runs in the towns of settings.yml")
    parser.add_argument("--out", type=Path, metavar="CSV", help="in place of the table that is kept here")
    args = parser.parse_args()
    rows = {}
    for text in args.run:
        name, _, folders = text.partition("=")
        found = [path for folder in folders.split(",") for path in sorted(Path(folder).glob(f"*/*/{RECORD}"))]
        if not found:
            parser.error(f"--run {name}: no episodes in {folders}")
        settings = [json.loads((Path(folder) / SETTINGS_FILE).read_text()) for folder in folders.split(",")]
        rows[name] = cells_of([speeds(path) for path in found]) | {"runs": runs_digest(settings)}
    print(add_rows(args.out or (SETTINGS if args.settings else OUT), rows))


if __name__ == "__main__":
    main()
