"""Every planner equals its original: same weights, same inputs, same outputs, losses and gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from beyonddrive.checkpoints.golden import GoldenFile

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "models"
PLANNERS = {
    "navsim_transfuser": "transfuser",
    "navsim_ltf": "ltf",
    "bd_ltf_delta": "ltf-delta",
    "bd_ltf_abs": "ltf-absolute",
    "bd_flowpolicy": "flow_policy",
    "ego_status_mlp": "ego_mlp",
}


@pytest.mark.parametrize("name", list(PLANNERS))
def test_planner_equals_its_original(name: str, assert_parity: Callable[[GoldenFile], None]) -> None:
    golden = GoldenFile(GOLDEN, name)
    assert golden.conversion.release.name == PLANNERS[name]
    assert_parity(golden)
