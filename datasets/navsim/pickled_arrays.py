"""numpy arrays from pickles, built from bytes, type and shape without numpy's own loaders."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.pickle_opcodes import PlainPickleError

_PLAIN_DTYPE = re.compile(r"[|<>=]?(?:b1|[iu][1248]|f[248]|[SU]\d+|O8?|\?)\Z")


class Budget:
    """What a file may still make copies of: no more than the bytes that it has.

    A pickle can name the same bytes again and again; without a limit, one megabyte of file becomes any
    amount of memory.
    """

    def __init__(self, size: int) -> None:
        self.left = size
        self.object_arrays: list[NDArray[Any]] = []
        """Flat arrays of objects, whose items are put in place when all of the file has been read."""

    def spend(self, amount: int) -> None:
        """Count bytes or items of a new value."""
        self.left -= amount
        if self.left < 0:
            raise PlainPickleError("refused a pickle that unfolds into more than it holds")


class PickledDtype:
    """Stands for a pickled ``numpy.dtype``; only flat standard types are accepted.

    The real ``dtype.__setstate__`` trusts the flags it is given, and wrong flags make numpy read bytes as
    object pointers. So the state is interpreted here instead.
    """

    __slots__ = ("_built", "code", "order")

    def __init__(self, _budget: Budget, code: Any, *_: Any) -> None:
        if isinstance(code, bytes):
            code = code.decode("latin1")
        if not isinstance(code, str) or not _PLAIN_DTYPE.match(code):
            raise PlainPickleError(
                f"refused array type {code!r}: the file should hold numbers and strings only"
            )
        self.code = code.lstrip("|<>=")
        self.order = code[0] if code[0] in "<>" else "="
        self._built: np.dtype[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise PlainPickleError(
                "refused a structured array type: the file should hold numbers and strings only"
            )
        if state[1] in ("<", ">"):
            self.order = state[1]
            self._built = None

    def build(self) -> np.dtype[Any]:
        """The type."""
        if self._built is None:
            self._built = np.dtype(self.code if self.code[0] in "O?" else self.order + self.code)
        return self._built


class PickledArray:
    """Stands for a pickled ``numpy.ndarray`` until its state arrives."""

    __slots__ = ("_budget", "is_item", "value")

    def __init__(self, budget: Budget, *_: Any) -> None:
        self._budget = budget
        self.is_item = False
        self.value: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = build_array(self._budget, data, dtype, shape, "F" if fortran else "C")
        self.check()

    def check(self) -> None:
        """Refuse objects in an array in an array: numpy frees them by a call in a call, however deep."""
        if self.is_item and self.value.dtype.hasobject:
            raise PlainPickleError("refused an array of objects in an array of objects")


def build_array(budget: Budget, data: Any, dtype: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    """Build an array from its bytes, or list of objects, of a pickle.

    Raises:
        PlainPickleError: If they do not fit type and shape, or are more than the file may unfold into.
    """
    if not isinstance(dtype, PickledDtype):
        raise PlainPickleError("an array has no type")
    kind = dtype.build()
    shape = tuple(int(size) for size in shape)
    if any(size < 0 for size in shape):
        raise PlainPickleError(f"an array has the impossible shape {shape}")
    if kind.hasobject:
        if not isinstance(data, list) or len(data) != math.prod(shape):
            raise PlainPickleError(f"an array of shape {shape} does not come with a list of as many objects")
        budget.spend(len(data))
        flat = np.empty(len(data), dtype=object)
        for index, item in enumerate(data):  # one by one, lest numpy unpacks the items that are lists
            if type(item) is PickledArray:
                item.is_item = True
                item.check()
            flat[index] = item
        budget.object_arrays.append(flat)
        return flat.reshape(shape)  # numpy lists objects in C order, whatever it says of the array's order
    if isinstance(data, str):  # protocol 2 written by Python 2
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise PlainPickleError(f"an array of shape {shape} comes without its bytes")
    budget.spend(len(data))
    # A copy, because the array shall be writable and must not share memory with a bytearray of the pickle.
    flat = np.frombuffer(data, dtype=kind, count=len(data) // kind.itemsize if kind.itemsize else 0).copy()
    if flat.nbytes != len(data) or flat.size != math.prod(shape):
        raise PlainPickleError(f"an array of shape {shape} and type {kind} comes with {len(data)} bytes")
    return flat.reshape(shape, order="F" if order == "F" else "C")


def build_scalar(budget: Budget, dtype: Any, data: Any) -> Any:
    """Build a number of numpy's from its bytes.

    Raises:
        PlainPickleError: As :func:`build_array`.
    """
    if isinstance(dtype, PickledDtype) and dtype.build().hasobject:
        raise PlainPickleError("refused a scalar that is an object")
    return build_array(budget, data, dtype, (1,))[0]
