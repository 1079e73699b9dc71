"""A worker of a data loader that the system kills ends the job with what to do, and soon."""

import copy
import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset, get_worker_info

from beyonddrive.engine import lost_workers
from beyonddrive.engine.executors import WorkerLostError
from beyonddrive.engine.lost_workers import naming_lost_workers
from beyonddrive.engine.runner import build_test_runner, build_train_runner, load_config
from beyonddrive.registry import DATASETS, TRANSFORMS


class KilledAt:
    """Passes samples on; the worker that meets the scene dies as by the out-of-memory killer."""

    def __init__(self, token):
        self.token = token

    def __call__(self, results):
        if results["token"] == self.token:
            assert get_worker_info() is not None
            os.kill(os.getpid(), signal.SIGKILL)
        return results


@pytest.fixture(autouse=True)
def _no_hang():
    def ring(*_):
        raise TimeoutError("it hangs")

    known = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, known)


@pytest.fixture
def config(blind_recipe, monkeypatch):
    monkeypatch.setitem(TRANSFORMS.module_dict, "KilledAt", KilledAt)
    return load_config(blind_recipe, {"log_level": "ERROR"})


def deadly(config, phase):
    """Let a worker of this loader die at its last scene."""
    loader = config[f"{phase}_dataloader"]
    token = DATASETS.build(copy.deepcopy(loader.dataset)).tokens[-1]
    loader.num_workers = 1
    loader.dataset.pipeline = [{"type": "KilledAt", "token": token}, *loader.dataset.pipeline]


@pytest.mark.parametrize("phase", ["train", "val"])
def test_a_training_ends_and_says_how_to_go_on(tmp_path, config, phase):
    deadly(config, phase)
    runner = build_train_runner(config, str(tmp_path / "run"))
    message = (
        rf"DataLoader worker .* set fewer workers than {phase}_dataloader\.num_workers=1, a smaller .*"
        rf"go on with --resume"
    )
    with pytest.raises(WorkerLostError, match=message):
        runner.train()


def test_an_evaluation_ends(tmp_path, config):
    deadly(config, "test")
    with pytest.raises(
        WorkerLostError, match=r"fewer workers than test_dataloader\.num_workers=1, a smaller"
    ):
        build_test_runner(config, work_dir=str(tmp_path / "run")).test()


class _Reset(Dataset):
    """Breaks as the connection of a worker that dies while it sends a batch."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ConnectionResetError(104, "Connection reset by peer")


def test_a_connection_that_a_dying_worker_breaks_is_its_death_and_others_are_not():
    with (
        pytest.raises(WorkerLostError, match=r"ended while it sent a batch .* set fewer workers than here=1"),
        naming_lost_workers("here=1"),
    ):
        next(iter(DataLoader(_Reset())))
    with pytest.raises(ConnectionResetError), naming_lost_workers("here=1"):
        raise ConnectionResetError(104, "Connection reset by peer")


def test_torch_may_speak_while_the_broken_connection_is_looked_at(monkeypatch):
    def interrupted(error):  # as by the handler of SIGCHLD, which raises at any line
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(lost_workers, "_is_of_loader", interrupted)
    with (
        pytest.raises(WorkerLostError, match=r"pid 7.* set fewer workers than here=1"),
        naming_lost_workers("here=1"),
    ):
        next(iter(DataLoader(_Reset())))
