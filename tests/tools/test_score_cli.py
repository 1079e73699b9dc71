"""``tools/score.py`` as a user runs it, and the benchmark beside it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests/data/golden/pdms"


def run(*args, tool="tools/score.py"):
    command = [sys.executable, str(REPOSITORY / tool), *map(str, args)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def golden():
    scenes = {}
    for path in sorted((GOLDEN / "scores").glob("*.npz")):
        with np.load(path) as data:
            stable = data["stable"]
            scenes[path.stem.split("__")[1]] = data["poses"][stable][:40], data["scores"][stable][:40]
    return scenes


def score(tmp_path, plans, *options):
    np.savez(tmp_path / "plans.npz", **plans)
    done = run(
        "--data-root", GOLDEN / "data", "--split", "golden", "--plans", tmp_path / "plans.npz",
        "--out", tmp_path / "scores.npz", *options,
    )  # fmt: skip
    scores = {}
    if (tmp_path / "scores.npz").exists():
        with np.load(tmp_path / "scores.npz", allow_pickle=False) as archive:
            scores = dict(archive)
    return done, scores


def test_scores_of_all_golden_scenes_in_two_processes(golden, tmp_path):
    plans = {token: poses for token, (poses, _) in golden.items()}
    done, scores = score(tmp_path, plans, "--num-workers", "2")
    assert done.returncode == 0, done.stderr
    assert list(scores) == list(golden)
    for token, (_, expected) in golden.items():
        assert scores[token].dtype == np.float64
        np.testing.assert_allclose(scores[token], expected, rtol=0, atol=1e-6)
    assert "scene/s" in done.stderr and "12/12" in done.stderr
    assert "480 plans of 12 scenes, 0 scenes failed" in done.stdout


def test_maps_may_be_elsewhere_and_progress_pooled(golden, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/navsim_logs").symlink_to(GOLDEN / "data/navsim_logs")
    token = next(iter(golden))
    np.savez(tmp_path / "plans.npz", **{token: golden[token][0].astype(np.float32)})
    done = run(
        "--data-root", tmp_path / "root", "--maps-root", GOLDEN / "data/maps", "--split", "golden",
        "--plans", tmp_path / "plans.npz", "--out", tmp_path / "scores.npz", "--progress", "pooled",
        "--cache-dir", tmp_path / "caches",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pooled = np.load(tmp_path / "scores.npz")[token]
    assert (pooled[:, 2] <= golden[token][1][:, 2] + 1e-6).all()
    assert len(list((tmp_path / "caches").glob("*.safetensors"))) == 1


def test_what_cannot_be_scored_is_listed_and_the_rest_is_written(golden, tmp_path):
    tokens = list(golden)
    plans = {token: golden[token][0] for token in tokens[:4]}
    plans[tokens[1]] = plans[tokens[1]][:, :7]
    plans[tokens[2]] = np.full((2, 8, 3), np.nan)
    plans["0123456789abcdef"] = np.zeros((1, 8, 3))
    done, scores = score(tmp_path, plans)
    assert done.returncode == 1
    assert list(scores) == [tokens[0], tokens[3]]
    np.testing.assert_allclose(scores[tokens[3]], golden[tokens[3]][1], rtol=0, atol=1e-6)
    reasons = {line.split(": ")[1]: line for line in done.stderr.splitlines() if line.startswith("score: ")}
    assert set(reasons) == {tokens[1], tokens[2], "0123456789abcdef"}
    assert "shape (N, 8, 3)" in reasons[tokens[1]]
    assert "NaN or infinity" in reasons[tokens[2]]
    assert "no frame of split golden" in reasons["0123456789abcdef"]


def test_nothing_is_written_if_the_plans_cannot_be_read(tmp_path):
    (tmp_path / "plans.npz").write_bytes(b"PK\x03\x04 and then nothing")
    done = run(
        "--data-root", GOLDEN / "data", "--split", "golden", "--plans", tmp_path / "plans.npz",
        "--out", tmp_path / "scores.npz",
    )  # fmt: skip
    assert done.returncode == 2
    assert "plans.npz: not an npz archive" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "scores.npz").exists()


def test_unknown_split(golden, tmp_path):
    np.savez(tmp_path / "plans.npz", a=np.zeros((1, 8, 3)))
    done = run(
        "--data-root", GOLDEN / "data", "--split", "mini", "--plans", tmp_path / "plans.npz",
        "--out", tmp_path / "scores.npz",
    )  # fmt: skip
    assert done.returncode == 2 and "no such split" in done.stderr and "['golden']" in done.stderr
    assert not (tmp_path / "scores.npz").exists()


def test_benchmark_ends_with_a_line_of_json():
    done = run("--max-scenes", 1, "--repeat", 1, "--json", tool="benchmarks/pdm_score.py")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    wanted = (
        "batch64_ms_per_plan",
        "batch256_ms_per_plan",
        "single_plan_ms",
        "metric_cache_ms",
        "load_cache_ms",
    )
    assert all(figures[name] > 0 for name in wanted) and figures["scenes"] == 1
