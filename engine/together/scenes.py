"""A split as one tensor per field: what fits into a file without images, logs or maps, and into a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from beyonddrive.engine.geometry import MadeLength, check_geometry, made_lengths
from beyonddrive.engine.wrapped_datasets import check_nothing_lost, drawing_transforms
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.sample import PlanSample

_CHECKED_TARGETS = ("gt.trajectory", "gt.agent_states", "gt.boxes")
_PARTS = ("inputs", "gt", "negatives")


class TogetherError(BeyondDriveError, ValueError):
    """A recipe, a file or a split that trainings side by side cannot take; names what and the remedy."""


@dataclass(frozen=True)
class SceneTensors:
    """All samples of a split, packed as a planner's data set gives them.

    Attributes:
        tokens: Of the N scenes.
        fields: ``inputs.*``, ``gt.*`` and ``negatives.*`` of :class:`PlanSample`, each (N, ...).
        lengths: Those of what the transforms made, which a planner is compared with; none if nobody told.
    """

    tokens: tuple[str, ...]
    fields: dict[str, Tensor]
    lengths: tuple[MadeLength, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def read(cls, dataset: Any, only: Sequence[str] = _PARTS) -> SceneTensors:
        """Read a data set whole.

        Args:
            dataset: Gives packed samples.
            only: Which of ``inputs``, ``gt`` and ``negatives`` to keep.

        Raises:
            TogetherError: If samples differ in the fields that they have, or in their shapes, or are drawn
                anew in every epoch.
            ConfigError: If transforms do not agree in lengths.
            LostScenesError: If scenes of the split are lost, unless the data set allows that.
        """
        check_nothing_lost(dataset)
        check_geometry(nn.Module(), dataset)
        if drawing := drawing_transforms(dataset):
            raise TogetherError(
                f"{type(drawing[0]).__name__}: draws anew in every epoch; train it by beyonddrive train"
            )
        tokens, rows = [], []
        for index in range(len(dataset)):
            packed = dataset[index]
            tokens.append(str(packed["data_samples"].metainfo["token"]))
            rows.append({key: value for key, value in _fields(packed).items() if key.split(".")[0] in only})
        if not rows:
            raise TogetherError("the data set has no scenes")
        for token, row in zip(tokens, rows, strict=True):
            differing = {
                key
                for key in row.keys() | rows[0].keys()
                if key not in row or key not in rows[0] or row[key].shape != rows[0][key].shape
            }
            if differing:
                raise TogetherError(
                    f"scene {token}: {', '.join(sorted(differing))} is missing or of another shape than in "
                    f"scene {tokens[0]}: such planners are trained by beyonddrive train"
                )
        fields = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        return cls(tuple(tokens), fields, made_lengths(dataset))

    def to(self, device: torch.device | str) -> SceneTensors:
        """The same scenes on a device."""
        return replace(self, fields={key: value.to(device) for key, value in self.fields.items()})

    def check_finite(self) -> None:
        """Check what a data preprocessor would check in every batch.

        Raises:
            TogetherError: Names the scene and the field of a value that is NaN or infinite.
        """
        for key, value in self.fields.items():
            is_checked = key.startswith("inputs.") or key in _CHECKED_TARGETS
            if is_checked and value.is_floating_point():
                finite = value.flatten(1).isfinite().all(dim=1)
                if not bool(finite.all()):
                    token = self.tokens[int((~finite).nonzero()[0])]
                    raise TogetherError(f"scene {token}: {key} holds NaN or infinity: rebuild its features")

    def select(self, keys: Sequence[str]) -> SceneTensors:
        """The same scenes with some fields only."""
        return replace(self, fields={key: self.fields[key] for key in keys})

    def rows(self, tokens: Sequence[str]) -> SceneTensors:
        """Some of the scenes, in the order of ``tokens``.

        Raises:
            TogetherError: If one is not there.
        """
        number = {token: row for row, token in enumerate(self.tokens)}
        lacking = [token for token in tokens if token not in number]
        if lacking:
            raise TogetherError(f"scene {lacking[0]} and {len(lacking) - 1} others are not among the scenes")
        index = torch.tensor([number[token] for token in tokens])
        fields = {key: value[index] for key, value in self.fields.items()}
        return replace(self, tokens=tuple(tokens), fields=fields)

    def batch(self, index: Tensor, tokens: Sequence[str] | None = None) -> dict[str, Any]:
        """Scenes by number, as a collated batch whose samples are rows of one tensor per field.

        Args:
            index: (B,) int64, on the device of the fields.
            tokens: For the ``metainfo`` of the samples.
        """
        whole = {key: value.index_select(0, index) for key, value in self.fields.items()}
        samples = [
            PlanSample(metainfo={} if tokens is None else {"token": tokens[row]}) for row in range(len(index))
        ]
        for part in ("gt", "negatives"):
            own = {
                key.split(".")[1]: value.unbind()
                for key, value in whole.items()
                if key.startswith(f"{part}.")
            }
            if own:
                for row, sample in enumerate(samples):
                    setattr(sample, part, BaseDataElement(**{key: value[row] for key, value in own.items()}))
        inputs = {key.split(".")[1]: value for key, value in whole.items() if key.startswith("inputs.")}
        return {"inputs": inputs, "data_samples": samples}


def _fields(packed: dict[str, Any]) -> dict[str, Tensor]:
    sample = packed["data_samples"]
    found = {f"inputs.{key}": value for key, value in packed["inputs"].items()}
    for part in ("gt", "negatives"):
        for key, value in sample.get(f"_{part}", BaseDataElement()).items():
            found[f"{part}.{key}"] = value
    return found
