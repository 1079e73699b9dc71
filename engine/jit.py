"""Compiling of kernels: one decorator, and a disk cache that no edit can make stale."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

Function = TypeVar("Function", bound=Callable[..., Any])

_PACKAGE = Path(__file__).parents[1]
KERNEL_ROOMS = ("engine", "evaluation", "deploy", "synth")
"""Rooms of this package that hold kernels."""
_MARKS = (b"@kernel", b"@parallel_kernel", b"@intrinsic")
"""What a file with code of kernels has in it."""


@cache
def source_stamp(path: str) -> str:
    """Digest of a file with kernels, of its folder's others, and of all kernels of this package.

    numba takes compiled code as fresh when the file of the outermost function is unchanged. Kernels call
    kernels of other files and bake in constants, so the stamp has to cover all of them.
    """
    digest = hashlib.sha256(Path(path).read_bytes())
    files = {file for room in KERNEL_ROOMS for file in (_PACKAGE / room).rglob("*.py")}
    for module in sorted(files.union(Path(path).parent.glob("*.py"))):
        text = module.read_bytes()
        if module.name == "constants.py" or any(mark in text for mark in _MARKS):
            digest.update(module.name.encode() + b"\0" + text)
    return digest.hexdigest()


class _KernelCache(FunctionCache):
    """numba's cache on disk, in ``__pycache__`` or, if that cannot be written, the user's cache folder."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=source_stamp(function.__code__.co_filename),
        )


def kernel(function: Function) -> Function:
    """Compile a function of numbers and arrays at its first call, without the interpreter's lock.

    No fast-math: a plan gets the same bits alone, in a batch and in any thread. Division by zero gives
    infinity or NaN as in numpy.

    >>> @kernel
    ... def half(x):
    ...     return x / 2
    >>> half(3.0)
    1.5
    """
    return _compiled(function)


def parallel_kernel(function: Function) -> Function:
    """As :func:`kernel`; its loops over ``prange`` are shared among threads."""
    return _compiled(function, parallel=True)


def _compiled(function: Any, **options: Any) -> Any:
    dispatcher: Any = njit(function, error_model="numpy", nogil=True, **options)
    # Where neither the package nor a cache folder can be written, every process compiles for itself.
    with suppress(RuntimeError):
        dispatcher._cache = _KernelCache(function)
    return dispatcher
