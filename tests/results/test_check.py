"""Figures in documents are those of the scores that are kept, and a sweep's runs join them."""

import json
import sys

import numpy as np
import pytest

from beyonddrive.evaluation.score_rows import ScoredScene, scenes_to_csv
from beyonddrive.results import check, keep, tables
from beyonddrive.structures.plan import SCORE_COLUMNS

PLAN = """
title: Two rows
seeds: [0, 1]
rows:
  plain: {config: a}
  better: {config: b, baseline: plain}
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with one plan and no runs."""
    results = tmp_path / "results"
    (results / "effect").mkdir(parents=True)
    (results / "effect" / "two.yml").write_text(PLAN)
    (tmp_path / "README.md").write_text("nothing\n")
    for module in (tables, check):
        monkeypatch.setattr(module, "RESULTS", results)
    monkeypatch.setattr(check, "ROOT", tmp_path)
    check.rows_of.cache_clear()
    return tmp_path


def write_run(sweep, row, seed, gain, recipe="r"):
    folder = sweep / "runs" / row / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.2, 0.8, (40, len(SCORE_COLUMNS))) + gain
    scenes = [ScoredScene(f"t{index:02d}", "log", value) for index, value in enumerate(values)]
    (folder / "test.csv").write_text(scenes_to_csv(scenes, SCORE_COLUMNS))
    record = {
        "row": row, "seed": seed, "config": row, "options": {}, "recipe": recipe, "checkpoint_rule": "last",
        "checkpoint": "epoch_12.pth", "loaders": ["test"], "seconds": {"train": 60.0}, "made_with": {},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))


def call(module, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    check.rows_of.cache_clear()
    return module.main()


def test_runs_join_a_table_and_documents_follow_it(root, monkeypatch, capsys):
    sweep = root / "sweep"
    write_run(sweep, "plain", 0, 0.0)
    write_run(sweep, "better", 0, 0.1)
    assert call(keep, monkeypatch, sweep, "effect/two") == 0
    readme = root / "README.md"
    readme.write_text(
        "<!-- table: effect/two test | better --><!-- end -->\n"
        "It gains <!-- figure: effect/two test | better | difference -->+99<!-- end --> points.\n"
    )
    assert call(check, monkeypatch) == 1
    assert "README.md:2: has +99\nbut the scores give +10.00" in capsys.readouterr().err
    assert call(check, monkeypatch, "--write") == 0
    assert call(check, monkeypatch) == 0
    assert "-->+10.00<!-- end --> points" in readme.read_text()
    assert "| better | 1 | " in readme.read_text()

    # a second seed comes later, by another sweep: both are kept, and figures that are now old are told
    later = root / "later"
    write_run(later, "plain", 1, 0.0)
    write_run(later, "better", 1, 0.2)
    assert call(keep, monkeypatch, later, "effect/two") == 0
    assert call(check, monkeypatch) == 1
    assert call(check, monkeypatch, "--write") == 0
    assert "-->+15.00<!-- end -->" in readme.read_text()


def test_a_report_that_was_edited_is_told(root, monkeypatch, capsys):
    write_run(root / "sweep", "plain", 0, 0.0)
    call(keep, monkeypatch, root / "sweep", "effect/two")
    report = root / "results" / "effect" / "two" / "report.md"
    report.write_text(report.read_text().replace("| plain | 1 |", "| plain | 9 |"))
    assert call(check, monkeypatch) == 1
    assert "results/effect/two/report.md: is not what its scores give" in capsys.readouterr().err


def test_a_run_from_another_recipe_is_refused(root, monkeypatch):
    write_run(root / "sweep", "plain", 0, 0.0)
    call(keep, monkeypatch, root / "sweep", "effect/two")
    write_run(root / "sweep", "plain", 0, 0.3, recipe="other")
    with pytest.raises(SystemExit, match="plain/0: the table has it from another recipe"):
        call(keep, monkeypatch, root / "sweep", "effect/two")
    with pytest.raises(SystemExit, match="no complete run"):
        call(keep, monkeypatch, root / "nothing", "effect/two")


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ("figure: effect/two val | plain | score", "no scores of 'val'"),
        ("figure: effect/two test | odd | score", "no row 'odd'; there is plain"),
        ("figure: effect/two test | plain | difference", "row 'plain' has no 'difference'"),
        ("figure: effect/two test | plain", "a figure is"),
    ],
)
def test_marks_that_name_what_is_not_there(root, monkeypatch, capsys, mark, told):
    write_run(root / "sweep", "plain", 0, 0.0)
    call(keep, monkeypatch, root / "sweep", "effect/two")
    (root / "README.md").write_text(f"<!-- {mark} -->1<!-- end -->\n")
    assert call(check, monkeypatch) == 1
    assert told in capsys.readouterr().err


def test_the_figures_of_this_project(monkeypatch, capsys):
    assert call(check, monkeypatch) == 0, capsys.readouterr().err
