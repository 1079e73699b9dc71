"""Runs that a table takes over from another one."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from beyonddrive.engine.sweeps.plan import Row, SweepPlan
from beyonddrive.results import keep, tables

PLAN = """
title: Fewer scenes
seeds: [0]
loaders: [val]
options: {train_dataloader.dataset.scene_filter: "${data_root}/scene_filters/train_6000.yaml"}
rows:
  LTF, 1200 scenes:
    config: ltf_tiny_1xb16-12e_synth
    options: {train_dataloader.dataset.scene_filter: "${data_root}/scene_filters/train_1200.yaml"}
  published, 1200 scenes:
    config: ltf-beyonddrive_tiny_1xb16-12e_synth
    options: {train_dataloader.dataset.scene_filter: "${data_root}/scene_filters/train_1200.yaml", tf32: true}
    baseline: LTF, 1200 scenes
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The table of training sizes, and the plan of another one that shares a row with it."""
    (tmp_path / "effect").mkdir()
    shutil.copytree(tables.RESULTS / "effect/sizes", tmp_path / "effect/sizes")
    shutil.copy(tables.RESULTS / "effect/sizes.yml", tmp_path / "effect")
    (tmp_path / "effect/fewer.yml").write_text(PLAN)
    for module in (keep, tables):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


def _keep(monkeypatch, source, table):
    monkeypatch.setattr(sys, "argv", ["keep.py", source, table])
    return keep.main()


def test_a_row_of_the_same_recipe_is_taken_from_another_table(results, monkeypatch):
    assert _keep(monkeypatch, "effect/sizes", "effect/fewer") == 0
    ours, theirs = tables.KeptTable("effect/fewer"), tables.KeptTable("effect/sizes")
    assert ours.parts == ["val"]  # the test split is not in the plan
    assert ours.scores("val").rows == ["LTF, 1200 scenes"]  # the other row has another recipe
    np.testing.assert_array_equal(
        ours.scores("val").of("LTF, 1200 scenes", "PDMS"), theirs.scores("val").of("LTF, 1200 scenes", "PDMS")
    )
    assert set(ours.made_with()) == {"LTF, 1200 scenes/0"}
    assert ours.made_with()["LTF, 1200 scenes/0"] == theirs.made_with()["LTF, 1200 scenes/0"]


def test_a_run_of_another_recipe_is_refused(results, monkeypatch):
    _keep(monkeypatch, "effect/sizes", "effect/fewer")
    file = results / "effect/fewer/made_with.json"
    made = json.loads(file.read_text())
    made["LTF, 1200 scenes/0"]["recipe"] = "another"
    file.write_text(json.dumps(made))
    with pytest.raises(SystemExit, match="LTF, 1200 scenes/0: the table has it from another recipe"):
        _keep(monkeypatch, "effect/sizes", "effect/fewer")


def test_rows_are_the_same_if_their_weights_and_the_choice_of_checkpoints_are():
    trained, judged = Row("LTF", "a"), Row("LTF, turned", "a", weights="LTF")
    plan = SweepPlan((trained, judged))
    assert keep.same_rows(plan, plan) == {"LTF", "LTF, turned"}
    assert keep.same_rows(plan, SweepPlan((Row("LTF", "b"), judged))) == set()
    assert keep.same_rows(plan, replace(plan, checkpoint="best")) == set()
    compared = replace(plan, rows=(trained, replace(judged, baseline="LTF")))
    assert keep.same_rows(plan, compared) == {"LTF", "LTF, turned"}


def test_a_table_without_a_common_row_is_refused(results, monkeypatch):
    (results / "effect/fewer.yml").write_text(PLAN.replace("train_1200", "train_600"))
    with pytest.raises(SystemExit, match="no runs of rows that are the same in effect/fewer"):
        _keep(monkeypatch, "effect/sizes", "effect/fewer")
    assert not (results / "effect/fewer").exists()
