"""From collated samples to the tensors a planner takes, on its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from beyonddrive.registry import MODELS
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.sample import PlanSample


class PlannerInputError(BeyondDriveError, ValueError):
    """An input of a planner is missing, has the wrong size, or holds values that are not finite."""


RAGGED = ("points",)
"""Inputs of a different length in every scene: they stay lists."""


@MODELS.register_module()
class PlannerDataPreprocessor(BaseDataPreprocessor):
    """Stacks inputs, moves them to the device, turns uint8 camera images into floats in [0, 1].

    :data:`RAGGED` inputs are not stacked. No ImageNet mean and deviation are applied (MODELS, section 1).

    Args:
        keys: Inputs to pass on; the rest is dropped, so that a planner which reads the ego status only does
            not move images around. None passes all.
        non_blocking: Copy to the device without waiting.

    Raises:
        PlannerInputError: If sizes differ within the batch, a value is NaN or infinite, or a float camera
            image is not in [0, 1]. The message names the scene and the input.

    >>> preprocessor = PlannerDataPreprocessor()
    >>> camera = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    >>> batch = preprocessor(dict(inputs=dict(camera=[camera]), data_samples=[PlanSample()]))
    >>> batch['inputs']['camera'].shape, float(batch['inputs']['camera'].max())
    (torch.Size([1, 3, 2, 2]), 1.0)
    """

    def __init__(self, keys: Sequence[str] | None = None, non_blocking: bool = False) -> None:
        super().__init__(non_blocking=non_blocking)
        self.keys = None if keys is None else tuple(keys)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepare a batch.

        Args:
            data: ``inputs``: name -> list of tensors, or a stacked tensor; ``data_samples``: list of
                :class:`PlanSample`, or absent.
            training: Not used.

        Returns:
            ``inputs``: name -> float32 (B, ...), or a list of B tensors; ``data_samples`` on the device, or
            None.
        """
        samples: list[PlanSample] | None = data.get("data_samples")
        if not isinstance(data.get("inputs"), Mapping):
            raise PlannerInputError(
                "the batch has no dict 'inputs': end the data pipeline with PackPlanInputs and collate with "
                "pseudo_collate"
            )
        inputs = {
            key: self._prepare(key, value, samples)
            for key, value in data["inputs"].items()
            if self.keys is None or key in self.keys
        }
        if samples is not None:
            for sample in samples:
                _check_targets(sample)
        return {"inputs": inputs, "data_samples": self.cast_data(samples)}

    def _prepare(
        self, key: str, value: Tensor | Sequence[Tensor], samples: list[PlanSample] | None
    ) -> Tensor | list[Tensor]:
        if key in RAGGED:
            _check_finite(value, key, samples)
            return [tensor.to(self.device, torch.float32, self._non_blocking) for tensor in value]
        if not isinstance(value, Tensor):
            shapes = {tuple(tensor.shape) for tensor in value}
            if len(shapes) != 1:
                raise PlannerInputError(
                    f"input {key!r}: the scenes of a batch have different sizes {sorted(shapes)}: rebuild "
                    f"the features of this split with one feature pipeline"
                )
            value = torch.stack(list(value))
        is_image = value.dtype == torch.uint8
        if not is_image:
            value = value.float()
            _check_finite(value, key, samples)
            if key == "camera" and value.numel() and not (value.min() >= 0 and value.max() <= 1):
                raise PlannerInputError(
                    f"input 'camera' holds floats in [{float(value.min()):g}, {float(value.max()):g}]: give "
                    f"uint8 images, or floats in [0, 1]"
                )
        value = value.to(self.device, non_blocking=self._non_blocking)
        return value.float() / 255 if is_image else value


def _check_finite(value: Tensor | Sequence[Tensor], name: str, samples: Sequence[PlanSample] | None) -> None:
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in value])
    if bool(finite.all()):
        return
    row = int((~finite).nonzero()[0])
    token = samples[row].metainfo.get("token", "?") if samples else f"number {row} of the batch"
    raise PlannerInputError(
        f"scene {token}: input {name!r} holds NaN or infinity: remove the scene from the split or rebuild "
        f"its features"
    )


def _check_targets(sample: PlanSample) -> None:
    gt = sample.get("_gt")
    for name in ("trajectory", "agent_states", "boxes"):
        value = None if gt is None else gt.get(name)
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            raise PlannerInputError(
                f"scene {sample.metainfo.get('token', '?')}: target gt.{name} holds NaN or infinity: remove "
                f"the scene from the split or rebuild its features"
            )
