"""Two ranks of which one dies, falls silent, or has what is not finite: the other ends, too."""

import multiprocessing
import os
import signal
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook

from beyonddrive.engine.devices import DeviceError, Inventory, choose_backend, describe_mixture
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.engine.runner.failures import is_lost_peer

OPTIONS = {"train_dataloader.batch_size": 1, "train_cfg.val_interval": 99, "train_cfg.max_epochs": 9}
TIMEOUT = 4
"""Seconds after which a rank that does not answer counts as lost."""


class Trouble(Hook):
    """What happens to the second rank in its fifth step, in the second epoch."""

    priority = "LOWEST"

    def __init__(self, kind):
        self.kind = kind

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank == 1 and runner.iter == 4:
            if self.kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.kind == "silent":
                time.sleep(600)
            else:
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
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2,
        timeout=timedelta(seconds=TIMEOUT),
    )  # fmt: skip
    runner = build_train_runner(load_config(recipe, OPTIONS), str(folder / "w"), launcher="pytorch")
    runner.register_hook(Trouble(kind))
    try:
        runner.train()
    except Exception as error:
        messages.put((rank, type(error).__name__, str(error)))
        messages.close()
        messages.join_thread()
    os._exit(0)  # a group without its other half cannot be left in order


def messages_of(kind, recipe, folder):
    """Messages by rank, and the seconds until the first rank had ended."""
    build_train_runner(load_config(recipe, OPTIONS), str(folder / "warm"))  # imports, for both at once
    fork = multiprocessing.get_context("fork")  # a fresh interpreter would import for seconds
    messages = fork.Queue()
    ranks = [fork.Process(target=run_rank, args=(r, kind, recipe, folder, messages)) for r in range(2)]
    for process in ranks:
        process.start()
    try:
        found = [messages.get(timeout=60 + TIMEOUT)]
        if kind in ("losses", "gradients"):
            found.append(messages.get(timeout=60 + TIMEOUT))
        ranks[0].join(timeout=30)
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


H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"


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


def test_what_libraries_say_of_a_lost_rank_is_known():
    for text in (
        "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:33456",
        "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 4000ms for recv operation to complete",
        "NCCL error: remote process exited or there was a network error",
    ):
        assert is_lost_peer(RuntimeError(text))
    assert not is_lost_peer(RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"))
