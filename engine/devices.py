"""Which devices a distributed run finds, and by what its processes exchange gradients."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from beyonddrive.structures.errors import BeyondDriveError

_HIDES_ALL = ("", "-1")
"""Values of ``CUDA_VISIBLE_DEVICES`` by which a user asks for processors."""

_SLURM_NODES = re.compile(r"(\d+)(?:\(x(\d+)\))?")
"""Tasks of nodes as Slurm writes them: ``4(x2),3`` is 4 on each of the first two and 3 on the third."""


class DeviceError(BeyondDriveError, RuntimeError):
    """The GPUs or the exchange between them that a run is to use are not there."""


@dataclass(frozen=True)
class Inventory:
    """What a machine has.

    Attributes:
        names: GPUs that torch can use, in its order.
        cards: NVIDIA cards that the driver shows, usable or not.
        visible: ``CUDA_VISIBLE_DEVICES``, None if it is not set.
        has_nccl: Whether this torch was built with NCCL.
    """

    names: tuple[str, ...] = ()
    cards: int = 0
    visible: str | None = None
    has_nccl: bool = False

    @classmethod
    def here(cls) -> Inventory:
        """That of this machine."""
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return cls(
            tuple(torch.cuda.get_device_name(index) for index in range(count)),
            len(list(Path("/dev").glob("nvidia[0-9]*"))),
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            torch.distributed.is_nccl_available(),
        )


def choose_backend(machine: Inventory, backend: str = "nccl", processes: int = 1) -> str:
    """By what the processes of a run exchange gradients: as asked, or gloo on a machine without GPUs.

    Args:
        machine: What it has.
        backend: ``env_cfg.dist_cfg.backend``.
        processes: Processes of the run on this machine.

    Raises:
        DeviceError: If NCCL is asked for and cannot be used: there are GPUs, but torch sees none of them,
            fewer than processes, or has no NCCL. Nothing falls back to processors or to gloo by itself.

    >>> choose_backend(Inventory())
    'gloo'
    >>> choose_backend(Inventory(('NVIDIA H100',) * 2, 2, None, has_nccl=True), processes=2)
    'nccl'
    """
    if backend != "nccl":
        return backend
    by_gloo = "env_cfg.dist_cfg.backend=gloo"
    if not machine.names:
        if machine.cards and machine.visible not in _HIDES_ALL:
            raise DeviceError(
                f"this machine has {machine.cards} NVIDIA cards, and torch can use none of them: look at "
                f"nvidia-smi, at CUDA_VISIBLE_DEVICES (now {machine.visible!r}) and whether this torch was "
                "built for CUDA. To train on processors say so: CUDA_VISIBLE_DEVICES= (empty)"
            )
        return "gloo"
    if processes > len(machine.names):
        raise DeviceError(
            f"{processes} processes on this machine, and torch can use {len(machine.names)} GPUs "
            f"({count_names(machine.names)}): a GPU has gone (nvidia-smi and dmesg tell), or "
            f"CUDA_VISIBLE_DEVICES (now {machine.visible!r}) hides one. Start one process for each GPU: "
            f"tools/dist_train.sh CONFIG {len(machine.names)}, or under Slurm as many tasks per node as "
            "--gres=gpu: asks for (with --gpus-per-task a process sees its own only); --resume goes on in "
            "another number of them"
        )
    if not machine.has_nccl:
        raise DeviceError(
            "this torch has no NCCL, by which GPUs exchange gradients: install a torch for CUDA on Linux, or "
            f"ask for gloo, which is slower: --cfg-options {by_gloo}"
        )
    return backend


def processes_here(launcher: str, environment: Mapping[str, str] = os.environ) -> int:
    """Processes of a run on this machine, as its launcher says; 1 if it does not.

    Args:
        launcher: ``pytorch`` (torchrun), ``slurm`` or ``mpi`` (Open MPI).
        environment: Variables of this process.

    >>> processes_here("pytorch", {"LOCAL_WORLD_SIZE": "8"})
    8
    >>> processes_here("slurm", {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_NODEID": "2"})
    3
    """
    if launcher != "slurm":
        name = {"pytorch": "LOCAL_WORLD_SIZE", "mpi": "OMPI_COMM_WORLD_LOCAL_SIZE"}[launcher]
        return int(environment.get(name, "1"))
    # What was asked for (SLURM_NTASKS_PER_NODE) is but a limit where --ntasks was given, too.
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"):
        runs = _SLURM_NODES.findall(environment.get(name, ""))
        nodes = [int(tasks) for tasks, times in runs for _ in range(int(times or 1))]
        if nodes:
            here = int(environment.get("SLURM_NODEID", "0"))
            asked = nodes[here] if here < len(nodes) else nodes[-1]
            return min(asked, int(environment.get("SLURM_NTASKS", asked)))
    return 1


def describe_mixture(names: Sequence[str]) -> str | None:
    """What is to be known of ranks on different kinds of devices; None if they are alike.

    Args:
        names: Device of each rank, in their order.

    >>> describe_mixture(['NVIDIA A100', 'NVIDIA A100']) is None
    True
    >>> describe_mixture(['NVIDIA A100', 'NVIDIA V100'])[:63]
    'the ranks compute on 1 x NVIDIA A100 and 1 x NVIDIA V100: every'
    """
    if len(set(names)) < 2:
        return None
    return (
        f"the ranks compute on {count_names(names)}: every step waits for the slowest, the smallest memory "
        "limits the batch of all, and figures differ in rounding from those of one kind. Going on; for one "
        "kind, choose devices by CUDA_VISIBLE_DEVICES or the constraints of the scheduler"
    )


@contextmanager
def meeting_all_ranks() -> Iterator[None]:
    """Say which processes a process group waited for in vain.

    Raises:
        DeviceError: If the first one cannot be reached, or others do not come in time.
    """
    try:
        yield
    except torch.distributed.DistError as error:
        asked = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")}
        shown = ", ".join(f"{name}={value}" for name, value in asked.items())
        raise DeviceError(
            f"the processes of this run do not find each other ({' '.join(str(error).split())[:300]}): "
            f"{shown}. All of WORLD_SIZE must start, and reach MASTER_ADDR:MASTER_PORT, within "
            "env_cfg.dist_cfg.timeout seconds; a process that could not start says why in its own log"
        ) from error


def count_names(names: Sequence[str]) -> str:
    """How many there are of each kind.

    >>> count_names(['a', 'b', 'a'])
    '2 x a and 1 x b'
    """
    return " and ".join(f"{number} x {name}" for name, number in Counter(names).items())


def device_name(device: torch.device) -> str:
    """Name of the device that a rank computes on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
