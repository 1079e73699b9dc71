"""Doubles for mining tests: a generator and scenes that need no data, and a job made of them."""

from __future__ import annotations

import hashlib
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from scoring_doubles import FakeScorer

from beyonddrive.datasets.stores.negative_pool import PoolDescription, hash_tokens
from beyonddrive.generators.mining import Miner, MiningOptions, MiningSummary
from beyonddrive.generators.mining_source import LoadedScene
from beyonddrive.generators.strategies import SamplingStrategy
from beyonddrive.structures.sample import PlanSample

SEED = 3


def expert_plan(token: str) -> np.ndarray:
    """Straight ahead at a speed that depends on the token."""
    speed = 2.0 + hashlib.sha256(token.encode()).digest()[0] / 32.0
    plan = np.zeros((8, 3), np.float32)
    plan[:, 0] = speed * 0.5 * np.arange(1, 9)
    return plan


@dataclass
class FakeSource:
    """Scenes by token; ``broken`` ones cannot be read, ``endless`` ones have no finite input, ``unlabelled``
    ones no expert, and a process that reads a ``deadly`` one is killed."""

    tokens: list[str]
    broken: tuple[str, ...] = ()
    endless: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    deadly: tuple[str, ...] = ()
    lost: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, index: int) -> LoadedScene:
        token = self.tokens[index]
        log_name = f"log-{index // 5}"
        if token in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if token in self.broken:
            return LoadedScene(token, "", None, f"FileNotFoundError: no image of {token}")
        sample = PlanSample(metainfo={"token": token, "log_name": log_name})
        expert = torch.from_numpy(expert_plan(token))
        if token not in self.unlabelled:
            sample.gt = BaseDataElement(trajectory=expert)
        x = expert[:, 0] / (0.0 if token in self.endless else 1.0)
        return LoadedScene(token, log_name, {"inputs": {"status": x}, "data_samples": sample})


class FakeGenerator:
    """The expert plus sideways noise; records how it was asked."""

    def __init__(self, diverges: tuple[float, ...] = ()) -> None:
        self.batches: list[int] = []
        self.diverges = diverges

    def data_preprocessor(self, data: dict, training: bool = False) -> dict:
        assert not training
        inputs = {key: torch.stack(list(values)) for key, values in data["inputs"].items()}
        if not torch.isfinite(inputs["status"]).all():
            raise ValueError("input 'status' holds infinity")
        return {"inputs": inputs, "data_samples": data["data_samples"]}

    def propose(self, inputs, num_proposals, strategy, generator):
        x = inputs["status"]  # (B, 8)
        self.batches.append(len(x))
        plans = torch.zeros(len(x), num_proposals, 8, 3)
        plans[..., 0] = x[:, None]
        side = torch.stack([torch.randn(num_proposals, generator=scene) for scene in generator])
        plans[..., 1] = 10.0 * strategy.noise * side[..., None] * torch.linspace(0.125, 1.0, 8)
        if self.diverges:
            plans[torch.isin(x[:, 0], torch.tensor(self.diverges))] = float("nan")
        return plans


def scene_tokens(count: int) -> list[str]:
    return [f"{number:016x}" for number in range(count)]


def run(
    out: Path,
    scenes: int = 22,
    shard_size: int = 4,
    strategy: SamplingStrategy | None = None,
    generator: FakeGenerator | None = None,
    source: FakeSource | None = None,
    scorer: FakeScorer | None = None,
    seed: int = SEED,
    **options,
) -> MiningSummary:
    tokens = scene_tokens(scenes)
    description = PoolDescription(
        split="train",
        generator={"name": "fake", "config_hash": "c0ffee", "checkpoint_hash": "beef"},
        strategy={"type": "SamplingStrategy"},
        seed=seed,
        progress="pair",
        num_scenes=scenes,
        tokens_hash=hash_tokens(tokens),
        shard_size=shard_size,
    )
    return Miner(
        generator or FakeGenerator(),
        source or FakeSource(tokens),
        scorer or FakeScorer(),
        strategy or SamplingStrategy(num_proposals=16),
        out,
        description,
        options=MiningOptions(**{"progress_bar": False, "batch_size": 3, **options}),
    ).run()
