"""Calibrated rows have the best calibration of their own planner."""

from dataclasses import replace

import pytest

from beyonddrive.engine.sweeps.plan import Row
from beyonddrive.results.effect.calibrated import check_calibration

HEADER = "turn,stretch,PDMS,PDMS of file 0\n"


def rows(turn, stretch):
    options = {"model.calibration.turn": turn, "model.calibration.stretch": stretch}
    return (Row("A", "a"), Row("A, calibrated", "a", options=options, weights="A"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + "0,0.9,70.0,70.0\n0.01,0.8,72.0,72.0\n")
    return tmp_path


def test_the_best_of_the_file_is_what_the_row_has(folder):
    assert check_calibration(rows("0.01", "0.80"), folder) == []
    (problem,) = check_calibration(rows("0", "0.9"), folder)
    assert "'A, calibrated'" in problem and "0.01" in problem


def test_rows_whose_planner_is_understood_have_its_file(folder):
    (folder / "a.csv").rename(folder / "ltf-a.csv")
    assert check_calibration(rows("0.01", "0.8"), folder) == []
    assert "ltf-a.csv" in check_calibration(rows("0", "0.8"), folder)[0]


def test_half_a_calibration_is_told(folder):
    plain, calibrated = rows("0.01", "0.8")
    half = replace(calibrated, options={"model.calibration.turn": "0.01"})
    assert "no model.calibration.stretch" in check_calibration((plain, half), folder)[0]


def test_a_file_that_is_not_there_is_told(folder):
    (folder / "a.csv").unlink()
    assert "a.csv: is not there" in check_calibration(rows("0.01", "0.8"), folder)[0]


def test_plans_of_another_planner_are_told(folder):
    # (two files of plans, of which the second is the other planner's)
    (folder / "b.csv").write_text(
        HEADER.strip() + ",PDMS of file 1\n0,0.9,69.0,68.0,70.0\n0.01,0.8,71.0,70.0,72.0\n"
    )
    assert check_calibration(rows("0.01", "0.8"), folder) == [
        "b.csv: 'PDMS of file 1' is that of a.csv: plans of another planner"
    ]
