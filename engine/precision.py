"""Mixed precision in bfloat16 on any device, and whether a device has instructions for it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def bfloat16_autocast(device_type: str) -> Iterator[None]:
    """Autocast to bfloat16; on a CPU attention stays in float32.

    The fused attention of CPUs takes more than ten times as long backwards in bfloat16 as in float32, which
    costs a small planner most of what convolutions gain. What is not fused, torch computes in float32.

    Args:
        device_type: ``'cpu'``, ``'cuda'``, or what else torch has autocast for.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device_type, dtype=torch.bfloat16))
        if device_type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def attention_kernels() -> list[SDPBackend]:
    """Kernels that attention may choose from now."""
    enabled = {
        SDPBackend.MATH: cuda.math_sdp_enabled(),
        SDPBackend.FLASH_ATTENTION: cuda.flash_sdp_enabled(),
        SDPBackend.EFFICIENT_ATTENTION: cuda.mem_efficient_sdp_enabled(),
        SDPBackend.CUDNN_ATTENTION: cuda.cudnn_sdp_enabled(),
    }
    return [kernel for kernel, is_enabled in enabled.items() if is_enabled]


def has_bfloat16(device_type: str) -> bool:
    """Whether a device has instructions for bfloat16; those without emulate it, slower than float32.

    Asked are CUDA devices and x86 processors; of others it is assumed.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return True
