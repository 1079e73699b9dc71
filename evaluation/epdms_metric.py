"""``EPDMSMetric``: the one-stage EPDMS of a planner over a split, as an mmengine evaluator calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from beyonddrive.datasets.navsim.synthetic import TOKEN_LENGTH
from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS, run_score
from beyonddrive.evaluation.pdm.scores.scorer import Progress
from beyonddrive.evaluation.pdms_metric import EvaluationError, PDMSMetric, SceneRow
from beyonddrive.evaluation.scene_scoring import ScoreSettings
from beyonddrive.evaluation.score_labels import BASES, Basis
from beyonddrive.registry import METRICS

_FOLLOW_UP = "it gives the one-stage score of logged scenes; use TwoStageMetric"


@METRICS.register_module()
class EPDMSMetric(PDMSMetric):
    """One-stage EPDMS of a planner (EPDMS_V2): means over all scenes, in percent.

    Works as :class:`beyonddrive.evaluation.pdms_metric.PDMSMetric`; in addition the plan of every scene is
    compared with that of the scene half a second before it in the same log (EC). Scenes should follow one
    another for that: ``frame_interval=1``. The mean of EC is over the scenes that have such a neighbour, NaN
    if none has; the others are scored without it.

    All figures carry the prefix ``epdms_one_stage``: they are not the two-stage scores of NAVSIM v2's
    leaderboards, which also drive on in follow-up scenes, nor those in traffic that reacts
    (:class:`~beyonddrive.evaluation.bases.metrics.ReactiveEPDMSMetric`).

    Args:
        split: Split that the scenes belong to.
        cache_dir: Store made by ``beyonddrive cache-metrics``; without it caches are built from ``data_root``
            each time, which is slower.
        data_root: Data root in NAVSIM's layout.
        maps_root: Maps, if they are not in ``data_root/maps``.
        human_filter: Do not charge a plan with what the human driver fails as well.
        stages: 1; two stages have a :class:`~beyonddrive.evaluation.bases.metrics.TwoStageMetric`.
        num_workers: Processes per rank that score; 0 scores in this process.
        out_file: csv file with one row per scene: token, log, ten scores in [0, 1], and the reason if there
            are none.
        plans_file: npz file with the chosen plan (1, 8, 3) of each scene by token.
        prefix: Prefix of the names of all figures.

    Raises:
        EvaluationError: If two stages are asked for; by ``evaluate``, if not a single scene could be scored.
        RunError: By ``evaluate``, if two scenes of a log have the same time.
    """

    default_prefix = "epdms_one_stage"
    columns: ClassVar[tuple[str, ...]] = RUN_COLUMNS
    title: ClassVar[str] = "EPDMS, one stage"

    def __init__(
        self,
        split: str,
        cache_dir: str | None = None,
        data_root: str | None = None,
        maps_root: str | None = None,
        human_filter: bool = True,
        stages: int = 1,
        num_workers: int = 0,
        out_file: str | None = None,
        plans_file: str | None = None,
        prefix: str | None = None,
    ) -> None:
        if stages != 1:
            raise EvaluationError(f"EPDMSMetric: stages={stages}: {_FOLLOW_UP}")
        self.human_filter = human_filter
        super().__init__(
            split,
            cache_dir,
            data_root,
            maps_root,
            num_workers=num_workers,
            out_file=out_file,
            plans_file=plans_file,
            prefix=prefix,
        )

    @property
    def basis(self) -> Basis:
        """Which score the figures are."""
        return BASES["epdms" if self.human_filter else "epdms-unfiltered"]

    def settings(self, progress: Progress) -> ScoreSettings:
        """What is computed for a scene."""
        return ScoreSettings(progress, "v2", self.human_filter, with_motion=True)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the plans of a batch.

        Raises:
            EvaluationError: If one is of a follow-up scene.
        """
        for sample in data_samples:
            if len(sample["token"]) == TOKEN_LENGTH:
                raise EvaluationError(f"EPDMSMetric: {sample['token']} is a follow-up scene: {_FOLLOW_UP}")
        super().process(data_batch, data_samples)

    def complete(self, rows: list[SceneRow]) -> list[SceneRow]:
        """Add extended comfort, which compares neighbouring scenes, and the final score."""
        scored = [(row, row.values, row.motion) for row in rows if row.values is not None and row.motion]
        if not scored:
            return rows
        run = run_score(
            [row.log_name for row, _, _ in scored],
            [motion.time for _, _, motion in scored],
            np.stack([values for _, values, _ in scored]),
            np.stack([motion.simulated[0] for _, _, motion in scored]),
            [row.token for row, _, _ in scored],
        )
        final = {row.token: values for (row, _, _), values in zip(scored, run.values, strict=True)}
        return [row._replace(values=final.get(row.token), motion=None) for row in rows]

    def compute_metrics(self, results: list[SceneRow]) -> dict[str, float]:
        """Return means in percent over the scenes that have scores, and how many have a neighbour."""
        metrics = super().compute_metrics(results)
        comfort = [row.values[RUN_COLUMNS.index("EC")] for row in results if row.values is not None]
        metrics["num_neighbors"] = float(np.isfinite(comfort).sum())
        return metrics
