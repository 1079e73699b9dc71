"""Every basis of one file of plans, over all scenes of a split and the follow-up scenes it may have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from tqdm import tqdm

from beyonddrive.datasets.navsim.follow_ups import FollowUpRoot
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.synthetic import TOKEN_LENGTH
from beyonddrive.engine.executors import Executor, SerialExecutor
from beyonddrive.evaluation.bases.places import TwoStageData
from beyonddrive.evaluation.bases.results import BasisResult, no_result, one_stage_result, two_stage_result
from beyonddrive.evaluation.bases.scenes import (
    LogRecords,
    SceneJob,
    SceneRecord,
    SceneWork,
    do,
    listed,
    parts_of,
    start_worker,
)
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.pdm.scores.epdms_of_run import RunError
from beyonddrive.evaluation.pdm.scores.two_stage import Group, TwoStageError, read_groups
from beyonddrive.evaluation.plan_files import PlanFileError
from beyonddrive.evaluation.score_labels import Basis
from beyonddrive.evaluation.score_stream import cut
from beyonddrive.structures.plan import PlanError, check_plans

FOLLOW_UPS_PER_JOB = 4
"""Follow-up scenes that a worker scores at a time."""


class BasesScoring:
    """Scoring of one file of plans on several bases, as a stream of records.

    Args:
        root: Where logs and maps are.
        split: Split of the logs.
        plans: Token -> plans (N, 8, 3), N the same for all scenes: plan i of all scenes is run i.
        source: What plans are called in messages.
        bases: What is wanted.
        two_stages: Data of two stages, or why there are none.
        zero_missing: Whether scenes of two stages that have no plan count as 0; otherwise they are refused.

    Attributes:
        num_plans: N.
        missing: Scenes of groups with plans that have none themselves.
        left_out: Why bases of two stages are not computed; empty if they are.
        problems: Logs that cannot be read.

    Raises:
        NavsimRootError: If there is no such split or folder.
        TwoStageError: If the table of pairs is wrong.
        PlanFileError: If not a single scene has plans.
    """

    def __init__(
        self,
        root: NavsimRoot,
        split: str,
        plans: Mapping[str, NDArray[Any]],
        source: str,
        bases: Sequence[Basis],
        two_stages: TwoStageData | str,
        zero_missing: bool = False,
    ) -> None:
        self.root, self.plans, self.source, self.bases = root, plans, source, tuple(bases)
        self.problems: list[str] = []
        self.left_out = ""
        self.missing: tuple[str, ...] = ()
        self.groups: list[Group] = []
        self.num_groups = 0
        second: Collection[str] = ()
        follow_ups = None
        if any(basis.stages == 2 for basis in bases):
            if isinstance(two_stages, str):
                self.left_out = two_stages
            else:
                follow_ups = FollowUpRoot(two_stages.scenes_dir, maps_root=root.maps_root)
                second = self._take_groups(two_stages, zero_missing)
        logs = "" if isinstance(two_stages, str) else two_stages.logs
        if logs and (root.root / "navsim_logs" / logs).is_dir():
            split = logs
        self.split = split
        self.logs = root.log_paths(split)
        self._log_names = None if isinstance(two_stages, str) else two_stages.split.log_names
        self.zero = frozenset(self.missing) if zero_missing else frozenset[str]()
        computed = tuple(b for b in self.bases if b.stages == 1 or not self.left_out)
        in_groups = {token for group in self.groups for token in (group.now, group.previous)}
        of_one_stage = any(basis.stages == 1 for basis in computed)
        if self._log_names is not None and not of_one_stage:
            self.logs = [path for path in self.logs if path.stem in self._log_names]
        self.originals = [
            token for token in plans if len(token) != TOKEN_LENGTH and (of_one_stage or token in in_groups)
        ]
        self.follow_ups = [] if self.left_out else list(second)
        self.num_plans = _count(plans, source)
        self._work = SceneWork(
            root, split, plans, source, self.num_plans, computed, frozenset(self.originals), follow_ups
        )

    def _take_groups(self, data: TwoStageData, zero_missing: bool) -> list[str]:
        """Take the groups of which scenes have plans; their follow-up scenes."""
        groups = read_groups(data.split.pairs, str(data.split.path))
        self.num_groups = len(groups)
        self.groups = [group for group in groups if any(token in self.plans for token in group.tokens)]
        wanted = [token for group in self.groups for token in group.tokens]
        self.missing = tuple(token for token in wanted if token not in self.plans)
        if not self.groups:
            self.left_out = f"no scene of {data.split.path} has a plan in {self.source}"
        elif self.missing and not zero_missing:
            self.left_out = (
                f"{len(self.missing)} of {len(wanted)} scenes of two stages have no plan in "
                f"{self.source}: add them, or count them as 0 with --missing zero"
            )
        return [token for group in self.groups for pair in group.pairs for token in pair]

    @property
    def tokens(self) -> list[str]:
        """All scenes that are looked at."""
        return [*self.originals, *self.follow_ups]

    def run(
        self, executor: Executor | None = None, done: Collection[str] = (), progress_bar: bool = True
    ) -> Iterator[SceneRecord]:
        """Make the record of each scene, in no particular order.

        Args:
            executor: Where to run; None is this process.
            done: Scenes whose records are there.
            progress_bar: Whether to show progress, rate and time left.
        """
        executor = executor or SerialExecutor()
        left = [token for token in self.follow_ups if token not in done]
        open_ = {token for token in self.originals if token not in done}
        jobs = [SceneJob(follow_ups=tuple(part)) for part in cut(left, FOLLOW_UPS_PER_JOB)]
        total = len(self.tokens)
        with tqdm(
            desc="scores on every basis",
            total=total,
            initial=total - len(left) - len(open_),
            unit="scene",
            disable=not progress_bar,
            dynamic_ncols=True,
        ) as bar:
            for found in executor.map(do, jobs, "", start_worker, (self._work,)):
                yield from found.records
                bar.update(len(found.records))
            if open_:
                logs = [SceneJob(path) for path in self.logs]
                results = executor.map(do, logs, "", start_worker, (self._work,))
                with closing(results):  # type: ignore[type-var]
                    yield from self._originals(results, open_, bar)
        where = f"split {self.split} in {self.root.root}"
        if len(self.logs) < len(self.root.log_paths(self.split)):
            where += f", in the {len(self.logs)} logs that the two-stage split names,"
        reason = f"no window of 4 + 8 frames of {where} has this current frame"
        if self.problems:
            reason += f"; it may be in a log that cannot be read ({len(self.problems)} of them)"
        for token in [token for token in self.originals if token in open_]:
            yield SceneRecord(token, "", {}, dict.fromkeys(parts_of(self.bases, False), reason))

    def _originals(
        self, results: Iterator[LogRecords], open_: set[str], bar: tqdm[Any]
    ) -> Iterator[SceneRecord]:
        cut_off = {}
        for found in results:
            if found.problem:
                self.problems.append(found.problem)
            for record in found.records:
                if record.token not in open_:
                    continue
                if not record.arrays:  # a window that is cut off in one log may be whole in another one
                    cut_off[record.token] = record
                    continue
                open_.remove(record.token)
                bar.update()
                yield record
            if not open_:
                break
        for token, record in cut_off.items():
            if token in open_:
                open_.remove(token)
                bar.update()
                yield record

    def results(self, records: Mapping[str, SceneRecord]) -> list[BasisResult]:
        """Scores of each basis and plan, in the order of the bases.

        A basis whose scenes contradict each other has no result but a note; the others keep theirs.
        """
        found = []
        caches = MetricCaches(self.split, self.root)
        originals = {token: records[token] for token in self.originals if token in records}
        for basis in self.bases:
            for plan in range(self.num_plans):
                try:
                    if basis.stages == 1:
                        result = one_stage_result(basis, originals, plan)
                    elif self.left_out:
                        result = no_result(basis, plan, self.left_out)
                        result.missing = self.missing
                    else:
                        result = self._two_stages(basis, records, plan)
                except (RunError, TwoStageError) as error:
                    result = no_result(basis, plan, str(error))
                scenes = [(token, result.logs.get(token, "")) for token in result.rows]
                follow_ups = self._work.follow_ups
                files = [] if follow_ups is None else follow_ups.paths_of(result.rows)
                data = caches.logs_digest(scenes, files)
                result.label = replace(result.label, data=data)
                found.append(result)
        return found

    def _two_stages(self, basis: Basis, records: Mapping[str, SceneRecord], plan: int) -> BasisResult:
        result = two_stage_result(
            basis, listed(records, self.groups, self._log_names), self.groups, plan, self.zero
        )
        result.missing = self.missing
        notes = [result.note] if result.note else []
        if self.zero:
            notes.append(f"{len(self.zero)} scenes without a plan count as 0")
        if len(self.groups) < self.num_groups:
            notes.append(f"{self.num_groups - len(self.groups)} of {self.num_groups} groups have no plans")
        result.note = "; ".join(notes)
        return result


def _count(plans: Mapping[str, NDArray[Any]], source: str) -> int:
    """Plans of the first scene whose plans can be read."""
    first = ""
    for token in plans:
        try:
            if count := len(check_plans(plans[token], token)):
                return count
        except (PlanError, PlanFileError) as error:
            first = first or f"; the first: {error}"
    raise PlanFileError(
        f"{source}: not a single scene has plans (N, 8, 3){first}; write 8 poses x, y, heading every 0.5 s"
    )


def files_of(two_stages: TwoStageData | str) -> list[Path]:
    """Files of two stages that scores depend on."""
    if isinstance(two_stages, str):
        return []
    return [two_stages.split.path, *sorted(Path(two_stages.scenes_dir).glob("*.pkl"))]
