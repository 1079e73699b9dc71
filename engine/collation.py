"""Batches of samples that cross from a loader's worker to the training in few pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import get_worker_info

from beyonddrive.engine.batch_memory import BatchMemory
from beyonddrive.structures.sample import PlanSample

_memory = BatchMemory()
"""Of this process, if it is a loader's worker."""


class SampleBatch(list[PlanSample]):
    """The samples of a batch: a list that is sent to another process with one tensor per field.

    Each tensor that a worker sends costs a piece of shared memory and a file descriptor; sixteen samples of
    LTF would be a hundred of them, which takes longer than reading the samples. In the other process the
    tensors of the samples are rows of those that were sent, with the same values.
    """

    def __copy__(self) -> SampleBatch:
        return SampleBatch(self)

    def __reduce__(self) -> tuple[Any, ...]:
        parts = [_parts_of(sample) for sample in self]
        if not parts or any(part is None or not _fit(parts[0], part) for part in parts):
            return SampleBatch, (list(self),)
        stacked = {key: _sent([part[key] for part in parts if part is not None]) for key in parts[0] or ()}
        return _rebuilt, ([sample.metainfo for sample in self], stacked)


_Parts = Mapping[tuple[str, str], Tensor]
"""Tensors of a sample, by element and field."""


def _parts_of(sample: PlanSample) -> _Parts | None:
    """The tensors of a sample; None if it holds anything else."""
    parts: dict[tuple[str, str], Tensor] = {}
    if type(sample) is not PlanSample:
        return None
    for name, element in sample.items():
        if type(element) is not BaseDataElement or element.metainfo or not len(element.keys()):
            return None
        for field, value in element.items():
            if not isinstance(value, Tensor) or value.requires_grad:
                return None
            parts[name, field] = value
    return parts


def _fit(first: _Parts | None, other: _Parts | None) -> bool:
    """Whether tensors can be stacked."""
    if first is None or other is None or first.keys() != other.keys():
        return False
    return all(
        (value.shape, value.dtype, value.device) == (other[key].shape, other[key].dtype, other[key].device)
        for key, value in first.items()
    )


def _rebuilt(metainfo: Sequence[Mapping[str, Any]], stacked: _Parts) -> SampleBatch:
    batch = SampleBatch()
    for row, info in enumerate(metainfo):
        elements: dict[str, dict[str, Tensor]] = {}
        for (name, field), values in stacked.items():
            elements.setdefault(name, {})[field] = values[row]
        sample = PlanSample(metainfo=dict(info))
        for name, fields in elements.items():
            sample.set_field(BaseDataElement(**fields), name, dtype=BaseDataElement)
        batch.append(sample)
    return batch


@FUNCTIONS.register_module()
def collate_samples(batch: Sequence[Any]) -> dict[str, Any]:
    """Collate packed samples: inputs of equal size stacked, others as lists, ``data_samples`` a list.

    As mmengine's ``pseudo_collate``, with the same values, but made to be sent: see :class:`SampleBatch` and
    :mod:`beyonddrive.engine.batch_memory`.

    >>> batch = collate_samples([{"inputs": {"status": torch.zeros(8)}, "data_samples": PlanSample()}] * 2)
    >>> batch["inputs"]["status"].shape, len(batch["data_samples"])
    (torch.Size([2, 8]), 2)
    """
    collated: dict[str, Any] = pseudo_collate(batch)
    if isinstance(inputs := collated.get("inputs"), Mapping):
        collated["inputs"] = {key: _stacked(value) for key, value in inputs.items()}
    samples = collated.get("data_samples", ())
    if samples and all(isinstance(sample, PlanSample) for sample in samples):
        collated["data_samples"] = SampleBatch(samples)
    return collated


def _stacked(values: Sequence[Any]) -> Any:
    """Tensors of one size as one tensor; anything else, such as points, as it is."""
    if not all(isinstance(value, Tensor) for value in values):
        return values
    return _sent(values) if len({(value.shape, value.dtype) for value in values}) == 1 else values


def _sent(values: Sequence[Tensor]) -> Any:
    """Tensors of one shape and type as one tensor, or in a worker as what arrives as one."""
    return torch.stack(list(values)) if get_worker_info() is None else _memory.stack(values)
