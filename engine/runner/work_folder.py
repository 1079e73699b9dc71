"""The folders of a training, in which one training is at work at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log

from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.files import LockedError, is_locked, lock_if_possible

_LOCK = ".training.lock"
"""File in a folder that a training holds a lock on while it is at work there."""


def checkpoint_folder(work_dir: str | Path, config: Config) -> Path:
    """Where the checkpoints of a training go: its work folder, or one of that name in ``out_dir``."""
    work_dir = Path(work_dir).absolute()
    out_dir = ((config.get("default_hooks") or {}).get("checkpoint") or {}).get("out_dir")
    if not out_dir or "://" in str(out_dir):  # the hook refuses what is not on a local disk
        return work_dir
    return Path(out_dir).absolute() / work_dir.name


def folders_of(work_dir: str | Path, config: Config) -> list[Path]:
    """The folders that a training writes into, each once."""
    return list(dict.fromkeys([Path(work_dir).absolute(), checkpoint_folder(work_dir, config)]))


def check_unused(folders: Sequence[Path]) -> None:
    """Refuse folders in which a training is at work, before anything is written into them.

    Raises:
        ConfigError: If there is one.
    """
    for folder in folders:
        if is_locked(folder / _LOCK):
            raise ConfigError(_at_work(folder))


@contextmanager
def alone_in(folders: Sequence[Path]) -> Iterator[None]:
    """Let no other training work in these folders; all ranks call it, the first holds the locks.

    The system frees them when that process ends, however it ends. Where a file system knows no locks the log
    says that nobody watches.

    Raises:
        ConfigError: On all ranks, if another training is at work in one.
    """
    with ExitStack() as held:
        refused: list[str | None] = [None]
        if is_main_process():
            refused = [next(filter(None, (_hold(held, folder) for folder in folders)), None)]
        broadcast_object_list(refused)
        if refused[0] is not None:
            raise ConfigError(refused[0])
        yield


def _hold(held: ExitStack, folder: Path) -> str | None:
    """Lock a folder until the stack is left; why not, if another training has."""

    def warn(text: str) -> None:
        print_log(f"work_dir {text}", logger="current", level=logging.WARNING)

    try:
        held.enter_context(lock_if_possible(folder / _LOCK, warn))
    except LockedError:
        return _at_work(folder)
    return None


def _at_work(folder: Path) -> str:
    return (
        f"work_dir {folder}: another training is at work in it, and the two would write over each other's "
        "checkpoints; wait until it has ended and go on with --resume, or give another --work-dir"
    )
