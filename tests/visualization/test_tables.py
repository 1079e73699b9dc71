"""The table of planners: what compares, means, text and markdown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.evaluation.score_results import EPDMS, Results, ResultsError
from beyonddrive.visualization.tables import ScoreRow, best_values, format_table, parse_named, summarise


def planner(label, **values):
    """Scores of a planner by scene, as if they were read."""
    return Results(label, Path(f"{label}.csv"), {token: np.array(row) for token, row in values.items()})


@pytest.fixture
def ltf():
    scores = planner("LTF", a=[1, 1, 0.5, 1, 1, 1, 0.8], b=[0, 1, 0, 0, 1, 0.5, 0])
    return replace(scores, failures={"c": "no map"})


def test_means_are_percent_over_scored_scenes(ltf):
    (row,) = summarise([ltf])
    assert (row.num_scenes, row.num_failed) == (2, 1)
    assert row["PDMS"] == pytest.approx(40.0) and row["NC"] == pytest.approx(50.0)
    assert row["EP"] == pytest.approx(25.0) and row["DDC"] == pytest.approx(75.0)


def test_planners_are_compared_on_the_same_scenes(ltf):
    results = [ltf, planner("human", a=[1.0] * 7, d=[1.0] * 7)]
    with pytest.raises(ResultsError, match=r"LTF\.csv: 1 of 2 scenes .* the first is b"):
        summarise(results)
    rows = summarise(results, common_scenes=True)
    assert [(row.num_scenes, row["PDMS"]) for row in rows] == [(1, pytest.approx(80.0)), (1, 100.0)]
    with pytest.raises(ResultsError, match="no scene is scored in all"):
        summarise([ltf, planner("x", z=[1.0] * 7)], common_scenes=True)


def test_results_of_navsim_v2_are_compared_with_their_like(ltf):
    first = planner("one", a=[1, 1, 1, 1, 0.5, 1, 1, 1, np.nan, 0.8], b=[1, 0, 1, 1, 0, 1, 1, 1, 1, 0])
    first = replace(first, kind=EPDMS)
    rows = summarise([first, replace(first, label="two")])
    assert rows[0]["EPDMS"] == pytest.approx(40.0) and rows[0]["DAC"] == pytest.approx(50.0)
    assert rows[0]["EC"] == 100.0  # over the scene that has it
    assert format_table(rows).split()[:3] == ["planner", "EPDMS", "NC"]
    with pytest.raises(ResultsError, match=r"LTF\.csv: holds PDM score.*one\.csv holds EPDMS"):
        summarise([first, ltf])


def test_text_columns_line_up_and_every_planner_has_a_line():
    rows = [ScoreRow("human", np.full(7, 100.0), 12), ScoreRow("LTF + BeyondDrive", np.full(7, 5.25), 12, 3)]
    lines = format_table(rows).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["planner", "PDMS", "NC", "DAC", "EP", "TTC", "C", "DDC", "scenes", "failed"]
    assert lines[3].startswith("LTF + BeyondDrive") and lines[3].split()[-2:] == ["12", "3"]
    assert format_table([]).count("\n") == 1


def test_markdown_marks_the_best_planner_but_not_the_human():
    rows = [
        ScoreRow("human", np.full(7, 100.0), 2),
        ScoreRow("a|b", np.full(7, 50.0), 2),
        ScoreRow("LTF", np.full(7, 60.0), 2),
    ]
    lines = format_table(rows, "markdown").splitlines()
    assert lines[1] == "| --- |" + " ---: |" * 8
    assert "**" not in lines[2] and "**" not in lines[3] and lines[4].count("**60.0**") == 7
    assert lines[3].startswith("| a\\|b |")


def test_named_arguments_must_be_pairs_with_different_names():
    assert parse_named(["a = b=c.csv"], "--row") == [("a", " b=c.csv")]
    for bad in (["a"], ["=x"], ["a="], ["a=b", "a=c"]):
        with pytest.raises(ResultsError, match="--row"):
            parse_named(bad, "--row")


def test_the_best_of_a_column_is_among_the_planners_that_have_it():
    rows = [ScoreRow(name, np.array([value, *[50.0] * 6]), 3) for name, value in (("a", np.nan), ("b", 60.0))]
    assert best_values(rows)[rows[0].kind.columns[0]] == 60.0
    assert "**60.0**" in format_table(rows, "markdown")
