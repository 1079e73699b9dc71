"""Memory that a training step frees, kept by the process for the next step."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's ``mallopt`` (``malloc.h``)."""
_LARGEST_BLOCKS = (1 << 30, 32 << 20)
"""Sizes of a block from which it is asked of the system by itself [B], the most wanted first: older
glibc takes no more than 32 MiB."""
_OTHERS = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}
"""Free memory at the end of the heap that is not given back, and what it grows by at least [B]. Either ends
glibc's own adjustment of the size of a block, so they are set only where that is."""


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, instead of handing it back to the system at once.

    A step on a CPU frees its activations, large blocks, and the next one asks for as many. The system clears
    every page anew before it gives it out, in 4 % of the processor time of a step of LTF tiny.

    Whoever tunes the allocator by the environment (``MALLOC_TRIM_THRESHOLD_`` and the like,
    ``GLIBC_TUNABLES``, or another library in ``LD_PRELOAD``) is left alone, and so are C libraries other than
    glibc.

    Returns:
        Whether it does from now on.
    """
    tuned = any(name.startswith("MALLOC_") for name in os.environ)
    if tuned or os.environ.get("LD_PRELOAD") or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    if not any(library.mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS):
        return False
    return all(library.mallopt(name, value) for name, value in _OTHERS.items())
