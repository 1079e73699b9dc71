"""What a training leaves about itself beside its log."""

import json

from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.engine import environment
from beyonddrive.engine.runner import build_train_runner, load_config


def record_of(config, work_dir, **options):
    build_train_runner(config, str(work_dir), **options).train()
    newest = max(work_dir.glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(newest.read_text())


def test_a_training_says_what_it_was_made_with(tmp_path, blind_recipe):
    config = load_config(blind_recipe, {"train_cfg.val_interval": 9})
    found = record_of(config, tmp_path / "work", seed=7)
    assert (found["seed"], found["processes"], found["first_step"]) == (7, 1, 1)
    assert found["packages"].keys() >= {"torch", "numpy", "mmengine"}
    assert found["git"] == environment.git_state()
    assert found["git"] is None or len(found["git"]["commit"]) == 40
    (data,) = found["data"]
    assert (data["split"], data["scenes"], data["files"], data["by"]) == ("train", 6, 6, "name and size")
    left = next((tmp_path / "work").glob("*/run.json")).with_name(".run.json.0123.partial")
    left.write_text("{")  # as by a kill
    longer = load_config(blind_recipe, {"train_cfg.val_interval": 9, "train_cfg.max_epochs": 3})
    resumed = record_of(longer, tmp_path / "work", seed=7, resume=True)
    assert resumed["first_step"] == 7 and resumed["data"] == found["data"]
    assert not left.exists()
    assert len(list((tmp_path / "work").glob("*/run.json"))) == 2


def test_other_data_have_another_fingerprint(split_root):
    def fingerprint(**settings):
        return NavsimDataset(split_root, "train", **settings).fingerprint()

    whole = fingerprint()
    assert fingerprint() == whole
    part = fingerprint(indices=3)
    assert part["tokens"] != whole["tokens"] and part["digest"] != whole["digest"]
    first = min((split_root / "navsim_logs" / "train").glob("*.pkl"))
    first.rename(first.with_stem(f"{first.stem}-again"))  # the scenes are the same, their file is another
    renamed = fingerprint()
    assert renamed["scenes"] == 6 and renamed["digest"] != whole["digest"]


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "engine" / "environment.py"))
    assert environment.git_state() is None
