"""3x3 convolutions by Winograd's minimal filtering: 2.25 times fewer multiplications, exact up to rounding.

F(2x2, 3x3): every 2x2 block of outputs is computed from a 4x4 block of inputs by additions, sixteen matrix
products over the channels, which all blocks share, and additions again (Lavin and Gray, CVPR 2016). The
transforms hold only 0, 1, -1 and 1/2, and sums are shorter, so that rounding errors are no larger than those
of a direct convolution.

A task is some blocks, whose transforms stay in the caches of one core from the first addition to the last.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numba
import numpy as np
import torch
from numba import get_thread_id, prange, types
from numba.core import cgutils
from torch import Tensor, nn

from beyonddrive.engine.jit import kernel, parallel_kernel
from beyonddrive.engine.simd import (
    LANES,
    ROWS,
    VECTORS,
    WIDTH,
    has_fused_multiply,
    integer,
    intrinsic,
    load,
    multiply_block,
    pointer_of,
    signed_sum,
    splat,
    store,
)

MIN_CHANNELS = 64
"""Below, the additions cost what the products save."""
MIN_BLOCKS = 16
"""Below, reading sixteen transformed kernels takes longer than a direct convolution."""
BLOCKS_PER_TASK = 32
"""Blocks whose transforms fit into the second-level cache of a core, a multiple of ``ROWS``."""

_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))

# numba's pool of threads may allow one caller at a time only.
_one_at_a_time = Lock()


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


def is_worth_it(x: Tensor, padding: int) -> bool:
    """Whether the result for a map (B, C, H, W) has whole blocks, and as many as make the transforms pay."""
    batch, _, height, width = x.shape
    rows, columns = height + 2 * padding - 2, width + 2 * padding - 2
    return (
        min(rows, columns) > 0 and rows % 2 == columns % 2 == 0 and batch * rows * columns // 4 >= MIN_BLOCKS
    )


def transform_kernel(weight: Tensor) -> Tensor:
    """Kernels (K, C, 3, 3) -> (16, K / WIDTH, C, WIDTH), for :func:`convolve`."""
    rows = torch.tensor(_KERNEL, dtype=torch.float64)
    turned = torch.einsum("ai,kcij,bj->abck", rows, weight.detach().double(), rows).flatten(0, 1)
    panels = turned.unflatten(2, (-1, WIDTH)).transpose(1, 2)
    return panels.to(torch.float32).contiguous()


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
        x: (B, C, H, W) float32 of even height and width, best channels-last.
        kernels: (16, K / WIDTH, C, WIDTH), from :func:`transform_kernel`.
        bias: (K,).
        other: To be added, of the shape of the result.
        relu: Replace negative results by 0.
        padding: 1, or 0 for a result that is smaller by 2.

    Returns:
        (B, K, H, W), channels-last.
    """
    batch, channels, height, width = x.shape
    height, width = height + 2 * padding - 2, width + 2 * padding - 2
    result = torch.empty(batch, height, width, len(bias))
    blocks = batch * height * width // 4
    tasks = -(-blocks // BLOCKS_PER_TASK)
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    # Few blocks: several tasks transform the same ones, and each multiplies with some of the kernels only.
    shares = min(kernels.shape[1], -(-threads // max(tasks, 1)))
    scratch = torch.empty(threads, 16 * (BLOCKS_PER_TASK * (channels + WIDTH) + channels))
    added = result if other is None else other.permute(0, 2, 3, 1).contiguous()
    before = numba.get_num_threads()
    with _one_at_a_time:
        numba.set_num_threads(threads)
        try:
            _convolve(
                x.permute(0, 2, 3, 1).contiguous().numpy(),
                kernels.numpy(),
                bias.numpy(),
                added.numpy(),
                other is not None,
                np.float32(0 if relu else -np.inf),
                result.numpy(),
                scratch.numpy(),
                padding,
                shares,
            )
        finally:
            numba.set_num_threads(before)
    return result.permute(0, 3, 1, 2)


@parallel_kernel
def _convolve(  # type: ignore[no-untyped-def]
    x, kernels, bias, other, has_other, floor, result, scratch, padding, shares
):
    _, height, width, channels = x.shape
    batch, result_height, result_width, result_channels = result.shape
    rows, columns = result_height // 2, result_width // 2
    blocks = batch * rows * columns
    tasks = (blocks + BLOCKS_PER_TASK - 1) // BLOCKS_PER_TASK
    panels = kernels.shape[1]
    inputs, weights = x.reshape(-1), kernels.reshape(-1)
    results, added = result.reshape(-1), other.reshape(-1)
    for number in prange(tasks * shares):
        task, share = number // shares, number % shares
        first = task * BLOCKS_PER_TASK
        count = min(BLOCKS_PER_TASK, blocks - first)
        own = scratch[get_thread_id()]
        turned = own[: 16 * BLOCKS_PER_TASK * channels]
        products = own[len(turned) : len(turned) + 16 * BLOCKS_PER_TASK * WIDTH]
        border = own[len(turned) + len(products) :]
        for block in range(count):
            image, row, column = _place(first + block, rows, columns)
            top, left = 2 * row - padding, 2 * column - padding
            step = BLOCKS_PER_TASK * channels
            if top < 0 or left < 0 or top + 4 > height or left + 4 > width:
                _copy_block(x, image, top, left, border)
                _transform_inputs(border, 0, 4 * channels, channels, turned, block * channels, step)
            else:
                start = ((image * height + top) * width + left) * channels
                _transform_inputs(inputs, start, width * channels, channels, turned, block * channels, step)
        for panel in range(panels * share // shares, panels * (share + 1) // shares):
            for part in range(16):
                start = (part * panels + panel) * channels * WIDTH
                for block in range(0, count, ROWS):  # up to a whole ROWS: what lies behind is not read
                    line = part * BLOCKS_PER_TASK + block
                    multiply_block(
                        turned, line * channels, channels, weights, start, channels, products, line * WIDTH
                    )
            for block in range(count):
                image, row, column = _place(first + block, rows, columns)
                start = (image * result_height + 2 * row) * result_width + 2 * column
                start, step = start * result_channels + panel * WIDTH, result_width * result_channels
                if has_other:
                    _transform_and_add(
                        products, block * WIDTH, bias, panel * WIDTH, floor, added, results, start, step,
                        result_channels,
                    )  # fmt: skip
                else:
                    _transform_products(
                        products, block * WIDTH, bias, panel * WIDTH, floor, added, results, start, step,
                        result_channels,
                    )  # fmt: skip


@kernel
def _place(block, rows, columns):  # type: ignore[no-untyped-def]
    """Image, row and column of a block."""
    return block // (rows * columns), block // columns % rows, block % columns


@kernel
def _copy_block(x, image, top, left, out):  # type: ignore[no-untyped-def]
    """A 4x4 block of inputs with zeros where it leaves the map."""
    _, height, width, channels = x.shape
    for i in range(4):
        for j in range(4):
            row, column, start = top + i, left + j, (4 * i + j) * channels
            if 0 <= row < height and 0 <= column < width:
                out[start : start + channels] = x[image, row, column]
            else:
                out[start : start + channels] = 0


def _sandwich(builder: Any, matrix: tuple[tuple[int, ...], ...], block: list[list[Any]]) -> list[list[Any]]:
    """``matrix @ block @ matrix.T`` for a 4x4 block of vectors."""
    half = [[signed_sum(builder, [line[j] for line in block], row) for j in range(4)] for row in matrix]
    return [[signed_sum(builder, line, row) for row in matrix] for line in half]


@intrinsic
def _transform_inputs(  # type: ignore[no-untyped-def]
    _, x, start, row_step, column_step, out, out_start, out_step
):
    """The 4x4 inputs of a block from ``start`` on -> 16 numbers per channel, ``out_step`` apart.

    ``column_step`` is the number of channels.
    """
    index = types.int64
    signature = types.void(x, index, index, index, out, index, index)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, out = (pointer_of(context, builder, signature, arguments, i) for i in (0, 4))
        start, row_step, column_step, out_start, out_step = (arguments[i] for i in (1, 2, 3, 5, 6))
        with cgutils.for_range_slice(builder, integer(0), column_step, integer(LANES)) as (channel, _):
            block = _load_block(builder, x, builder.add(start, channel), row_step, column_step)
            lines = _sandwich(builder, _INPUT, block)
            for part, vector in enumerate(vector for line in lines for vector in line):
                at = builder.add(out_start, builder.mul(out_step, integer(part)))
                store(builder, vector, out, builder.add(at, channel))
        return context.get_dummy_value()

    return signature, generate


def _load_block(builder: Any, x: Any, start: Any, row_step: Any, column_step: Any) -> list[list[Any]]:
    """A 4x4 block of vectors."""
    block = []
    for i in range(4):
        row = builder.add(start, builder.mul(row_step, integer(i)))
        places = [builder.add(row, builder.mul(column_step, integer(j))) for j in range(4)]
        block.append([load(builder, x, place) for place in places])
    return block


def _output_transform(has_other: bool) -> Any:
    """The intrinsic that turns sixteen products of a block into its 2x2 outputs."""

    @intrinsic
    def transform(  # type: ignore[no-untyped-def]
        _, products, start, bias, bias_start, floor, other, out, out_start, row_step, column_step
    ):
        index = types.int64
        signature = types.void(products, index, bias, index, types.float32, other, out, index, index, index)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            products, bias, other, out = (
                pointer_of(context, builder, signature, arguments, i) for i in (0, 2, 5, 6)
            )
            start, bias_start, floor, out_start, row_step, column_step = (
                arguments[i] for i in (1, 3, 4, 7, 8, 9)
            )
            floor = splat(builder, floor)
            part_step = integer(BLOCKS_PER_TASK * WIDTH)
            for vector in range(VECTORS):
                lane = integer(vector * LANES)
                block = _load_block(
                    builder, products, builder.add(start, lane), builder.mul(part_step, integer(4)), part_step
                )
                shift = load(builder, bias, builder.add(bias_start, lane))
                for i, line in enumerate(_sandwich(builder, _OUTPUT, block)):
                    for j, total in enumerate(line):
                        at = builder.add(builder.add(out_start, lane), builder.mul(row_step, integer(i)))
                        at = builder.add(at, builder.mul(column_step, integer(j)))
                        total = builder.fadd(total, shift)
                        if has_other:
                            total = builder.fadd(total, load(builder, other, at))
                        # NaN is not below the floor, and stays.
                        below = builder.fcmp_ordered("<", total, floor)
                        store(builder, builder.select(below, floor, total), out, at)
            return context.get_dummy_value()

        return signature, generate

    return transform


_transform_products = _output_transform(has_other=False)
_transform_and_add = _output_transform(has_other=True)
