"""``tools/score.py`` as a user runs it, and the benchmark beside it."""

import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.engine.files import file_lock
from beyonddrive.evaluation import score_files
from beyonddrive.evaluation.metric_caches import KIND
from beyonddrive.evaluation.pdm import EPDMS_COLUMNS
from beyonddrive.evaluation.pdm.cache.metric_cache import CACHE_VERSION
from beyonddrive.evaluation.plan_files import read_label, write_arrays
from beyonddrive.evaluation.scene_scoring import SceneScores
from beyonddrive.evaluation.score_files import KIND as SCORES
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.tools import score as tool

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


def test_scores_of_all_golden_scenes_in_two_processes(golden, tmp_path):
    plans = {token: poses for token, (poses, _) in golden.items()}
    np.savez(tmp_path / "plans.npz", **plans)
    done = run(*arguments(tmp_path, "--num-workers", "2"))
    assert done.returncode == 0, done.stderr
    scores = read(tmp_path / "scores.npz")
    assert list(scores) == list(golden)
    for token, (_, expected) in golden.items():
        assert scores[token].dtype == np.float64
        np.testing.assert_allclose(scores[token], expected, rtol=0, atol=1e-6)
    assert "scene/s" in done.stderr and "12/12" in done.stderr
    assert "480 plans of 12 scenes, 0 scenes failed" in done.stdout


def test_maps_may_be_elsewhere_and_progress_pooled(golden, tmp_path, capsys):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/navsim_logs").symlink_to(GOLDEN / "data/navsim_logs")
    token = next(iter(golden))
    np.savez(tmp_path / "plans.npz", **{token: golden[token][0].astype(np.float32)})
    options = (
        "--maps-root",
        GOLDEN / "data/maps",
        "--progress",
        "pooled",
        "--cache-dir",
        tmp_path / "caches",
    )
    assert tool.main(arguments(tmp_path, *options, data=tmp_path / "root")) == 0, capsys.readouterr().err
    pooled = np.load(tmp_path / "scores.npz")[token]
    assert (pooled[:, 2] <= golden[token][1][:, 2] + 1e-6).all()
    assert len(list((tmp_path / "caches").glob("*.safetensors"))) == 1


def test_what_cannot_be_scored_is_listed_and_the_rest_is_written(golden, tmp_path, capsys):
    tokens = list(golden)
    plans = {token: golden[token][0] for token in tokens[:4]}
    plans[tokens[1]] = plans[tokens[1]][:, :7]
    plans[tokens[2]] = np.full((2, 8, 3), np.nan)
    plans["0123456789abcdef"] = np.zeros((1, 8, 3))
    np.savez(tmp_path / "plans.npz", **plans)
    assert tool.main(arguments(tmp_path)) == 1
    scores = read(tmp_path / "scores.npz")
    assert list(scores) == [tokens[0], tokens[3]]
    np.testing.assert_allclose(scores[tokens[3]], golden[tokens[3]][1], rtol=0, atol=1e-6)
    error = capsys.readouterr().err
    reasons = {line.split(": ")[1]: line for line in error.splitlines() if line.startswith("score: ")}
    assert set(reasons) == {tokens[1], tokens[2], "0123456789abcdef"}
    assert "shape (N, 8, 3)" in reasons[tokens[1]]
    assert "NaN or infinity" in reasons[tokens[2]]
    assert "no frame of split golden" in reasons["0123456789abcdef"]


def test_nothing_is_written_if_the_plans_cannot_be_read(tmp_path, capsys):
    (tmp_path / "plans.npz").write_bytes(b"PK\x03\x04 and then nothing")
    assert tool.main(arguments(tmp_path)) == 2
    assert "plans.npz: not an npz archive" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["plans.npz"]


def arguments(folder, *options, out="scores.npz", data=GOLDEN / "data", split="golden"):
    paths = ("--data-root", data, "--split", split, "--plans", folder / "plans.npz", "--out", folder / out)
    return [str(value) for value in (*paths, *options)]


def read(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def test_a_file_without_plans_is_said_to_have_none(tmp_path, capsys):
    write_arrays(tmp_path / "plans.npz", [])
    assert tool.main(arguments(tmp_path)) == 1
    assert "plans.npz: holds no plans" in capsys.readouterr().err


def test_plans_of_a_scene_that_are_there_twice_cost_that_scene(golden, tmp_path, capsys):
    first, second = list(golden)[:2]
    plans = [(first, golden[first][0]), (second, golden[second][0]), (first, golden[second][0])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the name
        write_arrays(tmp_path / "plans.npz", plans)
    assert tool.main(arguments(tmp_path)) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"score: {first}: ")]
    assert "holds plans of" in line and "more than once" in line
    scores = read(tmp_path / "scores.npz")
    assert list(scores) == [second]
    np.testing.assert_allclose(scores[second], golden[second][1], rtol=0, atol=1e-6)


def test_a_scene_may_have_no_plans_and_an_array_may_be_no_plans(golden, tmp_path, capsys):
    first, second, third, fourth = list(golden)[:4]
    odd = [(first, np.zeros((0, 8, 3))), (second, np.zeros((5, 3))), (third, np.full((1, 8, 3), "x"))]
    write_arrays(tmp_path / "plans.npz", [*odd, (fourth, golden[fourth][0].astype(np.float32))])
    assert tool.main(arguments(tmp_path)) == 1
    error = capsys.readouterr().err
    assert f"score: {second}: {tmp_path / 'plans.npz'}: plans must have shape" in error
    assert f"score: {third}: {tmp_path / 'plans.npz'}: plans must be numbers" in error
    assert error.count(second) == error.count(third) == 1  # a reason does not repeat whose it is
    scores = read(tmp_path / "scores.npz")
    assert {token: values.shape for token, values in scores.items()} == {first: (0, 7), fourth: (40, 7)}


def test_a_missing_map_costs_the_scenes_on_it(golden, tmp_path, capsys):
    maps = tmp_path / "maps"
    shutil.copytree(GOLDEN / "data/maps", maps)
    missing = "us-ma-boston"
    shutil.rmtree(maps / missing)
    write_arrays(tmp_path / "plans.npz", [(token, poses) for token, (poses, _) in golden.items()])
    assert tool.main(arguments(tmp_path, "--maps-root", maps)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("score: ")]
    scores = read(tmp_path / "scores.npz")
    assert 0 < len(scores) < len(golden) and len(lines) + len(scores) == len(golden)
    assert all("map.gpkg: there is no such map" in line and missing in line for line in lines)


def test_two_jobs_fill_one_empty_folder_of_caches(golden, tmp_path):
    write_arrays(tmp_path / "plans.npz", [(token, poses) for token, (poses, _) in golden.items()])
    jobs = []
    for out in ("a.npz", "b.npz"):
        args = arguments(tmp_path, "--cache-dir", tmp_path / "caches", out=out)
        command = [sys.executable, str(REPOSITORY / "tools/score.py"), *args]
        jobs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for job in jobs:
        assert job.communicate(timeout=300)[1] is not None and job.returncode == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(ShardStore(tmp_path / "caches", KIND).tokens) == sorted(golden)
    assert not list((tmp_path / "caches").glob(".*"))


SLOW = """
import itertools, os, sys, time
from beyonddrive.evaluation import scene_scoring
from beyonddrive.evaluation import score_files as score_parts
from beyonddrive.tools import score
score_parts.PART_SIZE = 2
fast = scene_scoring.ScoreSettings.score
scenes = itertools.count()
def slow(self, cache, scene):
    time.sleep(0.3 if next(scenes) < 9 else 600)  # (a busy machine would else end before it is killed)
    return fast(self, cache, scene)
scene_scoring.ScoreSettings.score = slow
score.main(sys.argv[1:])
"""


def test_a_killed_job_goes_on_where_it_was(golden, tmp_path, capsys):
    write_arrays(tmp_path / "plans.npz", [(token, poses) for token, (poses, _) in golden.items()])
    args = arguments(tmp_path)
    job = subprocess.Popen([sys.executable, "-c", SLOW, *args], stderr=subprocess.DEVNULL)
    parts = tmp_path / ".scores.npz.parts"
    deadline = time.monotonic() + 300  # (on a fresh machine kernels are compiled)
    while len(list(parts.glob("*.safetensors"))) < 2:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait()
    done = len(ShardStore(parts, SCORES))
    assert 4 <= done < 12 and not (tmp_path / "scores.npz").exists()
    assert tool.main(args) == 0
    assert f"{done} scenes were scored before" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "plans.npz",
        "scores.npz",
        "scores.npz.made_with.json",
    ]
    assert tool.main(arguments(tmp_path, out="whole.npz")) == 0
    assert (tmp_path / "scores.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    for token, scores in read(tmp_path / "scores.npz").items():
        np.testing.assert_allclose(scores, golden[token][1], rtol=0, atol=1e-6)


def test_parts_of_other_plans_are_not_gone_on_with(golden, tmp_path, capsys):
    first, second = list(golden)[:2]
    write_arrays(tmp_path / "plans.npz", [(first, golden[first][0])])
    stop = "score_parts.ScoreParts.finish = lambda *_: os._exit(9)\n"
    script = SLOW.replace("PART_SIZE = 2", "PART_SIZE = 1").replace("score.main(", f"{stop}score.main(")
    command = [sys.executable, "-c", script, *arguments(tmp_path)]
    job = subprocess.run(command, check=False, capture_output=True)
    assert job.returncode == 9 and len(ShardStore(tmp_path / ".scores.npz.parts", SCORES)) == 1
    write_arrays(tmp_path / "plans.npz", [(first, golden[first][0][:3]), (second, golden[second][0])])
    assert tool.main(arguments(tmp_path)) == 0
    assert "scored before" not in capsys.readouterr().err
    scores = read(tmp_path / "scores.npz")
    assert [len(values) for values in scores.values()] == [3, 40]


def test_parts_of_another_scorer_are_not_gone_on_with(tmp_path, monkeypatch):
    plans = tmp_path / "plans.npz"
    plans.write_bytes(b"")
    root, out = NavsimRoot(GOLDEN / "data"), tmp_path / "scores.npz"
    with score_files.open_parts(out, score_files.describe_inputs(root, "golden", plans)) as parts:
        parts.add(SceneScores("token", "log", np.zeros((1, 7))))
        parts.flush()
    with score_files.open_parts(out, score_files.describe_inputs(root, "golden", plans)) as parts:
        assert parts.done == {"token"}
    monkeypatch.setattr(score_files, "SCORER_VERSION", score_files.SCORER_VERSION + 1)
    with score_files.open_parts(out, score_files.describe_inputs(root, "golden", plans)) as parts:
        assert not parts.done


def test_the_label_tells_of_the_data(golden, tmp_path):
    """Where the logs hold something else, scores are of other data; a store changes nothing about that."""
    tokens = list(golden)[:2]
    write_arrays(tmp_path / "plans.npz", [(token, golden[token][0][:2]) for token in tokens])

    def label(out, *options, **changed):
        assert tool.main(arguments(tmp_path, *options, out=out, **changed)) == 0
        return read_label(tmp_path / out)

    first = label("first.npz")
    assert first is not None and first.data
    assert label("cached.npz", "--cache-dir", tmp_path / "cache") == first
    assert label("cached_again.npz", "--cache-dir", tmp_path / "cache") == first
    shutil.copytree(GOLDEN / "data", tmp_path / "data")
    for path in (tmp_path / "data" / "navsim_logs" / "golden").iterdir():
        path.write_bytes(path.read_bytes() + b"x")  # (a pickle ends at its stop)
    other = label("other.npz", data=tmp_path / "data")
    assert other.scenes == first.scenes and other.data not in ("", first.data)


def test_two_jobs_do_not_write_one_file(golden, tmp_path, capsys):
    token = next(iter(golden))
    write_arrays(tmp_path / "plans.npz", [(token, golden[token][0])])
    with file_lock(tmp_path / ".scores.npz.lock"):
        assert tool.main(arguments(tmp_path)) == 2
    assert "another job is writing this file" in capsys.readouterr().err
    assert tool.main(arguments(tmp_path)) == 0


def test_explanations_are_those_of_the_scores(golden, tmp_path):
    tokens = list(golden)[:2]
    write_arrays(tmp_path / "plans.npz", [(token, golden[token][0]) for token in tokens])
    assert tool.main(arguments(tmp_path, "--explain", tmp_path / "why.json")) == 0
    reasons = json.loads((tmp_path / "why.json").read_text())
    assert list(reasons) == tokens
    for token in tokens:
        for row, failures in zip(golden[token][1], reasons[token], strict=True):
            lost = {name for name, value in zip(SCORE_COLUMNS, row, strict=True) if value < 1 - 1e-9}
            assert {failure["column"] for failure in failures} == lost - {"PDMS"}
    some = [failure for token in tokens for failures in reasons[token] for failure in failures]
    assert some and all(failure["words"] and len(failure["position"]) == 2 for failure in some)


@pytest.fixture(scope="module")
def epdms():
    """Plans, and official sub-scores and scores (n, 9) with and without human filter, by token."""
    scenes = {}
    for path in sorted((REPOSITORY / "tests/data/epdms/scores").glob("*veh-e*.npz")):
        with np.load(path) as data:
            keep = data["stable"]
            filtered, raw = (
                np.column_stack([data[f"scores_{kind}"], data[f"total_{kind}"]])[keep]
                for kind in ("filtered", "raw")
            )
            scenes[path.stem.split("__")[1]] = data["poses"][keep], filtered, raw
    return scenes


@pytest.mark.usefixtures("last_bits_of_numpy")
@pytest.mark.parametrize("options", [(), ("--no-human-filter",)])
def test_epdms_of_one_stage(epdms, tmp_path, options):
    write_arrays(tmp_path / "plans.npz", [(token, poses) for token, (poses, *_) in epdms.items()])
    paths = ("--maps-root", GOLDEN / "data/maps", "--version", "v2", "--explain", tmp_path / "why.json")
    paths += options
    root = REPOSITORY / "tests/data/epdms"
    assert tool.main(arguments(tmp_path, *paths, data=root, split="epdms")) == 0
    scores = read(tmp_path / "scores.npz")
    assert list(scores) == list(epdms)
    for token, (_, filtered, raw) in epdms.items():
        np.testing.assert_allclose(scores[token], raw if options else filtered, rtol=0, atol=1e-6)
    reasons = json.loads((tmp_path / "why.json").read_text())
    for token, values in scores.items():
        for row, failures in zip(values, reasons[token], strict=True):
            lost = {name for name, value in zip(EPDMS_COLUMNS[:-1], row[:-1], strict=True) if value < 1}
            assert {failure["column"] for failure in failures} == lost
    assert any((filtered != raw).any() for _, filtered, raw in epdms.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--no-human-filter",), "it goes with --version v2"),
        (("--num-workers", "-1"), "must not be negative"),
        (("--out", "plans.npz", "--plans", "./plans.npz"), "--out: plans.npz is the file of plans"),
        (("--explain", "plans.npz", "--plans", "./plans.npz"), "--explain: plans.npz is the file of plans"),
        (("--explain", "./scores.npz", "--out", "scores.npz"), "is the file of scores"),
        (("--out", "."), "--out: . is a folder"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as refused:
        tool.main(arguments(tmp_path, *options))
    assert refused.value.code == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_caches_of_another_split_are_refused_and_nothing_is_written(tmp_path, capsys):
    write_arrays(tmp_path / "plans.npz", [("0123456789abcdef", np.zeros((1, 8, 3)))])
    ShardWriter(tmp_path / "caches", KIND, {"cache_version": CACHE_VERSION, "split": "mini"}, "a test")
    assert tool.main(arguments(tmp_path, "--cache-dir", tmp_path / "caches")) == 2
    assert "stored 'mini', wanted 'golden'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["caches", "plans.npz"]


def test_unknown_split(tmp_path, capsys):
    np.savez(tmp_path / "plans.npz", a=np.zeros((1, 8, 3)))
    assert tool.main(arguments(tmp_path, split="mini")) == 2
    error = capsys.readouterr().err
    assert "no such split" in error and "['golden']" in error
    assert not (tmp_path / "scores.npz").exists()


def test_benchmark_ends_with_a_line_of_json():
    done = run("--max-scenes", 1, "--repeat", 1, "--no-compile", "--json", tool="benchmarks/pdm_score.py")
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


def test_benchmark_says_what_it_leaves_out(tmp_path):
    root = REPOSITORY / "tests/data/epdms"  # which has no maps of its own
    done = run("--data-root", root, "--max-scenes", 1, tool="benchmarks/pdm_score.py")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "left out: " in done.stderr and "no scene of" in done.stderr
    done = run("--data-root", tmp_path, tool="benchmarks/pdm_score.py")
    assert done.returncode == 1 and "no folder navsim_logs" in done.stderr


@pytest.mark.slow
def test_benchmark_of_throughput():
    options = ("--scenes", 24, "--scored", 24, "--cached", 12, "--num-plans", 2, "--repeat", 1, "--json")
    done = run(*options, tool="benchmarks/throughput.py")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    rates = [f"{what}_scenes_per_s_{count}" for what in ("caching", "scoring") for count in (1, 2)]
    assert all(figures[name] > 0 for name in (*rates, "caching_ratio", "scoring_ratio", "memory_mb"))
    assert figures["memory_scenes"] == 24


def test_a_log_that_is_a_link_to_nowhere_does_not_stop_the_others(golden, tmp_path, capsys):
    root, token = tmp_path / "data", next(iter(golden))
    shutil.copytree(GOLDEN / "data/navsim_logs", root / "navsim_logs")
    (root / "maps").symlink_to(GOLDEN / "data/maps")
    (root / "navsim_logs/golden/0.pkl").symlink_to(tmp_path / "gone.pkl")
    write_arrays(tmp_path / "plans.npz", [(token, golden[token][0]), ("elsewhere", golden[token][0])])
    assert tool.main(arguments(tmp_path, "--data-root", str(root))) == 1
    assert "0.pkl: there is no such log" in capsys.readouterr().err
    assert list(read(tmp_path / "scores.npz")) == [token]


def test_maps_behind_links_are_inputs_too(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in (GOLDEN / "data/maps").iterdir():
        (maps / path.name).symlink_to(path)
    boston = maps / "us-ma-boston"
    shutil.copytree(boston.resolve(), tmp_path / "boston")
    boston.unlink()
    boston.symlink_to(tmp_path / "boston")
    root = NavsimRoot(GOLDEN / "data", maps)
    before = score_files.describe_inputs(root, "golden", None)
    (path,) = boston.glob("*/map.gpkg")
    path.write_bytes(path.read_bytes() + b" ")
    assert score_files.describe_inputs(root, "golden", None) != before
