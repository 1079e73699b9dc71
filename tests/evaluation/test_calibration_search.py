"""The search of a calibration, on golden scenes: what it scores, what it chooses, what it refuses."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.evaluation import calibration_search
from beyonddrive.evaluation.calibration_search import (
    CalibrationError,
    CalibrationGrid,
    search_calibration,
)
from beyonddrive.evaluation.scene_scoring import ScoreSettings
from beyonddrive.evaluation.split_scoring import SplitScoring
from beyonddrive.structures.calibration import PlanCalibration
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.tools import calibrate as tool

GOLDEN = Path(__file__).parents[1] / "data/golden/pdms"
SPLIT = "golden"


@pytest.fixture(scope="module")
def root():
    return NavsimRoot(GOLDEN / "data")


@pytest.fixture(scope="module")
def plans():
    """Two plans of each golden scene."""
    found = {}
    for path in sorted((GOLDEN / "scores").glob("*.npz")):
        with np.load(path) as data:
            found[path.stem.split("__")[1]] = data["poses"][data["stable"]][:2].astype(np.float32)
    return found


@pytest.fixture
def files(plans, tmp_path):
    paths = [tmp_path / "first.npz", tmp_path / "second.npz"]
    for number, path in enumerate(paths):
        np.savez(path, **{token: both[number] for token, both in plans.items()})
    return paths


def moved(plans, calibration):
    return {token: calibration(torch.from_numpy(given)).numpy() for token, given in plans.items()}


def test_each_calibration_has_the_scores_of_plans_that_were_moved_beforehand(root, plans, files):
    grid = search_calibration(root, SPLIT, files, (0.1, 0.0), (1.0, 0.7), progress_bar=False)
    assert grid.turns == (0.0, 0.1) and grid.stretches == (0.7, 1.0) and grid.num_scenes == len(plans)
    for calibration in (PlanCalibration(), PlanCalibration(0.1, 0.7)):
        scored = SplitScoring(root, SPLIT, moved(plans, calibration)).run(progress_bar=False)
        expected = np.mean([result.values for result in scored], axis=0)
        place = (slice(None), *grid.place(calibration))
        np.testing.assert_allclose(grid.scores[place], expected, rtol=0, atol=1e-12)
    assert len(np.unique(grid.means)) == 4


def test_by_epdms_it_is_what_score_gives_for_version_2(root, plans, files, capsys):
    grid = search_calibration(root, SPLIT, files, (0.1,), (0.7,), version="v2", progress_bar=False)
    assert grid.columns[-1] == "EPDMS_without_EC" and grid.scores.shape == (2, 1, 1, 9)
    settings = ScoreSettings(version="v2")
    scored = SplitScoring(root, SPLIT, moved(plans, PlanCalibration(0.1, 0.7)), settings)
    expected = np.mean([result.values for result in scored.run(progress_bar=False)], axis=0)
    np.testing.assert_allclose(grid.scores[:, 0, 0], expected, rtol=0, atol=1e-12)
    names = [f"EPDMS_without_EC{of}" for of in ("", " of file 0", " of file 1")]
    assert list(grid.lines()[0])[-3:] == names
    where = ["--data-root", str(GOLDEN / "data"), "--split", SPLIT, "--plans", *map(str, files)]
    assert tool.main([*where, "--turn", "0", "--stretch", "0.9", "1", "--version", "v2"]) == 0
    assert capsys.readouterr().out.startswith("EPDMS_without_EC [%], mean of 2 x")


def grid_of(pdms, turns=(0.0, 0.1, 0.2), stretches=(0.8, 0.9, 1.0)):
    scores = np.zeros((1, len(turns), len(stretches), len(SCORE_COLUMNS)))
    scores[0, ..., SCORE_COLUMNS.index("PDMS")] = pdms
    return CalibrationGrid(turns, stretches, scores, 10)


def test_the_best_moves_plans_least_among_equals_and_an_edge_is_named():
    inner = grid_of([[0.1, 0.2, 0.3], [0.1, 0.8, 0.2], [0.1, 0.1, 0.1]])
    assert inner.best == PlanCalibration(0.1, 0.9) and inner.at_the_edge == []
    equal = grid_of(np.full((3, 3), 0.5))
    assert equal.best == PlanCalibration(0.0, 1.0) and equal.at_the_edge == ["turn", "stretch"]
    assert grid_of([[0.3, 0.2, 0.1]], turns=(0.0,)).at_the_edge == ["stretch"]


def test_the_command_prints_the_table_and_the_line_for_the_config(files, tmp_path, capsys):
    out = tmp_path / "grid.csv"
    where = ["--data-root", str(GOLDEN / "data"), "--split", SPLIT, "--plans", *map(str, files)]
    code = tool.main([*where, "--turn", "0", "0.1", "--stretch", "0.9", "1", "--out", str(out)])
    printed = capsys.readouterr().out
    assert code == 0 and "| turn | 0.9 | 1 |" in printed
    best = re.search(r"best: model.calibration.turn=(\S+) model.calibration.stretch=(\S+)", printed)
    rows = [line.split(",") for line in out.read_text().splitlines()]
    place = rows[0].index("PDMS")
    largest = max(rows[1:], key=lambda row: float(row[place]))
    assert best is not None and list(best.groups()) == largest[:2]
    assert rows[0][-2:] == ["PDMS of file 0", "PDMS of file 1"] and len(rows) == 5


def test_by_default_plans_are_turned_to_both_sides_and_may_become_longer():
    """Where one drives on the left, failures push plans to the right."""
    args = tool.parse_args(["--data-root", "r", "--split", "val", "--plans", "p.npz"])
    assert [-turn for turn in reversed(args.turn)] == list(args.turn) and 0.0 in args.turn
    assert min(args.stretch) < 1.0 < max(args.stretch) and 1.0 in args.stretch
    # (those that kept results were chosen from are among them, digit by digit)
    assert {0.0, 0.005, 0.01, 0.015, 0.02, 0.025} < set(args.turn)
    assert {0.76, 0.8, 0.84, 0.88, 0.92, 0.96, 1.0} < set(args.stretch)


def test_files_of_other_scenes_and_scenes_without_scores_are_refused(root, files, plans, tmp_path):
    token, *rest = plans
    np.savez(tmp_path / "part.npz", **{token: plans[token][0] for token in rest})
    with pytest.raises(CalibrationError, match=f"part.npz: has plans of other scenes .* such as {token}"):
        search_calibration(root, SPLIT, [files[0], tmp_path / "part.npz"], (0.0,), (1.0,))
    np.savez(tmp_path / "unknown.npz", **{"f" * 16: plans[token][0], token: plans[token][0]})
    with pytest.raises(CalibrationError, match=r"1 of 2 scenes have no scores, such as ffff"):
        search_calibration(root, SPLIT, [tmp_path / "unknown.npz"], (0.0,), (1.0,), progress_bar=False)
    np.savez(tmp_path / "many.npz", **plans)
    with pytest.raises(CalibrationError, match=r"needs one plan \(8, 3\), got \(2, 8, 3\)"):
        search_calibration(root, SPLIT, [tmp_path / "many.npz"], (0.0,), (1.0,), progress_bar=False)


def test_a_table_that_cannot_be_written_is_said_before_the_work(root, files, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(calibration_search, "search_calibration", None)
    where = ["--data-root", str(root.root), "--split", "golden", "--plans", *map(str, files)]
    assert tool.main([*where, "--out", str(tmp_path / "file/table.csv")]) == 1
    assert "file/table.csv: cannot be written" in capsys.readouterr().err
