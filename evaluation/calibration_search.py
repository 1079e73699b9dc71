"""Which turn and stretch of the plans scores best: a baseline that needs no training (docs/negatives.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.engine.executors import Executor
from beyonddrive.evaluation.pdm.scores.epdms import EPDMS_COLUMNS
from beyonddrive.evaluation.pdm.scores.scorer import Version
from beyonddrive.evaluation.plan_files import PlanFile
from beyonddrive.evaluation.scene_scoring import ScoreSettings
from beyonddrive.evaluation.split_scoring import SplitScoring
from beyonddrive.structures.calibration import PlanCalibration
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import SCORE_COLUMNS


class CalibrationError(BeyondDriveError, ValueError):
    """Plans that cannot be compared, or scenes that have no scores; the message names them."""


class CalibratedPlans(Mapping[str, NDArray[np.floating]]):
    """Plans (F * C, 8, 3) by token: those of F files, each in C calibrations.

    Args:
        files: Files with one plan per scene, of the same scenes: trainings of one recipe, say.
        calibrations: What each plan is moved by, in float32 as a planner does it.

    Raises:
        CalibrationError: If the files have other scenes, or none.
    """

    def __init__(self, files: Sequence[PlanFile], calibrations: Sequence[PlanCalibration]) -> None:
        self.files, self.calibrations = list(files), list(calibrations)
        first = self.files[0]
        if not first:
            raise CalibrationError(f"{first.path}: holds no plans")
        for other in self.files[1:]:
            if odd := set(first) ^ set(other):
                raise CalibrationError(
                    f"{other.path}: has plans of other scenes than {first.path}, {len(odd)} of them, such as "
                    f"{min(odd)}: make both with beyonddrive test --plans on the same split"
                )

    def __getitem__(self, token: str) -> NDArray[np.floating]:
        plans = []
        for file in self.files:
            plan = torch.from_numpy(file.one(token).astype(np.float32))
            plans += [calibration(plan) for calibration in self.calibrations]
        return torch.stack(plans).numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self.files[0])

    def __len__(self) -> int:
        return len(self.files[0])


@dataclass(frozen=True)
class CalibrationGrid:
    """Mean scores of plans by calibration.

    Attributes:
        turns: Angles that were tried [rad], rising.
        stretches: Factors that were tried, rising.
        scores: (F, T, S, C) means over scenes, in [0, 1], by file, turn and stretch.
        num_scenes: Scenes that they are means of.
        columns: Names of the scores; by the last one, PDMS or EPDMS, calibrations are compared.
    """

    turns: tuple[float, ...]
    stretches: tuple[float, ...]
    scores: NDArray[np.float64]
    num_scenes: int
    columns: tuple[str, ...] = SCORE_COLUMNS

    @property
    def means(self) -> NDArray[np.float64]:
        """(T, S) PDMS or EPDMS, mean over the files."""
        means: NDArray[np.float64] = self.scores[..., -1].mean(axis=0)
        return means

    @property
    def best(self) -> PlanCalibration:
        """The calibration of the largest mean score; of equal ones, the one that moves plans least."""
        return min(
            self._all(),
            key=lambda c: (-self.means[self.place(c)].round(9), abs(c.turn) + abs(c.stretch - 1.0)),
        )

    @property
    def at_the_edge(self) -> list[str]:
        """Which of ``turn`` and ``stretch`` could be better still beyond what was tried."""
        best = self.best
        tried = {"turn": (best.turn, self.turns), "stretch": (best.stretch, self.stretches)}
        return [name for name, (value, of) in tried.items() if len(of) > 1 and value in (of[0], of[-1])]

    def place(self, calibration: PlanCalibration) -> tuple[int, int]:
        """Where a calibration stands in the table."""
        return self.turns.index(calibration.turn), self.stretches.index(calibration.stretch)

    def lines(self) -> list[dict[str, str]]:
        """A line per calibration: turn, stretch, mean sub-scores over the files, score of each file [%]."""
        found = []
        for calibration in self._all():
            own = 100.0 * self.scores[(slice(None), *self.place(calibration))]
            line = {"turn": f"{calibration.turn:g}", "stretch": f"{calibration.stretch:g}"}
            line.update(zip(self.columns, (f"{mean:.2f}" for mean in own.mean(axis=0)), strict=True))
            score = self.columns[-1]
            line.update({f"{score} of file {i}": f"{value:.2f}" for i, value in enumerate(own[:, -1])})
            found.append(line)
        return found

    def _all(self) -> Iterator[PlanCalibration]:
        return (PlanCalibration(*pair) for pair in product(self.turns, self.stretches))


def search_calibration(
    root: NavsimRoot,
    split: str,
    files: Sequence[Path],
    turns: Sequence[float],
    stretches: Sequence[float],
    cache_dir: Path | None = None,
    executor: Executor | None = None,
    version: Version = "v1",
    **run: Any,
) -> CalibrationGrid:
    """Score the plans of ``files`` in every calibration.

    Args:
        root: Where logs and maps are.
        split: The split that the plans are of; one for choosing, not the test split.
        files: npz files with one plan per scene, each of another training.
        turns: Angles to try [rad].
        stretches: Factors to try.
        cache_dir: Store of metric caches, as for :class:`SplitScoring`.
        executor: Where to run; None is this process.
        version: ``v1`` compares by PDMS, ``v2`` by the one-stage EPDMS
            without extended comfort, which compares two scenes.
        run: As for :meth:`SplitScoring.run`.

    Raises:
        CalibrationError: If the files do not fit together, or a scene cannot be scored: means over part of
            the scenes would not be comparable.
    """
    turns, stretches = tuple(sorted(set(turns))), tuple(sorted(set(stretches)))
    calibrations = [PlanCalibration(*pair) for pair in product(turns, stretches)]
    plans = CalibratedPlans([PlanFile(path) for path in files], calibrations)
    scoring = SplitScoring(root, split, plans, ScoreSettings(version=version), cache_dir)
    totals: dict[str, NDArray[np.float64]] = {}
    for result in scoring.run(executor, **run):
        if result.values is not None:
            totals[result.token] = result.values
    if scoring.failures:
        token, reason = min(scoring.failures.items())
        raise CalibrationError(
            f"{len(scoring.failures)} of {len(plans)} scenes have no scores, such as {token}: {reason}; "
            f"figures of a part would not be those of the split"
        )
    # (in the order of the tokens: sums of floats depend on it, and workers answer in any)
    mean = np.mean([totals[token] for token in sorted(totals)], axis=0)
    columns = SCORE_COLUMNS if version == "v1" else EPDMS_COLUMNS
    shape = (len(plans.files), len(turns), len(stretches), len(columns))
    return CalibrationGrid(turns, stretches, mean.reshape(shape), len(plans), columns)
