"""Whether this machine scores as it should: recorded scenes, and what the official code made of plans."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.checks import Check
from beyonddrive.evaluation.pdm import MetricCache, score
from beyonddrive.evaluation.pdm.scores.scorer import Version
from beyonddrive.structures.errors import BeyondDriveError

SCENES = Path(__file__).with_name("self_test_scenes.npz")
"""A generated scene for each score, PDMS and EPDMS: metric cache, 24 plans, and their official scores."""
TOLERANCE = 1e-6
"""Largest difference of a score that passes; that of a sound machine is below 1e-9."""


class SelfTestError(BeyondDriveError, RuntimeError):
    """The scenes of the self-test cannot be read."""


@dataclass(frozen=True)
class SelfTest:
    """What came out.

    Attributes:
        num_plans: Plans that were scored.
        pdms: Largest difference of a column from the official score, PDM score.
        epdms: The same of the one-stage EPDMS.
    """

    num_plans: int
    pdms: float
    epdms: float

    @property
    def difference(self) -> float:
        """Largest difference of all."""
        return max(self.pdms, self.epdms)

    @property
    def passed(self) -> bool:
        """Whether scores made here can be trusted."""
        return self.difference <= TOLERANCE


def run_self_test(path: Path = SCENES) -> SelfTest:
    """Score the recorded scenes and compare.

    Raises:
        SelfTestError: If its file is gone or damaged.
        MetricCacheError: If it is of another release.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise SelfTestError(f"{path}: cannot be read ({error}); install beyonddrive again") from error
    return SelfTest(
        len(arrays["v1/plans"]) + len(arrays["v2/plans"]),
        _difference(arrays, "v1"),
        _difference(arrays, "v2"),
    )


def _difference(arrays: Mapping[str, NDArray[Any]], version: Version) -> float:
    """Largest difference of a score from the official one; infinite for one that is no number."""
    prefix = f"{version}/cache/"
    cache = MetricCache.from_arrays(
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    )
    values = score(cache, arrays[f"{version}/plans"], version=version).values
    apart = np.abs(values - arrays[f"{version}/scores"])
    return float(np.where(np.isnan(apart), np.inf, apart).max())


def self_test_checks() -> list[Check]:
    """The self-test as a check."""
    result = run_self_test()
    facts = {"plans": result.num_plans, "pdms": result.pdms, "epdms": result.epdms}
    if result.passed:
        message = (
            f"{result.num_plans} recorded plans scored as by the official code, to {result.difference:.0e}"
        )
        return [Check("score", "ok", message, facts=facts)]
    message = f"scores of recorded plans differ from the official ones by up to {result.difference:.2g}"
    remedy = "trust no score made here; install the versions of constraints.txt and try again"
    shown = {key: value if np.isfinite(value) else None for key, value in facts.items()}  # JSON has no inf
    return [Check("score", "fail", message, remedy, shown)]
