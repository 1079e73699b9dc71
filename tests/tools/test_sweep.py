"""``beyonddrive sweep``: trains, judges, reports, goes on, and tells what failed."""

import json
import subprocess

import pytest

from beyonddrive import cli
from beyonddrive.engine.sweeps import work
from beyonddrive.engine.sweeps.folder import runs_of
from beyonddrive.tools.sweep import main, parse_args, plan_of


@pytest.fixture
def in_this_process(monkeypatch):
    """Verbs run here: starting Python for each would take most of the time of a tiny training."""

    def call(run, gpu, words):
        assert gpu is None
        if (code := cli.main(list(words))) != 0:
            raise subprocess.CalledProcessError(code, ["python", "-m", "beyonddrive", *words])

    monkeypatch.setattr(work, "_call", call)


def test_a_run_is_a_process_of_its_own_and_tells_why_it_failed(tmp_path, split_root, capsys):
    words = ["human_synth", "--out", str(tmp_path / "sweep"), "--cfg-options", f"data_root={tmp_path / 'no'}"]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "human_synth, seed 0: beyonddrive test ended with 1:" in told and "log.txt)" in told
    assert "1 of 1 runs failed" in told and not list((tmp_path / "sweep").glob("**/run.json"))


@pytest.mark.usefixtures("in_this_process")
def test_a_grid_is_trained_once_and_a_failed_run_leaves_the_rest(tmp_path, blind_recipe, capsys):
    out = tmp_path / "sweep"
    words = [str(blind_recipe), "--out", str(out), "--seeds", "0:2", "--grid", "train_cfg.max_epochs=1,2"]
    words += ["--baseline", "max_epochs=1", "--loaders", "test"]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("to do") == 4

    # A folder where a file of one run must go: that run fails, the others do not.
    broken = out / "runs" / "blind_recipe-max_epochs=2" / "seed1"
    (broken / "test.csv").mkdir(parents=True)
    assert main(words) == 1
    told = capsys.readouterr()
    assert "1 of 4 runs failed" in told.err and "max_epochs=2, seed 1: beyonddrive test ended" in told.err
    assert "| blind_recipe max_epochs=2 | 1 |" in told.out and "Runs without scores" in told.out

    (broken / "test.csv").rmdir()
    trained = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/run.json")}
    assert len(trained) == 3
    assert main(words) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in trained.items())
    report = (out / "report.md").read_text()
    assert "| blind_recipe max_epochs=2 | 2 |" in report and "Runs without scores" not in report
    assert "Nothing is chosen here" in report
    assert (out / "runs.csv").read_text().count("\n") == 5
    assert (out / "table_test.tex").exists() and (out / "intervals_test.png").exists()
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/*.csv")}
    before |= {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/train/*.pth")}
    record = json.loads((broken / "run.json").read_text())
    assert (record["seed"], record["checkpoint"]) == (1, "epoch_2.pth")
    digests = {json.loads(path.read_text())["data"] for path in out.glob("runs/*/*/run.json")}
    assert len(digests) == 1 and None not in digests
    capsys.readouterr()

    # A further basis judges what is trained, and nothing is trained or judged again.
    assert main([*words, "--further", "epdms"]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert "## test-epdms: 3 scenes\n\nepdms: EPDMS, 1 stage, logged traffic, human filter on" in (
        told := (out / "report.md").read_text()
    )
    assert told.count("| blind_recipe max_epochs=2 | 2 |") == 2
    record = json.loads((broken / "run.json").read_text())
    assert set(record["seconds"]) == {"train", "test", "test-epdms"}
    assert main([*words, "--further", "two-stage"]) == 1
    assert "no metric judges logged scenes on the basis 'two-stage'" in capsys.readouterr().err

    # The report alone, of all seeds that are there, and a recipe that is another one now.
    alone = [word for word in words if word not in ("--seeds", "0:2")]
    assert main([*alone, "--report-only"]) == 0
    assert capsys.readouterr().out.strip() == report.strip()
    assert main([*words, "--cfg-options", "model.hidden=8"]) == 1
    assert "was made from another config, weights or rule of checkpoints" in capsys.readouterr().err


@pytest.mark.usefixtures("in_this_process")
def test_a_row_judges_the_checkpoints_of_another(tmp_path, blind_recipe, capsys):
    """It comes when they are there, is judged with inputs of its own, and trains nothing."""
    blank = tmp_path / "blank.py"
    blank.write_text(
        f'_base_ = "{blind_recipe}"\n'
        '_steps = [dict(type="BlankInputs", keys=("status",)), dict(type="PackPlanInputs")]\n'
        "test_dataloader = dict(dataset=dict(pipeline=_steps))\n"
    )
    plan = tmp_path / "plan.yml"
    rows = f"rows:\n  blank: {{config: {blank}, weights: moving, baseline: moving}}\n"
    plan.write_text(f"seeds: [0, 1]\n{rows}  moving: {{config: {blind_recipe}}}\n")
    out = tmp_path / "sweep"
    words = ["--plan", str(plan), "--out", str(out)]
    assert main(words) == 0
    assert "| blank | 2 |" in capsys.readouterr().out
    assert len(list(out.glob("runs/moving/*/train/epoch_2.pth"))) == 2
    assert not list(out.glob("runs/blank/*/train"))
    record = json.loads((out / "runs/blank/seed1/run.json").read_text())
    assert (record["checkpoint"], record["weights"]) == ("epoch_2.pth", "moving")
    assert set(record["seconds"]) == {"test"}
    scores = [(out / f"runs/{row}/seed1/test.csv").read_text() for row in ("blank", "moving")]
    assert scores[0] != scores[1]

    # A training that failed leaves nothing to judge, and another one is no longer that of the record.
    (out / "runs/moving/seed0/run.json").unlink()
    (out / "runs/blank/seed0/run.json").unlink()
    (out / "runs/blank/seed0/test.csv").unlink()
    outcome = work.carry_out(next(run for run in runs_of(plan_of(parse_args(words)), out) if run.weights))
    assert "moving/seed0: is not trained yet, and row 'blank' judges its checkpoint" in outcome.error
    plan.write_text(plan.read_text().replace("weights: moving, ", ""))
    assert main(words) == 1
    assert "was made from another config, weights or rule" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "x"], "give configs or --plan"),
        (["a", "--plan", "b", "--out", "x"], "give configs or --plan"),
        (["--plan", "b", "--grid", "k=1", "--out", "x"], "the file has the rows"),
        (["a", "--rows", "b", "--out", "x"], "chooses rows of a --plan"),
        (["a", "--jobs", "0", "--out", "x"], "at least 1"),
        (["--plan", "b", "--rows", "c", "--report-only", "--out", "x"], "in --out; leave out --rows"),
        (["a", "--seeds", "0:2", "--jobs", "2", "--report-only", "--out", "x"], "leave out --seeds, --jobs"),
        (["a", "--ray", "--dry-run", "--report-only", "--out", "x"], "leave out --ray, --dry-run"),
    ],
)
def test_command_lines_that_contradict_themselves(words, told, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert told in capsys.readouterr().err


def test_more_jobs_than_cores_and_unknown_configs_are_refused(tmp_path, capsys):
    assert main(["human_synth", "--out", str(tmp_path / "s"), "--jobs", "4096"]) == 1
    assert "--jobs 4096: this machine has" in capsys.readouterr().err
    assert main(["no_such", "--out", str(tmp_path / "s")]) == 1
    assert "no_such: no such config" in capsys.readouterr().err


def test_rows_that_nothing_is_compared_with_are_told(tmp_path, capsys):
    words = ["human_synth", "constant_velocity_synth", "--out", str(tmp_path / "s"), "--dry-run"]
    assert main(words) == 0
    assert "no differences: give --baseline" in capsys.readouterr().out
    assert main([*words, "--baseline", "human_synth"]) == 0
    assert "no differences" not in capsys.readouterr().out
