"""Data loaders whose workers die: torch says that one was killed, this says what to do about it."""

from __future__ import annotations

import re
import traceback
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
        # torch raises its error from a signal handler, so at any line, also while it is looked at how the
        # connection broke: hence the two.
        try:
            yield
        except (ConnectionError, EOFError) as error:
            if not _is_of_loader(error):
                raise
            reason = str(error).strip().rstrip(".") or type(error).__name__
            lost = f"DataLoader worker ended while it sent a batch ({reason})"
            raise _lost_worker(lost, settings, remedy) from error
    except RuntimeError as error:
        lost = str(error).strip().rstrip(".")
        if not _LOST.match(lost) or isinstance(error, WorkerLostError):
            raise
        raise _lost_worker(lost, settings, remedy) from error


def _lost_worker(lost: str, settings: str, remedy: str) -> WorkerLostError:
    """The error with what happened and what to do about it."""
    return WorkerLostError(
        f"{lost}. Most likely memory ran out, and the system killed it (dmesg says so; in a container, "
        f"its memory limit or too small a /dev/shm): set fewer workers than {settings}, a smaller "
        f"batch_size or prefetch_factor, or give the job more memory{remedy}"
    )


def _is_of_loader(error: BaseException) -> bool:
    """Whether an error was raised by what a data loader reads from its workers.

    A batch travels by a file descriptor that its worker hands over; one that is killed before it does breaks
    the connection, which torch does not explain.
    """
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "torch.utils.data.dataloader" for frame, _ in frames)
