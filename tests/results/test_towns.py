"""Standard errors over towns."""

import numpy as np
import pytest
from scipy import stats

from beyonddrive.results.effect import towns
from beyonddrive.results.effect.towns import check_towns, error_over_towns


def test_towns_of_one_scene_are_scenes():
    values = np.random.default_rng(0).normal(size=60)
    assert error_over_towns(values, np.arange(60).astype(str)) == pytest.approx(stats.sem(values))


def test_scenes_that_are_alike_count_once():
    values = np.random.default_rng(1).normal(size=60)
    towns = np.arange(60).astype(str)
    found = error_over_towns(np.tile(values, 4), np.tile(towns, 4))
    assert found == pytest.approx(stats.sem(values)) and found > 1.9 * stats.sem(np.tile(values, 4))


def test_rows_of_other_runs_than_are_kept_are_found(tmp_path, monkeypatch):
    assert check_towns() == []
    text = towns.OUT.read_text()
    monkeypatch.setattr(towns, "OUT", tmp_path / "towns.csv")
    row = '"planners: LTF, near",LTF,0.54'
    assert text.count(row) == 1
    towns.OUT.write_text(text.replace(row, row.replace("0.54", "0.60")))  # as of fewer seeds
    assert check_towns() == [
        "towns.csv: 'planners: LTF, near' is of other runs than are kept; "
        "run results/effect/towns.py with the world of the test split"
    ]
    lines = text.splitlines()
    towns.OUT.write_text("\n".join(line for line in lines if "controls: online" not in line))
    assert len(check_towns()) == 1 and "'controls: online'" in check_towns()[0]
