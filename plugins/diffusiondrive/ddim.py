"""The DDIM scheduler of ``diffusers``, set as DiffusionDrive uses it (MODELS, section 6)."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

NUM_TRAIN_TIMES = 1000
"""Steps of the full diffusion, of which only the last few are learned and run."""


class DDIM:
    """Adds noise and takes it away by single steps; the network predicts clean samples, clipped to [-1, 1].

    >>> ddim = DDIM()
    >>> noisy = ddim.add_noise(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([8]))
    >>> ddim.step(torch.ones(1, 2), 0, noisy)
    tensor([[1., 1.]])
    """

    @cached_property
    def scheduler(self) -> DDIMScheduler:
        """The scheduler; imported at first use, because that takes a second."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        with torch.device("cpu"):
            scheduler = DDIMScheduler(
                num_train_timesteps=NUM_TRAIN_TIMES,
                beta_start=1e-4,
                beta_end=0.02,
                beta_schedule="scaled_linear",
                prediction_type="sample",
            )
            scheduler.set_timesteps(NUM_TRAIN_TIMES)
        return scheduler

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Clean samples (B, ...) with noise of the times (B,) or (1,)."""
        return self.scheduler.add_noise(clean, noise, cast("torch.IntTensor", time))

    def step(self, clean: Tensor, time: int, noisy: Tensor) -> Tensor:
        """From ``time`` to ``time - 1``.

        Args:
            clean: (B, ...) predicted clean samples, normalised; they are clipped to [-1, 1].
            time: Of ``noisy``, for the whole batch.
            noisy: (B, ...) samples with noise, normalised likewise.

        Returns:
            (B, ...) samples with the noise of ``time - 1``.
        """
        previous: Tensor = self.scheduler.step(clean, time, noisy, return_dict=False)[0]
        return previous
