"""The comparison of a planner with its original, which all golden planners share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beyonddrive.checkpoints.golden import GoldenFile, compare_planner


@pytest.fixture(scope="session")
def assert_parity() -> Callable[[GoldenFile], None]:
    """Asserts that every recorded array of a planner is compared, and that each agrees."""

    def check(golden: GoldenFile) -> None:
        seen: dict[str, float] = {}
        for comparison in compare_planner(golden):
            assert comparison.passed, (
                f"{golden.name}: {comparison.name} differs by {comparison.difference:.2e} relative"
            )
            seen[comparison.name] = comparison.difference
        arrays = golden.wanted()
        assert {key for key in seen if not key.startswith("stat/")} == arrays
        worst = max(arrays, key=lambda key: seen[key])
        print(f"\n{golden.name}: {len(arrays)} arrays, worst {seen[worst]:.1e} ({worst})")

    return check
