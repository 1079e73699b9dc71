"""Files that are either the old one or the whole new one."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes, sync: bool = True) -> None:
    """Write ``data`` to ``path`` so that the file is either the old one or the whole new one.

    Without ``sync`` this holds when the process dies, but not when the machine does: for many small files
    whose readers notice a truncated one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
