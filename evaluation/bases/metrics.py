"""Scores in traffic that reacts, and of two stages, as an mmengine evaluator calls them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.logging import print_log
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.follow_ups import SPLIT, FollowUpRoot
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.synthetic import TOKEN_LENGTH
from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
from beyonddrive.engine.executors import make_executor
from beyonddrive.evaluation.bases.results import LEFT_OUT, BasisResult, one_stage_result, two_stage_result
from beyonddrive.evaluation.bases.scenes import SceneJob, SceneRecord, SceneWork, do, listed, start_worker
from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS
from beyonddrive.evaluation.pdm.scores.two_stage import Group, read_groups
from beyonddrive.evaluation.pdms_metric import EvaluationError, PDMSMetric, SceneRow
from beyonddrive.evaluation.score_labels import BASES, Basis, Traffic
from beyonddrive.evaluation.score_rows import ScoredScene
from beyonddrive.evaluation.score_stream import cut
from beyonddrive.registry import METRICS

SCENES_PER_JOB = 4
"""Scenes that a worker scores at a time."""
_PARTS = {"stage one": "stage_one_", "stage two": "stage_two_"}
"""Parts of a result of two stages -> what their figures begin with."""


class _BasisMetric(PDMSMetric):
    """A metric of a basis whose scenes are scored one by one, and whose result is made of all of them."""

    columns: ClassVar[tuple[str, ...]] = RUN_COLUMNS

    def __init__(
        self,
        split: str,
        data_root: str,
        maps_root: str | None = None,
        human_filter: bool = True,
        cache_dir: None = None,
        num_workers: int = 0,
        out_file: str | None = None,
        plans_file: str | None = None,
        prefix: str | None = None,
    ) -> None:
        if cache_dir is not None:
            raise EvaluationError(
                f"{type(self).__name__}: cache_dir={cache_dir!r}: a store of metric caches holds no traffic "
                f"that reacts; set cache_dir=None"
            )
        self.human_filter = human_filter
        self._records: dict[str, SceneRecord] = {}
        self._result: BasisResult | None = None
        super().__init__(
            split,
            None,
            data_root,
            maps_root,
            num_workers=num_workers,
            out_file=out_file,
            plans_file=plans_file,
            prefix=prefix,
        )
        self.data_root = Path(data_root)
        self.maps_root = None if maps_root is None else Path(maps_root)

    @cached_property
    def root(self) -> NavsimRoot:
        """Logs and maps, opened at first use."""
        return NavsimRoot(self.data_root, self.maps_root)

    @property
    def follow_ups(self) -> FollowUpRoot | None:
        """Where follow-up scenes are, if any are scored."""
        return None

    @abstractmethod
    def result(self, records: Mapping[str, SceneRecord]) -> BasisResult:
        """Scores of the whole from the records of all scenes."""

    def _score(self) -> list[SceneRow]:
        """Scores before extended comfort of the scenes that this rank planned."""
        plans = {scene.token: np.asarray(scene.plans, np.float64) for scene in self.results}
        logs = {scene.token: scene.log_name for scene in self.results}
        self._records = {}
        for record in self._made(plans, logs):
            # (a window that is cut off in one log may be whole in another one)
            if record.arrays or record.token not in self._records:
                self._records[record.token] = record
        part = self.basis.traffic
        rows = []
        for token, log_name in logs.items():
            record = self._records.get(token) or SceneRecord(token, log_name, {}, {})
            self._records[token] = record
            values = record.arrays[part][0] if part in record.arrays else None
            reason = "" if values is not None else record.reasons.get(part) or "its log has no such scene"
            rows.append(SceneRow(token, log_name, values, float("nan"), reason))
        return rows

    def _made(
        self, plans: Mapping[str, NDArray[np.float64]], logs: Mapping[str, str]
    ) -> Iterator[SceneRecord]:
        originals = {token: name for token, name in logs.items() if len(token) != TOKEN_LENGTH}
        work = SceneWork(
            self.root,
            self.scorer.split,
            plans,
            "the planner",
            1,
            (self.basis,),
            frozenset(originals),
            self.follow_ups,
        )
        second = sorted(token for token in plans if token not in originals)
        jobs = [SceneJob(follow_ups=tuple(part)) for part in cut(second, SCENES_PER_JOB)]
        jobs += [SceneJob(path) for path in self._log_paths(set(originals.values()))]
        desc = f"{self.title}, {self.scorer.split}" if is_main_process() else ""
        executor = make_executor(min(self.num_workers, len(jobs)))
        for found in executor.map(do, jobs, desc, start_worker, (work,)):
            yield from found.records
            if found.problem:
                print_log(found.problem, "current")

    def _log_paths(self, names: set[str]) -> list[Path]:
        """Logs with these names; all if one is stored under another name than its frames give."""
        paths = self.root.log_paths(self.scorer.split)
        named = [path for path in paths if path.stem in names]
        return named if len(named) == len(names) else paths

    def complete(self, rows: list[SceneRow]) -> list[SceneRow]:
        """Put the scores in that depend on other scenes, and on which of them have one."""
        records, self._records = self._records, {}
        if get_world_size() > 1:
            records = {token: record for part in all_gather_object(records) for token, record in part.items()}
        for row in rows:
            if row.values is None and row.token:
                reasons: dict[str, str] = {self.basis.traffic: row.reason}
                records[row.token] = SceneRecord(row.token, row.log_name, {}, reasons)
        result = self._result = self.result(records)
        return [self._completed(row, result) for row in rows]

    def _completed(self, row: SceneRow, result: BasisResult) -> SceneRow:
        values = result.rows.get(row.token)
        if values is not None:
            return row._replace(values=values)
        reason = row.reason or result.failures.get(row.token) or LEFT_OUT
        return row._replace(values=None, reason=reason)

    def compute_metrics(self, results: list[SceneRow]) -> dict[str, float]:
        """Return the figures in percent, and how many scenes they are of.

        Raises:
            EvaluationError: If there is no result.
        """
        metrics = super().compute_metrics(results)
        assert self._result is not None, "there are rows with scores"
        for part, means in self._result.means.items():
            for column, value in zip(self.columns, 100.0 * means, strict=True):
                metrics[_PARTS.get(part, "") + column] = float(value)
        return metrics


@METRICS.register_module()
class ReactiveEPDMSMetric(_BasisMetric):
    """One-stage EPDMS of a planner in traffic that reacts to its plan (EPDMS_TWO_STAGE, section 10).

    Works as :class:`beyonddrive.evaluation.epdms_metric.EPDMSMetric`, with windows of 4 + 8 frames. A scene
    is built anew, and its traffic simulated, each time that it is scored.

    Args:
        split: Split that the scenes belong to.
        data_root: Data root in NAVSIM's layout.
        maps_root: Maps, if they are not in ``data_root/maps``.
        human_filter: Do not charge a plan with what the human driver fails as well.
        cache_dir: Only None: a store of metric caches holds no traffic that reacts.
        num_workers: Processes per rank that score; 0 scores in this process.
        out_file: csv file with one row per scene, as the metrics of one stage write it.
        plans_file: npz file with the chosen plan (1, 8, 3) of each scene by token.
        prefix: Prefix of the names of all figures.

    Raises:
        EvaluationError: If there is a ``cache_dir``; by ``evaluate``, if not a single scene could be scored.
    """

    default_prefix = "epdms_reactive"
    title: ClassVar[str] = "EPDMS, one stage, reactive traffic"

    @property
    def basis(self) -> Basis:
        """Which score the figures are."""
        return BASES["epdms-reactive" if self.human_filter else "epdms-reactive-unfiltered"]

    def result(self, records: Mapping[str, SceneRecord]) -> BasisResult:
        """Scores of the whole from the records of all scenes."""
        return one_stage_result(self.basis, records, 0)


@METRICS.register_module()
class TwoStageMetric(_BasisMetric):
    """EPDMS of two stages of a planner, as NAVSIM v2's leaderboards have it (EPDMS_TWO_STAGE).

    For a :class:`~beyonddrive.datasets.follow_up_dataset.TwoStageDataset`. Besides the result there are the
    means of both stages, ``stage_one_EPDMS`` and ``stage_two_EPDMS``. A group of which a scene has no score
    is left out as a whole; its scenes count as failed, with the reason.

    Args:
        split: Split of the logs of the original scenes.
        data_root: Data root in NAVSIM's layout.
        two_stage: NAVSIM's ``train_test_split/<name>.yaml``, the table of pairs.
        synthetic_scenes: Folder of the follow-up scenes.
        maps_root: Maps, if they are not in ``data_root/maps``.
        traffic: ``reactive`` as the leaderboards, or ``logged``.
        human_filter: As the leaderboards since its fix (true), or not at all.
        cache_dir: Only None, as for :class:`ReactiveEPDMSMetric`.
        num_workers: Processes per rank that score; 0 scores in this process.
        out_file: csv file with one row per scene, which has its group, half and weight, too.
        plans_file: npz file with the chosen plan (1, 8, 3) of each scene by token.
        prefix: Prefix of the names of all figures.

    Raises:
        EvaluationError: If ``cache_dir`` is given or ``traffic`` is unknown; by ``evaluate``, if not a single
            group could be scored.
        TwoStageSplitError: If the split file is missing or wrong.
        TwoStageError: If its table of pairs is; by ``evaluate``, if the times of a pair do not follow one
            another.
        NavsimRootError: If there are no such folders.
    """

    default_prefix = "two_stage"
    title: ClassVar[str] = "EPDMS, two stages"

    def __init__(
        self,
        split: str,
        data_root: str,
        two_stage: str,
        synthetic_scenes: str,
        maps_root: str | None = None,
        traffic: Traffic = "reactive",
        human_filter: bool = True,
        cache_dir: None = None,
        num_workers: int = 0,
        out_file: str | None = None,
        plans_file: str | None = None,
        prefix: str | None = None,
    ) -> None:
        known = [basis for basis in BASES.values() if basis.stages == 2 and basis.traffic == traffic]
        wanted = "on" if human_filter else "off"
        self._basis = next((basis for basis in known if basis.human_filter == wanted), None)
        if self._basis is None:
            raise EvaluationError(
                f"TwoStageMetric: no basis has traffic={traffic!r} and human_filter={human_filter}; give "
                f"traffic='reactive' with either, or traffic='logged' with human_filter=True"
            )
        super().__init__(
            *(split, data_root, maps_root, human_filter, cache_dir, num_workers),
            *(out_file, plans_file, prefix),
        )
        self.two_stage, self.synthetic_scenes = Path(two_stage), Path(synthetic_scenes)

    @cached_property
    def table(self) -> TwoStageSplit:
        """The split file, read at first use."""
        return TwoStageSplit.read(self.two_stage)

    @cached_property
    def groups(self) -> list[Group]:
        """Its groups."""
        return read_groups(self.table.pairs, str(self.two_stage))

    @cached_property
    def follow_ups(self) -> FollowUpRoot:
        """Where the follow-up scenes are."""
        return FollowUpRoot(self.synthetic_scenes, maps_root=self.root.maps_root)

    @property
    def basis(self) -> Basis:
        """Which score the figures are."""
        assert self._basis is not None, "the constructor checks it"
        return self._basis

    @property
    def figures(self) -> list[str]:
        """Names of the figures that it can give."""
        stages = [f"{self.prefix}/{part}{name}" for part in _PARTS.values() for name in self.columns]
        return [*super().figures, *stages]

    def reads(self, splits: Sequence[str]) -> bool:
        """Whether it can score scenes of these splits.

        What is wrong with the split file or a folder is said now, not after the first epoch.
        """
        assert self.groups is not None and self.follow_ups is not None
        return set(splits) <= {self.scorer.split, SPLIT}

    def result(self, records: Mapping[str, SceneRecord]) -> BasisResult:
        """Scores of the whole from the records of all scenes."""
        groups = [group for group in self.groups if any(token in records for token in group.tokens)]
        absent = {
            token: SceneRecord(
                token, "", {}, {self.basis.traffic: "it is not among the scenes of the data set"}
            )
            for group in groups
            for token in group.tokens
            if token not in records
        }
        found = listed({**records, **absent}, groups, self.table.log_names)
        result = two_stage_result(self.basis, found, groups, 0)
        if result.note and is_main_process():
            print_log(f"{self.title}: {result.note}", "current")
        return result

    def follow_up_files(self, tokens: Iterable[str]) -> list[Path]:
        """Files of those scenes that are follow-ups."""
        return self.follow_ups.paths_of(tokens)

    def scored(self, row: SceneRow) -> ScoredScene:
        """A row as the file of results has it, with its place in a group."""
        place = self._result.details.get(row.token, ()) if self._result is not None else ()
        return ScoredScene(row.token, row.log_name, row.values, row.reason, *place)
