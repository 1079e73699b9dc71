"""What ``test_split_invariance.py`` runs: the same steps and trainings in one process, or as ranks."""

from __future__ import annotations

import copy
import os
import zlib
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from torch import nn

from beyonddrive.datasets.transforms.base import BaseTransform
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.registry import HOOKS, TRANSFORMS
from beyonddrive.structures.scene_random import SEED_KEY, step_seed
from beyonddrive.tests.test_planner_contract import batch_of, fitted_planner, small_configs

BATCH = 8
RANKS = 2
RECIPE = """
_base_ = "{config}"
data_root = "{root}"
_data = dict(
    data_root=data_root,
    scene_filter=None,
    cache_dir=None,
    feature_pipeline=[
        dict(type="MadeUpSensors"), dict(type="EgoStatus"), dict(type="PlanTarget"),
        dict(type="AgentTargets"), dict(type="BEVMapTarget", walkways=False),
    ],
    pipeline=[dict(type="MadeUpNegatives"), dict(type="PackPlanInputs")],
)
_scores = dict(cache_dir=None, data_root=data_root, num_workers=0, oracle=True)
train_dataloader = dict(batch_size={batch}, dataset=_data)
val_dataloader = dict(batch_size=2, dataset=_data)
test_dataloader = dict(dataset=_data)
val_evaluator = _scores
test_evaluator = _scores
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
default_hooks = dict(logger=dict(interval=1))
log_level = "WARNING"
"""
TRAININGS = {
    "ego_mlp": "ego_mlp/ego_mlp_1xb16-12e_synth.py",
    "transfuser": "transfuser/transfuser_tiny_1xb16-12e_synth.py",
    "flow_policy": "flow_policy/flow_policy_tiny_1xb16-12e_synth.py",
}
COUNTED = "ltf-beyonddrive_tiny_1xb16-12e_synth"
"""Half of its samples have a negative, all of them those of rank 0."""
RESUMED = "flow_policy"
NORMS = "ltf/ltf_tiny_1xb16-12e_synth.py"


@TRANSFORMS.register_module()
class MadeUpSensors(BaseTransform):
    """Images and LiDAR of a scene, made of its token."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``camera`` and ``lidar``."""
        random = np.random.default_rng(zlib.crc32(results["token"].encode()))
        results["camera"] = random.integers(0, 256, (3, 64, 256), dtype=np.uint8)
        results["lidar"] = random.random((1, 128, 128), dtype=np.float32)
        return results


@TRANSFORMS.register_module()
class MadeUpNegatives(BaseTransform):
    """One negative beside the expert; every third scene has none."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``negative_plans`` and ``negative_valid``."""
        results["negative_plans"] = results["trajectory"][None] + 1.0
        results["negative_valid"] = np.array([zlib.crc32(results["token"].encode()) % 3 > 0])
        return results


@HOOKS.register_module()
class FreezeNorms(Hook):
    """Batch norms that use their running statistics in training, too: those of a batch belong to a rank."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Put them into evaluation mode."""
        freeze_norms(runner.model)


@HOOKS.register_module()
class KeepBuffers(Hook):
    """Keeps what the buffers of this rank are: after a step and when an epoch ends, and in validation.

    Before the second step it saves a checkpoint, which holds what the ranks agree on.
    """

    priority = "HIGHEST"

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """In the middle of an epoch."""
        if batch_idx == 1:
            torch.save(buffers_of(runner), Path(runner.work_dir) / f"step_{runner.rank}.buffers")
            runner.save_checkpoint(runner.work_dir, "step.pth", by_epoch=False)

    def after_train_epoch(self, runner: Any) -> None:
        """Before anything else happens."""
        torch.save(buffers_of(runner), Path(runner.work_dir) / f"epoch_{runner.rank}.buffers")

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """With everything done that comes before."""
        if batch_idx == 0:
            torch.save(buffers_of(runner), Path(runner.work_dir) / f"val_{runner.rank}.buffers")


def buffers_of(runner: Any) -> dict[str, torch.Tensor]:
    """Copies of the buffers of the model and of its moving average."""
    model = getattr(runner.model, "module", runner.model)
    found = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for hook in runner.hooks:
        if hasattr(hook, "ema_model"):
            found.update({f"ema.{name}": b.clone() for name, b in hook.ema_model.named_buffers()})
    return found


def freeze_norms(model: nn.Module) -> None:
    """Batch norms in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def planner_names() -> list[str]:
    """Configs that can be trained here."""
    names = [name for name in small_configs() if "pillars" not in name or find_spec("mmdet3d")]
    return [name for name in names if not name.startswith(("human", "constant", "pdm_closed"))]


def loss_step(name: str, rank: int, ranks: int, count_over: str = "all_ranks") -> dict[str, Any]:
    """Loss, figures and gradients of one training step of a planner on every ``ranks``-th sample."""
    planner = fitted_planner(copy.deepcopy(small_configs()[name])).train()
    for module in planner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
        elif hasattr(module, "count_over"):
            module.count_over = count_over
    freeze_norms(planner)
    batch = batch_of(planner, BATCH)
    own = {
        "inputs": {key: value[rank::ranks] for key, value in batch["inputs"].items()},
        "data_samples": batch["data_samples"][rank::ranks],
    }
    for sample in own["data_samples"]:
        sample.set_metainfo({SEED_KEY: step_seed(0, 1, sample.metainfo["token"])})
    total, figures = planner.parse_losses(planner(**planner.data_preprocessor(own, True), mode="loss"))
    total.backward()
    gradients = {key: p.grad for key, p in planner.named_parameters() if p.grad is not None}
    if ranks > 1:
        for gradient in gradients.values():
            dist.all_reduce(gradient)
            gradient /= ranks
    return {"figures": {key: float(value.detach()) for key, value in figures.items()}, "gradients": gradients}


def write_recipe(folder: Path, root: Path, name: str, batch: int) -> Path:
    """Config file of one of the trainings, with so many samples per rank."""
    configs = Path(__file__).parents[1] / "configs"
    path = folder / f"{name}_{batch}.py"
    base = configs / (NORMS if name == "norms" else TRAININGS[name])
    epochs = 1 if name == "norms" else 2
    path.write_text(RECIPE.format(config=base, root=root, batch=batch, epochs=epochs))
    return path


def train(name: str, folder: Path, root: Path, ranks: int, resume: Path | None = None) -> None:
    """One training with four samples per step; leaves its checkpoints and ``table.pt``.

    Args:
        name: Which.
        folder: Where its work folder goes.
        root: The data.
        ranks: How many processes share its steps.
        resume: Checkpoint to go on from.
    """
    recipe = write_recipe(folder, root, name, 4 // ranks)
    config = load_config(recipe)
    config.custom_hooks = [hook for hook in config.custom_hooks if hook.type != "ExpertPriorHook"]
    if name == "norms":
        config.custom_hooks += [ConfigDict(type="KeepBuffers"), ConfigDict(type="EMAHook")]
    else:
        config.custom_hooks.append(ConfigDict(type="FreezeNorms"))
        # Not Adam, which makes steps of full length of gradients that are nothing but rounding.
        config.optim_wrapper.optimizer = ConfigDict(type="SGD", lr=1e-3, momentum=0.9)
        config.model.repulsion = ConfigDict(weight=0.5)
    work_dir = folder / (name if resume is None else "resumed")
    launcher = "pytorch" if ranks > 1 else "none"
    runner = build_train_runner(config, str(work_dir), str(resume) if resume else False, launcher=launcher)
    runner.train()
    (metric,) = runner.val_evaluator.metrics
    rows = [(row.token, row.values, row.oracle) for row in metric.rows]
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    torch.save((rows, losses), work_dir / f"table_{runner.rank}.pt")


def run_all(folder: Path, root: Path, rank: int = 0, ranks: int = 1) -> None:
    """Do everything, as a rank or alone; what rank 0 found lies in ``folder``."""
    torch.set_num_threads(1)
    for name in planner_names():
        result = loss_step(name, rank, ranks)
        if rank == 0:
            torch.save(result, folder / f"{name}.step")
    result = loss_step(COUNTED, rank, ranks, "own_rank")
    if rank == 0:
        torch.save(result, folder / "own_rank.step")
    for name in (*TRAININGS, *(["norms"] if ranks > 1 else [])):
        train(name, folder, root, ranks)


def run_rank(rank: int, folder: Path, root: Path, alone: Path) -> None:
    """Be one of the ranks; also go on with a training that ``alone`` holds the beginning of."""
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(RANKS))
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(minutes=5),
    )
    try:
        run_all(folder, root, rank, RANKS)
        train(RESUMED, folder, root, RANKS, alone / RESUMED / "epoch_1.pth")
    finally:
        dist.destroy_process_group()
