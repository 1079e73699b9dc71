"""The tool end to end: a tiny generator with random weights on golden scenes, and the real scorer."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from beyonddrive.apis import load_config
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.stores.negative_pool import NegativePool, PoolError
from beyonddrive.evaluation.pdm import build_metric_cache, score
from beyonddrive.registry import DATASETS, MODELS
from beyonddrive.tools.mine_negatives import main

REPO = Path(__file__).parents[2]
GOLDEN = REPO / "tests" / "data" / "golden" / "pdms" / "data"

CONFIG = """
_base_ = "{repo}/configs/_base_/models/{model}.py"
default_scope = "beyonddrive"
negative_mining = dict(strategy=dict(num_proposals=6, noise=2.0), shard_size=3)
train_dataloader = dict(
    dataset=dict(
        type="NavsimDataset",
        data_root="{data}",
        split="golden",
        feature_pipeline=[
            dict(type="LoadCameraStitch", size=(64, 256)), dict(type="EgoStatus"), dict(type="PlanTarget")
        ],
        pipeline=[dict(type="LoadNegatives", pool="not there yet"), dict(type="PackPlanInputs")],
    )
)
"""


def write_images(root, log):
    for frame in pickle.loads(log.read_bytes()):
        for name in ("CAM_L0", "CAM_F0", "CAM_R0"):
            path = root / "sensor_blobs" / "golden" / frame["cams"][name]["data_path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            image = np.random.default_rng(len(path.name)).integers(0, 256, (54, 96, 3), dtype=np.uint8)
            cv2.imwrite(str(path), image)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data root with seven golden scenes, the config of a generator, and a checkpoint of it."""
    folder = tmp_path_factory.mktemp("world")
    root = folder / "data"
    (root / "navsim_logs" / "golden").mkdir(parents=True)
    (root / "maps").symlink_to(GOLDEN / "maps")
    for log in sorted((GOLDEN / "navsim_logs" / "golden").glob("*.pkl"))[:7]:
        shutil.copy(log, root / "navsim_logs" / "golden")
        write_images(root, log)
    for name, model in (("generator", "flow_policy_tiny"), ("ltf", "ltf_tiny")):
        config = folder / f"{name}.py"
        config.write_text(CONFIG.format(repo=REPO, model=model, data=root))
        torch.manual_seed(0)
        planner = MODELS.build(load_config(config).model)
        torch.save({"state_dict": planner.state_dict(), "meta": {}}, folder / f"{name}.pth")
    return folder


@pytest.fixture(scope="module")
def mined(world):
    """A pool mined by a fresh process with a scoring process of its own, and what the tool printed."""
    out = world / "pool"
    command = [sys.executable, REPO / "tools" / "mine_negatives.py", world / "generator.py"]
    command += [world / "generator.pth", "--out", out, "--num-workers", "1", "--loader-workers", "1"]
    command += ["--batch-size", "2"]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return out, run.stdout


def arguments(world, out, *more, name="generator"):
    paths = (world / f"{name}.py", world / f"{name}.pth", "--out", out, "--num-workers", 0)
    return [str(value) for value in (*paths, *more)]


def test_the_pool_holds_the_scores_of_the_benchmark(mined, world):
    out, _ = mined
    pool = NegativePool(out, {"split": "golden", "generator": "generator", "progress": "pair", "seed": 0})
    scenes = {scene.token: scene for scene in NavsimRoot(world / "data").scenes("golden")}
    assert pool.tokens == list(scenes)
    assert len(pool) == 7
    assert pool.description.strategy["num_proposals"] == 6
    for token in pool.tokens[:3]:
        scene = scenes[token]
        cache = build_metric_cache(scene, NavsimRoot(world / "data").map(scene.map_location))
        wanted = score(cache, pool[token].plans).values
        assert np.array_equal(pool[token].scores, wanted.astype(np.float32))
        assert np.allclose(pool[token].expert, scene.expert_plan, atol=1e-5)


def test_prints_and_writes_the_coverage(mined):
    out, printed = mined
    assert "7 scenes mined, 0 were there before" in printed
    assert "with a negative / negative" in printed
    assert "nearest negative" in printed
    report = json.loads((out / "coverage.json").read_text())
    assert (report["num_scenes"], report["num_proposals"], report["failures"]) == (7, 42, {})
    pool = NegativePool(out)
    below = [pool[token].scores[:, 6] < 0.6 for token in pool]
    assert report["scenes_with_negative"] == pytest.approx(np.mean([row.any() for row in below]))
    assert report["proposals_negative"] == pytest.approx(np.mean(below))
    assert 0 < report["proposals_negative"] <= 1


def test_one_process_and_another_batch_size_mine_the_same(mined, world, tmp_path, capsys):
    assert main(arguments(world, tmp_path / "pool", "--batch-size", 16)) == 0
    first, second = NegativePool(mined[0]), NegativePool(tmp_path / "pool")
    assert first.tokens == second.tokens
    for token in first:
        # Sums in another order; the noise itself is the same.
        assert np.allclose(first[token].plans, second[token].plans, atol=1e-4)
    assert first.description == second.description


def test_the_same_command_finds_nothing_to_do(mined, world, capsys):
    before = (mined[0] / "shard-00001.safetensors").stat().st_mtime_ns
    assert main(arguments(world, mined[0])) == 0
    assert "0 scenes mined, 7 were there before" in capsys.readouterr().out
    assert (mined[0] / "shard-00001.safetensors").stat().st_mtime_ns == before


def test_another_strategy_or_seed_needs_another_pool(mined, world, capsys):
    assert main(arguments(world, mined[0], "--strategy", "noise=0.3")) == 1
    assert "strategy.noise: stored 2.0, wanted 0.3" in capsys.readouterr().err
    assert main(arguments(world, mined[0], "--seed", 1)) == 1
    assert "seed: stored 0, wanted 1" in capsys.readouterr().err
    assert main(arguments(world, mined[0], "--cfg-options", "negative_mining.progress=pooled")) == 1
    assert "progress: stored 'pair', wanted 'pooled'" in capsys.readouterr().err


def test_a_pool_of_what_the_generator_sees_otherwise_is_not_gone_on_with(mined, world, tmp_path, capsys):
    shutil.copytree(mined[0], tmp_path / "pool")
    steps = "[dict(type='HideStatus', parts=('acceleration',)), dict(type='PackPlanInputs')]"
    (tmp_path / "generator.py").write_text(
        f"_base_ = '{world / 'generator.py'}'\ntrain_dataloader = dict(dataset=dict(pipeline={steps}))\n"
    )
    command = arguments(world, tmp_path / "pool")
    assert main([str(tmp_path / "generator.py"), *command[1:]]) == 1
    assert "generator.inputs_hash: stored" in capsys.readouterr().err
    # One begun by an earlier version does not say what its generator saw, and is gone on with as before.
    manifest = tmp_path / "pool" / "manifest.json"
    said = json.loads(manifest.read_text())
    del said["config"]["generator"]["inputs_hash"]
    for shard in (tmp_path / "pool").glob("*.safetensors"):
        shard.unlink()  # (each says of which store it is)
    manifest.write_text(json.dumps(said))
    assert main(command) == 0
    assert "7 scenes mined, 0 were there before" in capsys.readouterr().out


@pytest.fixture
def broken_scene(world):
    """Token and front image of a scene whose image is empty until the test calls ``repair``."""
    root = world / "data"
    log = sorted((root / "navsim_logs" / "golden").glob("*.pkl"))[0]
    now = pickle.loads(log.read_bytes())[3]
    image = root / "sensor_blobs" / "golden" / now["cams"]["CAM_F0"]["data_path"]
    whole = image.read_bytes()
    image.write_bytes(b"")
    yield now["token"], image, lambda: image.write_bytes(whole)
    image.write_bytes(whole)


def test_a_broken_scene_does_not_stop_the_others(world, broken_scene, tmp_path, capsys):
    token, image, repair = broken_scene
    out = tmp_path / "pool"
    assert main(arguments(world, out)) == 1
    errors = capsys.readouterr().err
    assert f"{token} failed: " in errors
    assert image.name in errors
    assert "1 scenes or logs failed; the same command tries scenes again" in errors
    assert len(NegativePool(out)) == 6
    assert list(json.loads((out / "coverage.json").read_text())["failures"]) == [token]

    repair()
    assert main(arguments(world, out)) == 0
    assert "1 scenes mined, 6 were there before" in capsys.readouterr().out
    assert len(NegativePool(out)) == 7


def test_parts_and_report_only(world, tmp_path, capsys):
    out = tmp_path / "pool"
    assert main(arguments(world, out, "--part", "0/2")) == 0
    assert not (out / "coverage.json").exists()
    assert main(["--report-only", str(out)]) == 0
    assert "the pool is unfinished" in capsys.readouterr().err
    assert main(arguments(world, out, "--part", "1/2")) == 0
    assert main(["--report-only", str(out), "--column", "DAC", "--threshold", "0.5"]) == 0
    assert "negative: DAC < 0.5" in capsys.readouterr().out
    assert json.loads((out / "coverage.json").read_text())["column"] == "DAC"


def test_the_pool_trains(mined, world):
    data = load_config(world / "generator.py").train_dataloader.dataset
    data.pipeline[0].update(pool=str(mined[0]), split="golden", generator="generator", selection={"num": 2})
    sample = DATASETS.build(data)[0]["data_samples"]
    assert sample.negatives.plans.shape == (2, 8, 3)
    assert sample.negatives.valid.dtype == torch.bool


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--split", "nowhere"), "nowhere"),
        (("--strategy", "type=NoSuchStrategy"), "NoSuchStrategy"),
        (("--strategy", "temperature=2"), "temperature"),
        (("--strategy", "steps=0"), "steps must be at least 1"),
        (("--cfg-options", "negative_mining.proposals=3"), "unknown keys ['proposals']"),
        (("--batch-size", "0"), "out of range"),
        (("--part", "2/2"), "out of range"),
    ],
)
def test_bad_requests_are_refused(world, tmp_path, capsys, change, message):
    assert main(arguments(world, tmp_path / "pool", *change)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "pool").exists()


def test_bad_generators_are_refused(world, tmp_path, capsys):
    assert main(arguments(world, tmp_path / "pool", name="ltf")) == 1
    assert "is not a generator" in capsys.readouterr().err
    command = [str(world / "generator.py"), str(world / "ltf.pth"), "--out", str(tmp_path / "pool")]
    assert main(command) == 1
    assert "does not fit planner" in capsys.readouterr().err
    assert main([*command[:1], "none.pth", *command[2:]]) == 1
    assert "none.pth" in capsys.readouterr().err
    assert main(["--report-only", str(tmp_path / "nothing")]) == 1
    assert "no store here" in capsys.readouterr().err


def test_missing_arguments_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["config.py"])
    assert "--report-only POOL" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["config.py", "a.pth", "--out", "pool", "--part", "first"])
    assert "must be I/N" in capsys.readouterr().err


def test_a_log_that_cannot_be_read_fails_the_job_and_the_pool_is_not_complete(world, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(world / "data", root, symlinks=True)
    broken = max((root / "navsim_logs/golden").iterdir())
    broken.write_bytes(broken.read_bytes()[:1000])
    out = tmp_path / "pool"
    more = ("--cfg-options", f"train_dataloader.dataset.data_root={root}")
    assert main(arguments(world, out, *more)) == 1
    printed = capsys.readouterr()
    assert "the pool is incomplete: it has 6 scenes" in printed.err and broken.name in printed.err
    with pytest.raises(PoolError, match=r"1 scene\(s\) or log\(s\) were missing"):
        NegativePool(out)
    assert main(arguments(world, out, "--report-only", out)) == 1
