"""Golden files: compared whole, or what is missing is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.checkpoints.golden import Comparison, GoldenError, GoldenFile, load_recipe
from beyonddrive.tools import check_golden

ROOT = Path(__file__).parents[2]


GOLDEN = ROOT / "tests" / "data" / "golden" / "models"


@pytest.fixture
def golden_copy(tmp_path):
    for name in ("recipe.py", *(f"ego_status_mlp.{end}" for end in ("keys.json", "npz", "meta.json"))):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    return tmp_path


def test_check_golden_passes_and_says_what_it_compared(golden_copy, capsys):
    assert check_golden.main([str(golden_copy)]) == 0
    line = capsys.readouterr().out
    assert line.startswith("ego_status_mlp") and "2 arrays, worst" in line and line.rstrip().endswith("pass")
    assert check_golden.main([str(golden_copy), "--planner", "ego_mlp"]) == 0
    assert check_golden.main([str(golden_copy), "--planner", "navsim_ltf"]) == 1
    assert "nothing of planner 'navsim_ltf' was compared" in capsys.readouterr().err


def test_check_golden_fails_on_other_numbers_and_on_arrays_it_does_not_know(golden_copy, capsys):
    path = golden_copy / "ego_status_mlp.npz"
    with np.load(path) as arrays:
        values = {key: arrays[key] for key in arrays.files}
    np.savez(path, **{**values, "out/trajectory": values["out/trajectory"] + 1e-3})
    assert check_golden.main([str(golden_copy)]) == 1
    assert "FAIL: 1 beyond the tolerance (out/trajectory" in capsys.readouterr().out
    np.savez(path, **values, **{"out/unheard_of": np.zeros(1)})
    assert check_golden.main([str(golden_copy)]) == 1
    assert "1 not compared (out/unheard_of)" in capsys.readouterr().out
    keys = golden_copy / "ego_status_mlp.keys.json"
    listed = json.loads(keys.read_text())
    listed["keys"]["_mlp.0.weight"] = [[512, 9], "float32"]
    keys.write_text(json.dumps(listed))
    assert check_golden.main([str(golden_copy)]) == 1
    assert "of another size" in capsys.readouterr().out


def test_check_golden_needs_golden_files(tmp_path, golden_copy, capsys):
    (golden_copy / "ego_status_mlp.npz").unlink()
    assert check_golden.main([str(golden_copy)]) == 1
    assert "nothing was compared" in capsys.readouterr().err
    assert check_golden.main([str(tmp_path / "absent")]) == 1
    with pytest.raises(GoldenError, match="no such file"):
        GoldenFile(golden_copy, "absent", load_recipe(GOLDEN))


def test_comparisons_see_shapes_and_nan():
    zeros = np.zeros((2, 2))
    assert Comparison("a", zeros, zeros).passed
    assert not Comparison("a", zeros[0], zeros).passed
    assert not Comparison("a", np.full((2, 2), np.nan), zeros).passed
    assert not Comparison("a", zeros, np.full((2, 2), np.nan)).passed
    assert Comparison("a", zeros + 1.9e-5, zeros).passed and not Comparison("a", zeros + 2.1e-5, zeros).passed
