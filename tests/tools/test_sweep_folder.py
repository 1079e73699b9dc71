"""The folder of a sweep over several commands: what goes on, what is judged again, what the report has."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.engine.executors import SerialExecutor, WorkerLostError
from beyonddrive.engine.sweeps import places, work
from beyonddrive.evaluation.score_rows import ScoredScene, scenes_to_csv
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.tools.sweep import main


class Verbs:
    """Trainings and tests that cost nothing: scores follow from what a checkpoint holds.

    Attributes:
        calls: Verb, row, seed and loader of each.
        fails: Row and seed of runs whose verbs fail.
        loses: Row, seed and file of scores that lack one scene.
        data: What a training says that it reads; nothing is said of None.
        dies: Row and seed of a run that is killed in its training, after an epoch.
        number: Part of what every checkpoint holds.
    """

    def __init__(self):
        self.calls, self.fails, self.dies, self.number = [], set(), None, 0
        self.loses, self.data = set(), None

    def __call__(self, run, gpu, words):
        place = {words[i]: words[i + 1] for i in range(2, len(words) - 1) if words[i].startswith("--")}
        self.calls.append((words[0], run.row, run.seed, place.get("--loader")))
        if (run.row, run.seed) in self.fails:
            raise subprocess.CalledProcessError(1, ["python", "-m", "beyonddrive", *words])
        if words[0] == "train":
            folder = Path(place["--work-dir"])
            folder.mkdir(parents=True, exist_ok=True)
            if self.data is not None:
                start = folder / f"start_{len(list(folder.iterdir()))}" / "run.json"
                start.parent.mkdir()
                start.write_text(json.dumps({"first_step": 1, "data": [self.data]}))
            is_killed = self.dies == (run.row, run.seed)
            name = f"epoch_{1 if is_killed else 2}.pth"
            (folder / name).write_text(f"{run.recipe} {run.seed} {self.number}")
            (folder / "last_checkpoint").write_text(name)
            if is_killed:
                raise KeyboardInterrupt
            return
        weights = Path(words[2]).read_text() if words[2].endswith(".pth") else ""
        values = np.random.default_rng(list(weights.encode())).uniform(0.1, 0.9, (5, len(SCORE_COLUMNS)))
        scenes = [ScoredScene(f"t{index}", "log", value) for index, value in enumerate(values)]
        out = Path(place["--out"])
        is_lost = (run.row, run.seed, out.name) in self.loses
        if is_lost:
            scenes[1] = ScoredScene("t1", "log", None, "no lane at all")
        out.write_text(scenes_to_csv(scenes, SCORE_COLUMNS))
        if is_lost:
            raise subprocess.CalledProcessError(1, ["python", "-m", "beyonddrive", *words])


@pytest.fixture
def verbs(monkeypatch):
    verbs = Verbs()
    monkeypatch.setattr(work, "_call", verbs)
    return verbs


@pytest.fixture
def sweep(tmp_path, blind_recipe, verbs):
    """Writes a plan with the rows A and B, which judges A's checkpoints, and carries it out."""
    plan, out = tmp_path / "plans" / "plan.yml", tmp_path / "sweep"
    plan.parent.mkdir()

    def run(*words, hidden=16, rows="", top="seeds: [0, 1]"):
        own = f"{{config: {blind_recipe}, options: {{model.hidden: {hidden}}}}}"
        other = f"{{config: {blind_recipe}, weights: A, baseline: A}}"
        plan.write_text(f"{top}\nrows:\n  A: {own}\n  B: {other}\n{rows}")
        verbs.calls.clear()
        return main(["--plan", str(plan), "--out", str(out), *words])

    run.plan, run.out = plan, out
    return run


def record_of(run):
    return json.loads((run / "run.json").read_text())


def test_scores_of_another_checkpoint_are_made_again(sweep, verbs, capsys):
    assert sweep() == 0
    first, a = sweep.out / "runs/b/seed0", sweep.out / "runs/a"
    scores, record = (first / "test.csv").read_text(), record_of(first)
    assert record["weights_recipe"] == record_of(a / "seed0")["recipe"]
    assert record["checkpoint_sha256"] == record_of(a / "seed0")["checkpoint_sha256"]
    assert sweep() == 0 and not verbs.calls

    # another recipe of the row whose checkpoints are judged
    shutil.rmtree(a)
    capsys.readouterr()
    assert sweep("--dry-run", hidden=8) == 0
    assert capsys.readouterr().out.count("to do") == 4
    assert sweep(hidden=8) == 0
    told = "B, seed 0: judged again: row 'a', whose checkpoint it judges, has another recipe now"
    assert told in capsys.readouterr().err
    assert (first / "test.csv").read_text() != scores
    assert record_of(first)["weights_recipe"] == record_of(a / "seed0")["recipe"]

    # the same recipe, trained again
    shutil.rmtree(a / "seed1")
    verbs.number = 1
    assert sweep(hidden=8) == 0
    assert "B, seed 1: judged again: row 'a' has another checkpoint now" in capsys.readouterr().err
    assert [call[:3] for call in verbs.calls] == [("train", "A", 1), ("test", "A", 1), ("test", "B", 1)]
    assert sweep(hidden=8) == 0 and not verbs.calls


def test_a_checkpoint_that_was_exchanged_is_not_judged_beside_the_old_scores(sweep, capsys):
    assert sweep() == 0
    (sweep.out / "runs/b/seed0/test.csv").unlink()
    (sweep.out / "runs/a/seed0/train/epoch_2.pth").write_text("another")
    assert sweep() == 1
    assert "epoch_2.pth: is another one than row 'a' was judged with; delete" in capsys.readouterr().err
    (sweep.out / "runs/a/seed0/run.json").unlink()
    assert sweep() == 0


def test_no_scores_of_an_earlier_checkpoint_are_left(sweep, verbs):
    """Those that the command which judged again did not ask for were taken for the new checkpoint's."""
    more = ("--loaders", "test", "val", "--further", "epdms")
    assert sweep(*more) == 0
    judged, a = sweep.out / "runs/b/seed0", sweep.out / "runs/a/seed0"
    old = {name: (judged / f"{name}.csv").read_text() for name in ("test", "val", "test-epdms")}
    shutil.rmtree(a)
    verbs.number = 1
    assert sweep("--seeds", "0") == 0
    assert sweep(*more) == 0
    assert ("test", "B", 0, "val") in verbs.calls
    assert not [name for name in old if (judged / f"{name}.csv").read_text() == old[name]]

    # without its record a run is judged anew, on what is asked for
    (a / "run.json").unlink()
    assert sweep("--seeds", "0") == 0
    assert not (a / "val.csv").exists() and not (a / "test-epdms.csv").exists()


def test_records_of_earlier_versions_stay_valid(sweep, verbs):
    assert sweep() == 0
    for path in sweep.out.glob("runs/*/*/run.json"):
        record = json.loads(path.read_text())
        new = ("checkpoint_sha256", "weights_recipe")
        path.write_text(json.dumps({key: value for key, value in record.items() if key not in new}))
    assert sweep() == 0 and not verbs.calls
    # scores that are added do not say of the earlier ones what nobody knows
    assert sweep("--loaders", "test", "val") == 0
    assert {call[3] for call in verbs.calls} == {"val"}
    assert "checkpoint_sha256" not in record_of(sweep.out / "runs/a/seed0")
    assert sweep("--loaders", "val") == 0 and not verbs.calls
    assert record_of(sweep.out / "runs/b/seed1")["loaders"] == ["test", "val"]


def test_a_killed_training_goes_on_as_what_it_began(sweep, verbs, capsys):
    verbs.dies = ("A", 0)
    with pytest.raises(KeyboardInterrupt):
        sweep()
    verbs.dies = None
    capsys.readouterr()
    assert sweep(hidden=8) == 1
    told = capsys.readouterr().err
    assert "a/seed0/training.json: was made from another config" in told and not verbs.calls
    # what was killed counts up to its last checkpoint
    run = sweep.out / "runs/a/seed0"
    started = json.loads((run / "training.json").read_text())["started"]
    os.utime(run / "train/epoch_1.pth", (started + 500, started + 500))
    assert sweep() == 0
    assert 500 <= record_of(run)["seconds"]["train"] < 600
    assert record_of(sweep.out / "runs/a/seed1")["seconds"]["train"] < 100


def test_what_a_killed_run_has_judged_is_not_judged_again(sweep, verbs, monkeypatch):
    more = ("--seeds", "0", "--loaders", "test", "val", "--rows", "A")
    run = sweep.out / "runs/a/seed0"

    def dying(run, gpu, words):
        if words[0] == "test" and "val" in words:
            raise KeyboardInterrupt
        verbs(run, gpu, words)

    def kill():
        monkeypatch.setattr(work, "_call", dying)
        with pytest.raises(KeyboardInterrupt):
            sweep(*more)
        monkeypatch.setattr(work, "_call", verbs)
        assert (run / "judging.json").exists() and not (run / "run.json").exists()

    kill()
    first = (run / "test.csv").stat().st_mtime_ns
    assert sweep(*more) == 0
    assert verbs.calls == [("train", "A", 0, None), ("test", "A", 0, "val")]
    assert (run / "test.csv").stat().st_mtime_ns == first and not (run / "judging.json").exists()
    assert record_of(run)["seconds"].keys() == {"train", "test", "val"}

    # of another checkpoint nothing is kept
    shutil.rmtree(run)
    kill()
    verbs.number = 1
    assert sweep(*more) == 0
    assert [call[3] for call in verbs.calls] == [None, "test", "val"]


HUMAN = "  human: {config: human_synth, shared_options: false}\n"


def test_rows_without_training_are_judged_on_what_they_have(sweep, verbs, capsys):
    assert sweep("--loaders", "val", "test", "--further", "epdms", rows=HUMAN) == 0
    assert "human: has no val, and is judged on test\n" in capsys.readouterr().out
    assert [call[3] for call in verbs.calls if call[1] == "human"] == ["test"]
    report = (sweep.out / "report.md").read_text()
    assert "| human | 1 |" in report.partition("## test")[2]
    # nothing else is there: no part of the other loader
    shutil.rmtree(sweep.out)
    assert sweep("--rows", "human", "--loaders", "test", "val", rows=HUMAN) == 0
    assert "## val" not in (sweep.out / "report.md").read_text()


def test_the_report_has_all_runs_of_the_plan_that_lie_there(sweep, capsys):
    assert sweep("--rows", "A") == 0
    assert "Without runs so far: B." in capsys.readouterr().out
    assert sweep("--rows", "B", "--seeds", "1:3") == 0
    report = (sweep.out / "report.md").read_text()
    assert "Seeds 0, 1, 2." in report and "| A | 3 |" in report and "| B | 2 |" in report
    lines = (sweep.out / "runs.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:2] for line in lines] == [
        ["A", "0"], ["A", "1"], ["A", "2"], ["B", "1"], ["B", "2"],
    ]  # fmt: skip
    # seeds of another recipe are left out and told
    for seed in (1, 2):
        shutil.rmtree(sweep.out / f"runs/a/seed{seed}")
    assert sweep("--seeds", "1:3", hidden=8) == 0
    report = (sweep.out / "report.md").read_text()
    assert "| A | 2 |" in report and "- A, seed 0: " in report
    assert "was made from another config" in report.partition("Runs without scores")[2]


def test_failures_are_told_until_the_run_succeeds(sweep, verbs):
    verbs.fails = {("A", 1)}
    assert sweep() == 1
    told = "- A, seed 1: beyonddrive train ended with 1"
    text = (sweep.out / "report.md").read_text()
    assert told in text and "- B, seed 1: " in text
    (sweep.out / "report.md").unlink()
    assert sweep("--report-only") == 0
    assert (sweep.out / "report.md").read_text() == text
    verbs.fails = set()
    assert sweep() == 0
    assert sweep("--report-only") == 0
    assert "Runs without scores" not in (sweep.out / "report.md").read_text()
    assert not list(sweep.out.glob("**/failed.txt"))

    # a score that is asked for later does not take away those that are there
    verbs.fails = {("A", 1)}
    assert sweep("--loaders", "test", "val") == 1
    test, _, val = (sweep.out / "report.md").read_text().partition("## val")
    assert "| A | 2 |" in test and "| A | 1 |" in val and "- A, seed 1: val: beyonddrive test" in val


def test_a_report_of_what_a_killed_sweep_left(sweep, verbs, capsys):
    assert sweep("--report-only") == 1
    assert "no scores of a sweep" in capsys.readouterr().err
    verbs.dies = ("A", 1)
    with pytest.raises(KeyboardInterrupt):
        sweep()
    assert sweep("--report-only") == 0
    assert "| A | 1 |" in (sweep.out / "report.md").read_text()
    # without the runs there are still the scores that were made of them
    shutil.rmtree(sweep.out / "runs")
    assert sweep("--report-only") == 0
    assert "| A | 1 |" in (sweep.out / "report.md").read_text()


def test_files_of_parts_that_the_report_has_not_are_removed(sweep):
    """They would be of the runs of an earlier command, beside files of all that are there."""
    top = "seeds: [0]\nsubsets: {hard: hard.yaml}"
    (sweep.plan.parent / "hard.yaml").write_text("tokens: [t1, t3]\n")
    assert sweep("--loaders", "test", "val", top=top) == 0
    files = {"scores_val.npz", "table_val.tex", "intervals_val.png", "table_hard.tex"}
    (sweep.out / "table_mine.tex").touch()
    assert files <= {path.name for path in sweep.out.iterdir()}
    assert sweep("--seeds", "0,1") == 0
    left = {path.name for path in sweep.out.iterdir()}
    assert not files & left and {"scores_test.npz", "table_test.tex", "table_mine.tex"} <= left
    assert sweep("--loaders", "test", "val", top=top) == 0
    assert files <= {path.name for path in sweep.out.iterdir()}


def test_a_report_has_no_scores_of_runs_that_are_refused(sweep, capsys):
    assert sweep() == 0
    before = (sweep.out / "report.md").read_text()
    assert sweep("--report-only", hidden=8) == 1  # (all are of another recipe than their row has now)
    told = capsys.readouterr().err
    assert "none of the 4 runs there has scores that count for this plan" in told
    assert "A, seed 0: " in told and "was made from another config" in told
    assert (sweep.out / "report.md").read_text() == before


def test_the_report_tells_seeds_that_are_there_and_scores_that_are_not(sweep, capsys):
    assert sweep("--loaders", "test", "val", "--seeds", "1") == 0
    (sweep.out / "runs/a/seed1/val.csv").unlink()
    capsys.readouterr()
    assert sweep("--loaders", "test", "val", "--report-only") == 0
    report = capsys.readouterr().out
    assert "Seeds 1. Judged" in report  # (the plan has 0 and 1)
    assert "- A, seed 1: has no scores on val; the same command judges it again" in report


def test_the_day_on_which_a_run_was_judged_stays(sweep):
    assert sweep() == 0
    path = sweep.out / "runs/a/seed0/run.json"
    assert record_of(path.parent)["date"]
    old = {key: value for key, value in record_of(path.parent).items() if key != "date"}
    path.write_text(json.dumps(old))
    os.utime(path, (86400, 86400))
    assert sweep("--loaders", "test", "val") == 0
    assert record_of(path.parent)["date"] == "1970-01-02"


def test_subsets_are_read_before_anything_is_trained(sweep, verbs, capsys):
    top = "seeds: [0]\nsubsets: {hard: hard.yaml}"
    hard = sweep.plan.parent / "hard.yaml"
    assert sweep(top=top) == 1 and not verbs.calls
    assert "subsets.hard: hard.yaml: there is no such file" in capsys.readouterr().err
    hard.write_text("num_history_frames: 4\n")
    assert sweep(top=top) == 1 and not verbs.calls
    assert f"subsets.hard: {hard}: names no tokens" in capsys.readouterr().err
    hard.write_text("tokens: [t1, t3]\n")
    assert sweep(top=top) == 0
    assert "## hard: 2 scenes" in capsys.readouterr().out
    assert ",hard," in (sweep.out / "runs.csv").read_text()


@pytest.mark.parametrize("added", ["test-epdms", "val"])
def test_a_scene_without_scores_leaves_one_run_out_of_one_part(sweep, verbs, capsys, added):
    words = ["--further", "epdms"] if added == "test-epdms" else ["--loaders", "test", "val"]
    assert sweep() == 0
    verbs.loses = {("A", 1, f"{added}.csv")}
    why = f"{added} (1 scenes without, such as t1: no lane at all)"
    for _ in range(2):  # the second command judges it again, and forgets nothing
        assert sweep(*words) == 1
        assert ("test", "A", 1, "val" if added == "val" else "test") in verbs.calls
        test, _, other = (sweep.out / "report.md").read_text().partition(f"## {added}")
        assert "| A | 2 |" in test and "| A | 1 |" in other and f"- A, seed 1: {why}" in other
    capsys.readouterr()
    assert sweep(*words, "--dry-run") == 0
    assert f"to do     A, seed 1: {sweep.out}/runs/a/seed1, has no scores on {why}" in capsys.readouterr().out
    (sweep.out / "runs/a/seed1/failed.txt").unlink()  # as of a sweep that was killed after it
    assert sweep(*words, "--report-only") == 0
    assert f"- A, seed 1: has no scores on {why}; the same command" in capsys.readouterr().out

    verbs.loses = set()
    assert sweep(*words) == 0
    assert {call[:3] for call in verbs.calls} == {("test", "A", 1)}
    assert f"A, seed 1: judged again: had no scores on {why}" in capsys.readouterr().err
    assert "Runs without scores" not in (sweep.out / "report.md").read_text()
    assert sweep(*words) == 0 and not verbs.calls


def test_subsets_of_a_loader_that_is_not_judged_first_are_left_out(sweep, verbs, capsys):
    top = "seeds: [0]\nsubsets: {hard: hard.yaml}"
    (sweep.plan.parent / "hard.yaml").write_text("tokens: [elsewhere]\n")
    for words in (["--loaders", "val"], ["--loaders", "val", "--report-only"]):
        assert sweep(*words, top=top) == 0
        told = capsys.readouterr().out
        assert "left out are the subsets hard: they are of scenes of the loader test, and" in told
        assert "## val: 5 scenes" in told and "## hard" not in told

    # a plan whose subset has scenes that are not judged: told when there are scores of others
    assert sweep(top=top) == 1
    told = capsys.readouterr().err
    assert f"plan 'Sweep': subsets.hard: {sweep.plan.parent}/hard.yaml: test: 1 of 1 scenes have no" in told
    assert "put the one first that it is of, give scenes of test, or take it out of the plan" in told

    # and before anything is trained where the scene filter of the loader lists its scenes
    listed = sweep.out / "listed.yaml"
    listed.write_text("tokens: [t0, t1]\n")
    words = ["--cfg-options", f"test_dataloader.dataset.scene_filter={listed}", "--out", f"{sweep.out}2"]
    assert sweep(*words, top=top) == 1 and not verbs.calls
    told = capsys.readouterr().err
    assert f"{listed} has not 1 of its 1 scenes, such as elsewhere; subsets are of the loader" in told


def test_seeds_that_were_trained_on_different_data_are_named(sweep, verbs):
    pool = {"transform": "LoadNegatives", "kind": "negatives", "records": 2, "digest": "one"}
    verbs.data = {"split": "train", "scenes": 3, "tokens": "a", "digest": "b", "stores": [pool]}
    assert sweep(rows="  C: {config: human_synth, shared_options: false}\n") == 0
    verbs.data = {**verbs.data, "files": 7, "stores": [{**pool, "transform": "Renamed"}]}  # (the same data)
    assert sweep("--seeds", "2") == 0
    assert len({record_of(sweep.out / f"runs/a/seed{seed}")["data"] for seed in range(3)}) == 1
    assert record_of(sweep.out / "runs/b/seed0")["data"] is None
    assert "different data" not in (sweep.out / "report.md").read_text()

    pool["digest"] = "two"  # mined again, into the same folder
    verbs.data["stores"] = [pool]
    assert sweep("--seeds", "3") == 0
    told = "Seeds of one row were trained on different data, and the row is a mixture: A (seeds 0, 1, 2 | 3)."
    assert told in (sweep.out / "report.md").read_text()

    # a copy, whose files have other times, and records that tell nothing
    kept = record_of(sweep.out / "runs/a/seed3")["data"]
    os.utime(sweep.out / "runs/a/seed3/train/epoch_2.pth", (1, 1))
    assert sweep("--seeds", "3", "--loaders", "test", "val") == 0
    assert record_of(sweep.out / "runs/a/seed3")["data"] == kept
    for seed in range(3):
        path = sweep.out / f"runs/a/seed{seed}"
        old = {key: value for key, value in record_of(path).items() if key != "data"}
        (path / "run.json").write_text(json.dumps(old))
    assert sweep("--report-only") == 0
    assert "different data" not in (sweep.out / "report.md").read_text()


def test_a_copy_of_a_run_is_no_other_training(sweep, capsys):
    assert sweep() == 0
    shutil.copytree(sweep.out / "runs/a/seed0", sweep.out / "runs/a/seed2")
    assert sweep(top="seeds: [0, 1, 2]") == 1
    assert "seed2/run.json: is of seed 0: a copy of that run" in capsys.readouterr().err
    assert sweep("--report-only") == 0
    assert "- A, seed 2: " in (report := capsys.readouterr().out) and "| A | 2 |" in report

    # without the record there is still the training, which would be ended at once and be judged
    (sweep.out / "runs/a/seed2/run.json").unlink()
    assert sweep(top="seeds: [0, 1, 2]") == 1
    assert "seed2/training.json: is of seed 0: a copy of that run" in capsys.readouterr().err


def test_what_is_complete_is_reported_when_a_worker_is_killed(sweep, monkeypatch, capsys):
    class Killed(SerialExecutor):
        def _results(self, call, items):
            yield call.function(items[0])
            raise WorkerLostError("a worker process was killed")

    monkeypatch.setattr(places, "make_executor", lambda jobs: Killed())
    assert sweep() == 1
    told = capsys.readouterr()
    assert "3 of 4 runs were not carried out: a worker process was killed" in told.err
    assert "| A | 1 |" in told.out and "| A | 1 |" in (sweep.out / "report.md").read_text()


def test_checkpoints_that_runs_would_share_or_mix_up_are_refused(sweep, verbs, capsys):
    """One folder for all runs, and two best checkpoints of which the newer would be taken."""
    words = ["--cfg-options", "default_hooks.checkpoint.out_dir=all"]
    assert sweep(*words) == 1
    assert "rows.A: default_hooks.checkpoint.out_dir of its config is all" in capsys.readouterr().err
    words[1] = "default_hooks.checkpoint.save_best=[pdms/PDMS,pdms/NC]"
    assert sweep(*words, top="seeds: [0]\ncheckpoint: best") == 1
    assert "checkpoint: best: row 'A' keeps those by pdms/PDMS, pdms/NC" in capsys.readouterr().err
    assert sweep(*words, "--dry-run") == 0 and not verbs.calls
