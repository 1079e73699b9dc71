"""A hook that mines the failures of the planner in training, every few epochs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, broadcast, broadcast_object_list, get_dist_info
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.datasets.stores.online_pools import round_name, write_index
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.engine.hooks.closing import ClosingHook
from beyonddrive.engine.wrapped_datasets import unwrapped
from beyonddrive.evaluation.scene_scoring import SceneScorer, ScoreSettings
from beyonddrive.evaluation.service import ScoringService
from beyonddrive.evaluation.service.on_ray import Cluster
from beyonddrive.generators.mining_source import OF_TRAINING, DatasetSource, MiningError
from beyonddrive.generators.online import (
    OnlineMining,
    SomeScenes,
    describe_round,
    hash_weights,
    measure_round,
    mine_round,
    prepare_round,
    scenes_of_round,
)
from beyonddrive.generators.strategies import build_strategy, check_generator, idle_guidance
from beyonddrive.registry import HOOKS

_ROUNDS = "online_rounds"
"""Key of checkpoints: the rounds of a training, by folder, and the hashes of the weights that they are of."""


@HOOKS.register_module()
class OnlineNegativesHook(ClosingHook):
    """Runs the planner over its training scenes, scores what it plans, and keeps the failures as negatives.

    Rounds are mined after ``begin``, ``begin + interval``, ... epochs; the ``LoadNegatives`` with
    ``online=True`` in the training pipeline reads the newest ``keep`` of them from the next sample on, in
    every worker process. Ranks of a distributed training share a round. A round is a pool in
    ``<work_dir>/online_negatives/epoch_<n>`` (of further data sets of a ``ConcatDataset`` in
    ``dataset_<k>`` there): a killed round goes on where it stopped, a resumed training uses the rounds up to
    its epoch that its checkpoint knows, and a round left there by other weights is mined anew. Neither the
    random numbers of the training nor the planner's running statistics are touched. Processes that score are
    started with the first round and keep what they read for the next ones. With ``on_ray`` the training is in
    the cluster from its start to its end.

    Args:
        interval: Epochs between rounds.
        begin: Epochs until the first round; ``interval`` by default. Before it there are only the negatives
            of ``LoadNegatives.pool``, if any.
        keep: Rounds that count at a time: 1 replaces each round by the next, more add up.
        folder: Folder of the rounds; ``<work_dir>/online_negatives`` by default.
        kwargs: How a round is mined, as for :class:`beyonddrive.generators.online.OnlineMining`.

    Raises:
        ValueError: If a number is out of range.
        MiningError: When the training starts: nothing in its pipeline reads what would be mined, or no round
            would ever be due. In a round: no scene could be mined.
        StrategyError: When the training starts: the strategy samples, and the planner cannot.
        ImportError: When the training starts: ``on_ray`` is set, and Ray is not installed.
        ConnectionError: Likewise: there is no cluster at ``ray_address``.
    """

    priority = "HIGHEST"  # before EpochSeedHook: whatever a round draws, the epoch starts from its own seed

    def __init__(
        self,
        interval: int = 4,
        begin: int | None = None,
        keep: int = 1,
        folder: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        begin = interval if begin is None else begin
        if interval < 1 or begin < 0 or keep < 1:
            raise ValueError(
                f"OnlineNegativesHook: interval and keep must be at least 1 and begin not negative, got "
                f"{interval}, {keep} and {begin}"
            )
        self.interval, self.begin, self.keep = interval, begin, keep
        self.folder = None if folder is None else Path(folder)
        self.mining = OnlineMining(**kwargs)
        self._is_current = self._rests = False
        self._mined: list[tuple[Any, Path]] = []
        self._services: dict[Path, ScoringService] = {}
        self._cluster: Cluster | None = None

    def rest(self) -> None:
        """Mine nothing, enter no cluster and leave the folder of the rounds alone: for a dry run."""
        self.begin, self.folder, self._rests = sys.maxsize, None, True
        self.mining = replace(self.mining, on_ray=False)

    def before_train(self, runner: Runner) -> None:
        """Tell the training pipeline where the rounds are, and enter the cluster that scores them."""
        root = self.folder or Path(runner.work_dir) / "online_negatives"
        self._mined = []
        self.close()
        for dataset in unwrapped(runner.train_dataloader.dataset):
            steps = getattr(dataset, "transforms", [])
            if readers := [step for step in steps if isinstance(step, LoadNegatives) and step.online]:
                number = len(self._mined)
                self._mined.append((dataset, root / f"dataset_{number}" if number else root))
            for reader in readers:
                reader.read_rounds(self._mined[-1][1])
        if not self._mined:
            raise MiningError(
                "OnlineNegativesHook: nothing reads what it would mine; give the pipeline of "
                "train_dataloader.dataset a LoadNegatives with online=True, or drop the hook"
            )
        self._check_due(runner)
        strategy = build_strategy(self.mining.strategy)
        check_generator(_planner(runner), strategy)
        if (idle := idle_guidance(_planner(runner), strategy)) is not None:
            runner.logger.warning(f"OnlineNegativesHook: {idle}")
        if self.mining.on_ray:  # (now: the first round may be due hours later)
            cpus = self.mining.num_workers * len(self._mined)
            self._cluster = Cluster(self.mining.ray_address, cpus, "OnlineNegativesHook with on_ray")
        self._is_current = False

    def _check_due(self, runner: Runner) -> None:
        """Refuse a training without a round: it would train on no negatives of its own, and not say so."""
        if self._rests:
            return
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            raise MiningError(
                f"train_cfg: {type(loop).__name__} counts steps, and OnlineNegativesHook mines between "
                "epochs, so never; set train_cfg.by_epoch=True, or drop the hook"
            )
        if self.begin >= loop.max_epochs:
            raise MiningError(
                f"OnlineNegativesHook: begin={self.begin} with train_cfg.max_epochs={loop.max_epochs}: the "
                f"first round would be due when the training is over; set begin below {loop.max_epochs} "
                "(without it, it is interval), or drop the hook"
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Mine if a round is due, and say which rounds count."""
        due = self._last_due(runner.epoch)
        for dataset, root in self._mined:
            if due is not None and (due == runner.epoch or not self._is_current):
                self._mine_if_absent(runner, dataset, root / round_name(due), due)
            if not self._is_current or due == runner.epoch:
                self._publish(runner, root, due)
        self._is_current = True

    def _mine_if_absent(self, runner: Runner, dataset: Any, root: Path, due: int) -> None:
        if due == runner.epoch or not _agree(self._is_complete(runner, root)):
            if due != runner.epoch:
                runner.logger.warning(
                    f"{root}: the negatives mined after epoch {due} are gone, or another training's; mining "
                    f"with the weights after epoch {runner.epoch} instead"
                )
            self._mine(runner, dataset, root, due)

    def _last_due(self, epoch: int) -> int | None:
        """Epochs until the last round that is due when ``epoch`` epochs are done; None if none is."""
        return None if epoch < self.begin else epoch - (epoch - self.begin) % self.interval

    def _mine(self, runner: Runner, dataset: Any, root: Path, number: int) -> None:
        rank, ranks = get_dist_info()
        planner = _planner(runner)
        seed, mining = runner.seed, self.mining
        source = DatasetSource(dataset.without(*OF_TRAINING))
        scenes = SomeScenes(source, scenes_of_round(source.tokens, mining.share, seed, number))
        weights = _agree(hash_weights(planner) if rank == 0 else "")
        description = describe_round(
            mining, scenes, dataset.split, str(runner.model_name), weights, seed + number
        )
        runner.message_hub.update_info(_ROUNDS, {**_known(runner), self._name(root): weights})
        if rank == 0 and prepare_round(root, description):
            runner.logger.info(f"{root}: was mined with other weights or settings; mining it anew")
        barrier()
        scorer = SceneScorer(
            split=dataset.split,
            cache_dir=None if mining.metric_cache_dir is None else Path(mining.metric_cache_dir),
            data_root=dataset.data_root,
            maps_root=dataset.maps_root,
            settings=ScoreSettings(mining.progress, with_times=True),
        )
        service = self._service(scorer, root.parent)
        with _buffers_of_first_rank(planner):
            mine_round(mining, planner, scenes, scorer, root, description, (rank, ranks), service=service)
        barrier()
        if rank == 0:
            self._report(runner, NegativePool(root), number)

    def _service(self, scorer: SceneScorer, root: Path) -> ScoringService | None:
        """Workers for the rounds of a data set; None if the training itself scores."""
        scorer.open()
        if self.mining.num_workers and root not in self._services:
            settings = self.mining.service(len(self._mined))
            self._services[root] = ScoringService(scorer, settings).start()
        return self._services.get(root)

    def close(self) -> None:
        """End the scorers, and leave their cluster."""
        for service in self._services.values():
            service.close()
        self._services = {}
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def _report(self, runner: Runner, pool: NegativePool, number: int) -> None:
        if not len(pool):
            token, reason = next(iter(pool.failures.items()))
            raise MiningError(
                f"{pool.root}: none of {len(pool.failures)} scenes could be mined; the first is {token}: "
                f"{reason}"
            )
        figures = measure_round(pool)
        failed = f", {figures.num_failed} scenes could not be mined" if figures.num_failed else ""
        runner.logger.info(
            f"online negatives after epoch {number}: {figures.num_scenes} scenes, the planner fails in "
            f"{100 * figures.failing_first:.1f} %, it or a plan near it in "
            f"{100 * figures.failing_scenes:.1f} %{failed}"
        )

    def _name(self, root: Path) -> str:
        """Of a round, wherever the folder of the rounds lies."""
        return root.relative_to(self._mined[0][1]).as_posix()

    def _is_complete(self, runner: Runner, root: Path) -> bool:
        """Whether a round of this training is on disk from its first scene to its last.

        With a checkpoint that does not know its rounds, as those of earlier versions, what is there is taken.
        """
        try:
            pool = NegativePool(root)
        except StoreError:
            return False
        weights = pool.description.generator["checkpoint_hash"]
        return _known(runner).get(self._name(root), weights) == weights

    def _publish(self, runner: Runner, root: Path, due: int | None) -> None:
        """Write the index of the rounds that count at this epoch."""
        if get_dist_info()[0] == 0:
            epochs = [] if due is None else range(due, self.begin - 1, -self.interval)
            rounds = [root / round_name(epoch) for epoch in epochs]
            complete = [path.name for path in rounds if self._is_complete(runner, path)]
            gone = [path.name for path in rounds[: self.keep] if path.name not in complete]
            if gone and not self._is_current:  # (what is gone later was told when the training started)
                runner.logger.warning(
                    f"{root}: of the {self.keep} rounds that count, {', '.join(gone)} are not there, or "
                    f"another training's, and cannot be mined again; going on with "
                    f"{', '.join(complete[: self.keep])}"
                )
            write_index(root, complete[: self.keep])
        barrier()


@contextmanager
def _buffers_of_first_rank(planner: nn.Module) -> Iterator[None]:
    """Plan with the running statistics of the first rank, whose weights are saved, on every rank."""
    own = [buffer.clone() for buffer in planner.buffers()]
    for buffer in planner.buffers():
        broadcast(buffer, 0)
    yield
    for buffer, value in zip(planner.buffers(), own, strict=True):
        buffer.copy_(value)


def _planner(runner: Runner) -> Any:
    """The planner itself, without what wraps it in distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _known(runner: Runner) -> dict[str, str]:
    """Rounds that this training has mined, as far as its checkpoints have told."""
    return dict(runner.message_hub.runtime_info.get(_ROUNDS, {}))


def _agree(value: Any) -> Any:
    """The value of the first rank, for all ranks."""
    values = [value]
    broadcast_object_list(values, 0)
    return values[0]
