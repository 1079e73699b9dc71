"""Speeds of episodes are read from their records."""

import csv
import json
import pickle

import numpy as np
import pytest

from beyonddrive.evaluation.closed_loop.hugsim.record import Frame
from beyonddrive.results.closed_loop import speeds


def write_record(folder, moved):
    """An episode that moves so far [m] in each step."""
    folder.mkdir(parents=True)
    frames = [
        Frame(
            0.25 * i, np.array([x, 0, 0, 2, 4, 1.5, 0]), np.empty((0, 7)), (), np.zeros((1, 3)), 0.5, False, 0
        )
        for i, x in enumerate(np.concatenate([[0.0], np.cumsum(moved)]))
    ]
    record = [{"type": "closeloop", "frames": [frame.to_dict() for frame in frames]}]
    (folder / "data.pkl").write_bytes(pickle.dumps(record))
    run = folder.parents[1]
    (run / "settings.json").write_text(json.dumps({"recipe": "r", "checkpoint": run.name, "lidar": False}))


def run(monkeypatch, *texts):
    monkeypatch.setattr("sys.argv", ["speeds", "--run", *texts])
    speeds.main()
    return {line["row"]: line for line in csv.DictReader(speeds.OUT.read_text().splitlines())}


def test_speeds_of_episodes_that_last_and_the_share_that_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(speeds, "OUT", tmp_path / "speeds.csv")
    write_record(tmp_path / "a" / "seed_0" / "brakes", [2.0] * 4 + [1.0] * 4 + [0.1] * 12)
    write_record(tmp_path / "b" / "seed_0" / "crashes", [1.0] * 5)
    lines = run(monkeypatch, f"both={tmp_path / 'a'},{tmp_path / 'b'}")
    wanted = {"episodes": "2", "start": "6.00", "1 s": "4.00", "2 s": "0.40", "4 s": "0.40", "stands": "48.0"}
    runs = speeds.runs_digest({"recipe": "r", "checkpoint": name} for name in "ba")
    assert lines == {"both": {"row": "both", **wanted, "runs": runs}}
    lines = run(monkeypatch, f"b={tmp_path / 'b'}")
    assert list(lines) == ["both", "b"] and lines["b"]["2 s"] == "" and lines["b"]["stands"] == "0.0"


def test_runs_of_ones_own_go_to_another_table(tmp_path, monkeypatch):
    monkeypatch.setattr(speeds, "OUT", tmp_path / "kept.csv")
    write_record(tmp_path / "a" / "seed_0" / "drives", [1.0] * 20)
    own = tmp_path / "own.csv"
    monkeypatch.setattr("sys.argv", ["speeds", "--run", f"a={tmp_path / 'a'}", "--out", str(own)])
    speeds.main()
    assert "a,1," in own.read_text() and not speeds.OUT.exists()


def test_a_folder_without_episodes_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speeds, "OUT", tmp_path / "speeds.csv")
    with pytest.raises(SystemExit):
        run(monkeypatch, f"none={tmp_path}")
    assert "no episodes in" in capsys.readouterr().err and not speeds.OUT.exists()


def test_speeds_of_other_runs_than_are_kept_are_found(tmp_path, monkeypatch):
    assert speeds.check_speeds() == []
    text = speeds.OUT.read_text()
    monkeypatch.setattr(speeds, "OUT", tmp_path / "speeds.csv")
    assert text.count("LTF,480,") == 1
    speeds.OUT.write_text(text.replace("LTF,480,", "LTF,160,"))  # as of one training
    (problem,) = speeds.check_speeds()
    assert "speeds.csv: 'LTF' is of 160 episodes, but runs of 480 are kept" in problem
    (line,) = (line for line in text.splitlines() if line.startswith("LTF,480,"))
    for other in ("0" * 16, ""):  # as of as many episodes with weights that are replaced since
        speeds.OUT.write_text(text.replace(line, line.rpartition(",")[0] + "," + other))
        (problem,) = speeds.check_speeds()
        assert "'LTF' is of runs with other weights or settings" in problem
