"""Tables of sweeps: what they say, and that files give back what was written."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes

from beyonddrive.evaluation.score_labels import BASES, ScoreLabel
from beyonddrive.evaluation.statistics.intervals import StatisticsError
from beyonddrive.evaluation.statistics.score_table import (
    RunKey,
    read_table,
    table_of,
    write_runs,
    write_table,
)
from beyonddrive.visualization.sweep_tables import intervals_picture, latex, markdown, power_table, table_rows

BASELINES = {"human": None, "plain": None, "better_5%": "plain", "never ran": "plain"}


@pytest.fixture
def table():
    """Human once, plain and better with three seeds; better is 0.1 above plain in every scene."""
    rng = np.random.default_rng(0)
    scenes = rng.uniform(0.2, 0.8, 60)
    scores = {RunKey("human", 0): scenes + 0.15}
    for seed in range(3):
        noise = rng.normal(0.0, 0.01, 60)
        scores[RunKey("plain", seed)] = scenes + noise
        scores[RunKey("better_5%", seed)] = scenes + noise + 0.1 + rng.normal(0.0, 0.001, 60)
    values = {
        run: {f"t{index:02d}": np.array([1.0, value]) for index, value in enumerate(row)}
        for run, row in scores.items()
    }
    return table_of(values, ("NC", "PDMS"))


def test_differences_are_paired_and_rows_without_runs_are_left_to_the_report(table):
    rows = {row.name: row for row in table_rows(table, BASELINES)}
    assert list(rows) == ["human", "plain", "better_5%"]
    found = rows["better_5%"].difference
    assert found is not None and found.mean == pytest.approx(10.0, abs=0.1)
    for low, high in (found.interval, found.bootstrap):
        assert low > 9.9 and high < 10.1
    assert found.num_seeds == 3
    assert rows["human"].score.num_seeds == 1 and rows["plain"].difference is None
    assert rows["better_5%"].column_differences == {"NC": 0.0}


def test_an_untrained_baseline_is_compared_with_every_seed(table):
    known = replace(table, untrained=frozenset({"human"}))
    (row,) = table_rows(known, {"plain": "human"})
    assert row.difference is not None and row.difference.num_seeds == 3
    (other_way,) = table_rows(known, {"human": "plain"})
    assert other_way.difference is not None and other_way.difference.num_seeds == 3
    assert other_way.difference.mean == pytest.approx(-row.difference.mean)


def without(table, *runs):
    kept = [index for index, run in enumerate(table.runs) if run not in runs]
    return replace(table, runs=tuple(table.runs[i] for i in kept), values=table.values[kept])


def test_seeds_that_only_one_of_two_has_are_not_compared(table):
    row = table_rows(without(table, RunKey("better_5%", 2)), BASELINES)[2]
    assert row.score.num_seeds == 2 and row.difference is not None and row.difference.num_seeds == 2

    # a trained baseline with one seed is compared with that seed alone, and the table says so
    fewer = without(table, RunKey("plain", 0), RunKey("plain", 2))
    rows = table_rows(fewer, BASELINES)
    assert rows[2].score.num_seeds == 3
    own = fewer.of("better_5%", "PDMS", [1]) - fewer.of("plain", "PDMS", [1])
    assert rows[2].difference is not None and rows[2].difference.spread is None
    assert rows[2].difference.mean == pytest.approx(own.mean())
    assert f"| {own.mean():+.2f} (1 seed) |" in markdown(rows, "PDMS")
    assert power_table(rows) == ""

    # with none in common there is nothing to compare
    apart = without(fewer, RunKey("better_5%", 1))
    assert table_rows(apart, BASELINES)[2].difference is None


def test_a_sub_score_that_scenes_lack_is_left_out_of_its_mean(table):
    values = table.values.copy()
    values[:, ::2, 0] = np.nan
    rows = table_rows(replace(table, values=values), BASELINES)
    assert rows[0].columns == {"NC": 100.0} and rows[2].column_differences == {"NC": 0.0}
    values[..., 0] = np.nan
    nowhere = replace(table, values=values)
    rows = table_rows(nowhere, BASELINES)
    assert rows[0].columns == {} and "nan" not in markdown(rows, "PDMS")
    values[0, :, 0] = 1.0
    rows = table_rows(replace(table, values=values), BASELINES)
    assert markdown(rows, "PDMS").splitlines()[3].endswith("| - |")


def test_a_single_scene_has_no_interval_and_no_nan(table):
    rows = table_rows(table.part(table.tokens[:1]), BASELINES)
    cells = [cell.strip() for cell in markdown(rows, "PDMS").splitlines()[-1].split("|")[1:-1]]
    assert rows[2].score.num_scenes == 1 and cells[3] == cells[5] == cells[6] == "-"
    assert "nan" not in markdown(rows, "PDMS") + latex(rows, "PDMS")


def test_markdown_latex_and_picture(table):
    rows = table_rows(table, BASELINES)
    text = markdown(rows, "PDMS")
    assert text.splitlines()[0].startswith("| row | seeds | PDMS | 95 % |")
    assert {line.count("|") for line in text.splitlines()} == {text.splitlines()[0].count("|")}
    assert "+10.0" in text.splitlines()[-1]
    assert r"better\_5\%" in latex(rows, "PDMS") and r"$\pm$" in latex(rows, "PDMS")
    assert power_table(rows).splitlines()[-1].startswith("| better_5% | ")
    assert intervals_picture(rows, "PDMS").startswith(b"\x89PNG")


def test_the_picture_has_the_interval_of_the_tables(table, monkeypatch):
    """As the documents do: three seeds that disagree know less than a bootstrap over them says."""
    apart = np.array([0.1 * run.seed if run.row == "plain" else 0.0 for run in table.runs], np.float32)
    rows = table_rows(replace(table, values=table.values + apart[:, None, None]), BASELINES)
    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axes, *args, **kw: drawn.append(args[0]) or plot(axes, *args, **kw)
    )
    intervals_picture(rows, "PDMS")
    shown = [tuple(ends) for ends in drawn if len(ends) == 2]
    found = [each for row in rows for each in (row.score, row.difference) if each is not None]
    assert shown == [each.interval for each in found]
    low, high = rows[2].difference.bootstrap
    assert shown[-1][0] < low < high < shown[-1][1]


def test_files_give_back_what_was_written(tmp_path, table):
    label = ScoreLabel.of(BASES["pdms"], table.tokens)
    table = replace(table, label=label, untrained=frozenset({"human"}))
    write_table(tmp_path, "test", table)
    back = read_table(tmp_path, "test")
    assert (back.runs, back.tokens, back.columns) == (table.runs, table.tokens, table.columns)
    assert (back.label, back.untrained) == (label, {"human"})
    part = back.part(["t01", "t02"]).label
    assert part is not None and part.num_scenes == 2 and not part.differences(label)
    told = replace(table, label=replace(label, data="1"))
    assert told.part(table.tokens).label == told.label
    fewer = told.part(["t01"]).label
    assert fewer is not None and fewer.data == ""  # (of other logs, maybe)
    np.testing.assert_array_equal(back.values, table.values)
    values = {"plain": {"config": "a", "weight": "0"}, "better_5%": {"config": "b", "weight": "5"}}
    first = table.runs[1]
    write_runs(tmp_path, {"test": table}, values, {first: "epoch_1.pth"}, {first: 2.0})
    lines = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert len(lines) == 7
    assert lines[1] == {
        "row": "plain",
        "seed": "0",
        "config": "a",
        "weight": "0",
        "part": "test",
        "checkpoint": "epoch_1.pth",
        "num_scenes": "60",
        "PDMS": f"{table.of('plain', 'PDMS', [0]).mean():.4f}",
        "NC": "100.0000",
        "train_seconds": "2.0",
    }


def test_what_cannot_be_compared_is_refused(tmp_path, table):
    with pytest.raises(StatisticsError, match="other scenes than the rest, such as t00"):
        table_of({RunKey("a", 0): {"t00": np.zeros(2)}, RunKey("b", 0): {"t01": np.zeros(2)}}, ("NC", "PDMS"))
    with pytest.raises(StatisticsError, match="row 'plain' has no scores of seed 9"):
        table.of("plain", "PDMS", [0, 9])
    with pytest.raises(StatisticsError, match="1 of 2 scenes have no scores"):
        table.part(["t00", "elsewhere"])
    assert table.part(["t05", "t01"]).tokens == ("t01", "t05")
    (tmp_path / "scores_test.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(StatisticsError, match=r"scores_test\.npz: no scores of a sweep"):
        read_table(tmp_path, "test")
