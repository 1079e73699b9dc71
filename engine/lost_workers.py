"""Data loaders whose workers die: torch says that one was killed, this says what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from beyonddrive.engine.executors import WorkerLostError

_LOST = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal|exited unexpectedly)")
"""How torch's messages begin."""


@contextmanager
def naming_lost_workers(settings: str, remedy: str = "") -> Iterator[None]:
    """Turn torch's error about a dead worker of a data loader into one with a remedy; others pass.

    Args:
        settings: Where the number of workers is set, such as ``train_dataloader.num_workers=8``.
        remedy: What else to say.

    Raises:
        WorkerLostError: If a worker was killed.

    >>> with naming_lost_workers("train_dataloader.num_workers=8"):
    ...     raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    Traceback (most recent call last):
    beyonddrive.engine.executors.WorkerLostError: DataLoader worker (pid 7) is killed by signal: Killed. ...
    """
    try:
        yield
    except RuntimeError as error:
        if not _LOST.match(lost := str(error).strip().rstrip(".")):
            raise
        raise WorkerLostError(
            f"{lost}. Most likely memory ran out, and the system killed it (dmesg says so; in a container, "
            f"its memory limit or too small a /dev/shm): set fewer workers than {settings}, a smaller "
            f"batch_size or prefetch_factor, or give the job more memory{remedy}"
        ) from error
