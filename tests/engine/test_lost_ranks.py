"""Two ranks of which one dies, falls silent, has what is not finite, or another GPU."""

import multiprocessing
import os
import signal
import time
from datetime import timedelta

import mmengine.dist.utils
import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook

from beyonddrive.engine import mmengine_compat
from beyonddrive.engine.devices import (
    DeviceError,
    Inventory,
    choose_backend,
    describe_mixture,
    processes_here,
)
from beyonddrive.engine.hooks import rank_agreement
from beyonddrive.engine.runner import build_train_runner, ending_processes, load_config
from beyonddrive.engine.runner.failures import is_lost_peer

OPTIONS = {"train_dataloader.batch_size": 1, "train_cfg.val_interval": 99, "train_cfg.max_epochs": 2}
H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
PATIENCE = 120
"""Seconds that a busy machine may take for anything."""
TIMEOUT = 2
"""Seconds after which a rank that has fallen silent counts as lost."""


class Trouble(Hook):
    """What happens to the second rank in its fifth step, in the second epoch."""

    priority = "LOWEST"

    def __init__(self, kind):
        self.kind = kind

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter != 4:
            return
        if self.kind == "silent" and runner.rank == 0:
            dist.distributed_c10d._set_pg_timeout(timedelta(seconds=TIMEOUT))
        if runner.rank == 1:
            if self.kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.kind == "silent":
                time.sleep(600)
            elif self.kind in ("losses", "gradients"):
                self.handle = runner.model.module.trajectory_head.register_forward_hook(self.spoil)

    def spoil(self, head, inputs, output):
        self.handle.remove()
        if self.kind == "gradients":
            output.encoded.register_hook(lambda gradient: gradient.fill_(float("nan")))
        else:
            output.encoded.data.fill_(float("nan"))


def run_rank(rank, kind, recipe, folder, messages):
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE="2")
    rank_agreement.device_name = lambda device: (H100, A100)[rank]
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2,
        timeout=timedelta(seconds=PATIENCE),
    )  # fmt: skip

    def train():
        runner = build_train_runner(load_config(recipe, OPTIONS), str(folder / "w"), launcher="pytorch")
        runner.register_hook(Trouble(kind))
        runner.train()

    try:
        with ending_processes():  # as the tools do, so that the group is left
            train()
        messages.put((rank, "trained", ""))
    except Exception as error:
        messages.put((rank, type(error).__name__, str(error)))
    assert not dist.is_initialized()


def messages_of(kind, recipe, folder):
    """Messages by rank; rank 0 must have ended in order."""
    build_train_runner(load_config(recipe, OPTIONS), str(folder / "warm"))  # imports, for both at once
    fork = multiprocessing.get_context("fork")  # a fresh interpreter would import for seconds
    messages = fork.Queue()
    ranks = [fork.Process(target=run_rank, args=(r, kind, recipe, folder, messages)) for r in range(2)]
    for process in ranks:
        process.start()
    try:
        found = [messages.get(timeout=2 * PATIENCE)]
        if kind not in ("killed", "silent"):
            found.append(messages.get(timeout=PATIENCE))
        ranks[0].join(timeout=PATIENCE)
        assert ranks[0].exitcode == 0
    finally:
        for process in ranks:
            process.kill()
            process.join()
    return {rank: (name, text) for rank, name, text in found}


@pytest.mark.parametrize("kind", ["killed", "silent"])
def test_a_rank_that_is_lost_ends_the_others_with_a_message(tmp_path, blind_recipe, kind):
    name, text = messages_of(kind, blind_recipe, tmp_path)[0]
    assert name == "LostRankError", text
    assert "rank 0 of 2 hears nothing of another rank" in text
    assert f"go on with --resume {tmp_path / 'w/epoch_1.pth'}" in text


def test_all_ranks_stop_after_the_same_step_and_say_whose_scenes_it_was(tmp_path, blind_recipe):
    found = messages_of("losses", blind_recipe, tmp_path)
    assert {name for name, _ in found.values()} == {"NonFiniteLossError"}
    assert all(text.startswith("step 5 (epoch 2): loss_trajectory is nan") for _, text in found.values())
    assert "rank 1 of 2 gave loss_trajectory; its scenes:" in found[1][1]
    assert "rank 0 of 2 gave finite terms, see the messages of the others" in found[0][1]
    scenes = [text.split("its scenes: ")[1].split(".")[0] for _, text in found.values()]
    assert len(set(scenes)) == 2 and all(len(scene) == 16 for scene in scenes)


def test_all_ranks_stop_after_a_step_whose_gradients_are_not_finite(tmp_path, blind_recipe):
    """Each has the mean over the ranks, so that none can say whose it was."""
    found = messages_of("gradients", blind_recipe, tmp_path)
    for rank, (_, text) in found.items():
        assert text.startswith("step 5 (epoch 2): the norm of the gradients is nan, the losses are finite")
        assert f"rank {rank} of 2, and gradients are means over all; its scenes of the batch:" in text
    assert len(found) == 2


def test_ranks_on_different_gpus_are_told_of_once_and_train_on(tmp_path, blind_recipe):
    found = messages_of("mixed", blind_recipe, tmp_path)
    assert {name for name, _ in found.values()} == {"trained"}, found
    logs = "".join(path.read_text() for path in (tmp_path / "w").glob("*/*.log"))
    assert logs.count("the ranks compute on") == 1
    assert f"WARNING - the ranks compute on 1 x {H100} and 1 x {A100}: every step waits" in logs


@pytest.mark.parametrize(
    ("machine", "processes", "problem"),
    [
        (Inventory((H100,) * 7, 8, None, True), 8, r"8 processes .* 7 GPUs \(7 x NVIDIA H100.*CONFIG 7"),
        (Inventory((H100,), 8, "3", True), 2, r"2 processes .*CUDA_VISIBLE_DEVICES \(now '3'\) hides"),
        (Inventory((), 4, None, True), 4, r"has 4 NVIDIA cards, and torch can use none .*nvidia-smi"),
        (Inventory((), 4, "0,1", False), 1, "CUDA_VISIBLE_DEVICES= .empty."),
        (Inventory((A100,) * 2, 2, None, False), 2, "no NCCL.*--cfg-options env_cfg.dist_cfg.backend=gloo"),
    ],
)
def test_gpus_or_an_exchange_that_are_missing_are_refused(machine, processes, problem):
    with pytest.raises(DeviceError, match=problem):
        choose_backend(machine, "nccl", processes)
    assert choose_backend(machine, "gloo", processes) == "gloo"  # asked for


def test_processors_are_used_where_there_is_nothing_else_or_the_user_says_so():
    assert choose_backend(Inventory(has_nccl=True), "nccl", 2) == "gloo"
    assert choose_backend(Inventory((), 8, "", True), "nccl", 2) == "gloo"
    assert choose_backend(Inventory((H100,) * 8, 8, None, True), "nccl", 8) == "nccl"


def test_mixed_devices_are_told_and_gone_on_with():
    assert describe_mixture([H100] * 4) is None
    told = describe_mixture([H100, A100, H100])
    assert f"2 x {H100} and 1 x {A100}" in told and "Going on" in told


@pytest.mark.parametrize(
    ("launcher", "variables", "processes"),
    [
        ("pytorch", {"LOCAL_WORLD_SIZE": "4", "SLURM_STEP_TASKS_PER_NODE": "1"}, 4),
        ("pytorch", {}, 1),
        ("mpi", {"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_SIZE": "8"}, 2),
        ("slurm", {"SLURM_NTASKS_PER_NODE": "8"}, 8),
        ("slurm", {"SLURM_NTASKS_PER_NODE": "4(x2)", "SLURM_NODEID": "1"}, 4),
        ("slurm", {"SLURM_NTASKS_PER_NODE": "8", "SLURM_NTASKS": "2"}, 2),  # a limit
        ("slurm", {"SLURM_NTASKS_PER_NODE": "4", "SLURM_TASKS_PER_NODE": "1(x4)", "SLURM_NODEID": "3"}, 1),
        ("slurm", {"SLURM_TASKS_PER_NODE": "4(x2),3,1(x2)", "SLURM_NODEID": "2"}, 3),
        ("slurm", {"SLURM_TASKS_PER_NODE": "9", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3,1(x2)"}, 4),
        ("slurm", {}, 1),
    ],
)
def test_launchers_say_how_many_processes_are_here(launcher, variables, processes):
    assert processes_here(launcher, variables) == processes


@pytest.mark.parametrize(
    ("launcher", "variables"),
    [
        ("pytorch", {"LOCAL_WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}),
        (
            "slurm",
            {
                "SLURM_STEP_TASKS_PER_NODE": "4",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "4",
                "SLURM_NODELIST": "a",
            },
        ),
        (
            "mpi",
            {
                "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "0",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_RANK": "0",
            },
        ),
    ],
)
def test_a_node_with_fewer_gpus_than_ranks_is_refused_by_every_launcher(monkeypatch, launcher, variables):
    mmengine_compat.apply()
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NODEID", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    machine = Inventory((H100,) * 3, 4, None, True)
    monkeypatch.setattr(Inventory, "here", classmethod(lambda cls: machine))
    monkeypatch.setattr(dist, "init_process_group", lambda **kwargs: pytest.fail("waits for the others"))
    with pytest.raises(DeviceError, match=r"4 processes on this machine, and torch can use 3 GPUs"):
        mmengine.dist.utils.init_dist(launcher, "nccl")


def test_what_libraries_say_of_a_lost_rank_is_known():
    for text in (
        "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:33456",
        "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 4000ms for recv operation to complete",
        "NCCL error: remote process exited or there was a network error",
    ):
        assert is_lost_peer(RuntimeError(text))
    assert not is_lost_peer(RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"))
