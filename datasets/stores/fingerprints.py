"""Fingerprints of files: whether what was derived from a file is still of the file as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

_BLOCK = 1 << 20


class Fingerprint(NamedTuple):
    """What a file was: bytes, time of its last change [ns], and digest of all it held."""

    size: int
    time_ns: int
    digest: str


Sources = Mapping[str, Fingerprint]
"""Files that something was made from, by a name that does not depend on where they are."""


def fingerprint(path: Path) -> Fingerprint:
    """Fingerprint of a file; it is read once per process while size and time stay as they are.

    Raises:
        OSError: If it cannot be read.
    """
    state = path.stat()
    return Fingerprint(state.st_size, state.st_mtime_ns, _digest(path, state.st_size, state.st_mtime_ns))


def is_unchanged(path: Path, known: Fingerprint) -> bool:
    """Whether a file holds what it did.

    Size and time settle it without reading; a file that was only touched or copied is read. A file that is
    gone, or cannot be read, has changed.
    """
    try:
        state = path.stat()
        if (state.st_size, state.st_mtime_ns) == known[:2]:
            return True
        return state.st_size == known.size and fingerprint(path).digest == known.digest
    except OSError:
        return False


@lru_cache(maxsize=1 << 14)  # (more than a split has logs, or follow-up scenes, which are a file each)
def _digest(path: Path, size: int, time_ns: int) -> str:
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
