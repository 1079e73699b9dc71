"""The relation of open and closed loop is that of the scores."""

import numpy as np

from beyonddrive.results import check
from beyonddrive.results.closed_loop import relate


def test_a_changed_correlation_is_found(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    points = {f"row {index}": [tuple(pair) for pair in rng.uniform(0, 90, (2, 2))] for index in range(6)}
    monkeypatch.setattr(relate, "current", lambda: points)
    monkeypatch.setattr(relate, "TABLE", tmp_path / "relation.csv")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "CELLS", (relate,))
    monkeypatch.setattr(relate, "_RESAMPLES", 50)
    assert check.check_cells(write=True) and not check.check_cells(write=False)
    text = relate.TABLE.read_text()
    name, points_of, correlation = text.splitlines()[1].split(",")[:3]
    assert (name, points_of) == ("trainings", "12") and correlation[0] in "+-"
    for old, new in ((correlation, "+0.99"), (" to ", " to +"), (",12,", ",13,")):
        relate.TABLE.write_text(text.replace(old, new, 1))
        assert check.check_cells(write=False) == ["relation.csv: is not what the scores give"]
    check.check_cells(write=True)
    assert relate.TABLE.read_text() == text
