"""Executors: the same results in the same order, whoever runs the items."""

import math
import multiprocessing
import os
import pathlib
import subprocess
import sys
import types

import pytest

from beyonddrive.engine.executors import (
    ProcessExecutor,
    RayExecutor,
    SerialExecutor,
    WorkerLostError,
    make_executor,
)

# Workers are started afresh and cannot import this file, so the functions are those of the standard library.
EXECUTORS = pytest.mark.parametrize(
    "executor", [SerialExecutor(), ProcessExecutor(2)], ids=["serial", "processes"]
)


@EXECUTORS
def test_results_come_in_order(executor):
    assert list(executor.map(math.factorial, range(30))) == [math.factorial(n) for n in range(30)]


@EXECUTORS
def test_every_worker_runs_the_initializer(executor, tmp_path, monkeypatch):
    monkeypatch.chdir(pathlib.Path.cwd())
    results = list(executor.map(os.path.abspath, list("abcdef"), initializer=os.chdir, initargs=(tmp_path,)))
    assert results == [str(tmp_path / name) for name in "abcdef"]


def test_no_items():
    assert list(ProcessExecutor(2).map(math.factorial, [])) == []


@EXECUTORS
def test_an_error_reaches_the_caller(executor):
    with pytest.raises(ValueError, match="not defined for negative"):
        list(executor.map(math.factorial, [3, 2, 1, -1, 5]))


@EXECUTORS
def test_an_error_of_the_initializer_reaches_the_caller(executor):
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        list(executor.map(math.factorial, range(9), initializer=os.chdir, initargs=("no-such-folder",)))


def test_a_killed_worker_is_said_to_be_lost():
    with pytest.raises(WorkerLostError, match=r"a worker process was killed.*with fewer workers"):
        list(ProcessExecutor(2).map(os._exit, [9, 9, 9]))


def test_a_map_that_is_left_ends_its_workers():
    results = ProcessExecutor(2).map(math.factorial, range(30))
    assert next(results) == 1
    assert multiprocessing.active_children()
    results.close()
    assert not multiprocessing.active_children()


def test_make_executor():
    assert isinstance(make_executor(1), SerialExecutor)
    executor = make_executor(3)
    assert isinstance(executor, ProcessExecutor) and executor.num_workers == 3
    with pytest.raises(ValueError, match="at least 1"):
        ProcessExecutor(0)


def test_workers_end_with_a_killed_parent(tmp_path):
    script = (
        "import time, beyonddrive.engine.executors as e\n"
        "if __name__ == '__main__':\n"
        "    list(e.ProcessExecutor(1).map(time.sleep, [0, 60], initializer=print, initargs=('started',)))\n"
    )
    path = tmp_path / "parent.py"
    path.write_text(script)
    parent = subprocess.Popen([sys.executable, "-u", str(path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "started\n"
    parent.kill()
    # The worker holds the other end of the pipe: end of file means that it is gone.
    assert parent.stdout.read() == ""
    parent.wait(timeout=30)


def test_progress_is_shown_with_rate(capsys):
    list(SerialExecutor().map(math.sqrt, [1, 2], desc="roots"))
    assert "roots: 100%" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_gives_the_same_results():
    pytest.importorskip("ray")
    assert list(RayExecutor(num_workers=2).map(math.factorial, range(5))) == [1, 1, 2, 6, 24]


def test_workers_on_ray_work_where_this_process_does(tmp_path, monkeypatch):
    """As paths relative to it need; those of a cluster begin where it was started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster").mkdir()

    def begin(kind):
        os.chdir(tmp_path / "cluster")
        worker = kind()
        return types.SimpleNamespace(run=types.SimpleNamespace(remote=worker.run))

    ray = types.ModuleType("ray")
    ray.is_initialized, ray.kill, ray.get = (lambda: True), (lambda worker: None), (lambda answer: answer)
    ray.remote = lambda kind: types.SimpleNamespace(remote=lambda: begin(kind))
    ray.exceptions = types.SimpleNamespace(RayTaskError=KeyError, RayError=IndexError)
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert list(RayExecutor(num_workers=1).map(os.path.abspath, ["a"])) == [str(tmp_path / "a")]


def test_what_ray_says_of_a_worker_is_its_loss_and_what_the_function_raises_is_not(monkeypatch):
    ray = pytest.importorskip("ray")
    executor = RayExecutor(num_workers=1)
    try:
        with pytest.raises(ValueError, match="not defined for negative"):
            list(executor.map(math.factorial, [3, -1]))

        def fail(reference):
            raise ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory")

        monkeypatch.setattr(ray, "get", fail)
        with pytest.raises(WorkerLostError, match=r"a Ray worker was lost; .* low on memory"):
            list(executor.map(math.factorial, [3]))
    finally:
        ray.shutdown()
