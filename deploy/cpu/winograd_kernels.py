"""What Winograd's algorithm computes: the minimal filterings, and the kernel that runs one over all blocks.

A task is some blocks, whose transforms stay in the caches of one core from the first addition to the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import get_thread_id, prange, types
from numba.core import cgutils
from numpy.polynomial.polynomial import polyfromroots

from beyonddrive.deploy.cpu.vectors import (
    LANES,
    ROWS,
    VECTORS,
    WIDTH,
    integer,
    intrinsic,
    load,
    multiply_block,
    pointer_of,
    splat,
    store,
    weighted_sum,
)
from beyonddrive.engine.jit import kernel, parallel_kernel

Matrix = tuple[tuple[float, ...], ...]


class Filter(NamedTuple):
    """Transforms of a minimal filtering F(m, 3): ``output @ ((kernel @ g) * (input @ d))`` filters d by g.

    Attributes:
        outputs: m.
        input: (m + 2, m + 2).
        kernel: (m + 2, 3).
        output: (m, m + 2).
    """

    outputs: int
    input: Matrix
    kernel: Matrix
    output: Matrix


def minimal_filter(points: Sequence[float]) -> Filter:
    """The filtering that multiplies polynomials at m + 1 points and at infinity (Cook and Toom).

    >>> minimal_filter([0.0, 1.0, -1.0]).output
    ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, 1.0))
    """
    m = len(points) - 1
    inputs, kernels, outputs = np.zeros((m + 2, m + 2)), np.zeros((m + 2, 3)), np.zeros((m, m + 2))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        inputs[i, :-1] = polyfromroots(others)
        kernels[i] = point ** np.arange(3) / np.prod(point - others)
        outputs[:, i] = point ** np.arange(m)
    inputs[-1], kernels[-1, -1], outputs[-1, -1] = polyfromroots(points), 1, 1
    return Filter(m, *(tuple(map(tuple, matrix.tolist())) for matrix in (inputs, kernels, outputs)))


SMALL = minimal_filter([0.0, 1.0, -1.0])
LARGE = minimal_filter([0.0, 0.75, -0.75, 1.5, -1.5])
"""At these points errors are half of those at 0, 1, -1, 2 and -2, which most implementations use."""


@parallel_kernel
def convolve_blocks(  # type: ignore[no-untyped-def]
    x, kernels, bias, other, has_other, floor, result, scratch, padding, m, per_task, shares
):
    """Convolve x (B, H, W, C) into ``result`` (B, h, w, K) with transformed kernels; add; cut off at a floor.

    Each thread uses its row of ``scratch``. ``per_task`` blocks of m x m outputs are one task, which
    ``shares`` threads share by output channels.
    """
    _, height, width, channels = x.shape
    batch, result_height, result_width, result_channels = result.shape
    parts, panels = kernels.shape[:2]
    rows, columns = result_height // m, result_width // m
    blocks = batch * rows * columns
    tasks = (blocks + per_task - 1) // per_task
    inputs, weights = x.reshape(-1), kernels.reshape(-1)
    results, added = result.reshape(-1), other.reshape(-1)
    for number in prange(tasks * shares):
        task, share = number // shares, number % shares
        first = task * per_task
        count = min(per_task, blocks - first)
        own = scratch[get_thread_id()]
        turned = own[: parts * per_task * channels]
        products = own[len(turned) : len(turned) + parts * per_task * WIDTH]
        border = own[len(turned) + len(products) :]
        for block in range(count):
            image, row, column = _place(first + block, rows, columns)
            top, left = m * row - padding, m * column - padding
            at, step = block * channels, per_task * channels
            if top < 0 or left < 0 or top + m + 2 > height or left + m + 2 > width:
                _copy_block(x, image, top, left, m + 2, border)
                _transform_inputs(m, border, 0, (m + 2) * channels, channels, turned, at, step)
            else:
                start = ((image * height + top) * width + left) * channels
                _transform_inputs(m, inputs, start, width * channels, channels, turned, at, step)
        for panel in range(panels * share // shares, panels * (share + 1) // shares):
            for part in range(parts):
                start = (part * panels + panel) * channels * WIDTH
                for block in range(0, count, ROWS):  # up to a whole ROWS: what lies behind is not read
                    line = part * per_task + block
                    multiply_block(
                        turned, line * channels, channels, weights, start, channels, products, line * WIDTH
                    )
            for block in range(count):
                image, row, column = _place(first + block, rows, columns)
                start = (image * result_height + m * row) * result_width + m * column
                _transform_products(
                    m,
                    products,
                    block * WIDTH,
                    per_task * WIDTH,
                    bias,
                    panel * WIDTH,
                    floor,
                    has_other,
                    added,
                    results,
                    start * result_channels + panel * WIDTH,
                    result_width * result_channels,
                    result_channels,
                )


@kernel
def _place(block, rows, columns):  # type: ignore[no-untyped-def]
    """Image, row and column of a block."""
    return block // (rows * columns), block // columns % rows, block % columns


@kernel
def _copy_block(x, image, top, left, size, out):  # type: ignore[no-untyped-def]
    """A block of inputs with zeros where it leaves the map."""
    _, height, width, channels = x.shape
    for i in range(size):
        for j in range(size):
            row, column, start = top + i, left + j, (size * i + j) * channels
            if 0 <= row < height and 0 <= column < width:
                out[start : start + channels] = x[image, row, column]
            else:
                out[start : start + channels] = 0


def _for_filter(builder: Any, m: Any, write: Any) -> None:
    """Write the instructions of both filterings; ``m`` chooses at run time."""
    is_large = builder.icmp_signed("==", m, integer(LARGE.outputs))
    with builder.if_else(is_large) as (then, otherwise):
        with then:
            write(LARGE)
        with otherwise:
            write(SMALL)


def _sandwich(builder: Any, matrix: Matrix, block: list[list[Any]]) -> list[list[Any]]:
    """``matrix @ block @ matrix.T`` for a square block of vectors."""
    half = [[weighted_sum(builder, column, row) for column in zip(*block, strict=True)] for row in matrix]
    return [[weighted_sum(builder, line, row) for row in matrix] for line in half]


def _places(builder: Any, start: Any, row_step: Any, column_step: Any, size: int) -> list[list[Any]]:
    """Indices of a square block."""
    places = []
    for i in range(size):
        row = builder.add(start, builder.mul(row_step, integer(i)))
        places.append([builder.add(row, builder.mul(column_step, integer(j))) for j in range(size)])
    return places


@intrinsic
def _transform_inputs(  # type: ignore[no-untyped-def]
    _, m, x, start, row_step, channels, out, out_start, out_step
):
    """The inputs of a block from ``start`` on -> numbers per channel, ``out_step`` apart."""
    index = types.int64
    signature = types.void(index, x, index, index, index, out, index, index)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, out = (pointer_of(context, builder, signature, arguments, i) for i in (1, 5))
        m, start, row_step, channels, out_start, out_step = (arguments[i] for i in (0, 2, 3, 4, 6, 7))

        def write(filtering: Filter) -> None:
            size = len(filtering.input)
            with cgutils.for_range_slice(builder, integer(0), channels, integer(LANES)) as (channel, _):
                places = _places(builder, builder.add(start, channel), row_step, channels, size)
                block = [[load(builder, x, place) for place in line] for line in places]
                vectors = [vector for line in _sandwich(builder, filtering.input, block) for vector in line]
                for part, vector in enumerate(vectors):
                    at = builder.add(out_start, builder.mul(out_step, integer(part)))
                    store(builder, vector, out, builder.add(at, channel))

        _for_filter(builder, m, write)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _transform_products(  # type: ignore[no-untyped-def]
    _, m, products, start, step, bias, bias_start, floor, add, other, out, out_start, row_step, column_step
):
    """Products of a block, ``step`` apart, for one panel -> its outputs, plus ``other`` if ``add`` is set."""
    index = types.int64
    signature = types.void(
        *(index, products, index, index, bias, index, types.float32),
        *(types.boolean, other, out, index, index, index),
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        products, bias, other, out = (
            pointer_of(context, builder, signature, arguments, i) for i in (1, 4, 8, 9)
        )
        m, start, step, bias_start, floor, add = (arguments[i] for i in (0, 2, 3, 5, 6, 7))
        out_start, row_step, column_step = arguments[10:]
        floor = splat(builder, floor)

        def write(filtering: Filter, vector: int, with_other: bool) -> None:
            size, lane = len(filtering.input), integer(vector * LANES)
            places = _places(builder, builder.add(start, lane), builder.mul(step, integer(size)), step, size)
            block = [[load(builder, products, place) for place in line] for line in places]
            totals = _sandwich(builder, filtering.output, block)
            shift = load(builder, bias, builder.add(bias_start, lane))
            places = _places(builder, builder.add(out_start, lane), row_step, column_step, filtering.outputs)
            for line, ats in zip(totals, places, strict=True):
                for total, at in zip(line, ats, strict=True):
                    total = builder.fadd(total, shift)
                    if with_other:
                        total = builder.fadd(total, load(builder, other, at))
                    # NaN is not below the floor, and stays.
                    below = builder.fcmp_ordered("<", total, floor)
                    store(builder, builder.select(below, floor, total), out, at)

        def write_all(filtering: Filter) -> None:
            with builder.if_else(add) as (then, otherwise):
                for branch, with_other in ((then, True), (otherwise, False)):
                    with branch:
                        for vector in range(VECTORS):
                            write(filtering, vector, with_other)

        _for_filter(builder, m, write_all)
        return context.get_dummy_value()

    return signature, generate
