"""Every planner equals its original: same weights, same inputs, same outputs, losses and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest

from beyonddrive.plugins.golden import GoldenFile, compare_planner

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
def test_planner_equals_its_original(name: str) -> None:
    golden = GoldenFile(GOLDEN, name)
    assert golden.conversion.release.name == PLANNERS[name]
    seen: dict[str, float] = {}
    for comparison in compare_planner(golden):
        assert comparison.passed, f"{name}: {comparison.name} differs by {comparison.difference:.2e} relative"
        seen[comparison.name] = comparison.difference
    arrays = golden.wanted()
    assert {key for key in seen if not key.startswith("stat/")} == arrays
    worst = max(arrays, key=lambda key: seen[key])
    print(f"\n{name}: {len(arrays)} arrays, worst {seen[worst]:.1e} ({worst})")
