"""A part of a split never passes for the whole: figures, csv, log file, exit code, and training."""

import csv
import pickle

import pytest

from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.tools import cache_features, test, train

CACHED = [f"{part}_dataloader.dataset.cache_dir=features/{part}" for part in ("train", "val", "test")]


def break_scene(split_root, split):
    """Make the current frame of one scene unusable; its token."""
    log = sorted((split_root / "navsim_logs" / split).glob("*.pkl"))[0]
    frames = pickle.loads(log.read_bytes())
    frames[3]["ego_dynamic_state"] = [float("nan")] * 4
    log.write_bytes(pickle.dumps(frames))
    return frames[3]["token"]


def cut_log(split_root, split):
    """Cut a log short; its name."""
    log = sorted((split_root / "navsim_logs" / split).glob("*.pkl"))[-1]
    log.write_bytes(log.read_bytes()[:1000])
    return log.stem


@pytest.fixture
def weights(tmp_path, blind_recipe, monkeypatch):
    """Weights of the tiny recipe, trained while everything was whole."""
    monkeypatch.chdir(tmp_path)
    build_train_runner(load_config(blind_recipe, {"train_cfg.max_epochs": 1}), str(tmp_path / "w")).train()
    return str(tmp_path / "w" / "epoch_1.pth")


@pytest.mark.parametrize("cached", [False, True])
def test_an_evaluation_counts_what_is_lost(tmp_path, blind_recipe, split_root, weights, cached, capfd):
    token, log = break_scene(split_root, "test"), cut_log(split_root, "test")
    options = ["--cfg-options", "log_level=INFO", *(CACHED if cached else [])]
    if cached:
        assert cache_features.main([str(blind_recipe), "--loaders", "test", *options]) == 1
    capfd.readouterr()
    blind_recipe.write_text(f"{blind_recipe.read_text()}\ntest_cfg = dict(_delete_=True)\n")
    arguments = [str(blind_recipe), weights, "--out", "r.csv", "--work-dir", "t", *options]
    assert test.main(arguments) == 1
    said = capfd.readouterr()
    share = "1 of 2 scenes, without those of 1 log(s) that cannot be read"
    lines = [line for line in said.out.splitlines() if line.startswith(("NC ", "PDMS "))]
    assert len(lines) == 2 and all(line.endswith(f"({share})") for line in lines)
    assert f"{token} has no score" in said.err and f"{log} has no score" in said.err
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    failed = {row["token"] or row["log"]: row["error"] for row in rows if row["error"]}
    assert set(failed) == {token, log} and "ego_dynamic_state" in failed[token]
    (text,) = [path.read_text() for path in (tmp_path / "t").glob("*/*.log")]
    assert share in text and token in text and log in text and "pdms/num_failed: 2" in text


@pytest.mark.parametrize("cached", [False, True])
def test_a_training_goes_on_without_lost_scenes_only_if_told_to(
    tmp_path, blind_recipe, split_root, monkeypatch, cached, capfd
):
    monkeypatch.chdir(tmp_path)
    name = break_scene(split_root, "train") if cached else cut_log(split_root, "train")
    options = ["train_cfg.max_epochs=1", "train_cfg.val_interval=9", *(CACHED if cached else [])]
    if cached:
        assert cache_features.main([str(blind_recipe), "--cfg-options", *options]) == 1
    capfd.readouterr()
    arguments = [str(blind_recipe), "--work-dir", "w", "--cfg-options", *options]
    assert train.main(arguments) == 1
    said = capfd.readouterr().err
    assert name in said and "allow_lost=True" in said and "Traceback" not in said
    assert ("5 of 6 scenes" if cached else "5 scenes, without those of 1 log(s)") in said
    assert not list((tmp_path / "w").glob("*.pth"))
    assert train.main([*arguments, "train_dataloader.dataset.allow_lost=True"]) == 0
    texts = [path.read_text() for path in (tmp_path / "w").glob("*/*.log")]
    assert (tmp_path / "w" / "epoch_1.pth").is_file() and any(name in text for text in texts)


def test_a_validation_prints_figures_and_no_bookkeeping(tmp_path, blind_recipe):
    options = {"train_cfg.max_epochs": 1, "log_level": "INFO"}
    build_train_runner(load_config(blind_recipe, options), str(tmp_path / "w")).train()
    (text,) = [path.read_text() for path in (tmp_path / "w").glob("*/*.log")]
    assert "pdms/PDMS: " in text and "validated: " not in text
