"""Curves of trainings: resumed parts are joined, damage is named, and the table tells the best value."""

import json

import cv2
import numpy as np
import pytest

from beyonddrive.tools import analyze_logs
from beyonddrive.visualization.training_curves import LogError, Point, choose_keys, read_run


def log(work, stamp, lines):
    path = work / stamp / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def training(iteration, loss, epoch=1):
    return {"lr": 0.1, "loss": loss, "time": 1.0, "epoch": epoch, "iter": iteration, "step": iteration}


@pytest.fixture
def work(tmp_path):
    """A training that was killed after six iterations and resumed after four."""
    first = [training(2, 5.0), training(4, 4.0), {"pdms/PDMS": 60.0, "pdms/num_scenes": 3, "step": 1}]
    log(tmp_path / "work", "20260101_000000", [*first, training(6, 9.0, 2)])
    second = [training(6, 3.0, 2), training(8, float("nan"), 2), {"pdms/PDMS": 55.0, "step": 2}]
    log(tmp_path / "work", "20260102_000000", second)
    return tmp_path / "work"


def test_resumed_parts_are_joined_and_validations_lie_among_the_iterations(work):
    run = read_run("a", work)
    assert [point.iteration for point in run.curves["loss"]] == [2, 4, 6, 8]
    assert run.curves["loss"][2].value == 3.0  # the value of the part that went on
    assert run.curves["pdms/PDMS"] == [Point(4, 1, 60.0), Point(8, 2, 55.0)]
    assert choose_keys([run]) == ["loss", "pdms/PDMS"]
    assert choose_keys([run], ["lr", "pdms/*"]) == ["lr", "pdms/PDMS", "pdms/num_scenes"]


def test_the_command_prints_a_table_and_draws_a_line_for_each_run(work, tmp_path, capsys):
    other = log(tmp_path, "other", [training(2, 8.0), training(8, 7.0)])
    out = tmp_path / "curves.png"
    assert analyze_logs.main([str(work), f"baseline={other}", "--out", str(out)]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert table[0] == ["loss", "work", "nan", "3.0000", "2", "6"]
    assert table[1] == ["loss", "baseline", "7.0000", "7.0000", "1", "8"]
    assert table[2] == ["pdms/PDMS", "work", "55.0000", "60.0000", "1", "4"]
    picture = cv2.imread(str(out))
    assert picture.shape == (384, 1200, 3)
    for bgr in ((180, 119, 31), (14, 127, 255)):  # matplotlib's first two colours
        assert (np.abs(picture.astype(int) - bgr).max(axis=-1) < 3).sum() > 50


def test_bad_logs_are_named(work, tmp_path, capsys):
    assert analyze_logs.main([str(tmp_path / "nothing")]) == 1
    assert "nothing: no log here; give a work folder" in capsys.readouterr().err
    assert analyze_logs.main([str(work), "--keys", "loss_*"]) == 1
    assert "loss_*: no figure fits; logged are lr, loss" in capsys.readouterr().err
    path = log(tmp_path, "cut", [training(2, 8.0)])
    path.write_text(path.read_text() + '{"loss": 1')
    with pytest.raises(LogError, match=r"scalars\.json: line 2 is no line of figures"):
        read_run("cut", path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LogError, match=r"scalars\.json: cannot be read as a log of figures"):
        read_run("cut", path)


@pytest.mark.parametrize(
    ("first", "losses"), [(1, {1: 5.0}), (11, {10: 1.0, 11: 5.0}), (None, {1: 5.0, 10: 1.0, 20: 0.5})]
)
def test_what_is_of_another_training_from_where_a_later_one_began_does_not_count(tmp_path, first, losses):
    begun = [training(1, 2.0), training(10, 1.0), {"pdms/PDMS": 70.0, "step": 1}]
    log(tmp_path, "20261101_100000", [*begun, training(20, 0.5, epoch=2), {"pdms/PDMS": 90.0, "step": 2}])
    log(tmp_path, "20261101_120000", [training(first or 1, 5.0)])
    if first is not None:
        (tmp_path / "20261101_100000/run.json").write_text(json.dumps({"first_step": 1}))
        (tmp_path / "20261101_120000/run.json").write_text(json.dumps({"first_step": first}))
    curves = read_run("run", tmp_path).curves
    found = {point.iteration: point.value for point in curves["loss"]}
    assert found == losses | ({1: 2.0} if first == 11 else {})
    scores = [point.value for point in curves.get("pdms/PDMS", ())]
    assert scores == {1: [], 11: [70.0], None: [70.0, 90.0]}[first]


def test_a_validation_that_a_resumed_part_begins_with_lies_at_the_end_of_its_epoch(tmp_path):
    first = [training(50, 5.0), training(100, 4.0), {"pdms/PDMS": 50.0, "step": 1}, training(200, 3.0, 2)]
    log(tmp_path / "work", "20260101_000000", first)  # killed before the validation after epoch 2
    log(tmp_path / "work", "20260102_000000", [{"pdms/PDMS": 60.0, "step": 2}, training(300, 2.0, 3)])
    run = read_run("a", tmp_path / "work")
    assert run.curves["pdms/PDMS"] == [Point(100, 1, 50.0), Point(200, 2, 60.0)]


def test_validations_of_a_training_by_iterations_lie_at_their_steps(tmp_path):
    """Also those between two lines of the training, and before the first one."""

    def step(iteration):
        return {"loss": 1.0, "iter": iteration, "step": iteration}

    first = [{"pdms/PDMS": 10.0, "step": 20}, {"pdms/PDMS": 30.0, "step": 40}, step(50)]
    log(tmp_path / "work", "20260101_000000", [*first, {"pdms/PDMS": 20.0, "step": 60}])
    log(tmp_path / "work", "20260102_000000", [{"pdms/PDMS": 25.0, "step": 60}])
    run = read_run("a", tmp_path / "work")
    assert run.curves["pdms/PDMS"] == [Point(20, 0, 10.0), Point(40, 0, 30.0), Point(60, 0, 25.0)]


def test_the_best_of_an_error_is_the_smallest(tmp_path, capsys):
    lines = [{"detection/ATE_vehicle": 0.5, "detection/AP_vehicle": 0.5, "step": 1}, training(4, 1.0, 2)]
    lines.append({"detection/ATE_vehicle": 0.75, "detection/AP_vehicle": 0.75, "step": 2})
    assert analyze_logs.main([str(log(tmp_path, "run", lines)), "--keys", "detection/*"]) == 0
    best = {line.split()[0]: line.split()[3] for line in capsys.readouterr().out.splitlines()[1:]}
    assert best == {"detection/ATE_vehicle": "0.5000", "detection/AP_vehicle": "0.7500"}
