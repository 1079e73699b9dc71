"""Compiling of kernels: one decorator, and a disk cache that no edit can make stale."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache

from beyonddrive.engine.files import open_locked

Function = TypeVar("Function", bound=Callable[..., Any])

logger = logging.getLogger(__name__)

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


_locks: list[BinaryIO] = []
_has_announced = False


def _announce(folder: Path | None) -> None:
    """Say, once per installation, that kernels are being compiled: it takes long and shows nothing.

    Processes that compile at the same time share a lock, and the one that has it speaks.
    """
    global _has_announced
    if _has_announced:
        return
    _has_announced = True
    if folder is None:
        logger.warning("no cache folder can be written: compiling kernels in every process, half a minute")
        return
    try:
        _locks.append(open_locked(folder / ".compiling.lock", wait=False))  # as long as this process lives
    except OSError:
        return  # another process says it
    logger.warning("compiling kernels, once per installation: this can take half a minute")


class _NoCache(NullCache):
    """Where neither the package nor a cache folder can be written, every process compiles for itself."""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        _announce(None)


class _KernelCache(FunctionCache):
    """numba's cache on disk, in ``__pycache__`` or, if that cannot be written, the user's cache folder."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Compiled code from the disk; None, said aloud, if it has to be compiled."""
        found = super().load_overload(sig, target_context)
        if found is None:
            _announce(Path(self._cache_path))
        return found

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
    try:
        dispatcher._cache = _KernelCache(function)
    except RuntimeError:
        dispatcher._cache = _NoCache()
    return dispatcher
