"""Average precision joins the results from the logs of a sweep's tests."""

import csv
import json
import sys

import pytest

from beyonddrive.results import tables
from beyonddrive.results.lidar import detection

PLAN = """
seeds: [0, 1]
rows:
  blind: {config: a}
  seeing: {config: b, baseline: blind}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A sweep with two seeds of two rows, and a folder for the tables."""
    (tmp_path / "two").mkdir()
    (tmp_path / "two.yml").write_text(PLAN)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for row, gain in (("blind", 0.0), ("seeing", 40.0)):
        for seed in (0, 1):
            write_run(tmp_path / "sweep", row, seed, {"AP_vehicle": gain + seed, "AP_pedestrian": 2 * gain})
    return tmp_path


def write_run(sweep, row, seed, figures):
    folder = sweep / "runs" / row / f"seed{seed}"
    (folder / "test" / "20260101_000000").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"seed": seed}))
    rest = dict.fromkeys(detection.FIGURES, 0.5)
    named = {f"detection/{name}": value for name, value in {**rest, **figures}.items()}
    (folder / "test" / "20260101_000000" / "20260101_000000.json").write_text(
        json.dumps({**named, "pdms/PDMS": 70.0})
    )


def call(monkeypatch, sweep):
    monkeypatch.setattr(sys, "argv", ["detection", str(sweep), "two"])
    detection.main()


def test_runs_and_rows_are_written(place, monkeypatch, capsys):
    call(monkeypatch, place / "sweep")
    runs = list(csv.DictReader((place / "two" / "detection_runs.csv").read_text().splitlines()))
    assert [(run["row"], run["seed"], run["AP_vehicle"]) for run in runs] == [
        ("blind", "0", "0.0000"), ("blind", "1", "1.0000"),
        ("seeing", "0", "40.0000"), ("seeing", "1", "41.0000"),
    ]  # fmt: skip
    blind, seeing = csv.DictReader((place / "two" / "detection.csv").read_text().splitlines())
    assert (blind["vehicles"], blind["vehicles, differences"]) == ("0.5 ± 0.7", "")
    assert (seeing["vehicles"], seeing["vehicles, differences"]) == ("40.5 ± 0.7", "+40.0, +40.0")
    assert seeing["pedestrians, differences"] == "+80.0, +80.0"
    assert "seeing,2,40.5 ± 0.7" in capsys.readouterr().out


def test_a_run_without_boxes_is_refused(place, monkeypatch):
    log = next((place / "sweep" / "runs" / "seeing" / "seed1" / "test").glob("*/*.json"))
    log.write_text(json.dumps({"pdms/PDMS": 70.0}))
    with pytest.raises(SystemExit, match=r"has no detection/mAP; its config has no DetectionMetric"):
        call(monkeypatch, place / "sweep")
    log.unlink()
    with pytest.raises(SystemExit, match="seed1/test: has no log of a test"):
        call(monkeypatch, place / "sweep")
    with pytest.raises(SystemExit, match=r"no complete run of the plan"):
        call(monkeypatch, place / "nowhere")
