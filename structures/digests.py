"""Digests by which values are told apart, and numbers that hang on a text alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any


def digest_of(value: Any) -> str:
    """Digest of a JSON value.

    >>> digest_of(['a', 1]) == digest_of(('a', 1)) != digest_of(['a', 2])
    True
    """
    return blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def digest_of_bytes(content: bytes) -> str:
    """Digest of the content of a file.

    >>> digest_of_bytes(b'plans')
    'ee9f5421794a99d3'
    """
    return blake2b(content, digest_size=8).hexdigest()


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hexadecimal digits, without holding it in memory.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_lines(lines: Iterable[str]) -> str:
    """Digest of a list, such as of scenes, whatever its order.

    >>> digest_of_lines(['b', 'a']) == digest_of_lines(['a', 'b']) != digest_of_lines(['a'])
    True
    """
    return digest_of_bytes("\n".join(sorted(lines)).encode())


def number_of(*parts: object) -> int:
    """A 64-bit number that hangs on ``parts`` alone, the same in every process: a seed, or a choice.

    >>> number_of("track", 1) == number_of("track", 1), number_of("a") == number_of("b")
    (True, False)
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
