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
from beyonddrive.structures.transfers import to_device


class PlannerInputError(BeyondDriveError, ValueError):
    """An input of a planner is missing, has the wrong size, or holds values that are not finite."""


RAGGED = ("points",)
"""Inputs of a different length in every scene: they stay lists."""
CHECKED_TARGETS = ("gt.trajectory", "gt.agent_states", "gt.boxes")
"""Targets that are refused if they are not finite."""


@MODELS.register_module()
class PlannerDataPreprocessor(BaseDataPreprocessor):
    """Stacks inputs, moves them to the device, turns uint8 inputs, which are images, into floats in [0, 1].

    Each input and each field of the samples is checked on the CPU, stacked, and copied to the device at once;
    a GPU's copy goes through pinned memory, and the host does not wait for it. :data:`RAGGED` inputs are not
    stacked. No ImageNet mean and deviation are applied (MODELS, section 1).

    Args:
        keys: Inputs to pass on; the rest is dropped, so that a planner which reads the ego status only does
            not move images around. None passes all.

    Raises:
        PlannerInputError: If sizes differ within the batch, a value is NaN or infinite, or a float camera
            image is not in [0, 1]. The message names the scene and the input.

    >>> preprocessor = PlannerDataPreprocessor()
    >>> camera = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    >>> batch = preprocessor(dict(inputs=dict(camera=[camera]), data_samples=[PlanSample()]))
    >>> batch['inputs']['camera'].shape, float(batch['inputs']['camera'].max())
    (torch.Size([1, 3, 2, 2]), 1.0)
    """

    def __init__(self, keys: Sequence[str] | None = None) -> None:
        super().__init__(non_blocking=True)
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
        return {"inputs": inputs, "data_samples": None if samples is None else self._move(samples)}

    def _move(self, samples: Sequence[PlanSample]) -> list[PlanSample]:
        """Copies of the samples on the device: what all of them have is stacked and copied at once."""
        moved = [sample.new() for sample in samples]
        for name in ("gt", "negatives"):
            parts = [sample.get(f"_{name}") for sample in samples]
            fields: dict[str, Sequence[Any]] = {}
            for key in dict.fromkeys(key for part in parts if part is not None for key, _ in part.items()):
                values = [None if part is None else part.get(key) for part in parts]
                fields[key] = self._rows(f"{name}.{key}", values, samples)
            for row, (sample, part) in enumerate(zip(moved, parts, strict=True)):
                if part is not None:
                    own = {key: values[row] for key, values in fields.items() if key in part}
                    setattr(sample, name, type(part)(metainfo=part.metainfo, **own))
        for sample in moved:
            for key in set(sample.keys()) - {"_gt", "_negatives"}:
                sample.set_field(self.cast_data(sample.get(key)), key, dtype=None)
        return moved

    def _rows(self, name: str, values: Sequence[Any], samples: Sequence[PlanSample]) -> Sequence[Any]:
        """Values of a field on the device, one per sample."""
        first = values[0]
        if not isinstance(first, Tensor) or not all(
            isinstance(value, Tensor) and value.shape == first.shape and value.dtype == first.dtype
            for value in values
        ):
            for value, sample in zip(values, samples, strict=True):
                if name in CHECKED_TARGETS and isinstance(value, Tensor):
                    _check_target(name, value[None], [sample])
            return [value.to(self.device) if isinstance(value, Tensor) else value for value in values]
        stacked = torch.stack(list(values))
        if name in CHECKED_TARGETS:
            _check_target(name, stacked, samples)
        return to_device(stacked, self.device).unbind()

    def _prepare(
        self, key: str, value: Tensor | Sequence[Tensor], samples: list[PlanSample] | None
    ) -> Tensor | list[Tensor]:
        if key in RAGGED:
            _check_finite(value, key, samples)
            return [to_device(tensor, self.device, torch.float32) for tensor in value]
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
        value = to_device(value, self.device)
        return value.float() / 255 if is_image else value


def _check_finite(value: Tensor | Sequence[Tensor], name: str, samples: Sequence[PlanSample] | None) -> None:
    if isinstance(value, Tensor) and bool(torch.isfinite(value).all()):
        return
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in value])
    if bool(finite.all()):
        return
    row = int((~finite).nonzero()[0])
    token = samples[row].metainfo.get("token", "?") if samples else f"number {row} of the batch"
    raise PlannerInputError(
        f"scene {token}: input {name!r} holds NaN or infinity: remove the scene from the split or rebuild "
        f"its features"
    )


def _check_target(name: str, rows: Tensor, samples: Sequence[PlanSample]) -> None:
    if bool(torch.isfinite(rows).all()):
        return
    row = int((~torch.isfinite(rows).flatten(1).all(dim=1)).nonzero()[0])
    raise PlannerInputError(
        f"scene {samples[row].metainfo.get('token', '?')}: target {name} holds NaN or infinity: remove the "
        f"scene from the split or rebuild its features"
    )
