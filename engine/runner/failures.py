"""What a training says when a rank or a GPU is lost: which checkpoint it goes on from, and where to look."""

from __future__ import annotations

import re

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.runner import Runner

from beyonddrive.engine.hooks.finite_losses import FiniteLossesHook, NonFiniteLossError
from beyonddrive.engine.resuming import last_written
from beyonddrive.structures.errors import BeyondDriveError

_SILENT_PEER = re.compile(
    r"connection (closed|reset) by|timed out waiting|timeout caused pair closure|broken pipe"
    r"|remote process exited|wait timeout|no connection could be made|connection refused",
    re.IGNORECASE,
)
"""Parts of what gloo, NCCL and the store say of a process that does not answer."""


class LostRankError(BeyondDriveError, RuntimeError):
    """Another process of a distributed training has died or does not answer."""


class LostGpuError(BeyondDriveError, RuntimeError):
    """A GPU has failed, or has gone, while it computed."""


def explain_failure(runner: Runner, error: BaseException) -> Exception | None:
    """What an error of a training means, if it is none that speaks for itself.

    Losses that were not finite in the step before come first: whatever follows is their consequence.
    """
    if isinstance(error, NonFiniteLossError) or not isinstance(error, Exception):
        return None
    for hook in runner.hooks:
        if isinstance(hook, FiniteLossesHook):
            try:
                hook.check_now(runner)
            except NonFiniteLossError as cause:
                return cause
            except RuntimeError:  # of a device that has gone: it is explained below
                pass
    if isinstance(error, BeyondDriveError) or not isinstance(error, RuntimeError):
        return None
    first = " ".join(str(error).split())[:300]
    checkpoint = last_written(runner)
    go_on = f"go on with --resume {checkpoint}" if checkpoint else "no checkpoint had been written"
    if "CUDA error" in first:
        return LostGpuError(
            f"a GPU failed on rank {get_rank()} ({first}): it may have gone, look at nvidia-smi and at the "
            f"Xid lines of dmesg; with CUDA_LAUNCH_BLOCKING=1 the trace names the kernel. {go_on}"
        )
    if get_world_size() > 1 and is_lost_peer(error):
        return LostRankError(
            f"rank {get_rank()} of {get_world_size()} hears nothing of another rank ({first}): it has died, "
            f"been killed, or did not answer within env_cfg.dist_cfg.timeout; its own log says why. {go_on}"
        )
    return None


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error is that another process does not answer.

    >>> is_lost_peer(RuntimeError("[pair.cc:534] Connection closed by peer [10.0.0.2]:4711"))
    True
    >>> is_lost_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    of_group = isinstance(error, getattr(torch.distributed, "DistError", ()))
    return of_group or bool(_SILENT_PEER.search(str(error)))
