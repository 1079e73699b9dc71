import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.engine.executors import WorkerLostError
from beyonddrive.generators.mining import Miner, MiningOptions
from beyonddrive.generators.mining_source import DatasetSource, MiningError, plan_shards
from beyonddrive.generators.strategies import SamplingStrategy, StrategyError
from beyonddrive.structures.sample import PlanSample

SCRIPT = Path(__file__).with_name("scoring_doubles.py")


def contents(root):
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


def start(out, *options):
    command = [sys.executable, str(SCRIPT), str(out), *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out.strip(), err


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, doubles):
    out = tmp_path_factory.mktemp("pools") / "whole"
    doubles.run(out)
    return out


def test_every_scene_is_in_the_pool_with_its_plans_scores_and_expert(uninterrupted, doubles):
    pool = NegativePool(uninterrupted)
    assert pool.tokens == doubles.scene_tokens(22)
    assert len(list(uninterrupted.glob("*.safetensors"))) == 6  # 22 scenes, 4 a shard
    for token in pool:
        plans, scores, expert, times = pool[token]
        assert np.array_equal(expert, doubles.expert_plan(token))
        assert plans.shape == (16, 8, 3)
        assert np.array_equal(plans[:, :, 0], np.broadcast_to(expert[:, 0], (16, 8)))
        assert np.array_equal(scores[:, 1] == 1, np.abs(plans[:, -1, 1]) < 2.0)
        assert np.array_equal(times, np.where(scores < 1, 2.0, np.inf))
        assert {array.dtype for array in (plans, scores, expert, times)} == {np.dtype(np.float32)}


def test_batch_size_does_not_change_the_pool(uninterrupted, doubles, tmp_path):
    generator = doubles.FakeGenerator()
    doubles.run(tmp_path / "pool", batch_size=64, generator=generator)
    assert generator.batches == [4, 4, 4, 4, 4, 2]
    assert contents(tmp_path / "pool") == contents(uninterrupted)


def test_the_seed_changes_the_pool(uninterrupted, doubles, tmp_path):
    doubles.run(tmp_path / "pool", seed=doubles.SEED + 1)
    other, first = NegativePool(tmp_path / "pool"), NegativePool(uninterrupted)
    assert not np.array_equal(other[other.tokens[0]].plans, first[other.tokens[0]].plans)


def test_worker_processes_do_not_change_the_pool(uninterrupted, tmp_path):
    code, out, err = finish(start(tmp_path / "pool", "--workers", 2, "--batch", 2))
    assert (code, out) == (0, "0 22 []"), err
    assert contents(tmp_path / "pool") == contents(uninterrupted)


def test_a_killed_loading_process_is_an_error_and_the_job_goes_on_again(
    uninterrupted, doubles, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(SCRIPT.parent)  # where the processes find the doubles
    tokens = doubles.scene_tokens(22)
    source = doubles.FakeSource(tokens, deadly=(tokens[20],))
    with pytest.raises(
        WorkerLostError,
        match=r"(pid|while it sent).* fewer workers than loader_workers=1, .* same command again",
    ):
        doubles.run(tmp_path / "pool", source=source, loader_workers=1)
    doubles.run(tmp_path / "pool")
    assert contents(tmp_path / "pool") == contents(uninterrupted)


def test_a_killed_job_resumes_to_the_same_bytes(uninterrupted, doubles, tmp_path):
    pool, failed, last = tmp_path / "pool", *(doubles.scene_tokens(22)[index] for index in (2, 17))
    # (a busy machine would else be done before it is killed)
    process = start(pool, "--workers", 1, "--slow", 0.1, "--bad", failed, "--hold", last, tmp_path / "go on")
    deadline = time.monotonic() + 300
    while len(list(pool.glob("*.safetensors"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    (tmp_path / "go on").touch()
    process.communicate()

    assert 2 <= len(list(pool.glob("*.safetensors"))) < 6
    with pytest.raises(StoreError, match=r"mining is unfinished, \d+ of 22 scenes are done; run the same"):
        NegativePool(pool)
    assert NegativePool(pool, allow_partial=True).failures == {failed: f"RuntimeError: no route in {failed}"}
    summary = doubles.run(pool)
    assert 7 <= summary.resumed < 22
    assert summary.resumed + summary.mined == 22
    final = {name: data for name, data in contents(pool).items() if not name.endswith(".partial")}
    assert final == contents(uninterrupted)

    # Nobody is left waiting for work of the killed job.
    assert workers
    deadline = time.monotonic() + 60
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline, workers
        time.sleep(0.05)


def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_finished_job_does_nothing(uninterrupted, doubles):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.iterdir()}
    generator = doubles.FakeGenerator()
    summary = doubles.run(uninterrupted, generator=generator)
    assert (summary.resumed, summary.mined, generator.batches) == (22, 0, [])
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.iterdir()} == before


def test_failed_scenes_are_named_and_tried_again(uninterrupted, doubles, tmp_path):
    tokens = doubles.scene_tokens(22)
    unread, endless, unscored, unlabelled, diverged = (tokens[index] for index in (1, 6, 9, 14, 21))
    speed = float(doubles.expert_plan(diverged)[0, 0])
    summary = doubles.run(
        tmp_path / "pool",
        source=doubles.FakeSource(tokens, broken=(unread,), endless=(endless,), unlabelled=(unlabelled,)),
        scorer=doubles.FakeScorer(broken=(unscored,)),
        generator=doubles.FakeGenerator(diverges=(speed,)),
    )
    assert (summary.num_scenes, summary.mined) == (22, 17)
    assert summary.failures[unread] == f"FileNotFoundError: no image of {unread}"
    assert summary.failures[unscored] == f"RuntimeError: no route in {unscored}"
    assert summary.failures[endless] == "ValueError: input 'status' holds infinity"
    assert f"scene {unlabelled} has no gt.trajectory: add the transform" in summary.failures[unlabelled]
    assert "16 plan(s) hold NaN" in summary.failures[diverged]

    pool = NegativePool(tmp_path / "pool")  # the job is through, so the pool can be used
    assert len(pool) == 17
    assert pool.failures == summary.failures
    with pytest.raises(StoreError, match=f"scene {unread} .*FileNotFoundError"):
        pool[unread]

    generator = doubles.FakeGenerator()
    again = doubles.run(tmp_path / "pool", generator=generator)
    assert (again.resumed, again.mined, again.failures) == (17, 5, {})
    assert sum(generator.batches) == 5
    assert contents(tmp_path / "pool") == contents(uninterrupted)


def test_what_no_scene_can_be_drawn_with_ends_the_job(uninterrupted, doubles, tmp_path):
    class Refusing(doubles.FakeGenerator):
        def propose(self, inputs, num_proposals, strategy, generator):
            raise ValueError(f"steps=30: the window has 20, {len(self.batches)}")

    with pytest.raises(MiningError, match=r"none of the first 3 scenes .*one reason: ValueError: steps=30"):
        doubles.run(tmp_path / "pool", generator=Refusing())
    # a pool that has scenes keeps them, and names those that it lacks
    part = doubles.run(tmp_path / "half", part=(0, 2))
    rest = doubles.run(tmp_path / "half", generator=Refusing())
    assert len(rest.failures) == rest.num_scenes - part.mined > 3
    # and a few broken scenes at its beginning end nothing
    tokens = doubles.scene_tokens(22)
    summary = doubles.run(tmp_path / "first", source=doubles.FakeSource(tokens, endless=tokens[:2]))
    assert set(summary.failures) == set(tokens[:2])


def test_parts_fill_one_pool(uninterrupted, doubles, tmp_path):
    first = doubles.run(tmp_path / "pool", part=(0, 2))
    assert first.num_scenes == 12
    second = doubles.run(tmp_path / "pool", part=(1, 2))
    assert second.num_scenes == 10
    assert contents(tmp_path / "pool") == contents(uninterrupted)


def test_a_folder_with_another_pool_is_refused(uninterrupted, doubles):
    with pytest.raises(StoreError, match="seed: stored 3, wanted 4"):
        doubles.run(uninterrupted, seed=4)
    with pytest.raises(StoreError, match="shard_size: stored 4, wanted 5"):
        doubles.run(uninterrupted, shard_size=5)


def test_a_damaged_shard_is_named(doubles, tmp_path):
    doubles.run(tmp_path / "pool")
    shard = tmp_path / "pool" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"shard-00001\.safetensors: is damaged"):
        doubles.run(tmp_path / "pool")


def test_a_lost_worker_ends_the_job_with_a_remedy(doubles, tmp_path):
    script = tmp_path / "lost.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "class Dies:\n"
        "    def score(self, job):\n"
        "        os._exit(9)\n"
        "if __name__ == '__main__':\n"
        "    import mining_doubles\n"
        f"    mining_doubles.run({str(tmp_path / 'pool')!r}, scorer=Dies(), num_workers=1)\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 1
    assert "a worker process was killed" in run.stderr


def test_records_do_not_pile_up(doubles, tmp_path, monkeypatch):
    alive = []
    write = Miner._write

    def spy(self, item):
        failures = write(self, item)
        alive.append(len(item.records) + len(item.futures))
        return failures

    monkeypatch.setattr(Miner, "_write", spy)
    doubles.run(tmp_path / "pool")
    assert alive == [0] * 6


def test_scores_of_the_wrong_shape_are_a_failure(doubles, tmp_path):
    class Sloppy(doubles.FakeScorer):
        def score_scene(self, scene):
            scores = super().score_scene(scene)
            return scores._replace(values=scores.values[:, :6])

    summary = doubles.run(tmp_path / "pool", scenes=2, scorer=Sloppy())
    assert set(summary.failures.values()) == {"the scorer gave scores of shape (16, 6), wanted (16, 7)"}


def test_a_planner_that_cannot_propose_ends_the_job(doubles, tmp_path):
    class Planner:
        data_preprocessor = doubles.FakeGenerator.data_preprocessor

    with pytest.raises(StrategyError, match="Planner is not a generator"):
        doubles.run(tmp_path / "pool", generator=Planner())


def test_shards_are_cut_in_order_and_checked():
    assert [shard.indices for shard in plan_shards(["c", "a", "b"], 2)] == [(0, 1), (2,)]
    assert [shard.name for shard in plan_shards(["c", "a", "b"], 2)] == ["shard-00000", "shard-00001"]
    with pytest.raises(MiningError, match="scene a occurs 2 times"):
        plan_shards(["a", "b", "a"], 2)
    with pytest.raises(MiningError, match="no scenes"):
        plan_shards([], 2)
    with pytest.raises(MiningError, match="shard_size"):
        plan_shards(["a"], 0)


def test_a_data_set_scene_that_raises_becomes_a_reason():
    class Data:
        def __len__(self):
            return 2

        def get_data_info(self, index):
            return {"token": "ab"[index]}

        def __getitem__(self, index):
            if index == 1:
                raise OSError("image.jpg: truncated")
            return {"data_samples": PlanSample(metainfo={"log_name": "log"})}

    source = DatasetSource(Data())
    assert (source[0].token, source[0].log_name, source[0].reason) == ("a", "log", "")
    assert (source[1].token, source[1].sample, source[1].reason) == (
        "b",
        None,
        "OSError: image.jpg: truncated",
    )


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_workers": -1}, {"part": (2, 2)}])
def test_bad_options_are_refused(options):
    with pytest.raises(MiningError, match="out of range"):
        MiningOptions(**options)


def test_a_strategy_decides_how_many_proposals(doubles, tmp_path):
    doubles.run(tmp_path / "pool", strategy=SamplingStrategy(num_proposals=3))
    pool = NegativePool(tmp_path / "pool")
    assert {len(pool[token].plans) for token in pool} == {3}
    manifest = json.loads((tmp_path / "pool" / "manifest.json").read_text())
    assert manifest["config"]["columns"] == ["NC", "DAC", "EP", "TTC", "C", "DDC", "PDMS"]


def test_a_pool_survives_kills(doubles, survives_kills):
    scorer = sys.modules["scoring_doubles"].FakeScorer(seconds=0.01)
    survives_kills(lambda folder: doubles.run(folder, scorer=scorer))
