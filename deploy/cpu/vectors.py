"""Vectors of float32 in compiled kernels, as wide as the registers of the processor.

numba has no type for a vector register, and what LLVM makes of plain loops is far from what a matrix product
can reach. The functions here write LLVM's vector instructions themselves, for use in numba intrinsics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.registry import cpu_target

_TRIPLE, _, _FEATURES = cpu_target.target_context.codegen().magic_tuple()
_IS_ARM = _TRIPLE.startswith(("aarch64", "arm64"))


def _registers() -> tuple[int, int, int]:
    """Lanes of a vector; rows and vectors per row of the block of sums that registers hold."""
    if "+avx512f" in _FEATURES:
        return 16, 8, 2
    return (4, 8, 2) if _IS_ARM else (8, 4, 2)


def has_fused_multiply() -> bool:
    """Whether the processor multiplies and adds in one instruction; without, these kernels are slow."""
    return _IS_ARM or "+fma" in _FEATURES


# numba's annotations count the typing context among the arguments of a call.
intrinsic: Any = extending.intrinsic

LANES, ROWS, VECTORS = _registers()
WIDTH = LANES * VECTORS
"""Columns of a block of :func:`multiply_block`."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT = ir.IntType(64)


def integer(value: int) -> Any:
    """A constant index."""
    return ir.Constant(_INT, value)


def splat(builder: Any, value: Any) -> Any:
    """A vector with one number in all lanes."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


def load(builder: Any, pointer: Any, index: Any) -> Any:
    """The vector that starts at an element."""
    return builder.load(_at(builder, pointer, index), align=4)


def store(builder: Any, vector: Any, pointer: Any, index: Any) -> None:
    """Write a vector from an element on."""
    builder.store(vector, _at(builder, pointer, index), align=4)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(function, [a, b, c])


def weighted_sum(builder: Any, vectors: Sequence[Any], weights: Sequence[float]) -> Any:
    """Sum of vectors times constants, not all 0; those of weight 1 come first, and cost no product."""
    total = None
    pairs = [(vector, weight) for vector, weight in zip(vectors, weights, strict=True) if weight]
    for vector, weight in sorted(pairs, key=lambda pair: pair[1] != 1):
        factor = ir.Constant(_VECTOR, [weight] * LANES)
        if total is None:
            total = vector if weight == 1 else builder.fmul(vector, factor)
        elif weight == 1:
            total = builder.fadd(total, vector)
        elif weight == -1:
            total = builder.fsub(total, vector)
        else:
            total = multiply_add(builder, vector, factor, total)
    return total


def pointer_of(context: Any, builder: Any, signature: Any, arguments: Sequence[Any], index: int) -> Any:
    """Address of the first element of an array among the arguments of an intrinsic."""
    return context.make_array(signature.args[index])(context, builder, arguments[index]).data


def _at(builder: Any, pointer: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [index]), _VECTOR.as_pointer())


@intrinsic
def multiply_block(  # type: ignore[no-untyped-def]
    _, a, a_start, a_stride, b, b_start, depth, out, out_start
):
    """Product of ``ROWS`` rows of ``a`` with a panel of ``b``: the inner loop of matrix products.

    Arrays are flat and of float32. Row r of ``a`` starts at ``a_start + r * a_stride`` and has ``depth``
    numbers. The panel starts at ``b_start`` and has ``depth`` rows of ``WIDTH`` numbers. Row r of the result
    is written from ``out_start + r * WIDTH`` on.
    """
    index = types.int64
    signature = types.void(a, index, index, b, index, index, out, index)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, out = (pointer_of(context, builder, signature, arguments, i) for i in (0, 3, 6))
        a_start, a_stride, b_start, depth, out_start = (arguments[i] for i in (1, 2, 4, 5, 7))
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        # LLVM turns these variables into registers.
        sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(VECTORS)] for _ in range(ROWS)]
        for row in sums:
            for total in row:
                builder.store(zero, total)
        rows = [
            builder.gep(a, [builder.add(a_start, builder.mul(a_stride, integer(r)))]) for r in range(ROWS)
        ]
        with cgutils.for_range(builder, depth) as loop:
            start = builder.add(b_start, builder.mul(loop.index, integer(WIDTH)))
            panel = [load(builder, b, builder.add(start, integer(v * LANES))) for v in range(VECTORS)]
            for row, totals in zip(rows, sums, strict=True):
                factor = splat(builder, builder.load(builder.gep(row, [loop.index])))
                for vector, total in zip(panel, totals, strict=True):
                    builder.store(multiply_add(builder, factor, vector, builder.load(total)), total)
        for r, totals in enumerate(sums):
            for v, total in enumerate(totals):
                at = builder.add(out_start, integer(r * WIDTH + v * LANES))
                store(builder, builder.load(total), out, at)
        return context.get_dummy_value()

    return signature, generate
