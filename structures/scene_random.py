"""Random numbers of training that belong to a scene and a step, not to a place in a batch or to a rank."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from beyonddrive.structures.host_work import running_tape
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.transfers import to_device

SEED_KEY = "step_seed"
"""Entry of a sample's ``metainfo``: the seed of its random numbers in this training step."""


def step_seed(seed: int, step: int, token: str) -> int:
    """Seed of a scene's random numbers in a training step of a run with ``seed``.

    >>> step_seed(0, 1, 'a') == step_seed(0, 1, 'b'), step_seed(0, 1, 'a') == step_seed(0, 2, 'a')
    (False, False)
    """
    return zlib.crc32(f"{seed}/{step}/{token}".encode())


class SceneRandom:
    """Source of the random numbers of a training batch, one row per scene.

    With a :data:`SEED_KEY` in every sample, which the runner sets in training, a row depends on that seed
    alone: a scene gets the same numbers however the batch is split over ranks. With none, all rows come from
    torch's global generator of the device. Numbers are drawn in the order of the calls.

    Args:
        samples: Samples of the batch.
        batch: How many scenes there are; ``samples`` may be empty.
        device: Where the numbers go.

    Raises:
        ValueError: If some samples have a seed and others not.

    >>> samples = [PlanSample(metainfo={SEED_KEY: seed}) for seed in (3, 4)]
    >>> numbers = SceneRandom(samples, 2, torch.device('cpu')).normal(8, 4)
    >>> alone = SceneRandom(samples[1:], 1, torch.device('cpu')).normal(8, 4)
    >>> numbers.shape, torch.equal(numbers[1:], alone)
    (torch.Size([2, 8, 4]), True)
    """

    def __init__(self, samples: Sequence[PlanSample], batch: int, device: torch.device) -> None:
        self.batch, self.device = batch, device
        self._tape = running_tape()
        self._source = 0 if self._tape is None else self._tape.next_source()
        seeds = [sample.metainfo.get(SEED_KEY) for sample in samples]
        self._scenes: list[torch.Generator] | None = None
        given = [seed for seed in seeds if seed is not None]
        if given:
            if len(given) != batch:
                raise ValueError(
                    f"SceneRandom: {len(given)} of {batch} samples have {SEED_KEY!r} in their metainfo; give "
                    f"it to all samples of a batch, or to none"
                )
            self._scenes = [torch.Generator().manual_seed(seed) for seed in given]

    def normal(self, *shape: int) -> Tensor:
        """Standard-normal numbers (B, *shape)."""
        if self._tape is not None:
            return self._tape.draw(self._source, "normal", *shape)
        if self._scenes is None:
            return torch.randn((self.batch, *shape), device=self.device)
        return self._gather([torch.randn(shape, generator=scene) for scene in self._scenes])

    def uniform(self, *shape: int) -> Tensor:
        """Numbers (B, *shape) in [0, 1)."""
        if self._tape is not None:
            return self._tape.draw(self._source, "uniform", *shape)
        if self._scenes is None:
            return torch.rand((self.batch, *shape), device=self.device)
        return self._gather([torch.rand(shape, generator=scene) for scene in self._scenes])

    def integers(self, end: int) -> Tensor:
        """Integers (B,) from 0 to ``end - 1``."""
        if self._tape is not None:
            return self._tape.draw(self._source, "integers", end)
        if self._scenes is None:
            return torch.randint(0, end, (self.batch,), device=self.device)
        return self._gather([torch.randint(0, end, (), generator=scene) for scene in self._scenes])

    def _gather(self, rows: list[Tensor]) -> Tensor:
        return to_device(torch.stack(rows), self.device)
