"""How many scenes make one update of the weights, which is what the learning rate of a recipe is for."""

from __future__ import annotations


def scenes_per_update(batch_size: int, processes: int, accumulated: int) -> int:
    """Scenes whose gradients one update adds up.

    Args:
        batch_size: Of a step of one process.
        processes: Of the training.
        accumulated: Steps whose gradients add up before the optimizer takes one (``accumulative_counts``).

    >>> scenes_per_update(batch_size=4, processes=8, accumulated=2)
    64
    """
    return batch_size * processes * accumulated
