"""``PDMSMetric``: the PDM score of a planner over a split, as an mmengine evaluator calls it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.account import SplitAccount
from beyonddrive.engine.environment import write_made_with
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.wrapped_datasets import BadScene, not_planned
from beyonddrive.evaluation.pdm.scores.scorer import Progress
from beyonddrive.evaluation.plan_files import write_arrays
from beyonddrive.evaluation.scene_scoring import Motion, ScenePlans, SceneScorer, ScoreSettings
from beyonddrive.evaluation.score_labels import BASES, Basis, ScoreLabel
from beyonddrive.evaluation.score_rows import ScoredScene, scenes_to_csv
from beyonddrive.evaluation.score_stream import score_scenes
from beyonddrive.registry import METRICS
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import SCORE_COLUMNS

_SHOWN = 10


class EvaluationError(BeyondDriveError, RuntimeError):
    """An evaluation has no scene that could be scored, or lost scenes on the way."""


class SceneRow(NamedTuple):
    """One scene of the result: scores (7,) of the plan, or the reason why there are none.

    ``token`` is empty for a whole log that cannot be read.

    ``oracle`` is the best PDMS among the planner's proposals, NaN without proposals. ``motion`` is there if
    the metric asks for it.
    """

    token: str
    log_name: str
    values: NDArray[np.float64] | None
    oracle: float
    reason: str
    motion: Motion | None = None

    @property
    def name(self) -> str:
        """The token, or the name of the log that is lost."""
        return self.token or self.log_name


@METRICS.register_module()
class PDMSMetric(BaseMetric):
    """PDM score of a planner (PDMS_V1): means of the sub-scores and of PDMS over all scenes, in percent.

    Every rank scores the scenes that it planned, in worker processes; the rows are then gathered, and scenes
    that a sampler repeated to even out the ranks count once. A scene that cannot be scored or was not
    planned, and what the split should have but the data set has lost, is left out of the means, listed with
    its reason in ``failures``, in the log and in the csv file, and counted as ``num_failed``.

    Args:
        split: Split that the scenes belong to.
        cache_dir: Store made by ``beyonddrive cache-metrics``; without it caches are built from ``data_root``
            each time, which is slower.
        data_root: Data root in NAVSIM's layout.
        maps_root: Maps, if they are not in ``data_root/maps``.
        progress: ``pair`` as the benchmark, or ``pooled`` (PDMS_V1, section 9).
        oracle: Also score all proposals of a multi-modal planner and report the mean of the best PDMS.
        num_workers: Processes per rank that score; 0 scores in this process.
        out_file: csv file with one row per scene: token, log, the seven scores in [0, 1], the reason if
            there are none, and the label of what the scores are.
        plans_file: npz file with the chosen plan (1, 8, 3) of each scene by token, as ``beyonddrive score``
            reads it.
        prefix: Prefix of the names of all figures.

    Raises:
        EvaluationError: By ``evaluate``, if not a single scene could be scored.
    """

    default_prefix = "pdms"
    scores_plans: ClassVar[bool] = True
    """Tells the tools that it takes ``data_root``, ``cache_dir``, ``out_file``, ``plans_file``."""
    counts_all_scenes: ClassVar[bool] = True
    """Tells the runner that it needs a loop that tells of all scenes: a :class:`SceneLoop`."""
    columns: ClassVar[tuple[str, ...]] = SCORE_COLUMNS
    title: ClassVar[str] = "PDM score"

    def __init__(
        self,
        split: str,
        cache_dir: str | None = None,
        data_root: str | None = None,
        maps_root: str | None = None,
        progress: Progress = "pair",
        oracle: bool = False,
        num_workers: int = 0,
        out_file: str | None = None,
        plans_file: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        self.scorer = SceneScorer(
            split,
            Path(cache_dir) if cache_dir else None,
            Path(data_root) if data_root else None,
            Path(maps_root) if maps_root else None,
            self.settings(progress),
        )
        self.oracle = oracle
        self.num_workers = num_workers
        self.out_file = Path(out_file) if out_file else None
        self.plans_file = Path(plans_file) if plans_file else None
        self.failures: dict[str, str] = {}
        self.unwritten: list[str] = []
        self.rows: list[SceneRow] = []
        self._unplanned: list[SceneRow] = []
        self._lost: list[SceneRow] = []
        self._expected: Sequence[str] = ()

    def settings(self, progress: Progress) -> ScoreSettings:
        """What is computed for a scene."""
        return ScoreSettings(progress)

    @property
    def figures(self) -> list[str]:
        """Names of the figures that it can give, for whoever selects checkpoints by one."""
        names = [*self.columns, *(["oracle_PDMS"] if self.oracle else []), "num_scenes", "num_failed"]
        return [f"{self.prefix}/{name}" for name in names]

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """What the data set says of itself; a loop sets it before it runs."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict[str, Any] | None) -> None:
        self._dataset_meta = dataset_meta
        splits = (dataset_meta or {}).get("splits") or [self.scorer.split]
        if not self.reads(splits):
            raise EvaluationError(
                f"{type(self).__name__}: split is '{self.scorer.split}', but the data set reads "
                f"'{', '.join(splits)}'; make them one"
            )
        # A missing store is an error now, not after the first epoch.
        self.scorer.open()

    def reads(self, splits: Sequence[str]) -> bool:
        """Whether it can score scenes of these splits."""
        return list(splits) == [self.scorer.split]

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the plans of a batch: (8, 3) the chosen one, then (M, 8, 3) proposals if asked for."""
        batch = data_batch or {}
        self._unplanned += map(_without_plan, batch.get("bad_scenes", ()))
        self._lost += map(_without_plan, batch.get("lost_scenes", ()))
        self._expected = batch.get("expected_scenes", self._expected)
        for sample in data_samples:
            prediction = sample["pred"]
            plans = _numpy(prediction["trajectory"])[None]
            if self.oracle and "proposals" in prediction:
                plans = np.concatenate([plans, _numpy(prediction["proposals"])])
            self.results.append(ScenePlans(sample["token"], sample["log_name"], plans))

    def evaluate(self, size: int) -> dict[str, float]:
        """Score what was collected, on all ranks, and return the means.

        Args:
            size: Scenes in the data set.
        """
        lost, self._lost = self._lost, []
        rows = self._score() + self._unplanned + lost
        self._unplanned = []
        plans = {scene.token: scene.plans[:1] for scene in self.results} if self.plans_file else {}
        self.results.clear()
        if get_world_size() > 1:
            rows = [row for part in all_gather_object(rows) for row in part]
            plans = {token: plan for part in all_gather_object(plans) for token, plan in part.items()}
        rows += map(_without_plan, not_planned(self._expected, {row.token for row in rows}))
        self._expected = ()
        self.unwritten = []
        if is_main_process():
            # (before what may fail: plans take longest to make)
            self._write_plans(plans)
        rows.sort(key=lambda row: row.values is not None)  # one that is lost in one place counts if scored
        self.rows = sorted(
            {row.name: row for row in rows}.values(), key=lambda row: (row.log_name, row.token)
        )
        self.rows = self.complete(self.rows)
        self.failures = {row.name: row.reason for row in self.rows if row.values is None}
        if is_main_process():
            self._log_faults(size, len(lost))
            self._write_rows()
        metrics = self.compute_metrics(self.rows)
        return {f"{self.prefix}/{name}": value for name, value in metrics.items()}

    def complete(self, rows: list[SceneRow]) -> list[SceneRow]:
        """Add to rows what depends on other scenes; called once all ranks have theirs."""
        return rows

    def compute_metrics(self, results: list[SceneRow]) -> dict[str, float]:
        """Return means in percent over the scenes that have scores.

        Raises:
            EvaluationError: If there is none.
        """
        values = [row.values for row in results if row.values is not None]
        if not values:
            reason = (
                f"the first, {results[0].token}: {results[0].reason}" if results else "the data set is empty"
            )
            raise EvaluationError(f"{self.title}: none of {len(results)} scenes could be scored; {reason}")
        metrics = {}
        for name, column in zip(self.columns, np.transpose(values), strict=True):
            known = column[~np.isnan(column)]
            metrics[name] = float(100.0 * known.mean()) if len(known) else float("nan")
        best = np.array([row.oracle for row in results if row.values is not None])
        if not np.isnan(best).any():
            metrics["oracle_PDMS"] = float(100.0 * best.mean())
        metrics["num_scenes"] = float(len(values))
        metrics["num_failed"] = float(len(results) - len(values))
        return metrics

    def _score(self) -> list[SceneRow]:
        rows = []
        desc = f"{self.title}, {self.scorer.split}" if is_main_process() else ""
        for result in score_scenes(self.scorer, self.results, self.num_workers, desc):
            values, oracle = None, float("nan")
            if result.values is not None:
                values = result.values[0]
                if len(result.values) > 1:
                    oracle = float(result.values[1:, SCORE_COLUMNS.index("PDMS")].max())
            rows.append(SceneRow(result.token, result.log_name, values, oracle, result.reason, result.motion))
        return rows

    @property
    def basis(self) -> Basis:
        """Which score the figures are."""
        return BASES["pdms"]

    @property
    def label(self) -> ScoreLabel:
        """What the figures of the last evaluation are of."""
        scored = {row.token: row.log_name for row in self.rows if row.values is not None}
        data = self.scorer.open().logs_digest(scored.items(), self.follow_up_files(scored))
        return ScoreLabel.of(self.basis, scored, self.scorer.settings.progress, data)

    def follow_up_files(self, tokens: Iterable[str]) -> list[Path]:
        """Files of those scenes that are follow-ups; a metric of logged scenes has none."""
        return []

    @property
    def share(self) -> str:
        """Scenes that the figures are of, such as ``4 of 30 scenes``."""
        failed = [row for row in self.rows if row.values is None]
        scenes = {row.token: row.reason for row in failed if row.token}
        logs = {row.log_name: row.reason for row in failed if not row.token}
        return str(SplitAccount(len(self.rows) - len(failed), scenes, logs))

    def _log_faults(self, size: int, num_lost: int) -> None:
        if len(self.rows) - num_lost != size:
            text = (
                f"{self.title}: the data set has {size} samples, of {len(self.rows) - num_lost} scenes; each "
                "scene counts once"
            )
            print_log(text, "current", level=logging.WARNING)
        if not self.failures:
            return
        lines = [f"  {name}: {reason}" for name, reason in list(self.failures.items())[:_SHOWN]]
        if len(self.failures) > _SHOWN:
            lines.append(f"  and {len(self.failures) - _SHOWN} more")
        head = f"{self.title}: the figures are of {self.share}; without a score:"
        print_log("\n".join([head, *lines]), "current", level=logging.WARNING)

    def scored(self, row: SceneRow) -> ScoredScene:
        """A row as the file of results has it."""
        return ScoredScene(row.token, row.log_name, row.values, row.reason, oracle=row.oracle)

    def _write_rows(self) -> None:
        """Write the scores; what cannot be written must not take the figures with it."""
        try:
            if self.out_file is not None:
                text = scenes_to_csv([self.scored(row) for row in self.rows], self.columns, self.label)
                write_atomically(self.out_file, text.encode())
                write_made_with(self.out_file)
        except OSError as error:
            self._say_unwritten(self.out_file, error)

    def _write_plans(self, plans: dict[str, NDArray[np.floating]]) -> None:
        """Write the plans, which a figure that cannot be computed must not take with it."""
        try:
            if self.plans_file is not None:
                write_arrays(self.plans_file, sorted(plans.items()))
                write_made_with(self.plans_file)
        except OSError as error:
            self._say_unwritten(self.plans_file, error)

    def _say_unwritten(self, path: Path | None, error: OSError) -> None:
        self.unwritten.append(f"{path}: cannot be written ({error.strerror})")
        print_log(self.unwritten[-1], "current", level=logging.ERROR)


def _without_plan(scene: BadScene) -> SceneRow:
    return SceneRow(scene.token, scene.log_name, None, float("nan"), scene.reason)


def _numpy(plans: Any) -> NDArray[np.floating]:
    array: NDArray[np.floating] = plans.detach().cpu().numpy()
    return array
