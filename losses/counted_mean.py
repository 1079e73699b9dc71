"""Means whose denominator is a count that the data decide: of matched agents, of samples with a negative."""

from __future__ import annotations

from typing import Literal, get_args

from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

CountOver = Literal["all_ranks", "own_rank"]
"""Whose items a denominator counts: the global batch's, or those of the rank's own part of it."""


def check_count_over(value: str, user: str) -> CountOver:
    """Return ``value`` if it is a :data:`CountOver`.

    Raises:
        ValueError: If it is something else; names ``user``.
    """
    if value not in get_args(CountOver):
        raise ValueError(f"{user}: count_over must be one of {get_args(CountOver)}, got {value!r}")
    return value  # type: ignore[return-value]


def counted_mean(total: Tensor, count: Tensor, count_over: CountOver = "all_ranks") -> Tensor:
    """``total / count``, both scalars; 0 counts as 1.

    In distributed training gradients are averaged over the ranks, so a rank-local mean would weight an item
    by how few others its rank happens to hold. With ``'all_ranks'`` the value is ``ranks * total / sum of all
    counts``: its average over the ranks is the mean over the global batch, however that is split. One
    all-reduce of one number, which every rank has to reach; the host does not wait for it.

    Args:
        total: Sum over the items of this rank.
        count: Integer, how many they are; carries no gradient.
        count_over: See :data:`CountOver`.

    >>> import torch
    >>> counted_mean(torch.tensor(6.0), torch.tensor(4)), counted_mean(torch.tensor(0.0), torch.tensor(0))
    (tensor(1.5000), tensor(0.))
    """
    ranks = get_world_size()
    if count_over == "own_rank" or ranks == 1:
        return total / count.clamp(min=1)
    count = count.detach().clone()
    all_reduce(count, op="sum")
    return total / (count.clamp(min=1) / ranks)
