"""The command lines as a user types them: train, evaluate, refuse, and on two processes."""

import csv
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper

from beyonddrive.engine.checkpoint_files import load_checkpoint_file
from beyonddrive.engine.runner import load_config
from beyonddrive.registry import MODELS, OPTIM_WRAPPERS
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.tools import cache_features, cache_metrics, test, train

REPOSITORY = Path(__file__).parents[2]


def run(*words, cwd, **variables):
    """Run a command in a process of its own, from a folder that is not the repository."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
    command = [str(word) for word in words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_train_then_test_writes_one_row_per_scene(tmp_path, blind_recipe, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert train.main([str(blind_recipe), "--seed", "1", "--cfg-options", "train_cfg.max_epochs=1"]) == 0
    work = tmp_path / "work_dirs" / "blind_recipe"
    assert (work / "last_checkpoint").read_text().endswith("epoch_1.pth")
    assert train.main([str(blind_recipe), "--resume", "--cfg-options", "train_cfg.max_epochs=2"]) == 0
    (best,) = work.glob("best_pdms_PDMS_*.pth")
    capfd.readouterr()
    args = [str(blind_recipe), str(best), "--out", "results.csv", "--plans", "plans.npz"]
    assert test.main(args) == 0
    printed = capfd.readouterr().out
    rows = rows_of(tmp_path / "results.csv")
    assert len(rows) == 3 and all(row["error"] == "" for row in rows)
    mean = 100 * np.mean([float(row["PDMS"]) for row in rows])
    assert f"PDMS  {mean:>7.2f}" in printed
    with np.load(tmp_path / "plans.npz") as plans:
        assert sorted(plans) == sorted(row["token"] for row in rows)


def test_a_seed_among_the_options_is_asked_for_like_any(tmp_path, blind_recipe, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    begun = [str(blind_recipe), "--cfg-options", "train_cfg.max_epochs=1"]
    assert train.main([*begun, "randomness.seed=3"]) == 0
    resumed = [str(blind_recipe), "--resume", "--cfg-options", "train_cfg.max_epochs=2"]
    capfd.readouterr()
    assert train.main([*resumed, "randomness.seed=4"]) == 1
    assert "--seed 4: " in (said := capfd.readouterr().err) and "is of a training with seed 3" in said
    assert train.main([*resumed, "randomness.seed=3", "--seed", "4"]) == 1
    assert "--seed 4: --cfg-options gives the seed 3; leave one of them out" in capfd.readouterr().err
    assert train.main([*resumed, "randomness.seed=3", "--seed", "3"]) == 0


def test_a_dry_run_prints_one_step_and_leaves_nothing(tmp_path, blind_recipe, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert train.main([str(blind_recipe), "--dry-run"]) == 0
    said = capfd.readouterr()
    assert "scenes per step" not in said.out + said.err  # (a recipe for more processes is not at fault)
    lines = [line.split() for line in said.out.splitlines()]
    assert ["3", "steps", "an", "epoch,", "2", "epochs;", "a", "step", "has", "2", "scenes"] in lines
    assert ["input", "status", "(2,", "8)", "float32"] in lines
    assert ["target", "gt.trajectory", "2", "x", "(8,", "3)", "float32"] in lines
    assert ["output", "pred.trajectory", "2", "x", "(8,", "3)", "float32"] in lines
    planner = MODELS.build(load_config(str(blind_recipe)).model)
    numbers = sum(parameter.numel() for parameter in planner.parameters())
    (total,) = (line for line in lines if line[0] == type(planner).__name__)
    assert total[1] == total[2] == f"{numbers:,}"
    # Two scenes, two operations a weight of a layer, and twice that backwards but for the inputs' gradients.
    step = float(lines[-1][3]) * 1e9
    assert 2 * 2 * 2 * numbers * 0.8 < step < 2 * 2 * 3 * numbers
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(SystemExit):
        train.main([str(blind_recipe), "--dry-run", "--resume"])


def test_a_dry_run_counts_optimizer_and_averaged_weights_of_every_recipe(blind_recipe, capfd):
    """Also if gradients are accumulated over more than the one batch, or a scaler passes over the step."""

    def mebibytes(*options):
        assert train.main([str(blind_recipe), "--dry-run", "--cfg-options", *options]) == 0
        told = capfd.readouterr().out.splitlines()[-2].removeprefix("MiB: ").split(", together ")
        sizes = {name: float(size) for name, size in (part.rsplit(" ", 1) for part in told[0].split(", "))}
        assert float(told[1]) == pytest.approx(sum(sizes.values()), abs=0.3)
        return sizes

    model = "model.hidden=16384"
    plain = mebibytes(model)
    assert plain["optimizer"] == pytest.approx(2 * plain["weights"], abs=0.15) and plain["weights"] > 1
    assert "averaged weights" not in plain
    ema = "default_hooks.ema.type=EMAHook"
    other = mebibytes(model, "optim_wrapper.accumulative_counts=2", ema)
    assert other == {**plain, "averaged weights": plain["weights"]}
    assert mebibytes(model, "optim_wrapper.type=SkippingOptimWrapper") == plain


def test_a_dry_run_computes_again_what_the_training_does(blind_recipe, capfd):
    def gflops(*options):
        assert train.main([str(blind_recipe), "--dry-run", "--cfg-options", *options]) == 0
        words = capfd.readouterr().out.splitlines()[-1].split()
        return float(words[3]), float(words[7])

    step, forward = gflops("model.hidden=64")
    again = gflops("model.hidden=64", "activation_checkpointing=['encoder']")
    assert again[1] == forward and step < again[0] <= step + forward


@OPTIM_WRAPPERS.register_module()
class SkippingOptimWrapper(OptimWrapper):
    """Passes over the first step, as a gradient scaler does whose first scale is too large."""

    def step(self, **kwargs):
        pass


def test_the_script_runs_from_anywhere_and_needs_no_checkpoint_without_weights(tmp_path, split_root):
    config = REPOSITORY / "configs/constant_velocity/constant_velocity_synth.py"
    options = [
        f"data_root={split_root}", "test_evaluator.cache_dir=None", "test_evaluator.num_workers=0",
        "test_dataloader.dataset.scene_filter=None",
    ]  # fmt: skip
    script = [sys.executable, REPOSITORY / "tools" / "test.py"]
    done = run(*script, config, "--out", "cv.csv", "--cfg-options", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["token"]: row for row in rows_of(tmp_path / "cv.csv")}
    for token, row in rows.items():
        (path,) = (REPOSITORY / "tests/data/golden/pdms/scores").glob(f"*__{token}.npz")
        with np.load(path, allow_pickle=False) as golden:
            assert golden["names"][1] == "constant_velocity"
            official = golden["scores"][1]
        # float32 plans; the official row was computed in float64
        np.testing.assert_allclose([float(row[name]) for name in SCORE_COLUMNS], official, atol=1e-4)
    assert len(rows) == 3


def test_another_basis_is_an_option(tmp_path, split_root, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    config = str(REPOSITORY / "configs/human/human_synth.py")
    options = [
        f"test_evaluator.cache_dir={tmp_path / 'caches'}",
        f"data_root={split_root}", "test_dataloader.dataset.scene_filter=None",
    ]  # fmt: skip
    assert cache_metrics.main([config, "--loaders", "test", "--cfg-options", *options]) == 0
    assert test.main([config, "--basis", "epdms", "--out", "human.csv", "--cfg-options", *options]) == 0
    rows = rows_of(tmp_path / "human.csv")
    assert len(rows) == 3 and all("basis=epdms;" in row["label"] for row in rows)
    mean = 100 * np.mean([float(row["EPDMS"]) for row in rows])
    assert f"epdms_one_stage/EPDMS  {mean:>7.2f}" in capfd.readouterr().out
    assert test.main([config, "--basis", "two-stage", "--cfg-options", *options]) == 1
    assert "on the basis 'two-stage'; there are pdms, epdms, " in capfd.readouterr().err


def test_a_bad_scene_makes_the_exit_code_and_is_named(tmp_path, split_root, monkeypatch, capfd):
    log = sorted((split_root / "navsim_logs/test").glob("*.pkl"))[0]
    frames = pickle.loads(log.read_bytes())
    frames[3]["ego_dynamic_state"] = [float("nan")] * 4
    log.write_bytes(pickle.dumps(frames))
    monkeypatch.chdir(tmp_path)
    config = REPOSITORY / "configs/human/human_synth.py"
    options = [
        f"data_root={split_root}", "test_evaluator.cache_dir=None", "test_evaluator.num_workers=0",
        "test_dataloader.dataset.scene_filter=None",
    ]  # fmt: skip
    assert test.main([str(config), "--out", "human.csv", "--cfg-options", *options]) == 1
    rows = {row["token"]: row for row in rows_of(tmp_path / "human.csv")}
    bad = rows.pop(frames[3]["token"])
    assert bad["PDMS"] == "" and "ego_dynamic_state" in bad["error"]
    assert len(rows) == 2 and all(0 <= float(row["PDMS"]) <= 1 for row in rows.values())
    error = capfd.readouterr().err
    assert frames[3]["token"] in error and "has no score" in error


def test_what_is_refused_is_one_line_and_exit_code_1(tmp_path, blind_recipe, split_root, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert test.main([str(blind_recipe)]) == 1
    assert "test: planner EgoStatusMLP has weights: give the checkpoint" in capfd.readouterr().err
    torch.save({"state_dict": {"x": torch.zeros(1)}, "meta": {"planner": "Other"}}, "other.pth")
    assert test.main([str(blind_recipe), "other.pth"]) == 1
    error = capfd.readouterr().err
    assert "other.pth: does not fit planner EgoStatusMLP" in error and "1 unexpected (x)" in error
    assert train.main([str(blind_recipe), "--resume", "no_such.pth"]) == 1
    assert "no_such.pth: no such checkpoint" in capfd.readouterr().err
    assert train.main(["no_such.py"]) == 1
    assert "train: no_such.py: no such config" in capfd.readouterr().err
    options = ["--cfg-options", f"val_evaluator.cache_dir={tmp_path}/absent"]
    assert train.main([str(blind_recipe), *options]) == 1
    assert "absent: no store here" in capfd.readouterr().err and not list(tmp_path.glob("work_dirs/*/*.pth"))


def test_metric_caches_of_a_config_are_the_ones_its_evaluation_reads(
    tmp_path, blind_recipe, split_root, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    caches = ["--cfg-options", "val_evaluator.cache_dir=val", "test_evaluator.cache_dir=test"]
    assert cache_metrics.main([str(blind_recipe), *caches]) == 0
    assert "test: metric caches of 3 scenes, 3 logs done now" in capfd.readouterr().out
    assert train.main([str(blind_recipe), *caches, "train_cfg.max_epochs=1"]) == 0
    log = next((split_root / "navsim_logs/val").glob("*.pkl"))
    log.write_bytes(log.read_bytes()[:1000])
    assert cache_metrics.main(["--data-root", str(split_root), "--split", "val", "--out", "other"]) == 1
    captured = capfd.readouterr()
    assert log.name in captured.err and "metric caches of 2 scenes" in captured.out
    assert cache_metrics.main([str(blind_recipe)]) == 1
    assert "no metric of val, test has a cache_dir" in capfd.readouterr().err


def test_feature_caches_of_a_config_are_the_ones_its_training_reads(
    tmp_path, blind_recipe, split_root, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    options = [
        "train_dataloader.dataset.cache_dir=features",
        "train_cfg.val_interval=9",
        "train_cfg.max_epochs=1",
    ]
    assert train.main([str(blind_recipe), "--cfg-options", *options]) == 1
    assert "cache-features" in capfd.readouterr().err
    assert cache_features.main([str(blind_recipe), "--cfg-options", *options]) == 0
    assert "train: features of 6 scenes, 6 logs done now" in capfd.readouterr().out
    assert train.main([str(blind_recipe), "--cfg-options", *options]) == 0
    assert cache_features.main([str(blind_recipe)]) == 1
    assert "has a cache_dir" in capfd.readouterr().err


def test_a_bad_scene_in_the_training_is_named_in_one_line(
    tmp_path, blind_recipe, split_root, monkeypatch, capfd
):
    log = next((split_root / "navsim_logs/train").glob("*.pkl"))
    frames = pickle.loads(log.read_bytes())
    frames[3]["ego_dynamic_state"] = [float("nan")] * 4
    log.write_bytes(pickle.dumps(frames))
    monkeypatch.chdir(tmp_path)
    options = ["train_dataloader.num_workers=1", "train_dataloader.dataset.cache_dir=features"]
    assert cache_features.main([str(blind_recipe), "--cfg-options", *options]) == 1
    assert f"scene {frames[3]['token']}" in capfd.readouterr().err
    assert train.main([str(blind_recipe), "--cfg-options", options[0]]) == 1
    error = capfd.readouterr().err
    assert frames[3]["token"] in error and "Traceback" not in error


ONE_OF_ONE = """
import json, multiprocessing, os, sys
import torch
from pathlib import Path
from beyonddrive.tools import test, train
os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
for name, *args in json.loads(sys.argv[1]):
    if name == "break":
        Path(args[0]).write_bytes(Path(args[1]).read_bytes())
        continue
    try:
        code = {"test": test, "train": train}[name].main(args)
    except Exception as error:
        code = type(error).__name__
    # as the interpreter would see it if it shut down now
    threads = sorted({path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")})
    state = [code, torch.distributed.is_initialized(), len(multiprocessing.active_children()), threads]
    print("ended", json.dumps(state))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists threads as Linux does")
def test_launched_runs_leave_no_process_group_behind(tmp_path, blind_recipe, split_root):
    """Neither the group nor its threads, which abort a process that ends while they work."""
    log = next((split_root / "navsim_logs/train").glob("*.pkl"))
    frames = pickle.loads(log.read_bytes())
    frames[3]["ego_dynamic_state"] = [float("nan")] * 4
    (tmp_path / "broken.pkl").write_bytes(pickle.dumps(frames))
    planner = MODELS.build(load_config(blind_recipe).model)
    torch.save({"state_dict": planner.state_dict(), "meta": {}}, tmp_path / "any.pth")
    options = ["train_cfg.max_epochs=1", "train_cfg.val_interval=9"]
    options += ["train_dataloader.num_workers=1", "train_dataloader.persistent_workers=True"]
    launched = ["--launcher", "pytorch", "--cfg-options", *options]
    runs = [
        ["train", str(blind_recipe), *launched],
        ["test", str(blind_recipe), str(tmp_path / "any.pth"), *launched],
        ["break", str(log), str(tmp_path / "broken.pkl")],
        ["train", str(blind_recipe), *launched],
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", ONE_OF_ONE, json.dumps(runs)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    states = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("ended ")]
    assert [state[:3] for state in states] == [[0, False, 0], [0, False, 0], ["DatasetError", False, 0]]
    for *_, threads in states:
        assert any(name.startswith("python") for name in threads) and "gloo" not in threads


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(tmp_path, blind_recipe):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["train_cfg.max_epochs=1", "train_dataloader.batch_size=1"]
    work = tmp_path / "two"
    words = [blind_recipe, 2, "--work-dir", work, "--cfg-options", *options]
    script = REPOSITORY / "tools" / "dist_train.sh"
    done = run(script, *words, cwd=tmp_path, PYTHON=sys.executable, MASTER_PORT=port)
    assert done.returncode == 0, done.stdout + done.stderr
    one = tmp_path / "one"
    options[1] = "train_dataloader.batch_size=2"
    assert train.main([str(blind_recipe), "--work-dir", str(one), "--cfg-options", *options]) == 0
    alone, together = (load_checkpoint_file(path / "epoch_1.pth") for path in (one, work))
    for key, value in alone["state_dict"].items():
        # Two scenes on one process and one scene on each of two are the same step.
        torch.testing.assert_close(together["state_dict"][key], value, rtol=1e-4, atol=1e-6)
    logs = [checkpoint["message_hub"]["log_scalars"] for checkpoint in (alone, together)]
    # Three scenes on two ranks: the sampler repeats one, the score does not.
    assert [log["val/pdms/num_scenes"].current() for log in logs] == [3, 3]
    for name in SCORE_COLUMNS:
        scores = [log[f"val/pdms/{name}"].current() for log in logs]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3), name
