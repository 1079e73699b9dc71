"""Where runs are carried out: what they ask a cluster for, and that Ray places them."""

import os
import time
from pathlib import Path

import pytest

from beyonddrive.engine.executors import RayTaskExecutor, WorkerLostError
from beyonddrive.engine.sweeps.places import Demand, Machine, demand_of, this_machine
from beyonddrive.engine.sweeps.plan import SweepError
from beyonddrive.tools.sweep import main


@pytest.mark.parametrize(
    ("machines", "jobs", "demand"),
    [
        ([Machine(2, 0)], None, Demand(1, 0)),
        ([Machine(2, 0)], 4096, Demand(1, 0)),
        ([Machine(8, 0), Machine(8, 0)], 1, Demand(8, 0)),
        ([Machine(8, 0), Machine(8, 0)], 4, Demand(4, 0)),
        ([Machine(6, 0), Machine(6, 0)], 3, Demand(3, 0)),
        ([Machine(0, 0), Machine(16, 0)], 2, Demand(8, 0)),
        ([Machine(8, 4), Machine(64, 4)], None, Demand(2, 1)),
        ([Machine(64, 0), Machine(8, 2)], 2, Demand(4, 1)),
        ([Machine(8, 2)], 5, Demand(1, 1 / 3)),
    ],
)
def test_what_a_run_asks_for_fits_a_machine(machines, jobs, demand):
    assert demand_of(machines, jobs) == demand


def test_cores_of_this_machine_are_shared_and_not_oversold():
    cores = len(os.sched_getaffinity(0))
    place = this_machine(cores, gpus=2)
    assert (place.threads, place.gpus, place.jobs_per_gpu) == (1, 2, -(-cores // 2))
    with pytest.raises(SweepError, match=f"--jobs {cores + 1}: this machine has {cores} cores"):
        this_machine(cores + 1, 0)


@pytest.fixture
def ray():
    """A cluster of two cores and a GPU that nobody looks at."""
    ray = pytest.importorskip("ray")
    ray.shutdown()
    ray.init(num_cpus=2, num_gpus=1, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_tasks_ask_for_what_they_need_and_work_in_this_folder(ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def told(number):
        import ray

        if number == 9:
            os._exit(1)
        assigned = ray.get_runtime_context().get_assigned_resources()
        gpus = os.environ["CUDA_VISIBLE_DEVICES"]
        return number, os.getcwd(), assigned["CPU"], assigned["GPU"], gpus  # noqa: PTH109

    executor = RayTaskExecutor(num_cpus=2, num_gpus=0.5, limit=2)
    assert list(executor.map(told, range(3))) == [(n, str(tmp_path), 2, 0.5, "0") for n in range(3)]
    assert list(executor.map(told, [])) == []
    with pytest.raises(WorkerLostError, match="a Ray task was lost; run the same command again"):
        list(executor.map(told, [9]))


@pytest.mark.slow
def test_no_more_tasks_at_a_time_than_asked_for(ray, tmp_path):
    def count_at_work(number):
        import time

        own = tmp_path / str(number)
        own.touch()
        time.sleep(0.1)
        found = len(list(tmp_path.iterdir()))
        own.unlink()
        return found

    assert list(RayTaskExecutor(limit=1).map(count_at_work, range(4))) == [1, 1, 1, 1]


@pytest.mark.slow
def test_a_map_that_is_left_ends_what_is_under_way(ray, tmp_path):
    told = tmp_path / "process"

    def work(number):
        import time

        if number == 0:
            return
        told.with_suffix(".new").write_text(str(os.getpid()))
        told.with_suffix(".new").rename(told)
        time.sleep(600)

    results = RayTaskExecutor(limit=2).map(work, range(2))
    next(results)
    wait_until(told.exists)
    process = Path("/proc") / told.read_text()
    assert process.exists()
    results.close()
    wait_until(lambda: not process.exists())


def wait_until(happened):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_runs_on_ray_are_not_held_against_the_cores_of_this_machine(ray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["human_synth", "--out", "sweep", "--ray", "--jobs", "4096", "--cfg-options", "data_root=none"]
    assert main(words) == 1
    told = capsys.readouterr()
    assert "4096 at a time, with 1 threads each" in told.out
    assert "human_synth, seed 0: beyonddrive test ended with 1" in told.err
    assert (tmp_path / "sweep/runs/human_synth/untrained/failed.txt").exists()
