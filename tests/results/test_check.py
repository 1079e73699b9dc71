"""Figures in documents are those of the scores that are kept, and a sweep's runs join them."""

import csv
import io
import json
import os
import re
import shutil
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS
from beyonddrive.evaluation.score_labels import BASES, ScoreLabel
from beyonddrive.evaluation.score_rows import ScoredScene, scenes_to_csv
from beyonddrive.evaluation.statistics.score_table import read_table, write_table
from beyonddrive.results import check, keep, keep_closed_loop, marks, tables
from beyonddrive.results.pictures import write_picture
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.visualization.picture_values import DIGEST, digest, digest_of

PLAN = """
title: Two rows
seeds: [0, 1]
rows:
  plain: {config: a}
  better: {config: b, baseline: plain}
"""
CONFIGS = {"plain": "a", "better": "b"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with one plan and no runs."""
    results = tmp_path / "results"
    (results / "effect").mkdir(parents=True)
    (results / "effect" / "two.yml").write_text(PLAN)
    (tmp_path / "README.md").write_text("nothing\n")
    monkeypatch.setattr(tables, "RESULTS", results)
    monkeypatch.setattr(check, "ROOT", tmp_path)
    for names in ("DRAWINGS", "OF_SCENES", "CELLS"):
        monkeypatch.setattr(check, names, ())
    monkeypatch.setattr(check, "MEASURED", ())
    marks.rows_of.cache_clear()
    return tmp_path


def write_run(sweep, row, seed, gain, recipe="r", weights=None, config=None, logs="", **told):
    folder = sweep / "runs" / row / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.2, 0.8, (40, len(SCORE_COLUMNS))) + gain
    scenes = [ScoredScene(f"t{index:02d}", "log", value) for index, value in enumerate(values)]
    label = ScoreLabel.of(BASES["pdms"], [scene.token for scene in scenes], data=logs) if logs else None
    (folder / "test.csv").write_text(scenes_to_csv(scenes, SCORE_COLUMNS, label))
    record = {
        "row": row, "seed": seed, "config": config or CONFIGS[row], "options": {}, "recipe": recipe,
        "checkpoint_rule": "last", "checkpoint": "epoch_12.pth", "loaders": ["test"],
        "seconds": {"train": 60.0}, "made_with": {},
        "weights": weights, **told,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))


def call(module, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    marks.rows_of.cache_clear()
    return module.main()


def write_epdms(sweep, row, seed, gain, basis="epdms"):
    """A run of a sweep is judged by EPDMS, too; no scene has a neighbour."""
    tokens = [f"t{index:02d}" for index in range(40)]
    values = np.random.default_rng(seed).uniform(0.2, 0.8, (40, len(RUN_COLUMNS))) + gain
    values[:, RUN_COLUMNS.index("EC")] = np.nan
    scenes = [ScoredScene(token, "log", value) for token, value in zip(tokens, values, strict=True)]
    text = scenes_to_csv(scenes, RUN_COLUMNS, ScoreLabel.of(BASES[basis], tokens))
    (sweep / "runs" / row / f"seed{seed}" / "test-epdms.csv").write_text(text)


def test_stale_pictures_are_found_and_drawn_anew(root, monkeypatch, capsys):
    path, values = root / "picture.png", {"LTF": [1.0, 2.0]}
    drawing = SimpleNamespace(
        PICTURE=path, current=lambda: values, main=lambda: write_picture(path, Figure((1, 1)), values)
    )
    monkeypatch.setattr(check, "DRAWINGS", (drawing,))
    assert call(check, monkeypatch, "--write") == 0
    assert call(check, monkeypatch) == 0
    values["LTF"][0] = 1.5
    assert call(check, monkeypatch) == 1
    assert "picture.png: was drawn from other scores" in capsys.readouterr().err


def test_a_picture_of_scenes_is_told_and_left_to_its_script(root, monkeypatch, capsys):
    path, values = root / "scenes.jpg", {"won": {"a": [0.0, 1.0]}}
    drawing = SimpleNamespace(PICTURE=path, current=lambda: values, __name__="scenes")
    monkeypatch.setattr(check, "OF_SCENES", (drawing,))
    write_picture(path, Figure((1, 1)), values)
    assert call(check, monkeypatch) == 0
    values["won"] = {"b": [0.0, 1.0]}
    assert call(check, monkeypatch) == 1
    call(check, monkeypatch, "--write")
    assert capsys.readouterr().err.count("scenes.jpg: was drawn from other scores; scenes draws it") == 2
    assert call(check, monkeypatch) == 1


def test_what_cannot_be_written_anew_is_left_and_told(root, monkeypatch, capsys):
    write_run(root / "sweep", "plain", 0, 0.0)
    call(keep, monkeypatch, root / "sweep", "effect/two")
    good = "<!-- figure: effect/two test | plain | score --><!-- end -->"
    (root / "README.md").write_text(f"{good} <!-- figure: effect/two test | odd | score -->1<!-- end -->\n")
    monkeypatch.setattr(check, "MEASURED", (lambda: ["speeds.csv: 'plain' is of other runs"],))
    for written in (1, 0):
        assert call(check, monkeypatch, "--write") == 1
        told = capsys.readouterr()
        assert f"{written} written anew, 2 left, which nothing here writes anew" in told.out
        assert "no row 'odd'" in told.err and "speeds.csv: 'plain' is of other runs" in told.err


def test_a_changed_cell_is_found_and_written_anew(root, monkeypatch, capsys):
    cells = SimpleNamespace(TABLE=root / "cells.csv", table=lambda: "row,rank\nall,+0.52\n")
    monkeypatch.setattr(check, "CELLS", (cells,))
    assert call(check, monkeypatch) == 1  # (there is none yet)
    for text in (None, "row,rank\nall,+0.92\n"):
        if text is not None:
            cells.TABLE.write_text(text)
            assert call(check, monkeypatch) == 1
        assert call(check, monkeypatch, "--write") == 0
        assert cells.TABLE.read_text() == cells.table()
        assert call(check, monkeypatch) == 0
    assert capsys.readouterr().err.count("cells.csv: is not what the scores give") == 4


def test_pictures_of_intervals_follow_their_scores(root, monkeypatch, capsys):
    for row, gain in (("plain", 0.0), ("better", 0.1)):
        write_run(root / "sweep", row, 0, gain)
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    path = root / "results" / "effect" / "two" / "intervals_test.png"
    drawn, plain, other = path.read_bytes(), io.BytesIO(), io.BytesIO()
    assert digest_of(path)
    Figure((1, 1)).savefig(plain, format="png")
    Figure((1, 1)).savefig(other, format="png", metadata={DIGEST: digest(["PDMS"])})
    for content in (None, plain.getvalue(), other.getvalue()):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        assert call(check, monkeypatch) == 1
        assert "two/intervals_test.png: is not what its scores give" in capsys.readouterr().err
        call(check, monkeypatch, "--write")
        assert call(check, monkeypatch) == 0, capsys.readouterr().err
        with Image.open(path) as image, Image.open(io.BytesIO(drawn)) as before:
            image.load()
            assert image.size == before.size

    # the scores are others, the picture is not
    write_run(root / "later", "better", 1, 0.2)
    write_run(root / "later", "plain", 1, 0.0)
    assert call(keep, monkeypatch, root / "later", "effect/two") == 0
    path.write_bytes(drawn)
    assert call(check, monkeypatch) == 1
    assert "two/intervals_test.png: is not what its scores give" in capsys.readouterr().err


def test_runs_join_a_table_and_documents_follow_it(root, monkeypatch, capsys):
    sweep = root / "sweep"
    write_run(sweep, "plain", 0, 0.0)
    write_run(sweep, "better", 0, 0.1)
    assert call(keep, monkeypatch, sweep, "effect/two") == 0
    readme = root / "README.md"
    readme.write_text(
        "<!-- table: effect/two test | better --><!-- end -->\n"
        "<!-- parts: effect/two | better | test --><!-- end -->\n"
        "It gains <!-- figure: effect/two test | better | difference -->+99<!-- end --> points.\n"
    )
    assert call(check, monkeypatch) == 1
    assert "README.md:3: has +99\nbut the scores give +10.00" in capsys.readouterr().err
    assert call(check, monkeypatch, "--write") == 0
    assert call(check, monkeypatch) == 0
    assert "-->+10.00<!-- end --> points" in readme.read_text()
    assert "| better | 1 | " in readme.read_text()
    assert re.search(r"\| test \| 40 \| [\d.]+ \| [\d.]+ \| \+10.0 \| ", readme.read_text())

    # a second seed comes later, by another sweep: both are kept, and figures that are now old are told
    later = root / "later"
    write_run(later, "plain", 1, 0.0)
    write_run(later, "better", 1, 0.2)
    assert call(keep, monkeypatch, later, "effect/two") == 0
    assert call(check, monkeypatch) == 1
    assert call(check, monkeypatch, "--write") == 0
    assert "-->+15.00<!-- end -->" in readme.read_text()


def test_results_of_metafiles_follow_their_rows(root, monkeypatch, capsys):
    write_run(root / "sweep", "plain", 0, 0.0)
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    file = root / "configs" / "any" / "metafile.yml"
    file.parent.mkdir(parents=True)
    published = "      - {Task: Planning, Dataset: NAVSIM navtest, Metrics: {PDMS: 89.2}}\n"
    result = 'Source: "effect/two test | plain"\n        Metrics: {NC: 1.0, PDMS: 2.0}\n'
    file.write_text(published + result)
    assert call(check, monkeypatch) == 1
    assert (
        "configs/any/metafile.yml: effect/two test | plain: has NC: 1.0, PDMS: 2.0" in capsys.readouterr().err
    )
    assert call(check, monkeypatch, "--write") == 0
    row = marks.row_of("effect/two test", "plain")
    assert f"Metrics: {{NC: {row.columns['NC']:.1f}, PDMS: {row.score.mean:.1f}}}" in file.read_text()
    assert file.read_text().startswith(published)

    for odd, told in (
        (result.replace("plain", "gone"), "no row 'gone'"),
        (result.replace('"', ""), "metafile.yml: 1 not as Source"),
    ):
        file.write_text(odd)
        assert call(check, monkeypatch, "--write") == 1
        assert told in capsys.readouterr().err and file.read_text() == odd


def test_what_is_computed_or_marked_wrongly_is_told(root, monkeypatch, capsys):
    write_run(root / "sweep", "plain", 0, 0.0)
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    assert call(check, monkeypatch) == 0
    for name in ("runs.csv", "table_test.tex"):
        path = root / "results" / "effect" / "two" / name
        path.write_text(path.read_text().replace("plain", "plane"))
        assert call(check, monkeypatch) == 1
        assert f"{name}: is not what its scores give" in capsys.readouterr().err
        assert call(check, monkeypatch, "--write") == 0
        assert "plane" not in path.read_text()
    readme = root / "README.md"
    for text in ("<!-- figur: effect/two test | plain | score -->1<!-- end -->", "1<!-- end -->"):
        readme.write_text(text)
        assert call(check, monkeypatch) == 1
        assert "is no mark with an end" in capsys.readouterr().err
    readme.write_text("<!-- a comment, not a mark -->")
    assert call(check, monkeypatch) == 0


def test_intervals_are_over_seeds_and_scenes(root, monkeypatch):
    for seed, gain in ((0, 0.1), (1, 0.2)):
        write_run(root / "sweep", "plain", seed, 0.0)
        write_run(root / "sweep", "better", seed, gain)
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    row = marks.row_of("effect/two test", "better")
    # (Student's of the seeds, 12.706 times 5 to either side of 15: all scenes gain the same)
    assert marks.figure(row, "interval") == "-48.53 to +78.53" != marks.figure(row, "bootstrap")


def test_planners_stand_beside_themselves_calibrated(root, monkeypatch):
    (root / "results" / "effect" / "terms.yml").write_text(
        "title: Terms\nseeds: [0]\nrows:\n"
        "  A: {config: a}\n  A, published: {config: b, baseline: A}\n"
        "  A, calibrated: {config: a, weights: A, baseline: A}\n"
        "  A, published, calibrated: {config: b, weights: 'A, published', baseline: 'A, calibrated'}\n"
        "  B: {config: c}\n  B, calibrated: {config: c, weights: B, baseline: B}\n"
    )
    runs = {  # gain, config, weights
        "a": (0, "a", None),
        "a-published": (4, "b", None),
        "a-calibrated": (6, "a", "a"),
        "a-published-calibrated": (7, "b", "a-published"),
        "b": (1, "c", None),
        "b-calibrated": (2, "c", "b"),
    }
    for row, (gain, config, weights) in runs.items():
        write_run(root / "sweep", row, 0, gain / 100, config=config, weights=weights)
    assert call(keep, monkeypatch, root / "sweep", "effect/terms") == 0
    readme = root / "README.md"
    readme.write_text("<!-- calibrated: effect/terms test | A | B --><!-- end -->")
    assert call(check, monkeypatch, "--write") == 0
    lines = [line.split(" | ") for line in readme.read_text().splitlines() if line.startswith("| ")]
    assert lines[0][2:] == ["as trained", "recipe", "95 %", "calibrated", "recipe", "95 % |"]
    assert lines[2][0] == "| A" and [lines[2][place] for place in (3, 6)] == ["+4.0", "+1.0"]
    assert lines[3][0] == "| B" and [lines[3][place] for place in (3, 6)] == ["-", "-"]
    assert round(float(lines[2][5]) - float(lines[2][2]), 1) == 6.0

    # a second seed of some rows: cells of fewer seeds than the line tells say so
    for row in ("a", "a-published"):
        gain, config, weights = runs[row]
        write_run(root / "sweep", row, 1, gain / 100, config=config, weights=weights)
    assert call(keep, monkeypatch, root / "sweep", "effect/terms") == 0
    assert call(check, monkeypatch, "--write") == 0
    (cells,) = (line.split(" | ") for line in readme.read_text().splitlines() if line.startswith("| A"))
    assert cells[1] == "2" and cells[3] == "+4.0" and cells[6] == "+1.0 (1 seed)"
    assert cells[5].endswith(" (1 of the seeds)")


def test_rows_have_the_seeds_that_they_have(root, monkeypatch):
    sweep = root / "sweep"
    for seed in range(3):
        write_run(sweep, "plain", seed, 0.0)
    for seed, gain in ((1, 0.1), (4, 0.2)):
        write_run(sweep, "better", seed, gain)
    assert call(keep, monkeypatch, sweep, "effect/two") == 0
    mark = "<!-- figure: effect/two test | better | {} --><!-- end -->"
    readme = root / "README.md"
    names = ("seeds", "difference", "by seed")
    readme.write_text(
        "".join(map(mark.format, names))
        + "<!-- table: effect/two test --><!-- end --><!-- parts: effect/two | better | test --><!-- end -->"
    )
    assert call(check, monkeypatch, "--write") == 0
    assert call(check, monkeypatch) == 0
    text = readme.read_text()
    assert re.findall("-->([^<>|]*)<!-- end", text)[:3] == ["2", "+10.00", "+10.0"]
    assert re.search(r"\| plain \| 3 \| [\d.]+ ± [\d.]+ \|  \|  \|", text)
    assert re.search(r"\| better \| 2 \| [\d.]+ ± [\d.]+ \| \+10.0 \(1 seed\) \| \+10.0 to \+10.0 \|", text)
    without, with_ = map(float, re.search(r"\| test \| 40 \| ([\d.]+) \| ([\d.]+) \| \+10.0", text).groups())
    assert with_ - without == pytest.approx(10.0, abs=0.11)  # both of seed 1

    # the seeds that were lacking come later
    write_run(root / "later", "better", 0, 0.15)
    assert call(keep, monkeypatch, root / "later", "effect/two") == 0
    assert call(check, monkeypatch, "--write") == 0
    assert re.findall("-->([^<>|]*)<!-- end", readme.read_text())[:3] == ["3", "+12.50", "+15.0, +10.0"]


def test_scores_on_a_further_basis_stand_beside_the_others(root, monkeypatch, capsys):
    plan = root / "results" / "effect" / "two.yml"
    plan.write_text(PLAN + "further: [epdms]\n")
    sweep = root / "sweep"
    for seed in (0, 1):
        write_run(sweep, "plain", seed, 0.0)
        write_run(sweep, "better", seed, 0.1)
    assert call(keep, monkeypatch, sweep, "effect/two") == 0
    folder = root / "results" / "effect" / "two"
    assert not list(folder.glob("*epdms*"))

    # a run that is not judged yet is left out, and its pair with it
    write_epdms(sweep, "plain", 0, 0.0)
    write_epdms(sweep, "plain", 1, 0.0)
    write_epdms(sweep, "better", 1, 0.05)
    assert call(keep, monkeypatch, sweep, "effect/two") == 0
    readme = root / "README.md"
    readme.write_text(
        "<!-- scores: effect/two test, test-epdms --><!-- end -->\n"
        "<!-- figure: effect/two test-epdms | better | LK -->1<!-- end -->\n"
    )
    assert call(check, monkeypatch, "--write") == 0
    assert call(check, monkeypatch) == 0
    text = readme.read_text()
    head = "| planner | seeds | PDMS | difference | 95 % | EPDMS, logged traffic, human filter on |"
    assert head in text and "+5.0 | +5.0 to +5.0 |" in text and " (1 of the seeds) |" in text
    report = (folder / "report.md").read_text()
    assert "epdms: EPDMS, 1 stage, logged traffic, human filter on, scorer 1, 40 scenes" in report
    lines = (folder / "runs.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 + 3 and lines[0].count("PDMS") == 2

    # scores on another basis do not join, and parts that a later sweep lacks stay
    write_epdms(sweep, "better", 1, 0.05, "epdms-unfiltered")
    for row in ("plain", "better"):
        (sweep / "runs" / row / "seed0" / "test-epdms.csv").unlink(missing_ok=True)
    (sweep / "runs" / "plain" / "seed1" / "test-epdms.csv").unlink()
    with pytest.raises(SystemExit, match="other scenes or by another score"):
        call(keep, monkeypatch, sweep, "effect/two")
    (sweep / "runs" / "better" / "seed1" / "test-epdms.csv").unlink()
    assert call(keep, monkeypatch, sweep, "effect/two") == 0
    assert (folder / "runs.csv").read_text().splitlines() == lines

    # a figure that no scene has is refused
    readme.write_text("<!-- figure: effect/two test-epdms | better | EC -->1<!-- end -->")
    assert call(check, monkeypatch) == 1
    assert "row 'better' has no 'EC'" in capsys.readouterr().err


def test_power_needs_two_seeds_that_are_shared(root, monkeypatch, capsys):
    sweep = root / "sweep"
    write_run(sweep, "plain", 0, 0.0)
    write_run(sweep, "better", 0, 0.1)
    readme = root / "README.md"
    marks_of = [f"figure: effect/two test | better | {what}" for what in ("half width", "seeds needed")]
    marks_of += ["power: effect/two test | better"]
    readme.write_text("".join(f"<!-- {mark} --><!-- end -->" for mark in marks_of))
    assert call(keep, monkeypatch, sweep, "effect/two") == 0
    assert call(check, monkeypatch) == 1
    told = capsys.readouterr().err
    assert "its difference is of 1 seed(s)" in told and "shares two seeds with its baseline" in told
    for row, gain in (("plain", 0.0), ("better", 0.11)):
        write_run(sweep, row, 1, gain)
    assert call(keep, monkeypatch, sweep, "effect/two") == 0
    assert call(check, monkeypatch, "--write") == 0
    text = readme.read_text()
    # 10 and 11 points: 0.71 by seed alone, so 0.5 needs t(n - 1) 0.71 / sqrt(n) <= 0.5, which is n = 11
    assert "seeds needed -->11<!--" in text and "| better | 0.71 | 0.00 | 0.00 | ±6.35 | 11 |" in text


def test_a_report_that_was_edited_is_told(root, monkeypatch, capsys):
    write_run(root / "sweep", "plain", 0, 0.0)
    call(keep, monkeypatch, root / "sweep", "effect/two")
    report = root / "results" / "effect" / "two" / "report.md"
    report.write_text(report.read_text().replace("| plain | 1 |", "| plain | 9 |"))
    assert call(check, monkeypatch) == 1
    assert "results/effect/two/report.md: is not what its scores give" in capsys.readouterr().err


def test_a_row_is_of_one_recipe(root, monkeypatch):
    write_run(root / "sweep", "plain", 0, 0.0)
    call(keep, monkeypatch, root / "sweep", "effect/two")
    write_run(root / "sweep", "plain", 0, 0.3, recipe="other")
    with pytest.raises(SystemExit, match="plain/0: the table has it from another recipe"):
        call(keep, monkeypatch, root / "sweep", "effect/two")
    with pytest.raises(SystemExit, match="no complete run"):
        call(keep, monkeypatch, root / "nothing", "effect/two")
    write_run(root / "later", "plain", 1, 0.3, recipe="other")
    with pytest.raises(SystemExit, match="plain/1: plain/0 is from another recipe"):
        call(keep, monkeypatch, root / "later", "effect/two")
    write_run(root / "both", "better", 0, 0.3)
    write_run(root / "both", "better", 1, 0.3, recipe="other")
    with pytest.raises(SystemExit, match="better/0: better/1 is from another recipe"):
        call(keep, monkeypatch, root / "both", "effect/two")


def test_two_sweeps_that_are_kept_at_the_same_time_are_both_there(root, monkeypatch):
    for row in CONFIGS:
        write_run(root / row, row, 0, 0.0)
    collect, others = keep.collect, []

    def collect_beside_another(*given):
        if not others:  # of the first: it has read what the table holds
            sys.argv[1] = str(root / "better")
            others.append(threading.Thread(target=keep.main))
            others[0].start()
            others[0].join(1.0)
        return collect(*given)

    monkeypatch.setattr(keep, "collect", collect_beside_another)
    assert call(keep, monkeypatch, root / "plain", "effect/two") == 0
    others[0].join()
    assert sorted(tables.KeptTable("effect/two").made_with()) == ["better/0", "plain/0"]
    assert tables.KeptTable("effect/two").scores("test").rows == ["plain", "better"]
    assert not list((root / "results").glob("**/*.lock"))


def test_a_row_of_another_recipe_is_replaced_as_a_whole(root, monkeypatch):
    for seed in (0, 1):
        write_run(root / "sweep", "plain", seed, 0.0)
        write_run(root / "sweep", "better", seed, 0.1)
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    write_run(root / "later", "better", 0, 0.2, recipe="other")
    with pytest.raises(SystemExit, match=r"has not all seeds of its rows: better/1$"):
        call(keep, monkeypatch, root / "later", "effect/two", "--replace")
    write_run(root / "later", "better", 1, 0.2, recipe="other")
    with pytest.raises(SystemExit, match=r"better/0: the table has it from another recipe.*--replace puts"):
        call(keep, monkeypatch, root / "later", "effect/two")
    assert call(keep, monkeypatch, root / "later", "effect/two", "--replace") == 0
    assert marks.figure(marks.row_of("effect/two test", "better"), "difference") == "+20.00"
    made = tables.KeptTable("effect/two").made_with()
    assert [made[name]["recipe"] for name in ("plain/0", "better/0", "better/1")] == ["r", "other", "other"]


def test_how_runs_were_made_is_held_against_each_other(root, monkeypatch, capsys):
    (root / "results/effect/two.yml").write_text(PLAN.replace("config: b,", "config: b, weights: plain,"))
    for seed in (0, 1):
        write_run(root / "sweep", "plain", seed, 0.0, checkpoint_sha256=f"of {seed}")
        write_run(root / "sweep", "better", seed, 0.1, weights="plain", checkpoint_sha256=f"of {seed}")
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    assert call(check, monkeypatch) == 0
    file = root / "results/effect/two/made_with.json"
    made = json.loads(file.read_text())
    made["plain/1"]["recipe"], made["better/1"]["checkpoint_sha256"] = "other", "two"
    made["gone/0"] = made["missing/0"] = made.pop("plain/0")
    file.write_text(json.dumps(made))
    assert call(check, monkeypatch) == 1
    told = capsys.readouterr().err
    assert "effect/two: plain/0: has scores, but is not in made_with.json" in told
    assert "effect/two: gone/0: is in made_with.json, but has no scores" in told
    assert "effect/two: gone/0: its plan has no such row" in told
    assert "effect/two: better/1: judges another checkpoint than 'plain' has" in told
    made["plain/0"] = made.pop("gone/0")
    file.write_text(json.dumps(made))
    call(check, monkeypatch)
    assert "is of another recipe than the other seeds of its row" in capsys.readouterr().err


def test_tables_of_parts_that_are_gone_are_told(root, monkeypatch, capsys):
    write_run(root / "sweep", "plain", 0, 0.0)
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    left = root / "results/effect/two/table_hard.tex"
    left.write_text("old")
    assert call(check, monkeypatch) == 1
    assert "two/table_hard.tex: is of a part that is not computed" in capsys.readouterr().err
    assert call(check, monkeypatch, "--write") == 0 and not left.exists()


def test_a_mark_without_an_end_takes_nothing_of_the_next_one(root, monkeypatch, capsys):
    write_run(root / "sweep", "plain", 0, 0.0)
    call(keep, monkeypatch, root / "sweep", "effect/two")
    mark = "<!-- figure: effect/two test | plain | seeds -->"
    readme = root / "README.md"
    readme.write_text(f"{mark}1 and words, then {mark}7<!-- end -->")
    assert call(check, monkeypatch) == 1
    call(check, monkeypatch, "--write")
    assert readme.read_text() == f"{mark}1 and words, then {mark}1<!-- end -->"
    assert "is no mark with an end" in capsys.readouterr().err
    readme.write_text("<!-- figure: effect/three test | plain | seeds -->1<!-- end -->")
    assert call(check, monkeypatch) == 1  # (a table that is not there does not end the check)
    assert "README.md:1: " in capsys.readouterr().err


def test_a_run_with_other_options_than_the_plan_has_is_refused(root, monkeypatch):
    plan = root / "results/effect/two.yml"
    plan.write_text(PLAN + "options: {model.weight: 5}\n")
    write_run(root / "sweep", "plain", 0, 0.0, options={"model.weight": "2"})
    with pytest.raises(SystemExit, match=r"plain/seed0/run.json: .* model.weight=2, but the plan has 5"):
        call(keep, monkeypatch, root / "sweep", "effect/two")
    write_run(root / "sweep", "plain", 0, 0.0, options={"model.weight": "5", "data_root": "x"})
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0


def test_scores_of_a_checkpoint_that_was_trained_anew_are_left_out(root, monkeypatch, capsys):
    (root / "results/effect/two.yml").write_text(PLAN.replace("config: b,", "config: b, weights: plain,"))
    write_run(root / "sweep", "plain", 0, 0.0, checkpoint_sha256="new")
    write_run(root / "sweep", "plain", 1, 0.0, checkpoint_sha256="new")
    write_run(root / "sweep", "better", 0, 0.1, weights="plain", checkpoint_sha256="old")
    write_run(root / "sweep", "better", 1, 0.1, weights="plain", checkpoint_sha256="new")
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    assert "better, seed 0: left out: row 'plain' has another checkpoint now" in capsys.readouterr().err
    assert tables.KeptTable("effect/two").scores("test").seeds("better") == [1]


def test_parts_of_a_run_are_of_one_checkpoint(root, monkeypatch):
    (root / "results/effect/two.yml").write_text(PLAN + "further: [epdms]\n")
    write_run(root / "sweep", "plain", 0, 0.0, checkpoint_sha256="one")
    write_epdms(root / "sweep", "plain", 0, 0.0)
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    write_run(root / "again", "plain", 0, 0.1, checkpoint_sha256="two")
    with pytest.raises(SystemExit, match=r"plain/0: is of another .* on test-epdms; judge it there"):
        call(keep, monkeypatch, root / "again", "effect/two")
    write_epdms(root / "again", "plain", 0, 0.1)
    assert call(keep, monkeypatch, root / "again", "effect/two") == 0


def test_the_date_of_a_run_is_the_one_that_it_tells(root, monkeypatch):
    write_run(root / "sweep", "plain", 0, 0.0, date="2025-01-02")
    write_run(root / "sweep", "better", 0, 0.0)
    os.utime(root / "sweep/runs/better/seed0/run.json", (86400, 86400))
    call(keep, monkeypatch, root / "sweep", "effect/two")
    dates = {name: run["date"] for name, run in tables.KeptTable("effect/two").made_with().items()}
    assert dates == {"plain/0": "2025-01-02", "better/0": "1970-01-02"}


def test_a_damaged_file_ends_in_a_sentence(root, monkeypatch):
    write_run(root / "sweep", "plain", 0, 0.0)
    (root / "sweep/runs/plain/seed0/test.csv").write_text("odd\n")
    with pytest.raises(SystemExit, match=r"keep: .*test.csv: no column token"):
        call(keep, monkeypatch, root / "sweep", "effect/two")
    with pytest.raises(SystemExit, match=r"keep: .*effect/three.yml: cannot be read as a plan"):
        call(keep, monkeypatch, root / "sweep", "effect/three")


def test_a_run_keeps_whose_weights_it_judges_and_refuses_others(root, monkeypatch):
    plan = root / "results/effect/two.yml"
    plan.write_text(PLAN.replace("config: b,", "config: b, weights: plain,"))
    write_run(root / "sweep", "better", 0, 0.1, weights="plain")
    call(keep, monkeypatch, root / "sweep", "effect/two")
    made = json.loads((root / "results" / "effect" / "two" / "made_with.json").read_text())
    assert json.dumps(made).count('"weights": "plain"') == 1
    write_run(root / "sweep", "better", 0, 0.1, weights="third")
    with pytest.raises(SystemExit, match=r"with weights=third, but the plan has plain for row 'better'"):
        call(keep, monkeypatch, root / "sweep", "effect/two")
    plan.write_text(PLAN.replace("config: b,", "config: b, weights: third,") + "  third: {config: c}\n")
    with pytest.raises(SystemExit, match=r"better/0: the table has it from .* other weights"):
        call(keep, monkeypatch, root / "sweep", "effect/two")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"options": {"train_cfg.max_epochs": "1"}}, "train_cfg.max_epochs=1, but the plan has nothing"),
        ({"config": "other"}, "config=other, but the plan has a for row 'plain'"),
        ({"bases": ["a", "more"]}, r"config=a \+ more, but the plan has a for"),
        ({"weights": "better"}, "weights=better, but the plan has nothing"),
        ({"checkpoint_rule": "best"}, "checkpoint=best, but the plan has last"),
    ],
)
def test_a_run_that_is_not_what_its_row_asks_is_refused(root, monkeypatch, made, told):
    write_run(root / "sweep", "plain", 0, 0.0, **made)
    with pytest.raises(SystemExit, match=f"plain/seed0/run.json: was made with {told}"):
        call(keep, monkeypatch, root / "sweep", "effect/two")
    write_run(root / "sweep", "plain", 0, 0.0, options={"cache_root": "x", "num_threads": "2"}, bases=[])
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0


def test_bases_are_those_of_the_plan_wherever_their_files_lie(root, monkeypatch):
    """Also of a run whose record does not tell them, by the config that was merged for it."""
    bases = ["beyonddrive::_base_/negatives/near.py"]
    own = "ltf-beyonddrive_tiny_1xb16-12e_synth"
    plan = root / "results/effect/two.yml"
    plan.write_text(PLAN.replace("config: a", f"config: {own}, bases: {json.dumps(bases)}"))
    merged = root / "sweep/runs/plain/config.py"
    places = [f"/other/configs/ltf/{own}.py", "/other/configs/_base_/negatives/"]
    write_run(root / "sweep", "plain", 0, 0.0, config=str(merged), bases=[own, *bases])
    write_run(root / "sweep", "plain", 1, 0.0, config=str(merged))
    with pytest.raises(SystemExit, match=r"seed1/run.json: was made with config=.*config.py, but the plan"):
        call(keep, monkeypatch, root / "sweep", "effect/two")
    merged.write_text(f"# plain\n_base_ = {json.dumps([places[0], places[1] + 'margin.py'])}\n")
    with pytest.raises(SystemExit, match=r"negatives/margin.py, but the plan has .*negatives/near.py for"):
        call(keep, monkeypatch, root / "sweep", "effect/two")
    merged.write_text(f"# plain\n_base_ = {json.dumps([places[0], places[1] + 'near.py'], indent=4)}\n")
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    merged.write_text("odd")
    with pytest.raises(SystemExit, match=r"config.py: is not as the sweep wrote it"):
        call(keep, monkeypatch, root / "sweep", "effect/two")


def test_seeds_of_a_row_are_of_one_data(root, monkeypatch):
    write_run(root / "old", "plain", 0, 0.0)  # (tells nothing, and is taken as it is)
    write_run(root / "sweep", "plain", 1, 0.0, data="one")
    for sweep in ("old", "sweep"):
        assert call(keep, monkeypatch, root / sweep, "effect/two") == 0
    made = tables.KeptTable("effect/two").made_with()
    assert "data" not in made["plain/0"] and made["plain/1"]["data"] == "one"
    write_run(root / "later", "plain", 2, 0.0, data="two")
    with pytest.raises(SystemExit, match="plain/2: plain/1 is trained on other data: scenes, pool"):
        call(keep, monkeypatch, root / "later", "effect/two")
    write_run(root / "sweep", "plain", 1, 0.0, data="two")
    with pytest.raises(SystemExit, match="plain/1: the table has it trained on other data"):
        call(keep, monkeypatch, root / "sweep", "effect/two")
    report = root / "results/effect/two/report.md"
    assert "made data anew" not in report.read_text()
    assert call(keep, monkeypatch, root / "later", "effect/two", "--made-anew") == 0
    assert "with another digest: plain (seeds 1 | 2)." in report.read_text()
    assert tables.KeptTable("effect/two").made_with()["plain/2"]["data"] == "two"


def test_runs_of_a_table_were_judged_on_the_same_logs(root, monkeypatch):
    sweep, later = root / "sweep", root / "later"
    write_run(sweep, "plain", 0, 0.0, logs="1")
    write_run(sweep, "better", 0, 0.1, logs="2")
    with pytest.raises(SystemExit, match=r"does not compare with .*plain.*: data: 1, 2"):
        call(keep, monkeypatch, sweep, "effect/two")
    write_run(sweep, "better", 0, 0.1, logs="1")
    assert call(keep, monkeypatch, sweep, "effect/two") == 0
    write_run(later, "plain", 1, 0.0, logs="2")
    with pytest.raises(SystemExit, match="by another score: data: 1, 2"):
        call(keep, monkeypatch, later, "effect/two")
    write_run(later, "plain", 1, 0.0, logs="1")
    assert call(keep, monkeypatch, later, "effect/two") == 0
    write_run(root / "anew", "plain", 2, 0.0, logs="2")
    assert call(keep, monkeypatch, root / "anew", "effect/two", "--made-anew") == 0
    assert tables.KeptTable("effect/two").scores("test").label.data == ""


def test_a_run_that_lacks_scores_of_scenes_is_named_and_left_out(root, monkeypatch, capsys):
    for seed in (0, 1):
        write_run(root / "sweep", "plain", seed, 0.0)
    file = root / "sweep/runs/plain/seed1/test.csv"
    lines = file.read_text().splitlines()
    lines[1] = ",".join(["t00", "log", *[""] * (len(SCORE_COLUMNS) + 1), "no lane"])
    file.write_text("\n".join(lines) + "\n")
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    told = capsys.readouterr().err
    assert "plain, seed 1: left out on test (1 scenes without, such as t00: no lane)" in told
    assert tables.KeptTable("effect/two").scores("test").seeds("plain") == [0]
    assert call(check, monkeypatch) == 0  # (nothing is told of a run that has no scores)


def drive_made_up(folder, gain=0.0, kilometres=0.1, recipe=None):
    """A closed-loop run of six scenarios as its files have it; every second one ends in a collision."""
    folder.mkdir()
    settings = {"config": "config", "options": {}, "checkpoint": "0a1b", "exported": False,
                "image_size": [480, 270], "lidar": False, "scenario_list": "all"}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    column = "" if kilometres is None else ",kilometres"
    lines = [f"seed,name,difficulty,hdscore,rc,nc,dac,ttc,c,steps{column},collided,fallbacks,ends"]
    for index in range(6):
        driven = "" if kilometres is None else f",{kilometres}"
        figures = f"{0.1 * index + gain},1.0,1.0,1.0,1.0,1.0,9{driven},{index % 2},0,Complete"
        lines.append(f"0,s{index},{('easy', 'hard')[index % 2]},{figures}")
    (folder / "episodes.csv").write_text("\n".join(lines))
    if recipe is not None:
        environment = {"beyonddrive": "9.9", "cpu": {"model": "abacus"}}
        told = {"date": "2025-01-02", "recipe": recipe, "made_with": environment}
        (folder / "summary.json").write_text(json.dumps(told))
        for index in range(6):
            episode = folder / "seed_0" / f"s{index}" / "episode.json"
            episode.parent.mkdir(parents=True)
            episode.write_text(json.dumps({"seconds": {"plan": 0.5, "paint": index}}))


def test_collisions_per_km_are_of_rows_that_tell_how_far_they_drove(root, monkeypatch, capsys):
    plain, better, near = (root / name for name in ("plain", "better", "near"))
    drive_made_up(plain, kilometres=None)
    assert call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"plain={plain},{plain}") == 0
    folder = root / "results" / "effect" / "two"
    # As a table is that was kept before runs told it.
    for part in ("all", "easy", "hard"):
        table = read_table(folder, part)
        assert table.columns[-2] == "km" and np.isnan(table.values[..., -2]).all()
        columns = [index for index, name in enumerate(table.columns) if name != "km"]
        old = replace(table, columns=(*table.columns[:-2], "HD-Score"), values=table.values[..., columns])
        write_table(folder, part, old)
    before = {part: read_table(folder, part).values for part in ("all", "easy", "hard")}
    tables.KeptTable("effect/two").write_computed(folder)
    assert "per km" not in (folder / "report.md").read_text() + (folder / "runs.csv").read_text()
    drive_made_up(better, 0.25)
    drive_made_up(near, 0.25, kilometres=0.05)
    assert call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better={better},{near}") == 0
    # What was kept stays, and says of no distance that it is known.
    for part, values in before.items():
        table = read_table(folder, part)
        kept = table.values[: len(values)]
        assert np.isnan(kept[..., -2]).all()
        assert np.array_equal(np.delete(kept, -2, axis=2), values)
        assert np.allclose(table.values[2:, :, -2], [[0.1], [0.05]])
    with (folder / "runs.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["part"] == "all"]
    assert [line["km"] for line in lines] == ["", "", "0.6000", "0.3000"]
    report = (folder / "report.md").read_text()
    shown = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in report[report.index("| row |") :].splitlines()[:4]
    ]
    rates = {cells[0]: cells[shown[0].index("collisions per km")] for cells in shown[2:]}
    # Six collisions of both runs by 0.9 km.
    assert rates == {"plain": "-", "better": "6.67"}
    assert "all collisions by all km, of the runs that tell how far they drove" in report
    mark = "<!-- figure: effect/two {} | better | collisions per km -->{}<!-- end -->"
    marked = [mark.format("all", "6.67"), mark.format("hard", "13.33"), mark.format("easy", "0.00")]
    (root / "README.md").write_text("".join(marked))
    assert call(check, monkeypatch) == 0, capsys.readouterr().err


def test_a_closed_loop_run_keeps_what_its_files_say_it_was_made_with(root, monkeypatch):
    drive_made_up(root / "plain")
    drive_made_up(root / "at 12:30", recipe="c0ffee")
    os.utime(root / "plain" / "episodes.csv", (86400, 86400))
    rows = ["--row", f"plain={root}/plain", "--row", f"better={root}/at 12:30"]
    assert call(keep_closed_loop, monkeypatch, "effect/two", *rows) == 0
    made = json.loads((root / "results" / "effect" / "two" / "made_with.json").read_text())
    better = made["better/0"]
    assert better["recipe"] == "c0ffee" and better["made_with"]["cpu"] == {"model": "abacus"}
    assert better["seconds"] == {"plan": 3.0, "paint": 15.0} and better["date"] == "2025-01-02"
    assert made["plain/0"]["date"] == "1970-01-02"
    # Nothing is made up for a run that does not say it.
    assert set(better) - set(made["plain/0"]) == {"recipe", "made_with", "seconds"}


def test_seeds_of_the_traffic_are_kept_as_their_means(root, monkeypatch):
    def drive(name, gain, traffic=(0, 1, 2)):
        drive_made_up(root / name, gain)
        path = root / name / "episodes.csv"
        head, *lines = path.read_text().splitlines()
        more = []
        for seed in traffic:
            for line in lines:
                cells = line.split(",")
                cells[0], cells[3] = str(seed), str(float(cells[3]) + 0.1 * seed)
                cells[-1] = "Complete" if seed else "Collided"
                more.append(",".join(cells))
        path.write_text("\n".join([head, *more]))
        return root / name

    plain, better = drive("plain", 0.0), drive("better", 0.25)
    row = f"plain={plain},{plain}"
    assert call(keep_closed_loop, monkeypatch, "effect/two", "--row", row, "--row", f"better={better}") == 0
    folder = root / "results" / "effect" / "two"
    table = read_table(folder, "all")
    assert table.of("plain", "HD-Score") == pytest.approx(np.tile(10.0 * np.arange(6) + 10.0, (2, 1)))
    assert table.of("better", "completed") == pytest.approx(np.full((1, 6), 200 / 3))
    made = json.loads((folder / "made_with.json").read_text())
    assert {key: run["traffic"] for key, run in made.items()} == {key: [0, 1, 2] for key in made}
    once = drive("once", 0.25, (0,))
    said = r"once: was driven with seeds 0 of the traffic, .* with 0, 1, 2"
    with pytest.raises(SystemExit, match=said):
        call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better={once}")
    with pytest.raises(SystemExit, match=said):
        call(keep_closed_loop, monkeypatch, "effect/two", "--row", row, "--same-by", f"plain={once}")
    episodes = better / "episodes.csv"
    episodes.write_text("\n".join(episodes.read_text().splitlines()[:-1]))
    with pytest.raises(
        SystemExit, match="s5 was driven with seeds 0, 1 of the traffic, not once with each of 0, 1"
    ):
        call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better={better}")


def test_closed_loop_runs_are_kept_by_scenario_and_difficulty(root, monkeypatch, capsys):
    def drive(name, gain, controller="pr57", scenarios="all"):
        folder = root / name
        folder.mkdir()
        (folder / "settings.json").write_text(
            json.dumps({"config": "config", "options": {}, "checkpoint": f"w/{name}.pth",
                        "exported": False, "image_size": [480, 270], "lidar": name != "plain",
                        "hugsim": {"controller": controller}, "scenario_list": scenarios})
        )  # fmt: skip
        lines = ["seed,name,difficulty,hdscore,rc,nc,dac,ttc,c,steps,kilometres,collided,fallbacks,ends"]
        for index in range(6):
            figures = f"{0.1 * index + gain},1.0,1.0,1.0,1.0,1.0,9,0.1,{index % 2},0,Complete"
            lines.append(f"0,s{index},{('easy', 'hard')[index % 2]},{figures}")
        (folder / "episodes.csv").write_text("\n".join(lines))
        return folder

    (root / "results" / "effect" / "cells.csv").write_text("row,width\na,1.5\nb,2.5\n")
    plain, better = drive("plain", 0.0), drive("better", 0.25)
    rows = ["--row", f"plain={plain},{plain}", "--row", f"better={better},{better}"]
    assert call(keep_closed_loop, monkeypatch, "effect/two", *rows[:2]) == 0
    assert call(keep_closed_loop, monkeypatch, "effect/two", *rows[2:]) == 0  # (what is there stays)
    mark = "figure: effect/two {} | better | {}"
    told = {
        mark.format("all", "difference"): "+25.00",
        mark.format("hard", "score"): "55.00",
        mark.format("hard", "collisions"): "100.00",
        mark.format("easy", "collisions"): "0.00",
        "value: effect/cells | b | width": "2.5",
        "cells: effect/cells | width": "\n\n| | width |\n| --- | ---: |\n| a | 1.5 |\n| b | 2.5 |\n\n",
        mark.format("all", "by seed"): "+25.0, +25.0",
        mark.format("all", "score of seed 1"): "50.00",
        mark.format("all", "difference of seed 1"): "+25.00",
    }
    (root / "README.md").write_text(
        "".join(f"<!-- {key} -->{value}<!-- end -->" for key, value in told.items())
    )
    assert call(check, monkeypatch) == 0, capsys.readouterr().err
    missing = f"<!-- {mark.format('all', 'difference of seed 7')} -->+25.00<!-- end -->"
    (root / "README.md").write_text(missing)
    assert call(check, monkeypatch) == 1
    assert "row 'better' and its baseline have no seed '7'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="seed 0 of row 'better' is given twice"):
        call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better=0:{better},0:{better}")
    with pytest.raises(SystemExit, match="no row 'bettre'; there is plain, better"):
        call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"bettre={better}")
    settings = better / "settings.json"
    text = settings.read_text()
    settings.write_text(text.replace("w/better.pth", "runs/better/seed2/train/better.pth"))
    with pytest.raises(SystemExit, match=r"is not of seed 0; give each run its seed, as in NAME=2:"):
        call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better={better}")
    settings.write_text(text)
    # seeds can be told, here of a third training
    assert call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better=2:{better}") == 0
    made = json.loads((root / "results" / "effect" / "two" / "made_with.json").read_text())
    assert made["better/2"]["lidar"] and not made["plain/0"]["lidar"]
    assert made["better/2"]["checkpoint"] == "better.pth"
    with pytest.raises(SystemExit, match="other scenarios or settings"):
        call(
            keep_closed_loop,
            monkeypatch,
            "effect/two",
            *rows[:2],
            "--row",
            f"better={drive('odd', 0.0, 'main')}",
        )
    # (older runs do not tell their SUMO; those that do tell the same)
    settings = json.loads((plain / "settings.json").read_text())
    for name, version in (("old", "1"), ("new", "2")):
        (drive(name, 0.25) / "settings.json").write_text(
            json.dumps({**settings, "recipe": name, "scenarios": 6, "sumo": version})
        )
    with pytest.raises(SystemExit, match="settings than the rest: sumo"):
        call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better={root / 'old'},{root / 'new'}")
    (drive("now", 0.25) / "settings.json").write_text(json.dumps({**settings, "traffic_version": 2}))
    with pytest.raises(SystemExit, match=r"than the rest: version of the traffic \(1 and 2"):
        call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better={root / 'now'}")
    # a list with another digest is the same where a row drives it alike
    again, apart = drive("again", 0.0, scenarios="other"), drive("apart", 0.125, scenarios="other")
    there = ["effect/two", "--row", f"better={apart},{apart}"]
    with pytest.raises(SystemExit, match="other scenarios or settings"):
        call(keep_closed_loop, monkeypatch, *there)
    with pytest.raises(SystemExit, match="'plain' has other figures there"):
        call(keep_closed_loop, monkeypatch, *there, "--same-by", f"plain={apart}")
    assert call(keep_closed_loop, monkeypatch, *there, "--same-by", f"plain={again}") == 0
    episodes = better / "episodes.csv"
    episodes.write_text(episodes.read_text().replace(",0,Complete", ",3,Complete"))
    with pytest.raises(SystemExit, match="better: 18 plans were fallbacks; --with-fallbacks keeps it"):
        call(keep_closed_loop, monkeypatch, "effect/two", *rows[2:])
    assert call(keep_closed_loop, monkeypatch, "effect/two", *rows[2:], "--with-fallbacks") == 0
    made = json.loads((root / "results" / "effect" / "two" / "made_with.json").read_text())
    assert {name: run["fallbacks"] for name, run in made.items() if "fallbacks" in run} == {
        "better/0": 18, "better/1": 18
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"config": "a"}, "driven with config=a, but the plan has b for row 'better'"),
        ({"options": {"model.turn": "1"}}, "driven with model.turn=1, but the plan has nothing for"),
        ({"config": "b", "options": {"data_root": "w"}}, None),
        ({"scenarios": 7}, "episodes.csv has 6 of 7 scenarios; finish the run"),
    ],
)
def test_closed_loop_runs_are_what_their_row_is_and_whole(root, monkeypatch, changed, told):
    drive_made_up(root / "run")
    settings = root / "run" / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | changed))
    if told is None:
        assert call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better={root}/run") == 0
        return
    with pytest.raises(SystemExit, match=told):
        call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better={root}/run")


def test_a_driven_training_counts_once_and_as_its_own_seed(root, monkeypatch):
    for name, checkpoint in (("one", "0123456789abcdef"), ("copy", "0123456789abcdef"), ("two", "0" * 16)):
        drive_made_up(root / name)
        settings = root / name / "settings.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"checkpoint": checkpoint}))
        told = {"checkpoint_file": f"runs/better/seed{int(name == 'two')}/train/epoch_12.pth"}
        (root / name / "summary.json").write_text(json.dumps(told))

    def kept(row):
        return call(keep_closed_loop, monkeypatch, "effect/two", "--row", f"better={row}")

    with pytest.raises(SystemExit, match="'better/0' and 'better/1' drove the same weights; give a row"):
        (root / "copy" / "summary.json").unlink()
        kept(f"{root}/one,{root}/copy")
    with pytest.raises(SystemExit, match=r"epoch_12\.pth, which is not of seed 0; .* as in NAME=1:"):
        kept(f"{root}/two")
    assert kept(f"{root}/one,{root}/two") == 0
    assert kept(f"{root}/one") == 0  # (in its own place)
    with pytest.raises(SystemExit, match="'better/0' and 'better/5' drove the same weights"):
        kept(f"5:{root}/copy")


def test_trainings_of_a_driven_row_were_driven_alike(root, monkeypatch):
    for name, changed in (("one", {}), ("fast", {"exported": True}), ("small", {"image_size": [240, 135]})):
        drive_made_up(root / name)
        settings = root / name / "settings.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | changed))
    words = ("effect/two", "--row")
    with pytest.raises(SystemExit, match="'better/0' and 'better/1' were driven with another exported"):
        call(keep_closed_loop, monkeypatch, *words, f"better={root}/one,{root}/fast")
    assert call(keep_closed_loop, monkeypatch, *words, f"better={root}/one") == 0
    with pytest.raises(SystemExit, match="'better/0' and 'better/1' were driven with another image_size"):
        call(keep_closed_loop, monkeypatch, *words, f"better=1:{root}/small")
    assert call(keep_closed_loop, monkeypatch, *words, f"plain={root}/small") == 0  # (rows may differ)


def test_options_of_a_driven_row_are_read_before_they_are_compared(root, monkeypatch):
    plan = root / "results" / "effect" / "two.yml"
    plan.write_text(PLAN.replace("{config: b,", "{config: b, options: {keys: [x]},"))
    drive_made_up(root / "run")
    words = ("effect/two", "--row", f"better={root}/run")
    with pytest.raises(SystemExit, match=r"with keys=nothing, but the plan has \[x\]"):
        call(keep_closed_loop, monkeypatch, *words)
    settings = root / "run" / "settings.json"
    settings.write_text(settings.read_text().replace('"options": {}', '"options": {"keys": "[\'x\']"}'))
    assert call(keep_closed_loop, monkeypatch, *words) == 0


def test_a_training_counts_once(root, monkeypatch, capsys):
    for seed in (0, 1):
        write_run(root / "sweep", "plain", seed, 0.0, checkpoint_sha256="same")
    assert call(keep, monkeypatch, root / "sweep", "effect/two") == 0
    assert call(check, monkeypatch) == 1
    assert "plain/1: judges the same checkpoint as plain/0" in capsys.readouterr().err
    copy = root / "sweep" / "runs" / "plain" / "seed2"
    shutil.copytree(root / "sweep" / "runs" / "plain" / "seed1", copy)
    with pytest.raises(SystemExit, match=r"seed2/run\.json: is of seed 1, as that of .*seed1 is; delete"):
        call(keep, monkeypatch, root / "sweep", "effect/two")


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ("figure: effect/two val | plain | score", "no scores of 'val'"),
        ("figure: effect/two test | odd | score", "no row 'odd'; there is plain"),
        ("figure: effect/two test | plain | difference", "row 'plain' has no 'difference'"),
        ("figure: effect/two test | plain", "a figure is"),
        ("parts: effect/two | plain | test", "row 'plain' has no baseline in 'test'"),
        ("calibrated: effect/two test", "no planners are named"),
        ("calibrated: effect/two test | plain", "no row 'plain, calibrated'"),
        ("cells: effect/odd | PDMS", "results/effect/odd.csv has no rows"),
        ("figure: effect/two test | plain | by seed", "row 'plain' has no baseline"),
        ("figure: effect/two test | plain | score of seed 7", "row 'plain' has no seed '7'"),
        ("figure: effect/two test | plain | difference of seed 0", "row 'plain' has no baseline"),
        ("value: effect/odd | plain | PDMS", "results/effect/odd.csv has no row 'plain' with 'PDMS'"),
    ],
)
def test_marks_that_name_what_is_not_there(root, monkeypatch, capsys, mark, told):
    write_run(root / "sweep", "plain", 0, 0.0)
    call(keep, monkeypatch, root / "sweep", "effect/two")
    (root / "README.md").write_text(f"<!-- {mark} -->1<!-- end -->\n")
    assert call(check, monkeypatch) == 1
    assert told in capsys.readouterr().err
