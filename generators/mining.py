"""Mining: a generator's proposals for every scene, scored, into a negative pool (METHOD, section 3).

The scenes are cut into shards. While the generator draws the proposals of a batch, worker processes score
earlier ones; a shard is written when its last scene is scored. A killed job goes on with the first shard
that is not on disk. A scene that fails is recorded in its shard with the reason; the next run of the same
job tries it again and leaves the other scenes as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from numpy.typing import NDArray
from tqdm import tqdm

from beyonddrive.datasets.stores.fingerprints import Sources
from beyonddrive.datasets.stores.negative_pool import KIND, PoolDescription, open_writer
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.engine.lost_workers import naming_lost_workers
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScores, Scorer
from beyonddrive.evaluation.score_stream import ScoringPool, cut
from beyonddrive.evaluation.service import ScoringService
from beyonddrive.generators.mining_source import (
    LoadedScene,
    MiningError,
    MiningSource,
    Shard,
    plan_shards,
    read_batches,
)
from beyonddrive.generators.strategies import Proposer, Strategy, StrategyError
from beyonddrive.structures.errors import describe_error
from beyonddrive.structures.plan import SCORE_COLUMNS, check_plans
from beyonddrive.structures.sample import stack_field

SCENES_PER_JOB = 4
"""Scenes that a worker scores at a time: enough to hide the queue, few enough to keep all workers busy."""


class GeneratorModel(Proposer, Protocol):
    """A planner that proposes and brings its own data preprocessor."""

    def data_preprocessor(self, data: Any, training: bool = False) -> dict[str, Any]:
        """Stack a batch and move it to the device."""
        ...


@dataclass(frozen=True)
class MiningOptions:
    """How a job runs; none of it changes what is mined, beyond the rounding of sums in batches.

    Attributes:
        batch_size: Scenes per call of the generator.
        num_workers: Processes that score; 0 scores in this process.
        loader_workers: Processes that read scenes; 0 reads in this process.
        part: ``(i, n)``: this job does every n-th shard from the i-th; n jobs fill one pool together.
        progress_bar: Whether to show progress, rate and time left.
    """

    batch_size: int = 16
    num_workers: int = 0
    loader_workers: int = 0
    part: tuple[int, int] = (0, 1)
    progress_bar: bool = True

    def __post_init__(self) -> None:
        index, count = self.part
        if self.batch_size < 1 or self.num_workers < 0 or self.loader_workers < 0 or not 0 <= index < count:
            raise MiningError(f"mining options are out of range: {self}")


@dataclass(frozen=True)
class MiningSummary:
    """What a job did.

    Attributes:
        num_scenes: Scenes of this job's shards.
        resumed: Scenes that were on disk before.
        mined: Scenes mined now.
        failures: Scenes that failed now, with the reason.
        lost: Scenes, or logs, that the split should have and has not, with the reason.
    """

    num_scenes: int
    resumed: int
    mined: int
    failures: dict[str, str]
    lost: dict[str, str] = field(default_factory=dict)


class _Scoring(Protocol):
    """Takes scenes to be scored."""

    def submit(self, scenes: Sequence[ScenePlans]) -> Future[list[SceneScores]]:
        """Score scenes together."""
        ...


@dataclass(frozen=True)
class _Service:
    """A service as it."""

    service: ScoringService

    def submit(self, scenes: Sequence[ScenePlans]) -> Future[list[SceneScores]]:
        return self.service.submit_scenes(scenes)


@dataclass
class _OpenShard:
    """A shard that is not complete on disk: the scenes it still wants, and what is known of them."""

    shard: Shard
    wanted: list[int]
    records: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    futures: list[Future[list[SceneScores]]] = field(default_factory=list)
    num_drawn: int = 0

    @property
    def is_drawn(self) -> bool:
        return self.num_drawn == len(self.wanted)

    @property
    def is_scored(self) -> bool:
        return self.is_drawn and all(future.done() for future in self.futures)


class Miner:
    """One mining job.

    Args:
        planner: The generator, in eval mode, on its device.
        source: The scenes.
        scorer: What scores the proposals of a scene, in worker processes.
        strategy: How proposals are drawn.
        root: Folder of the pool.
        description: What the pool is; a folder that holds another pool is refused.
        origin: Where the scenes came from, for people.
        options: How the job runs.
        sources: Logs and maps that the scenes are of; a pool of others is refused.
        service: Scores with ``scorer`` in workers that outlive the job; ``options.num_workers`` are not
            started then.

    Raises:
        MiningError: If the scenes cannot be cut into shards.
        StoreError: If the folder holds a pool of something else, or a damaged one.
    """

    def __init__(
        self,
        planner: GeneratorModel,
        source: MiningSource,
        scorer: Scorer,
        strategy: Strategy,
        root: str | Path,
        description: PoolDescription,
        origin: str = "",
        options: MiningOptions | None = None,
        sources: Sources | None = None,
        service: ScoringService | None = None,
    ) -> None:
        self.service = service
        self.planner, self.source, self.scorer, self.strategy = planner, source, scorer, strategy
        self.description = description
        self.options = options or MiningOptions()
        part, parts = self.options.part
        self.shards = plan_shards(source.tokens, description.shard_size)[part::parts]
        self._writer = open_writer(root, description, origin, sources, source.lost)
        self._has_drawn = False
        self._refused: list[str] = []

    def run(self) -> MiningSummary:
        """Mine what is not on disk.

        Raises:
            MiningError: If nothing is on disk and not one scene of the first batch can be drawn, all for one
                reason, which is then that of the settings.
            WorkerLostError, ScorerLostError: If a scoring or loading process was killed; what is written
                stays.
        """
        num_scenes = sum(len(shard.indices) for shard in self.shards)
        todo = self._open_shards()
        num_wanted = sum(len(item.wanted) for item in todo)
        self._has_drawn = num_wanted < num_scenes
        batches = [(item, batch) for item in todo for batch in cut(item.wanted, self.options.batch_size)]
        scenes = read_batches(self.source, [batch for _, batch in batches], self.options.loader_workers)
        # The generator waits for the scorers when it is this far ahead.
        limit = max(2 * self.description.shard_size, 4 * SCENES_PER_JOB * self.options.num_workers)
        failures: dict[str, str] = {}
        in_flight: deque[_OpenShard] = deque()
        bar = tqdm(
            desc="mining negatives",
            total=num_scenes,
            initial=num_scenes - num_wanted,
            unit="scene",
            dynamic_ncols=True,
            disable=not self.options.progress_bar,
        )
        lost = naming_lost_workers(
            f"loader_workers={self.options.loader_workers}", "; run the same command again, it goes on"
        )
        with bar, lost, self._scoring() as pool:
            for (item, _), batch in zip(batches, scenes, strict=True):
                if not in_flight or in_flight[-1] is not item:
                    in_flight.append(item)
                self._draw(item, batch, pool, bar)
                while in_flight and (
                    in_flight[0].is_scored
                    or (in_flight[0].is_drawn and sum(shard.num_drawn for shard in in_flight) > limit)
                ):
                    failures |= self._write(in_flight.popleft())
            while in_flight:
                failures |= self._write(in_flight.popleft())
        resumed, mined = num_scenes - num_wanted, num_wanted - len(failures)
        return MiningSummary(num_scenes, resumed, mined, failures, dict(self.source.lost))

    def _scoring(self) -> AbstractContextManager[_Scoring]:
        if self.service is not None:
            return nullcontext(_Service(self.service))
        return ScoringPool(self.scorer, self.options.num_workers)

    def _open_shards(self) -> list[_OpenShard]:
        store, tokens = ShardStore(self._writer.root, KIND), self.source.tokens
        todo = []
        for shard in self.shards:
            wanted = [index for index in shard.indices if tokens[index] not in store]
            if wanted:
                todo.append(_OpenShard(shard, wanted))
        return todo

    def _draw(self, item: _OpenShard, batch: list[LoadedScene], pool: _Scoring, bar: tqdm[Any]) -> None:
        """Draw the proposals of a batch and hand them to the scorers."""
        item.num_drawn += len(batch)
        before = len(item.failures)
        item.failures.update({scene.token: scene.reason for scene in batch if scene.sample is None})
        jobs = self._propose(item, [scene for scene in batch if scene.sample is not None])
        bar.update(len(item.failures) - before)
        for job in cut(jobs, SCENES_PER_JOB):
            future = pool.submit(job)
            future.add_done_callback(partial(_advance, bar, len(job)))
            item.futures.append(future)

    def _propose(self, item: _OpenShard, scenes: list[LoadedScene]) -> list[ScenePlans]:
        """Proposals of some scenes, kept in ``item``; a bad scene becomes a failure of it."""
        if not scenes:
            return []
        try:
            with torch.inference_mode():
                data = pseudo_collate([scene.sample for scene in scenes])
                batch = self.planner.data_preprocessor(data, False)
                tokens = [scene.token for scene in scenes]
                drawn = self.strategy(self.planner, batch["inputs"], tokens, self.description.seed)
            plans = drawn.float().cpu().numpy()
            experts = stack_field(batch["data_samples"], "gt", "trajectory").float().cpu().numpy()
            for scene, scene_plans, expert in zip(scenes, plans, experts, strict=True):
                check_plans(scene_plans, f"proposals of scene {scene.token}")
                check_plans(expert[None], f"expert of scene {scene.token}")
        except StrategyError:
            raise
        except (KeyError, ValueError) as error:
            # One bad scene must not cost its batch: which one it is shows when each is drawn alone.
            if len(scenes) > 1:
                return [job for scene in scenes for job in self._propose(item, [scene])]
            item.failures[scenes[0].token] = describe_error(error, scenes[0].token)
            self._refuse_settings(scenes[0].token, item.failures[scenes[0].token])
            return []
        self._has_drawn = True
        jobs = []
        for scene, scene_plans, expert in zip(scenes, plans, experts, strict=True):
            item.records[scene.token] = {"plans": scene_plans.copy(), "expert": expert.copy()}
            jobs.append(ScenePlans(scene.token, scene.log_name, scene_plans))
        return jobs

    def _refuse_settings(self, token: str, reason: str) -> None:
        """Note why a scene cannot be drawn, and end the job if that is so for all of the first ones."""
        if self._has_drawn:
            return
        self._refused.append(reason.replace(token, "..."))
        if len(self._refused) >= max(2, self.options.batch_size) and len(set(self._refused)) == 1:
            raise MiningError(
                f"none of the first {len(self._refused)} scenes can be drawn, all for one reason: {reason}; "
                "mend the generator or the settings of its strategy, and mine again"
            )

    def _write(self, item: _OpenShard) -> dict[str, str]:
        """Wait for the scores of a shard, write it, and return the scenes that failed."""
        for future in item.futures:
            for scene in future.result():
                record = item.records[scene.token]
                found = _arrays_of(scene, len(record["plans"]))
                if isinstance(found, str):
                    item.failures[scene.token] = found
                    del item.records[scene.token]
                else:
                    record.update(found)
        tokens = [self.source.tokens[index] for index in item.shard.indices]
        done = {self.source.tokens[index] for index in set(item.shard.indices).difference(item.wanted)}
        records = item.records | (self._writer.read(item.shard.name, done) if done else {})
        self._writer.write(
            item.shard.name,
            {token: records[token] for token in tokens if token in records},
            {token: item.failures[token] for token in tokens if token in item.failures},
        )
        # The list of shards lives as long as the job; their arrays must not.
        item.records, item.futures = {}, []
        return item.failures


def _arrays_of(scene: SceneScores, num_plans: int) -> dict[str, NDArray[Any]] | str:
    """Scores and failure times of a scene as they are stored, or what is wrong with them."""
    if scene.reason or scene.values is None or scene.times is None:
        return scene.reason or "the scorer gave no scores and failure times"
    wanted = (num_plans, len(SCORE_COLUMNS))
    for name, array in (("scores", scene.values), ("failure times", scene.times)):
        if array.shape != wanted:
            return f"the scorer gave {name} of shape {array.shape}, wanted {wanted}"
    if not np.isfinite(scene.values).all():
        return "the scorer gave scores that are not finite"
    if np.isnan(scene.times).any():
        return "the scorer gave failure times that are NaN"
    return {"scores": scene.values.astype(np.float32), "times": scene.times.astype(np.float32)}


def _advance(bar: tqdm[Any], count: int, _: Future[list[SceneScores]]) -> None:
    bar.update(count)
