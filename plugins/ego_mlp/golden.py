"""Comparison of the ego-status MLP with its golden file."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from beyonddrive.checkpoints.golden import Comparison, GoldenFile
from beyonddrive.plugins.ego_mlp.planner import COMMAND_DIM


def compare(golden: GoldenFile) -> Iterator[Comparison]:
    """Compare the plan and its loss."""
    planner = golden.build()
    given = golden.tensor(golden.arrays["in/ego_status"])
    split = given.shape[1] - COMMAND_DIM
    status = torch.cat([given[:, split:], given[:, :split]], dim=1)  # the original takes the command last
    with torch.no_grad():
        named = planner({"status": status})
        terms = planner({"status": status}, golden.samples(), mode="loss")
    assert isinstance(named, dict) and isinstance(terms, dict)
    yield from golden.compare({"trajectory": named["trajectory"], "l1": terms["loss_trajectory"]})
