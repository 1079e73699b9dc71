"""What a run says when a rank, a GPU or the disk is lost: what it goes on from, and where to look."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from beyonddrive.engine.hooks.finite_losses import FiniteLossesHook, NonFiniteLossError
from beyonddrive.engine.resuming import last_written
from beyonddrive.structures.errors import BeyondDriveError

_SILENT_PEER = re.compile(
    r"connection (closed|reset) by|timed out waiting|timeout caused pair closure|broken pipe"
    r"|remote process exited|wait timeout|no connection could be made|connection refused",
    re.IGNORECASE,
)
"""Parts of what gloo, NCCL and the store say of a process that does not answer."""
_NO_GPU_FAULT = (
    r"out of memory|ALLOC(?:ATION)?_FAILED|device-side assert|captur|not permitted|no kernel image"
    r"|not supported|unsupported|_NOT_SUPPORTED|_ARCH_MISMATCH|_BAD_PARAM|_INVALID_VALUE"
    r"|invalid (?:argument|configuration|device|resource)"
)
"""What a GPU that is there says to a program that asks for too much, or for the wrong thing."""
_GPU_FAULT = re.compile(
    r"^(?:[\w.]+Error: )?"  # of a traceback that is quoted, such as that of the thread of a loader
    r"(?:CUDA(?: driver)? error: |cuDNN error: |Triton Error \[CUDA\]: |NVML_SUCCESS == .*ASSERT FAILED)"
    rf"(?!.*(?:{_NO_GPU_FAULT}))",
    re.MULTILINE,
)
"""Lines by which torch tells of a GPU that failed; a text that merely speaks of one begins otherwise.

NVML is what torch asks about a GPU that gives it no memory.
"""
_GPU_OF_NCCL = re.compile(r"unhandled cuda error|ncclUnhandledCudaError|CUDA error: ")
"""Parts of what NCCL says of a call to this rank's GPU that failed."""
_REFUSED_BY_NCCL = re.compile(
    r"Cuda failure (?:\d+ )?'(?:out of memory|invalid argument)|ncclInvalid(?:Usage|Argument)|Duplicate GPU"
)
"""Parts of what NCCL says of a mistake, or of too little memory: nothing is lost."""
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class LostRankError(BeyondDriveError, RuntimeError):
    """Another process of a distributed training has died or does not answer."""


class LostGpuError(BeyondDriveError, RuntimeError):
    """A GPU has failed, or has gone, while it computed."""


@contextmanager
def explaining_failures(runner: Runner, is_training: bool = True) -> Iterator[None]:
    """Raise what an error of a run means in its place, with the error as cause.

    Others pass, with a note that names the part of the planner in which they came up.

    Args:
        runner: Whose run it is.
        is_training: Whether there is something to go on from.

    Raises:
        NonFiniteLossError: If a loss of the step before was not finite: whatever follows is its consequence.
        LostRankError: If another rank has died or does not answer.
        LostGpuError: If a GPU has failed.
        OSError: A full or read-only disk, with the work folder, if a training was stopped by it.
    """
    try:
        yield
    except Exception as error:
        on_disk = _on_disk(error, runner.work_dir) if is_training else None
        meant = on_disk or _explain(runner, error, is_training)
        if meant is None:
            _name_part(runner.model, error)
            raise
        raise meant from error


def _name_part(model: Any, error: Exception) -> None:
    """Note in which part of the planner an error came up: torch says which shapes do not fit, not where."""
    if isinstance(error, BeyondDriveError):
        return
    planner = model.module if is_model_wrapper(model) else model
    names = {id(part): name for name, part in planner.named_modules()}
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    parts = [owner for owner in owners if isinstance(owner, nn.Module) and names.get(id(owner))]
    if not parts:
        return
    part = parts[-1]
    try:
        settings = part.extra_repr()
    except Exception:  # (it is anybody's code, and the first error is what counts)
        settings = "..."
    error.add_note(f"in model.{names[id(part)]}: {type(part).__name__}({settings})")


def _explain(runner: Runner, error: Exception, is_training: bool) -> Exception | None:
    """What an error means, if it is none that speaks for itself."""
    if isinstance(error, NonFiniteLossError):
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
    if is_lost_gpu(error):
        return LostGpuError(
            f"a GPU failed on rank {get_rank()} ({first}): look at nvidia-smi, whether it is still there and "
            f"has memory left, and at the Xid lines of dmesg; with CUDA_LAUNCH_BLOCKING=1 the trace names "
            f"the kernel. {_how_to_go_on(runner, is_training)}"
        )
    if get_world_size() > 1 and is_lost_peer(error):
        return LostRankError(
            f"rank {get_rank()} of {get_world_size()} hears nothing of another rank ({first}): it has died, "
            f"been killed, or did not answer within env_cfg.dist_cfg.timeout; its own log says why. "
            f"{_how_to_go_on(runner, is_training)}"
        )
    return None


def _how_to_go_on(runner: Runner, is_training: bool) -> str:
    if not is_training:
        return "an evaluation keeps nothing: start it again"
    checkpoint = last_written(runner)
    return f"go on with --resume {checkpoint}" if checkpoint else "no checkpoint had been written"


def _on_disk(error: Exception, work_dir: str) -> OSError | None:
    """The error of a full or read-only disk that names no file, with the work folder."""
    if not isinstance(error, OSError) or error.errno not in _DISK_FAULTS or error.filename is not None:
        return None
    reason = f"{error.strerror}; what was trained is kept up to the last checkpoint, go on with --resume"
    return OSError(error.errno, reason, work_dir)


def is_lost_gpu(error: BaseException) -> bool:
    """Whether an error is that the GPU of this rank has failed.

    >>> is_lost_gpu(RuntimeError("CUDA error: unspecified launch failure"))
    True
    >>> is_lost_gpu(RuntimeError("CUDA error: device-side assert triggered"))
    False
    >>> is_lost_gpu(RuntimeError("my loss got a CUDA error: it is nan"))
    False
    """
    text = str(error)
    if _is_of_group(error):
        return bool(_GPU_OF_NCCL.search(text)) and not _REFUSED_BY_NCCL.search(text)
    return bool(_GPU_FAULT.search(text))


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error is that another process does not answer.

    >>> is_lost_peer(RuntimeError("[pair.cc:534] Connection closed by peer [10.0.0.2]:4711"))
    True
    >>> is_lost_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    text = str(error)
    if _is_of_group(error):
        return not _REFUSED_BY_NCCL.search(text)
    return bool(_SILENT_PEER.search(text))


def _is_of_group(error: BaseException) -> bool:
    return isinstance(error, getattr(torch.distributed, "DistError", ()))
