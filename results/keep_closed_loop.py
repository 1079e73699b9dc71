"""Adds closed-loop runs to a table that is kept.

``python results/keep_closed_loop.py closed_loop/planners --row "LTF=closed/ltf_0,closed/ltf_1" ...``

A folder is one of ``beyonddrive closed-loop run --out``; those of a row are its trainings, in the order of
their seeds (or with them, ``NAME=0:DIR,2:DIR``), and take the place of what the table has of them. All must
have driven the same scenarios, all of them, with the same settings, and each what its row is in the plan.
Scores are kept by scenario, of all and by difficulty, with the shares of episodes by how they ended and,
where the run says so, how far each drove (km); of a run with several seeds of the traffic the mean over
these, which have to be the same in all of a table. So is what the files of a run say of how it was made:
versions, machine and recipe, the seconds that it took, and how many of its plans were fallbacks, if any.

The digest of a list counts every byte, and another machine may round a value of a scenario otherwise:
``--same-by "constant velocity=DIR"`` takes a list for that of the table if this row, driven there, has the
figures that the table has of it, scenario by scenario.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.config_values import read_text
from beyonddrive.engine.environment import utc_day
from beyonddrive.engine.sweeps.plan import Row
from beyonddrive.evaluation.statistics.score_table import COLLISIONS, DISTANCE, RunKey, table_of
from beyonddrive.results.keep import PLACES
from beyonddrive.results.tables import KeptTable, name_of, run_of
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.synth.live.compare import OF_A_ROW, OWN
from beyonddrive.synth.live.episode_files import EPISODE
from beyonddrive.synth.live.run_folder import SUMMARY, differing_settings

COLUMNS = {"rc": "RC", "nc": "NC", "dac": "DAC", "ttc": "TTC", "c": "COM", "collided": COLLISIONS}
"""Columns of ``episodes.csv`` and their names here."""
ENDS = {"Complete": "completed", "Far from preset trajectory": "left the way"}
"""Ends of an episode whose share is kept."""
KILOMETRES = "kilometres"
"""Column of ``episodes.csv`` that older runs lack."""
TRAFFIC = [0]
"""Seeds of the traffic of runs that were kept before it was told."""
DIGEST = "[0-9a-f]{16}"
"""What tells a checkpoint in settings; older runs have its file name there."""
MERGED = "config"
"""Name of a config that a sweep merged from that of its row and further bases."""
NAMES = (*COLUMNS.values(), *ENDS.values(), DISTANCE, "HD-Score")
"""Columns of the table; the last is the score."""


@dataclass(frozen=True)
class Episodes:
    """What a run drove.

    Attributes:
        scores: Means over the traffic (C,), by scenario; columns as :data:`NAMES`.
        kinds: Difficulties by scenario.
        traffic: Seeds of the traffic.
        fallbacks: How many plans were not the planner's.
    """

    scores: dict[str, NDArray[np.float64]]
    kinds: dict[str, str]
    traffic: list[int]
    fallbacks: int = 0


def episodes_of(folder: Path, with_fallbacks: bool = True) -> Episodes:
    """Read a run.

    Raises:
        SystemExit: If plans were fallbacks and these are not wanted, or a scenario was not driven once with
            every seed of the traffic.
    """
    with (folder / "episodes.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    fallbacks = sum(int(line["fallbacks"]) for line in lines)
    if fallbacks and not with_fallbacks:
        raise SystemExit(
            f"keep: {folder}: {fallbacks} plans were fallbacks; --with-fallbacks keeps it as it is"
        )
    traffic = sorted({int(line["seed"]) for line in lines})
    by_name: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
    for line in lines:
        by_name.setdefault(line["name"], []).append((int(line["seed"]), _figures_of(line)))
    for name, found in by_name.items():
        seeds = sorted(seed for seed, _ in found)
        if seeds != traffic:
            raise SystemExit(
                f"keep: {folder}: {name} was driven with seeds {_listed(seeds)} of the traffic, "
                f"not once with each of {_listed(traffic)}"
            )
    scores = {name: np.mean([figures for _, figures in found], axis=0) for name, found in by_name.items()}
    return Episodes(scores, {line["name"]: line["difficulty"] for line in lines}, traffic, fallbacks)


def _figures_of(line: dict[str, str]) -> NDArray[np.float64]:
    return np.array(
        [
            *(float(line[key]) for key in COLUMNS),
            *(float(end in line["ends"]) for end in ENDS),
            float(line.get(KILOMETRES) or "nan"),
            float(line["hdscore"]),
        ]
    )


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _refuse_other_traffic(folder: Path, traffic: list[int], shared: list[int]) -> None:
    if traffic != shared:
        raise SystemExit(
            f"keep: {folder}: was driven with seeds {_listed(traffic)} of the traffic, the rest of the table "
            f"with {_listed(shared)}"
        )


def _refuse_other_seed(folder: Path, checkpoint: str | None, seed: int) -> None:
    """End if a checkpoint lies in the folder of a sweep's run with another seed: it pairs with others."""
    for part in Path(checkpoint or "").parts:
        if re.fullmatch(r"seed\d+", part) and part != f"seed{seed}":
            raise SystemExit(
                f"keep: {folder}: drove {checkpoint}, which is not of seed {seed}; give each run its seed, "
                f"as in NAME={part.removeprefix('seed')}:{folder}"
            )


def _refuse_copies(made: dict[str, dict[str, Any]]) -> None:
    """End if two runs of a row drove the same weights: two of one training make an interval too narrow."""
    known: dict[tuple[str, str], str] = {}
    for name, run in made.items():
        checkpoint = str(run.get("checkpoint"))
        if not re.fullmatch(DIGEST, checkpoint):  # (a planner without weights, or an older run)
            continue
        other = known.setdefault((run_of(name).row, checkpoint), name)
        if other != name:
            raise SystemExit(
                f"keep: '{other}' and '{name}' drove the same weights; give a row each of its trainings once"
            )


def _refuse_other_drivers(made: dict[str, dict[str, Any]]) -> None:
    """End if two runs of a row were driven otherwise: their mean would be no figure of either.

    Config and options are held against the plan.
    """
    told = [key for key in OF_A_ROW if key not in ("config", "options")]
    known: dict[str, str] = {}
    for name, run in made.items():
        other = known.setdefault(run_of(name).row, name)
        there = made[other]
        if differing := [key for key in told if key in run and key in there and run[key] != there[key]]:
            raise SystemExit(
                f"keep: '{other}' and '{name}' were driven with another {', '.join(differing)}; drive all "
                "trainings of a row alike, or give each way a row of its own"
            )


def _refuse_other_row(folder: Path, settings: dict[str, Any], row: Row) -> None:
    """End if a run was not driven by what its row is in the plan, places of files aside."""
    config, given = settings["config"], settings["options"]
    told: list[tuple[str, Any, str | None]] = []
    if config not in (Path(row.config).stem, MERGED):
        told = [("config", config, Path(row.config).stem)]
    keys = [*row.options, *sorted(given.keys() - row.options.keys() - PLACES)]
    told += [(key, given.get(key), row.options.get(key)) for key in keys]
    for key, was, wanted in told:
        values = [None if text is None else read_text(text, None, None) for text in (was, wanted)]
        if values[0] != values[1]:
            raise SystemExit(
                f"keep: {folder}: was driven with {key}={was or 'nothing'}, but the plan has "
                f"{wanted or 'nothing'} for row '{row.name}'; give the runs of this row, or mend the plan"
            )


def _refuse_part(folder: Path, settings: dict[str, Any], driven: Episodes) -> None:
    """End if a run that tells how many scenarios its list has drove others than these."""
    if (wanted := settings.get("scenarios", len(driven.scores))) != len(driven.scores):
        raise SystemExit(
            f"keep: {folder}: episodes.csv has {len(driven.scores)} of {wanted} scenarios; finish the run"
        )


def same_list(table: KeptTable, text: str) -> dict[str, str]:
    """Digest of a list, and of the table's, if ``NAME=DIR`` shows that their scenarios are the same."""
    name, _, folder = text.partition("=")
    if (made := table.made_with().get(name_of(RunKey(name, 0)))) is None:
        raise SystemExit(f"keep: --same-by {text}: the table has no run '{name}/0'; take a row that it has")
    driven = episodes_of(Path(folder))
    _refuse_other_traffic(Path(folder), driven.traffic, made.get("traffic", TRAFFIC))
    scores, kept = driven.scores, table.scores("all")
    figures = dict(zip(kept.tokens, kept.values[kept.runs.index(RunKey(name, 0))], strict=True))
    own = [NAMES.index(column) for column in kept.columns]
    if scores.keys() != figures.keys() or not all(
        _are_alike(scores[scenario][own], value) for scenario, value in figures.items()
    ):
        raise SystemExit(f"keep: {folder}: '{name}' has other figures there than in the table")
    told = json.loads((Path(folder) / "settings.json").read_text())["scenario_list"]
    return {told: made["settings"]["scenario_list"]}


def _are_alike(one: NDArray[np.float64], other: NDArray[np.float32]) -> bool:
    """Whether figures are the same as far as both are told; older runs lack the distance."""
    told = ~np.isnan(one) & ~np.isnan(other)
    return np.allclose(one[told], other[told], atol=1e-5)


def told_of(folder: Path) -> dict[str, Any]:
    """``date``, ``recipe``, ``made_with`` and ``seconds`` of a run, as far as its files say them.

    The day of a run that does not tell it is that of its file of episodes.
    """
    found: dict[str, Any] = {"date": utc_day((folder / "episodes.csv").stat().st_mtime)}
    summary = _summary(folder)
    found |= {key: summary[key] for key in ("date", "recipe", "made_with") if key in summary}
    seconds: Counter[str] = Counter()
    for path in sorted(folder.glob(f"*/*/{EPISODE}")):
        seconds.update(json.loads(path.read_text()).get("seconds", {}))
    if seconds:
        found["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    return found


def _summary(folder: Path) -> dict[str, Any]:
    """Figures of a run and what they were made with; nothing of one that has none."""
    path = folder / SUMMARY
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def main() -> int:
    """Keep."""
    try:
        return keep()
    except BeyondDriveError as error:
        raise SystemExit(f"keep: {error}") from error


def keep() -> int:
    """Add the runs that the command line names to its table; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", help="plan below results/, without the ending")
    parser.add_argument("--row", action="append", required=True, metavar="NAME=DIR,DIR")
    parser.add_argument("--with-fallbacks", action="store_true", help="keep runs with such plans, too")
    parser.add_argument("--same-by", metavar="NAME=DIR", help="shows that another list is the same")
    args = parser.parse_args()
    table = KeptTable(args.table)
    with table.held():
        return add_runs(args, table)


def add_runs(args: argparse.Namespace, table: KeptTable) -> int:
    """Add the runs that the command line names to a table that nobody else changes; 0."""
    lists = same_list(table, args.same_by) if args.same_by else {}
    scores: dict[RunKey, dict[str, NDArray[np.float64]]] = {}
    made = table.made_with()
    untrained: set[str] = set()
    kinds: dict[str, str] = {}
    shared: dict[str, Any] | None = next((run["settings"] for run in made.values()), None)
    traffic: list[int] | None = next((run.get("traffic", TRAFFIC) for run in made.values()), None)
    for text in args.row:
        name, _, folders = text.partition("=")
        for number, part in enumerate(folders.split(",")):
            given = re.match(r"(\d+):", part)
            seed = int(given[1]) if given else number
            folder = Path(part[given.end() :] if given else part)
            settings = json.loads((folder / "settings.json").read_text())
            row = table.plan.row(name)
            if (run := RunKey(row.name, seed)) in scores:
                raise SystemExit(f"keep: {folder}: seed {seed} of row '{name}' is given twice")
            for place in (settings["checkpoint"], _summary(folder).get("checkpoint_file")):
                _refuse_other_seed(folder, place, seed)
            _refuse_other_row(folder, settings, row)
            same = {key: value for key, value in settings.items() if key not in OWN}
            told = same.get("scenario_list")
            compared = {**same, "scenario_list": lists.get(told, told)} if told else same
            if shared is not None and (other := differing_settings(shared, compared)):
                raise SystemExit(
                    f"keep: {folder}: was driven with other scenarios or settings than the rest: "
                    f"{', '.join(other)}"
                )
            shared = {**(shared or {}), **compared}
            if settings["checkpoint"] is None and "," not in folders:
                untrained.add(name)
            driven = episodes_of(folder, args.with_fallbacks)
            _refuse_part(folder, settings, driven)
            kinds, traffic = driven.kinds, traffic or driven.traffic
            _refuse_other_traffic(folder, driven.traffic, traffic)
            scores[run] = driven.scores
            own = {key: settings[key] for key in OWN if key in settings}
            own["checkpoint"] = own["checkpoint"] and Path(own["checkpoint"]).name
            told_there = {**own, "traffic": driven.traffic, "settings": same}
            if driven.fallbacks:
                told_there["fallbacks"] = driven.fallbacks
            made[name_of(run)] = {**told_of(folder), **told_there}
    _refuse_copies(made)
    _refuse_other_drivers(made)
    whole = table_of(scores, NAMES, untrained=untrained)
    parts = {"all": whole}
    for kind in sorted(set(kinds.values())):
        parts[kind] = whole.part([name for name, own in kinds.items() if own == kind])
    table.write(parts, made)
    print(f"{args.table}: {len(made)} runs of {len(whole.tokens)} scenarios")
    return 0


if __name__ == "__main__":
    sys.exit(main())
