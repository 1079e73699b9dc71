"""Pools that a running training adds to: one per mining round, and an index that says which of them count.

A training writes each round into a folder of its own and then replaces the index; a reader in any process
looks at the index at every scene and so sees a finished round, at once, or not at all::

    <root>/rounds.json            names of the rounds that count, newest first
    <root>/epoch_0004/            a negative pool
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beyonddrive.datasets.stores.negative_pool import NegativePool, NegativeRecord, PoolError
from beyonddrive.engine.files import remove_leftovers, write_atomically

INDEX = "rounds.json"


def round_name(epoch: int) -> str:
    """Folder of the round that was mined after so many epochs.

    >>> round_name(4)
    'epoch_0004'
    """
    return f"epoch_{epoch:04d}"


def write_index(root: str | Path, rounds: Sequence[str]) -> None:
    """Say which rounds count, newest first; what a killed training left of an index goes."""
    remove_leftovers(Path(root))
    write_atomically(Path(root) / INDEX, (json.dumps({"rounds": list(rounds)}) + "\n").encode())


def read_index(root: str | Path) -> list[str]:
    """Rounds that count, newest first; none if there is no index.

    Raises:
        PoolError: If the index is damaged.
    """
    path = Path(root) / INDEX
    try:
        rounds = json.loads(path.read_text())["rounds"]
        return [str(name) for name in rounds]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PoolError(f"{path}: cannot be read ({error}); delete {root} to mine anew") from error


class OnlinePools:
    """Reads the rounds that count; cheap to pickle.

    Args:
        root: Folder with the index; it need not exist yet.
        expected: What each round must have been made with, as for :class:`NegativePool`.
    """

    def __init__(self, root: str | Path, expected: Mapping[str, Any] | None = None) -> None:
        self.root = Path(root)
        self.expected = dict(expected or {})
        self._seen: tuple[int, ...] | None = None
        self._pools: list[NegativePool] = []

    @property
    def pools(self) -> list[NegativePool]:
        """Pools of the rounds that count, newest first.

        Raises:
            StoreError: If a round is missing, unfinished or damaged.
            PoolError: If a round was made for something else.
        """
        try:
            status = (self.root / INDEX).stat()
            seen: tuple[int, ...] | None = (status.st_mtime_ns, status.st_ino, status.st_size)
        except FileNotFoundError:
            seen = None
        if seen != self._seen:
            self._pools = [NegativePool(self.root / name, self.expected) for name in read_index(self.root)]
            self._seen = seen
        return self._pools

    def records(self, token: str) -> list[NegativeRecord]:
        """Records of a scene, newest first; none if no round has it."""
        return [pool[token] for pool in self.pools if token in pool]
