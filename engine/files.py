"""Files that are either the old one or the whole new one, and locks between processes.

The locks are the system's own (``flock``), not those of the package filelock: here a file that is being
written is its own lock, and the file of a lock goes with it, so that a store holds nothing but its shards.
filelock has files for its locks only, and leaves them there or not from version to version.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from beyonddrive.structures.errors import BeyondDriveError

_PARTIAL = ".partial"
_held: set[BinaryIO] = set()
"""Files of the locks that this process holds by :func:`file_lock`."""


class LockedError(BeyondDriveError, RuntimeError):
    """Another process holds a lock."""


@contextmanager
def atomic_file(path: Path, sync: bool = True, replace: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path`` when it is complete, and only then.

    Args:
        path: Where the file goes; its folder is made.
        sync: Whether this also holds when the machine dies, not only the process; without it, for many small
            files whose readers notice a truncated one.
        replace: Whether to replace a file that is there.

    Raises:
        FileExistsError: If there is a file and ``replace`` is false.
        OSError: If it cannot be written, such as on a full disk; names ``path``. Nothing of it stays.
    """
    # Not the process id: containers on several machines, which share a disk, share small ones too.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_locked(partial) as file:  # so that remove_leftovers knows that someone writes it
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
            if replace:  # while it is locked: remove_leftovers would take it for one that nobody writes
                partial.replace(path)
            else:
                os.link(partial, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.filename in (None, str(partial)):  # the system names no file, or one that nobody knows
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes had begun to write in a folder; what a living one writes is left alone."""
    for partial in folder.glob(f".*{_PARTIAL}"):
        with suppress(OSError), partial.open("r+b") as file:  # (NFS locks only what is open for writing)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes, sync: bool = True, replace: bool = True) -> None:
    """Write ``data`` as :func:`atomic_file` does."""
    with atomic_file(path, sync, replace) as file:
        file.write(data)


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems say that know no locks, as some of clusters do."""


@contextmanager
def file_lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock that one process has at a time; the system frees it when that process dies.

    Processes that are forked meanwhile, such as the workers of a data loader, do not hold it.

    Args:
        path: A file that exists while the lock is held.
        wait: Whether to wait for it.

    Raises:
        LockedError: If another process holds it and this one is not to wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = open_locked(path, wait)
    except BlockingIOError:
        raise LockedError(f"{path}: another process holds this lock") from None
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)
        path.unlink(missing_ok=True)
        file.close()


@contextmanager
def lock_if_possible(path: Path, warn: Callable[[str], object]) -> Iterator[None]:
    """As :func:`file_lock` without waiting; where a file system knows no locks, without one.

    Args:
        path: As for :func:`file_lock`, in the folder that is held by it.
        warn: Is told that nobody watches, if the file system knows no locks.

    Raises:
        LockedError: If another process holds it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(path, wait=False))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            path.unlink(missing_ok=True)
            warn(
                f"{path.parent}: its file system knows no locks ({error.strerror}), so that another process "
                "works in it would not be noticed"
            )
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock by :func:`file_lock`; any number of them may ask at a time."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no such file, or none that could be locked
        return False
    return False


def _leave_locks() -> None:
    """In a process that was just forked: a lock is held until the last one with its file open has ended."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_leave_locks)


def open_locked(path: Path, wait: bool = True) -> BinaryIO:
    """Open a file for writing that no other process has locked, and lock it until it is closed.

    Raises:
        BlockingIOError: If another process has locked it and this one is not to wait.
    """
    while True:
        file = path.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The one before may have deleted the file between the opening and the lock.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()
