"""3x3 convolutions by Winograd's minimal filtering: 2.25 or 4 times fewer multiplications.

Every block of 2x2 or 4x4 outputs is computed from the 4x4 or 6x6 inputs around it by additions (F(2x2, 3x3)
and F(4x4, 3x3): Lavin and Gray, CVPR 2016), 16 or 36 matrix products over the channels, which all blocks
share, and additions again. Rounding errors of small blocks are up to twice those of a direct convolution,
those of large blocks up to six times.
"""

from __future__ import annotations

import os
from threading import Lock

import numba
import numpy as np
import torch
from torch import Tensor, nn

from beyonddrive.deploy.cpu.vectors import LANES, ROWS, WIDTH, has_fused_multiply
from beyonddrive.deploy.cpu.winograd_kernels import LARGE, SMALL, Filter, convolve_blocks

MIN_CHANNELS = 64
"""Below, the additions cost what the products save."""
MAX_CHANNELS_OF_LARGE = 256
"""Above, 36 transformed kernels leave the caches of a core, and reading them costs what large blocks save."""
MIN_BLOCKS = 16
"""Below, reading the transformed kernels takes longer than a direct convolution."""
INPUTS_PER_TASK = 512
"""Numbers per channel that are transformed at a time: as many as fit into a core's second-level cache."""


class _Threads:
    """Numba's pool of threads, which may allow one caller at a time only, and none in a forked process.

    Attributes:
        lock: Held by the caller.
        used: The pool has been started.
        lost: It was started in the process that this one was forked from.
    """

    def __init__(self, lost: bool = False) -> None:
        self.lock, self.used, self.lost = Lock(), False, lost


_threads = _Threads()


def _after_fork() -> None:
    global _threads
    _threads = _Threads(lost=_threads.used or _threads.lost)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def can_convolve(conv: nn.Conv2d) -> bool:
    """Whether :func:`convolve` computes a convolution, and this processor gains by it."""
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding in ((0, 0), (1, 1))
        and conv.padding_mode == "zeros"
        and conv.groups == 1
        and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
        and conv.in_channels % LANES == 0
        and conv.out_channels % WIDTH == 0
        and has_fused_multiply()
    )


def best_filter(x: Tensor, conv: nn.Conv2d) -> Filter | None:
    """The fastest filtering of a map (B, C, H, W), or None if it must, or had better, be convolved directly.

    So has every map in a process that was forked from one that has convolved here.
    """
    if x.dim() != 4 or x.shape[1] != conv.in_channels or x.dtype != torch.float32 or _threads.lost:
        return None
    rows, columns = (size + 2 * int(conv.padding[0]) - 2 for size in x.shape[2:])
    channels = max(conv.in_channels, conv.out_channels)
    for filtering in (LARGE, SMALL) if channels <= MAX_CHANNELS_OF_LARGE else (SMALL,):
        m = filtering.outputs
        blocks = x.shape[0] * rows * columns // m**2
        if min(rows, columns) > 0 and rows % m == columns % m == 0 and blocks >= MIN_BLOCKS:
            return filtering
    return None


def transform_kernel(weight: Tensor, filtering: Filter) -> Tensor:
    """Kernels (K, C, 3, 3) -> ((m + 2)^2, K / WIDTH, C, WIDTH), for :func:`convolve`."""
    rows = torch.tensor(filtering.kernel, dtype=torch.float64)
    turned = torch.kron(rows, rows) @ weight.detach().double().flatten(2).flatten(0, 1).T  # (parts, K * C)
    panels = turned.to(torch.float32).unflatten(1, (-1, WIDTH, weight.shape[1]))
    return panels.transpose(2, 3).contiguous()


def convolve(
    x: Tensor,
    kernels: Tensor,
    bias: Tensor,
    other: Tensor | None = None,
    relu: bool = False,
    padding: int = 1,
) -> Tensor:
    """Convolve with transformed 3x3 kernels, stride 1; add; rectify.

    Args:
        x: (B, C, H, W) float32, best channels-last; height and width of the result are multiples of m.
        kernels: ((m + 2)^2, K / WIDTH, C, WIDTH), from :func:`transform_kernel`.
        bias: (K,).
        other: To be added, of the shape of the result.
        relu: Replace negative results by 0.
        padding: 1, or 0 for a result that is smaller by 2.

    Returns:
        (B, K, H, W), channels-last.

    Raises:
        ValueError: If shapes do not fit or types are not float32.
    """
    batch, channels, height, width = x.shape
    height, width = height + 2 * padding - 2, width + 2 * padding - 2
    result = torch.empty(batch, height, width, len(bias))
    parts = len(kernels)
    m = SMALL.outputs if parts == len(SMALL.input) ** 2 else LARGE.outputs
    per_task = max(INPUTS_PER_TASK // parts // ROWS, 1) * ROWS
    tasks = -(-(batch * height * width // m**2) // per_task)
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    # Few blocks: several tasks transform the same ones, and each multiplies with some of the kernels only.
    shares = min(kernels.shape[1], -(-threads // max(tasks, 1)))
    scratch = torch.empty(threads, parts * (per_task * (channels + WIDTH) + channels))
    added = result if other is None else other.permute(0, 2, 3, 1).contiguous()
    tensors = (x, kernels, bias, added)
    if channels != kernels.shape[2] or added.shape != result.shape or height % m or width % m:
        raise ValueError(
            f"convolve: {tuple(x.shape)} does not fit kernels of {kernels.shape[2]} channels and blocks of "
            f"{m}, or the result {tuple(result.shape)} the sum with {tuple(added.shape)}"
        )
    if any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in tensors):
        raise ValueError("convolve: give tensors of float32 on the CPU")
    _threads.used = True
    before = numba.get_num_threads()
    with _threads.lock:
        numba.set_num_threads(threads)
        try:
            convolve_blocks(
                x.permute(0, 2, 3, 1).contiguous().numpy(),
                kernels.numpy(),
                bias.numpy(),
                added.numpy(),
                other is not None,
                np.float32(0 if relu else -np.inf),
                result.numpy(),
                scratch.numpy(),
                padding,
                m,
                per_task,
                shares,
            )
        finally:
            numba.set_num_threads(before)
    return result.permute(0, 3, 1, 2)
