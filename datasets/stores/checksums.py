"""Checksums of records, so that a damaged byte on disk never becomes a number of a sample.

CRC-32 of zlib notices every damage of up to 32 bits in a row and all but one in four billion of any other,
and is the fastest that the standard library has (``benchmarks/checksums.py``).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def record_checksum(token: str, record: Mapping[str, NDArray[Any]]) -> int:
    """Checksum of all that a record is: token, and name, type, shape and bytes of each array.

    >>> record_checksum("a", {"x": np.zeros(2)}) == record_checksum("a", {"x": np.zeros(2)})
    True
    >>> record_checksum("a", {"x": np.zeros(2)}) == record_checksum("a", {"x": np.zeros((2, 1))})
    False
    """
    checksum = zlib.crc32(token.encode())
    for name in sorted(record):
        array = record[name]
        checksum = zlib.crc32(f"/{name}:{array.dtype.str}{array.shape}".encode(), checksum)
        checksum = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, checksum)
    return checksum


def seal(text: str) -> str:
    """A text behind its own checksum.

    >>> unseal(seal("text"))
    'text'
    """
    return f"{zlib.crc32(text.encode()):08x} {text}"


def unseal(sealed: str) -> str:
    """The inverse of :func:`seal`.

    Raises:
        ValueError: If the text is not what was sealed.
    """
    checksum, _, text = sealed.partition(" ")
    if checksum != f"{zlib.crc32(text.encode()):08x}":
        raise ValueError("the checksum of its index does not fit")
    return text
