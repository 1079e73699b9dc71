"""One round of online mining: the failures of a planner in training, into a pool of its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from beyonddrive.datasets.stores.manifests import MANIFEST, StoreError, read_manifest
from beyonddrive.datasets.stores.negative_pool import (
    KIND,
    NegativePool,
    PoolDescription,
    hash_tokens,
    open_writer,
)
from beyonddrive.datasets.stores.selection import DEFAULT_THRESHOLD, is_negative
from beyonddrive.evaluation.scene_scoring import SceneScorer
from beyonddrive.evaluation.service import ScoringService, ServiceSettings
from beyonddrive.generators.mining import SCENES_PER_JOB, Miner, MiningOptions, MiningSummary
from beyonddrive.generators.mining_source import LoadedScene, MiningError, MiningSource
from beyonddrive.generators.strategies import build_strategy, scene_seed

MAX_PROPOSALS = 1024
"""Most proposals of a scene in a round, where other processes score."""


@dataclass(frozen=True)
class OnlineMining:
    """How rounds are mined.

    Attributes:
        strategy: Config of a strategy; :class:`beyonddrive.generators.own_plans.OwnPlans` by default.
        share: Share of the scenes that each round visits; which ones depends on seed, round and token only.
        metric_cache_dir: Store of metric caches of the split, made by ``beyonddrive cache-metrics``; without
            it they are built from logs and maps in every round.
        num_workers: Processes that score, per rank and data set (of a ``ConcatDataset``); they live as long
            as the training, and 0 scores in it.
        cache_bytes: Memory in which they keep metric caches from round to round, per rank: several data sets
            share it.
        loader_workers: Processes that read scenes, per rank.
        batch_size: Scenes per call of the planner.
        shard_size: Scenes per shard; ranks share a round by shards.
        progress: As for :class:`PoolDescription`.
        on_ray: They are Ray actors instead of processes of this machine, one CPU of the cluster each, where
            the paths of store, logs and maps are the same; needs the extra ``ray``.
        ray_address: Address of the cluster; None takes the one this process is in, or starts one here.
    """

    strategy: Mapping[str, Any] = field(default_factory=lambda: {"type": "OwnPlans"})
    share: float = 1.0
    metric_cache_dir: str | Path | None = None
    num_workers: int = 4
    cache_bytes: int = 2**30
    loader_workers: int = 0
    batch_size: int = 16
    shard_size: int = 64
    progress: Literal["pair", "pooled"] = "pair"
    on_ray: bool = False
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise MiningError(f"share: must be in (0, 1], got {self.share}")
        num_proposals = build_strategy(self.strategy).num_proposals
        if self.num_workers and num_proposals > MAX_PROPOSALS:
            raise MiningError(
                f"strategy: {num_proposals} proposals of a scene, and processes that score take "
                f"{MAX_PROPOSALS}: lower num_proposals, or set num_workers=0"
            )
        self.options((0, 1), False)
        if self.num_workers:
            self.service()
        elif self.on_ray:
            raise MiningError("on_ray: with num_workers=0 the training itself scores; set num_workers")

    def options(self, part: tuple[int, int], progress_bar: bool) -> MiningOptions:
        """How one rank's job runs."""
        return MiningOptions(self.batch_size, self.num_workers, self.loader_workers, part, progress_bar)

    def service(self, datasets: int = 1) -> ServiceSettings:
        """How the scorers of all rounds of a data set run, which is one of so many that are mined."""
        pending = max(4 * SCENES_PER_JOB * self.num_workers, 64)
        return ServiceSettings(
            self.num_workers,
            pending,
            MAX_PROPOSALS,
            self.cache_bytes // datasets,
            on_ray=self.on_ray,
            ray_address=self.ray_address,
        )


class SomeScenes:
    """Scenes of a source by their indices."""

    def __init__(self, source: MiningSource, indices: Sequence[int]) -> None:
        self.source, self.indices = source, list(indices)
        self.tokens = [source.tokens[index] for index in self.indices]
        self.lost: dict[str, str] = {}  # a round visits a part of the scenes anyhow

    def __getitem__(self, index: int) -> LoadedScene:
        """Read a scene."""
        return self.source[self.indices[index]]


def scenes_of_round(tokens: Sequence[str], share: float, seed: int, number: int) -> list[int]:
    """Indices of the scenes that a round visits; at least one.

    >>> tokens = [str(number) for number in range(1000)]
    >>> 150 < len(scenes_of_round(tokens, 0.2, seed=0, number=1)) < 250
    True
    >>> scenes_of_round(tokens, 0.2, 0, 1) == scenes_of_round(tokens, 0.2, 0, 2)
    False
    """
    if share == 1.0:
        return list(range(len(tokens)))
    # (a checksum would not do: between two rounds it changes by the same bits for all tokens, so that they
    # visit either the same scenes or quite different ones)
    draws = [scene_seed(seed, token, (number,)) / 2**63 for token in tokens]
    chosen = [index for index, draw in enumerate(draws) if draw < share]
    return chosen or [int(np.argmin(draws))]


def hash_weights(planner: nn.Module) -> str:
    """Hash of a planner's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(planner.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def describe_round(
    mining: OnlineMining, source: MiningSource, split: str, planner: str, weights: str, seed: int
) -> PoolDescription:
    """What a round is; ``planner`` is its name and ``weights`` their hash."""
    return PoolDescription(
        split=split,
        generator={"name": planner, "config_hash": "", "checkpoint_hash": weights},
        strategy=build_strategy(mining.strategy).config,
        seed=seed,
        progress=mining.progress,
        num_scenes=len(source.tokens),
        tokens_hash=hash_tokens(source.tokens),
        shard_size=mining.shard_size,
    )


def prepare_round(root: Path, description: PoolDescription) -> bool:
    """Start or continue a round; one left by other weights is removed.

    Returns:
        Whether one was removed.

    Raises:
        StoreError: If the folder holds something else than a negative pool; it is left alone.
    """
    try:
        open_writer(root, description, "online")
    except StoreError:
        if not (root / MANIFEST).exists() or read_manifest(root, KIND)["kind"] != KIND.name:
            raise
        shutil.rmtree(root)
        open_writer(root, description, "online")
        return True
    return False


def mine_round(
    mining: OnlineMining,
    planner: Any,
    source: MiningSource,
    scorer: SceneScorer,
    root: Path,
    description: PoolDescription,
    part: tuple[int, int] = (0, 1),
    progress_bar: bool = False,
    service: ScoringService | None = None,
) -> MiningSummary:
    """Mine the part of a round that is this rank's; leaves random numbers and mode as they were.

    Args:
        mining: How.
        planner: The planner, on its device.
        source: The scenes of the round.
        scorer: What scores them.
        root: Folder of the round.
        description: What the round is.
        part: ``(rank, ranks)``.
        progress_bar: Whether to show progress.
        service: Workers that score with ``scorer``; None starts them for this round.
    """
    strategy = build_strategy(mining.strategy)
    options = mining.options(part, progress_bar)
    miner = Miner(planner, source, scorer, strategy, root, description, "online", options, service=service)
    was_training = planner.training
    planner.eval()
    try:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            return miner.run()
    finally:
        planner.train(was_training)


class RoundFigures(NamedTuple):
    """What a round found; shares of 1."""

    num_scenes: int
    num_failed: int
    failing_first: float
    failing_scenes: float


def measure_round(pool: NegativePool) -> RoundFigures:
    """Scenes of a round, and shares of them whose first, and whose any, proposal has PDMS below 0.6."""
    first, some = 0, 0
    for token in pool:
        negative = is_negative(pool[token].scores, threshold=DEFAULT_THRESHOLD)
        first += bool(negative[0])
        some += bool(negative.any())
    count = max(len(pool), 1)
    return RoundFigures(len(pool), len(pool.failures), first / count, some / count)
