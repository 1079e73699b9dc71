"""What a sweep leaves: scores by scene, a line per run, and a report with tables and a picture."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from beyonddrive.datasets.navsim.scene_filter import SceneFilter, SceneFilterError
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.sweeps.plan import SweepError, SweepPlan
from beyonddrive.engine.sweeps.runs import Finished, Run, differing_data
from beyonddrive.evaluation.score_results import label_differences, read_results
from beyonddrive.evaluation.statistics.intervals import StatisticsError
from beyonddrive.evaluation.statistics.score_table import (
    RATE,
    RUNS,
    RunKey,
    ScoreTable,
    read_table,
    score_file,
    table_of,
    write_runs,
    write_table,
)
from beyonddrive.visualization.picture_values import shows
from beyonddrive.visualization.sweep_choice import choice_text
from beyonddrive.visualization.sweep_tables import (
    TableRow,
    interval_values,
    intervals_picture,
    latex,
    markdown,
    power_table,
    table_rows,
)

REPORT = "report.md"
_RULES = {
    "last": "the checkpoint of the last epoch, for every run alike",
    "best": "the checkpoint with the highest score on the validation loader, for every run alike",
}


def collect(plan: SweepPlan, finished: Sequence[Finished]) -> dict[str, ScoreTable]:
    """Scores by scene of the runs that have them, by loader.

    Scores on a further basis are parts of their own, ``test-epdms`` beside ``test``; runs that were not
    judged on it, or not in every scene, are not in them.

    Raises:
        ResultsError: If a file of scores is damaged.
        StatisticsError: If two runs were judged on different scenes.
        SweepError: If scenes of a run have no scores, two runs were scored differently, or nothing is there.
    """
    tables: dict[str, ScoreTable] = {}
    scored = [run for run, outcome in finished if outcome.error is None]
    first = plan.loaders[0]
    for loader in plan.loaders:
        if judged := [run for run in scored if loader in run.loaders]:
            tables[loader] = _table(judged, loader)
    if not tables:
        raise SweepError("not a single run has scores; see what is told of each")
    for basis in plan.further:
        if judged := [run for run in scored if run.is_judged(first, basis)]:
            tables[part_on(first, basis)] = _table(judged, first, basis)
    return tables


def with_subsets(plan: SweepPlan, tables: Mapping[str, ScoreTable]) -> dict[str, ScoreTable]:
    """The scores by loader, and those of the subsets of the first loader, in the order of the report.

    Raises:
        SweepError: If a subset has scenes that were not judged, or as :func:`read_subsets`.
    """
    found, tokens = dict(tables), read_subsets(plan)
    for part, (name, whole) in subset_parts(plan).items():
        if whole in tables:
            try:
                found[part] = tables[whole].part(tokens[name])
            except StatisticsError as error:
                raise SweepError(_other_scenes(plan, name, f"{whole}: {error}")) from error
    return {part: found[part] for part in parts_of(plan) if part in found}


def read_parts(out: Path, plan: SweepPlan) -> dict[str, ScoreTable]:
    """Scores by scene that a folder has, with those of subsets.

    Raises:
        StatisticsError: If the scores of a loader are missing, or some are damaged.
        SweepError: As :func:`with_subsets`.
    """
    loaders = [*plan.loaders, *(part_on(plan.loaders[0], basis) for basis in plan.further)]
    there = [part for part in loaders if part in plan.loaders or score_file(out, part).exists()]
    return with_subsets(plan, {part: read_table(out, part) for part in there})


def read_subsets(plan: SweepPlan) -> dict[str, Sequence[str]]:
    """Tokens of the scenes of every subset.

    Raises:
        SweepError: If a file is missing, is no scene filter or names no tokens; names the subset.
    """
    return {name: read_subset(plan, name) for name in plan.subsets}


def read_subset(plan: SweepPlan, name: str) -> Sequence[str]:
    """Tokens of the scenes of one subset; raises as :func:`read_subsets`."""
    file = plan.subsets[name]
    if not file.exists():
        raise SweepError(
            f"subsets.{name}: {file}: there is no such file, neither from the current folder nor from "
            "that of the plan"
        )
    try:
        tokens = SceneFilter.from_yaml(file).tokens
    except SceneFilterError as error:
        raise SweepError(f"subsets.{name}: {error}") from error
    if not tokens:
        raise SweepError(
            f"subsets.{name}: {file}: names no tokens; a subset is a scene filter with a list of them"
        )
    return tokens


def check_subsets(plan: SweepPlan, scene_filter: Path) -> None:
    """Whether the scenes of all subsets are among those that a scene filter lists.

    A filter that lists none, or is not there yet, tells nothing.

    Raises:
        SweepError: If one has others; or as :func:`read_subsets`.
    """
    subsets = read_subsets(plan)
    listed = SceneFilter.from_yaml(scene_filter).tokens if subsets and scene_filter.is_file() else None
    if not listed:
        return
    for name, tokens in subsets.items():
        if odd := sorted(set(tokens).difference(listed)):
            told = f"{scene_filter} has not {len(odd)} of its {len(tokens)} scenes, such as {odd[0]}"
            raise SweepError(_other_scenes(plan, name, told))


def _other_scenes(plan: SweepPlan, name: str, told: str) -> str:
    return (
        f"plan '{plan.title}': subsets.{name}: {plan.subsets[name]}: {told}; subsets are of the loader that "
        f"is first, {plan.loaders[0]}: put the one first that it is of, give scenes of {plan.loaders[0]}, or "
        "take it out of the plan"
    )


def part_on(part: str, basis: str) -> str:
    """What a part is called on a further basis; an empty one is the metric of the config.

    >>> part_on("hard", "epdms"), part_on("hard", "")
    ('hard-epdms', 'hard')
    """
    return f"{part}-{basis}" if basis else part


def parts_of(plan: SweepPlan) -> list[str]:
    """All parts that a plan may have, in the order of the report."""
    first = [
        part_on(part, basis) for part in (plan.loaders[0], *plan.subsets) for basis in ("", *plan.further)
    ]
    return [*first, *plan.loaders[1:]]


def subset_parts(plan: SweepPlan) -> dict[str, tuple[str, str]]:
    """Parts that are of a subset of the scenes -> its name, and the part that it is of."""
    return {
        part_on(name, basis): (name, part_on(plan.loaders[0], basis))
        for name in plan.subsets
        for basis in ("", *plan.further)
    }


def _table(runs: Sequence[Run], loader: str, basis: str = "") -> ScoreTable:
    """Scores by scene of runs that were judged alike."""
    read = [read_results(run.row, run.results(loader, basis)) for run in runs]
    first = read[0]
    told = next((results for results in read if results.scored and results.scored.data), first)
    for results in read:
        if results.failures:
            raise SweepError(f"{results.path}: {len(results.failures)} scenes have no scores; see it")
        if results.kind.columns != first.kind.columns:
            raise SweepError(f"{results.path}: holds {results.kind.name}, the other runs another score")
        for other in (first, told):
            if differing := label_differences([other, results]):
                raise SweepError(
                    f"{results.path}: does not compare with {other.path}: {'; '.join(differing)}; judge both "
                    "on the same data and by the same score"
                )
        if results.halves:
            raise SweepError(f"{results.path}: has two stages, whose scenes do not count alike; judge on one")
    scores = {RunKey(run.row, run.seed): found.values for run, found in zip(runs, read, strict=True)}
    untrained = {run.row for run in runs if not run.is_trained}
    return table_of(scores, first.kind.columns, first.scored, untrained)


def write_sweep(
    out: Path, plan: SweepPlan, finished: Sequence[Finished], errors: Mapping[tuple[str, int], str]
) -> str:
    """Write ``runs.csv``, the scores, ``report.md``, LaTeX tables of all parts, and pictures of loaders.

    Those of parts of the last report that are not among these are removed.

    Args:
        out: Folder of the sweep.
        plan: What was trained.
        finished: Runs that have scores.
        errors: As :func:`write_report` takes them.

    Returns:
        The report.

    Raises:
        BeyondDriveError: As :func:`collect`.
    """
    tables = collect(plan, finished)
    for part, table in tables.items():
        write_table(out, part, table)
    whole = with_subsets(plan, tables)
    _forget_parts(out, whole)
    keys = {RunKey(run.row, run.seed): outcome for run, outcome in finished}
    write_runs(
        out,
        whole,
        differing_values(plan),
        {key: outcome.checkpoint for key, outcome in keys.items()},
        {key: outcome.seconds["train"] for key, outcome in keys.items() if "train" in outcome.seconds},
    )
    mixed = differing_data((run.row, run.seed, outcome.data) for run, outcome in finished)
    return write_report(out, plan, errors, whole, mixed)


def differing_values(plan: SweepPlan) -> dict[str, dict[str, str]]:
    """Config and options of every row, without the options that all rows share."""
    options = [row.options for row in plan.rows]
    shared = {key for key, value in options[0].items() if all(other.get(key) == value for other in options)}
    return {
        row.name: {"config": " + ".join((row.config, *row.bases))}
        | {key: value for key, value in row.options.items() if key not in shared}
        for row in plan.rows
    }


def write_report(
    out: Path,
    plan: SweepPlan,
    errors: Mapping[tuple[str, int], str] | None = None,
    tables: Mapping[str, ScoreTable] | None = None,
    mixed: Sequence[str] = (),
    anew: Sequence[str] = (),
    drawn: Path | None = None,
) -> str:
    """Compute tables from the scores of a sweep, and pictures of those of its loaders.

    Args:
        out: Folder of the sweep.
        plan: What was trained.
        errors: Why runs have no scores, by row and seed.
        tables: Scores by part; those that are on disk if None.
        mixed: Rows whose seeds were trained on different data, as :func:`differing_data` tells them.
        anew: The same, where that is as it should be.
        drawn: Folder of pictures that were drawn before; one of the same numbers is taken as it is.

    Returns:
        The report.

    Raises:
        StatisticsError: If scores are missing or damaged.
    """
    if tables is None:
        tables = read_parts(out, plan)
    text = [f"# {plan.title}", "", _method(plan, tables), ""]
    if chosen := choice_text(plan.choices, tables, plan.loaders[0]):
        text += [chosen, ""]
    baselines, subsets = {row.name: row.baseline for row in plan.rows}, subset_parts(plan)
    lacking = [row.name for row in plan.rows if not any(t.seeds(row.name) for t in tables.values())]
    if lacking:
        text += [f"Without runs so far: {'; '.join(lacking)}.", ""]
    if mixed:
        text += [
            f"Seeds of one row were trained on different data, and the row is a mixture: {'; '.join(mixed)}. "
            "Train them again on the same scenes, pools and other stores.",
            "",
        ]
    if anew:
        text += [
            "Between seeds of one row the same commands made data anew, such as a pool on another machine, "
            f"with another digest: {'; '.join(anew)}.",
            "",
        ]
    for part, table in tables.items():
        rows = table_rows(table, baselines)
        score = table.columns[-1]
        text += [f"## {part}: {len(table.tokens)} scenes", ""]
        text += [f"{table.label}.", ""] if table.label else []
        text += [markdown(rows, score)]
        if rows and RATE in rows[0].columns:
            text += [
                f"{RATE.capitalize()}: all collisions by all km, of the runs that tell how far they drove.",
                "",
            ]
        table_file, picture_file = _files_of(out, part)
        picture = None if part in subsets else picture_file
        text += [f"![Scores and differences, {part}]({picture.name})", ""] if picture else []
        power = power_table(rows)
        if power:
            text += ["What the differences vary with (standard deviations in points), and what it takes:", ""]
            text += [power]
        write_atomically(table_file, latex(rows, score).encode())
        if picture:
            write_atomically(picture, _picture(rows, score, drawn and drawn / picture.name))
    if errors:
        text += ["## Runs without scores", ""]
        text += [f"- {row}, seed {seed}: {reason}" for (row, seed), reason in errors.items()]
    report = "\n".join(text).rstrip() + "\n"
    write_atomically(out / REPORT, report.encode())
    return report


def _files_of(out: Path, part: str) -> tuple[Path, Path]:
    """The LaTeX table of a part, and its picture."""
    return out / f"table_{part}.tex", out / f"intervals_{part}.png"


def _forget_parts(out: Path, kept: Collection[str]) -> None:
    """Remove the files of parts that an earlier ``runs.csv`` tells of and that are not kept.

    They would stay as they were while runs come and go, beside files of all that is there now.
    """
    path = out / RUNS
    if not path.exists():
        return
    with path.open(newline="", errors="replace") as file:
        told = {line.get("part") or "" for line in csv.DictReader(file)}
    for part in sorted(told.difference(kept)):
        if re.fullmatch(r"[\w.-]+", part):
            for old in (score_file(out, part), *_files_of(out, part)):
                old.unlink(missing_ok=True)


def _picture(rows: Sequence[TableRow], score: str, drawn: Path | None) -> bytes:
    """The picture of rows; the one that is there, if it shows their numbers."""
    if drawn is not None and shows(drawn, interval_values(rows, score)):
        return drawn.read_bytes()
    return intervals_picture(rows, score)


def _method(plan: SweepPlan, tables: Mapping[str, ScoreTable]) -> str:
    """How the numbers came about, in a paragraph; the seeds are those of the runs that are there."""
    trained = {run.seed for table in tables.values() for run in table.runs if run.row not in table.untrained}
    seeds = ", ".join(map(str, sorted(trained or plan.seeds)))
    return (
        f"Seeds {seeds}. Judged: {_RULES[plan.checkpoint]}. Means in percent, ± standard deviation of the "
        "means of the seeds. 95 %: Student's interval over the seeds joined with the normal one over scenes, "
        "with one seed a bootstrap interval over scenes alone. Differences are paired by seed and scene with "
        "the row that a row names as its baseline; beside their interval stands that of a bootstrap which "
        "draws seeds and scenes independently, and of few seeds cannot know how far another would lie. "
        "All rows are shown."
    )
