"""What a training leaves about itself beside its log."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.stores.negative_pool import open_writer
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.datasets.stores.vocabulary_scores import KIND, manifest_of, pack_scores
from beyonddrive.engine import environment
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.structures.digests import sha256_of
from beyonddrive.tests.datasets.small_pools import describe, record


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
    (data,), (validation,) = found["data"], found["validation"]
    assert (validation["split"], validation["scenes"], validation["stores"]) == ("val", 3, [])
    assert (data["split"], data["scenes"], data["files"], data["by"]) == ("train", 6, 6, "name and size")
    left = next((tmp_path / "work").glob("*/run.json")).with_name(".run.json.0123.partial")
    left.write_text("{")  # as by a kill
    longer = load_config(blind_recipe, {"train_cfg.val_interval": 9, "train_cfg.max_epochs": 3})
    resumed = record_of(longer, tmp_path / "work", seed=7, resume=True)
    assert resumed["first_step"] == 7 and resumed["data"] == found["data"]
    assert resumed["load_from"] is found["load_from"] is None
    weights = tmp_path / "work" / "epoch_2.pth"
    fine = load_config(blind_recipe, {"train_cfg.val_interval": 9, "load_from": str(weights)})
    told = record_of(fine, tmp_path / "fine", seed=7)["load_from"]
    assert told == {"file": "epoch_2.pth", "sha256": sha256_of(weights)}
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


def test_another_pool_in_the_same_folder_has_another_fingerprint(split_root, tmp_path):
    pool = tmp_path / "pool"
    dataset = NavsimDataset(split_root, "train", negatives={"pool": str(pool)}, indices=1)

    def pool_of(scores, shards=("shard-00000",), **described):
        shutil.rmtree(pool, ignore_errors=True)
        writer = open_writer(pool, describe(num_scenes=2, **described), "a test")
        tokens = ["near", "safe"]
        for index, shard in enumerate(shards):
            writer.write(shard, {token: record(scores, [1]) for token in tokens[index :: len(shards)]})
        fresh = NavsimDataset(split_root, "train", negatives={"pool": str(pool)}, indices=1)
        (store,) = fresh.fingerprint()["stores"]
        assert (store["transform"], store["kind"], store["records"]) == ("LoadNegatives", "negatives", 2)
        return store["digest"]

    with pytest.raises(StoreError, match="no store here"):
        dataset.fingerprint()
    first = pool_of([0.5])
    assert pool_of([0.5]) == first == pool_of([0.5], shards=("shard-00000", "shard-00001"))
    assert len({first, pool_of([0.25]), pool_of([0.5], seed=1)}) == 3


def test_scores_of_a_vocabulary_are_in_the_fingerprint(split_root, tmp_path):
    plans = np.zeros((2, 8, 3), np.float32)
    plans[1, :, 0] = np.arange(8)
    np.savez(tmp_path / "plans.npz", plans=plans)

    def digest_of(score):
        folder = tmp_path / str(score)
        ShardWriter(folder, KIND, manifest_of("train", plans), "a test").write(
            "log", {"a": {"scores": pack_scores(np.full((2, 6), score))}}
        )
        step = {"type": "LoadVocabularyScores", "store": str(folder), "vocabulary": tmp_path / "plans.npz"}
        (store,) = NavsimDataset(split_root, "train", pipeline=[step]).fingerprint()["stores"]
        assert (store["transform"], store["kind"]) == ("LoadVocabularyScores", "vocabulary_scores")
        return store["digest"]

    assert digest_of(0.5) != digest_of(1.0)


def test_a_checkout_of_another_user_has_a_commit(tmp_path, monkeypatch):
    """As one that is mounted into a container; git's own tests pretend it by this variable."""
    root = tmp_path / "checkout"
    (root / "engine").mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(root / "engine" / "environment.py"))
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    known = environment.git_state()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, check=False)
    assert asked.returncode != 0
    assert environment.git_state() == known and len(known["commit"]) == 40 and not known["changed"]


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "engine" / "environment.py"))
    assert environment.git_state() is None
