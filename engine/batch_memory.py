"""Shared memory that a loader's worker fills again and again, instead of fresh memory for every batch.

A large tensor that a worker sends lies in shared memory. Fresh memory of the system costs more than filling
it, because every page is cleared and mapped first. So a worker keeps the pieces that it has sent, and fills
one again as soon as the other process has let go of it.

When that is, the receiver says in the last byte of the piece. It is told by the memory itself: the tensors
made of a piece, their views and whatever else reads it hold one array, whose end writes the byte.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LEAST = 1 << 20
"""Bytes of a tensor below which fresh memory is cheap enough."""
KEPT = 16
"""Pieces that a worker keeps; if all are held by the receiver, further tensors are sent in fresh memory."""
_FREE, _LENT = 0, 1


class Lent:
    """A tensor in a piece of memory that is filled again later; it arrives as an ordinary tensor.

    Args:
        piece: (N + 1,) uint8 in shared memory: room for the tensor, and a byte that says whether it is lent.
        dtype: Of the tensor.
        shape: Of the tensor.
    """

    def __init__(self, piece: Tensor, dtype: torch.dtype, shape: torch.Size) -> None:
        self._piece, self._dtype, self._shape = piece, dtype, shape
        piece[-1] = _LENT

    @property
    def tensor(self) -> Tensor:
        """The tensor, to be filled by the sender."""
        return _view(self._piece, self._dtype, self._shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self._piece, self._dtype, self._shape)


class BatchMemory:
    """The pieces of a worker, which any of its threads may ask for.

    Args:
        kept: Pieces that are kept.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._pieces: list[Tensor] = []
        self._lock = threading.Lock()

    def stack(self, values: Sequence[Tensor]) -> Lent | Tensor:
        """Tensors of one shape and type as one, as ``torch.stack`` gives it; sent cheaply if it is large."""
        size = len(values) * values[0].nbytes
        lent = self._lend(size, values) if size >= LEAST else None
        if lent is None:
            return torch.stack(list(values))
        torch.stack(list(values), out=lent.tensor)
        return lent

    def _lend(self, size: int, values: Sequence[Tensor]) -> Lent | None:
        """A piece for ``values``, which nobody else gets from now on; None if all are lent."""
        with self._lock:
            piece = self._free_piece(size)
            shape = torch.Size((len(values), *values[0].shape))
            return None if piece is None else Lent(piece, values[0].dtype, shape)

    def _free_piece(self, size: int) -> Tensor | None:
        """The smallest free piece with room for ``size`` bytes, or a new one; None if all are lent."""
        free = [piece for piece in self._pieces if int(piece[-1]) == _FREE]
        if fitting := [piece for piece in free if len(piece) > size]:
            return min(fitting, key=len)
        if len(self._pieces) >= self._kept:
            if not free:
                return None
            self._pieces = [piece for piece in self._pieces if piece is not free[0]]  # (it is too small)
        self._pieces.append(torch.zeros(size + 1, dtype=torch.uint8).share_memory_())
        return self._pieces[-1]


def _view(piece: Tensor, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    return piece[: shape.numel() * dtype.itemsize].view(dtype).view(shape)


def _received(piece: Tensor, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    """The tensor of a piece, in the process that it was lent to."""
    array = piece.numpy()
    # torch.from_numpy holds the array until the last tensor on its memory is gone.
    weakref.finalize(array, piece[-1].fill_, _FREE).atexit = False
    return _view(torch.from_numpy(array), dtype, shape)
