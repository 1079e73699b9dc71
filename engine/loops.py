"""Evaluation loops that go on when a scene cannot be read or planned, and say which and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import Runner, TestLoop, ValLoop, autocast
from torch.utils.data import Dataset

from beyonddrive.registry import LOOPS


class BadScene(NamedTuple):
    """A scene without a plan, and the reason."""

    token: str
    reason: str


class ReadableScenes(Dataset[Any]):
    """A data set whose scenes that cannot be read come out as :class:`BadScene` instead of ending the loop.

    Args:
        dataset: Data set with ``tokens``; its errors are ``ValueError``.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.metainfo = getattr(dataset, "metainfo", {})

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Return the sample, or why there is none."""
        try:
            return self.dataset[index]
        except ValueError as error:
            return BadScene(self.dataset.tokens[index], str(error))


def collate_readable(batch: Sequence[Any]) -> dict[str, Any]:
    """Collate the samples of a batch; its other scenes go to ``bad_scenes``.

    >>> collate_readable([BadScene('a', 'no image')])
    {'bad_scenes': [BadScene(token='a', reason='no image')]}
    """
    samples = [sample for sample in batch if not isinstance(sample, BadScene)]
    collated: dict[str, Any] = pseudo_collate(samples) if samples else {}
    collated["bad_scenes"] = [sample for sample in batch if isinstance(sample, BadScene)]
    return collated


def _readable(dataloader: Any) -> Any:
    """Make the data set of a data loader's config one that survives bad scenes."""
    if not isinstance(dataloader, dict):
        return dataloader
    dataset = dataloader["dataset"]
    dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
    return {**dataloader, "dataset": ReadableScenes(dataset), "collate_fn": collate_readable}


def predict(model: Any, batch: dict[str, Any]) -> list[Any]:
    """Plan the scenes of a batch; those that the planner refuses are added to its ``bad_scenes``.

    Returns:
        The samples with ``pred``, without the refused ones.
    """
    samples = batch.get("data_samples", [])
    if not samples:
        return []
    data = {key: value for key, value in batch.items() if key != "bad_scenes"}
    try:
        return list(model.test_step(data))
    except ValueError as error:
        if len(samples) == 1:
            batch["bad_scenes"].append(BadScene(samples[0].metainfo["token"], str(error)))
            return []
    # One scene of the batch is to blame: plan them one by one.
    planned = []
    for index, sample in enumerate(samples):
        single = {
            "inputs": {name: [values[index]] for name, values in data["inputs"].items()},
            "data_samples": [sample],
            "bad_scenes": batch["bad_scenes"],
        }
        planned += predict(model, single)
    return planned


class _SceneLoop:
    """What the two loops share.

    Args:
        runner: The runner.
        dataloader: Data loader or its config.
        evaluator: Evaluator, or configs of its metrics.
        fp16: Plan in mixed precision: float16 on a GPU, bfloat16 elsewhere.
    """

    phase: str
    runner: Runner
    evaluator: Evaluator
    fp16: bool

    def __init__(self, runner: Runner, dataloader: Any, evaluator: Any, fp16: bool = False) -> None:
        super().__init__(runner, _readable(dataloader), evaluator, fp16)  # type: ignore[call-arg]

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict[str, Any]) -> None:
        """Plan a batch and hand it to the metrics."""
        self.runner.call_hook(f"before_{self.phase}_iter", batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            outputs = predict(self.runner.model, data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            f"after_{self.phase}_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )


@LOOPS.register_module()
class SceneValLoop(_SceneLoop, ValLoop):
    """Validation over scenes; bad ones reach the metrics as ``data_batch['bad_scenes']``."""

    phase = "val"


@LOOPS.register_module()
class SceneTestLoop(_SceneLoop, TestLoop):
    """Test over scenes; bad ones reach the metrics as ``data_batch['bad_scenes']``."""

    phase = "test"
