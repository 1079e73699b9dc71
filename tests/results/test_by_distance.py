"""The picture of gains by the distance of the nearest failure."""

from types import SimpleNamespace

import numpy as np
import pytest

from beyonddrive.evaluation.statistics.score_table import RunKey, table_of
from beyonddrive.results.effect import by_distance
from beyonddrive.results.pictures import write_picture
from beyonddrive.visualization.picture_values import shows
from beyonddrive.visualization.sweep_tables import table_rows

BASELINES = {
    **dict.fromkeys("ABC"),
    **{f"{name}, published": name for name in "ABCD"},
    "B, margin": "B",
    **{f"{name}, calibrated": name for name in "ABC"},
    **{f"{name}, published, calibrated": f"{name}, calibrated" for name in "ABC"},
}


class Kept:
    """Two bands; B, published has one seed and is 20 points better in the nearer band."""

    parts = ("test", "failure_within_0.5m", "failure_beyond_2m")
    plan = SimpleNamespace(rows=[SimpleNamespace(name=name) for name in BASELINES])

    def scores(self, part):
        rng = np.random.default_rng(0)
        gains = {"A": 0.0, "A, published": 0.1, "B": 0.0, "B, margin": 0.3, "B, calibrated": 0.25}
        gains["B, published"] = 0.2 if part == "failure_within_0.5m" else 0.0
        scenes = rng.uniform(0.2, 0.6, 30)
        return table_of(
            {
                RunKey(row, seed): {f"t{i:02d}": np.array([value]) for i, value in enumerate(scenes + gain)}
                for row, gain in gains.items()
                for seed in range(1 if row == "B, published" else 2)
            },
            ("PDMS",),
        )

    def rows(self, scores):
        return table_rows(scores, BASELINES)


def test_rows_are_compared_band_by_band():
    found = by_distance.gains(Kept())
    assert {panel: list(rows) for panel, rows in found.items()} == {
        "published recipe": ["A", "B"],
        "calibration, no negatives": ["B"],
        "published recipe, both calibrated": [],
    }
    recipe = found["published recipe"]
    assert list(recipe["B"]) == ["failure_within_0.5m", "failure_beyond_2m"]
    assert recipe["B"]["failure_within_0.5m"].mean == pytest.approx(20.0, abs=0.01)
    assert recipe["B"]["failure_beyond_2m"].mean == pytest.approx(0.0, abs=0.01)
    assert found["calibration, no negatives"]["B"]["failure_beyond_2m"].mean == pytest.approx(25.0, abs=0.01)
    assert [recipe[name]["failure_beyond_2m"].num_seeds for name in "AB"] == [2, 1]


def test_a_picture_knows_what_it_shows(tmp_path):
    found = by_distance.gains(Kept())
    values, path = by_distance.values_of(found), tmp_path / "picture.png"
    assert not shows(path, values)
    write_picture(path, by_distance.drawn(found), values)
    assert path.read_bytes().startswith(b"\x89PNG") and shows(path, values)
    values["published recipe"]["A"]["failure_beyond_2m"]["mean"] += 0.01
    assert not shows(path, values)


def test_without_a_published_row_there_is_no_picture(tmp_path, monkeypatch):
    nothing = SimpleNamespace(parts=[], plan=SimpleNamespace(rows=[]))
    monkeypatch.setattr(by_distance, "KeptTable", lambda name: nothing)
    monkeypatch.setattr(by_distance, "PICTURE", tmp_path / "p.png")
    with pytest.raises(SystemExit, match="no row with the published recipe"):
        by_distance.main()
    assert not list(tmp_path.iterdir())
