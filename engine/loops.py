"""Evaluation loops that go on when a scene is lost, or cannot be read or planned, and say which and why."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import Runner, TestLoop, ValLoop, autocast
from torch.utils.data import DataLoader, Dataset

from beyonddrive.engine.collation import collate_samples
from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.wrapped_datasets import BadScene, lost_scenes, token_of, tokens_of, unwrapped
from beyonddrive.registry import LOOPS


class ReadableScenes(Dataset[Any]):
    """A data set whose scenes that cannot be read come out as :class:`BadScene` instead of ending the loop.

    Args:
        dataset: Data set whose ``get_data_info`` gives the ``token``, also under wrappers; its errors are
            ``ValueError``.

    Attributes:
        metainfo: That of the data set, and the ``splits`` that it reads.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        splits = {leaf.split for leaf in unwrapped(dataset) if hasattr(leaf, "split")}
        self.metainfo = {**getattr(dataset, "metainfo", {}), "splits": sorted(splits)}

    def __len__(self) -> int:
        return len(self.dataset)

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Which scene a sample is of, as mmengine's wrappers say it."""
        info: dict[str, Any] = self.dataset.get_data_info(index)
        return info

    def __getitem__(self, index: int) -> Any:
        """Return the sample, or why there is none."""
        try:
            return self.dataset[index]
        except ValueError as error:
            return BadScene(token_of(self, index), str(error))


def collate_readable(batch: Sequence[Any]) -> dict[str, Any]:
    """Collate the samples of a batch; its other scenes go to ``bad_scenes``.

    >>> collate_readable([BadScene('a', 'no image')])
    {'bad_scenes': [BadScene(token='a', reason='no image', log_name='')]}
    """
    samples = [sample for sample in batch if not isinstance(sample, BadScene)]
    collated: dict[str, Any] = collate_samples(samples) if samples else {}
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


def _to_float32(prediction: Any) -> None:
    """Give what was planned in mixed precision the type that plans have."""
    for key, value in list(prediction.items()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            prediction.set_field(value.float(), key)


def _incomplete(setting: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"{setting}: an evaluation would leave scenes out, and its figures would be of a part of the split; "
        f"{remedy}"
    )


def _check_visits_all(key: str, loader: DataLoader[Any]) -> None:
    """Refuse a data loader that does not give each scene at least once, or never ends; called on all ranks.

    Raises:
        ConfigError: Names the setting.
    """
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if isinstance(sampler, InfiniteSampler):
        raise ConfigError(
            f"{key}.sampler.type={type(sampler).__name__}: an evaluation would never end; use DefaultSampler"
        )
    if getattr(loader.batch_sampler, "drop_last", False):
        raise _incomplete(f"{key}.drop_last=True", f"set {key}.drop_last=False")
    if isinstance(sampler, Sized):
        given = sum(all_gather_object(len(sampler)))
        if given < (count := len(loader.dataset)):  # type: ignore[arg-type]
            raise _incomplete(
                f"{key}.sampler.type={type(sampler).__name__}, which gives {given} of {count} scenes",
                "use DefaultSampler",
            )


class SceneLoop:
    """What the two loops share.

    Metrics get scenes without a plan by ``data_batch``: ``bad_scenes``, samples of the data set that could
    not be read or planned, and ``lost_scenes``, which it should have and does not. ``expected_scenes`` are
    the tokens of all samples, so that one that nothing is heard of does not go unnoticed.

    Args:
        runner: The runner.
        dataloader: Data loader or its config.
        evaluator: Evaluator, or configs of its metrics.
        fp16: Plan in mixed precision: float16 on a GPU, bfloat16 elsewhere.

    Raises:
        ConfigError: If the data loader leaves scenes out.
    """

    phase: str
    runner: Runner
    dataloader: DataLoader[Any]
    evaluator: Evaluator
    fp16: bool

    def __init__(self, runner: Runner, dataloader: Any, evaluator: Any, fp16: bool = False) -> None:
        key = f"{self.phase}_dataloader"
        if isinstance(dataloader, dict) and (number := dataloader.get("num_batch_per_epoch")) is not None:
            raise _incomplete(
                f"{key}.num_batch_per_epoch={number}",
                f"leave it out, or choose scenes by {key}.dataset.indices",
            )
        super().__init__(runner, _readable(dataloader), evaluator, fp16)  # type: ignore[call-arg]
        _check_visits_all(key, self.dataloader)

    def run(self) -> dict[str, float]:
        """Tell the metrics what the split should have and the data set cannot give; then plan what it can."""
        dataset = self.dataloader.dataset
        lost = lost_scenes(dataset) if is_main_process() else []
        told = {"lost_scenes": lost, "expected_scenes": tokens_of(dataset)}
        self.evaluator.process(data_samples=[], data_batch=told)
        metrics: dict[str, float] = super().run()  # type: ignore[misc]
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict[str, Any]) -> None:
        """Plan a batch and hand it to the metrics."""
        self.runner.call_hook(f"before_{self.phase}_iter", batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            outputs = predict(self.runner.model, data_batch)
        for sample in outputs if self.fp16 else ():
            _to_float32(sample.pred)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            f"after_{self.phase}_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )


@LOOPS.register_module()
class SceneValLoop(SceneLoop, ValLoop):
    """Validation over scenes; bad and lost ones reach the metrics in ``data_batch``."""

    phase = "val"


@LOOPS.register_module()
class SceneTestLoop(SceneLoop, TestLoop):
    """Test over scenes; bad and lost ones reach the metrics in ``data_batch``."""

    phase = "test"
