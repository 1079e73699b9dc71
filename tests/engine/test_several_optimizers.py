"""Planners whose parts have optimizers of their own, as mmengine's ``OptimWrapperDict`` holds them."""

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict

from beyonddrive.engine.checkpoint_files import load_checkpoint_file
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.plugins.ego_mlp.planner import EgoStatusMLP
from beyonddrive.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS

ACCUMULATED = {"encoder": 2, "trajectory_head": 5}
"""Steps of an update; an epoch has three."""


class TwoOptimizers:
    """One for the encoder, and one for the head."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.settings = optim_wrapper_cfg

    def __call__(self, model):
        planner = getattr(model, "module", model)
        return OptimWrapperDict(
            **{
                name: OptimWrapper(
                    torch.optim.Adam(getattr(planner, name).parameters(), lr=1e-3), accumulative_counts=count
                )
                for name, count in ACCUMULATED.items()
            }
        )


class Alternating(EgoStatusMLP):
    """Each optimizer has a loss of its own, whose gradients reach the parts of the other one, too."""

    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data, True)
        logs = {}
        for factor, wrapper in enumerate(optim_wrapper.values(), start=1):
            total, logs = self.parse_losses(self(**data, mode="loss"))
            wrapper.update_params(factor * total)
        return logs


@pytest.fixture
def recipe(blind_recipe):
    MODELS.register_module(module=Alternating)
    OPTIM_WRAPPER_CONSTRUCTORS.register_module(module=TwoOptimizers)
    path = blind_recipe.with_name("two_optimizers.py")
    path.write_text(
        f'_base_ = "{blind_recipe}"\n'
        'model = dict(type="Alternating")\n'
        'optim_wrapper = dict(constructor="TwoOptimizers")\n'
        "param_scheduler = None\n"
        "train_cfg = dict(max_epochs=3, val_interval=9)\n"
        "default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))\n"
        'log_level = "ERROR"\n'
    )
    yield path
    MODELS.module_dict.pop("Alternating")
    OPTIM_WRAPPER_CONSTRUCTORS.module_dict.pop("TwoOptimizers")


def train(recipe, work_dir, **kwargs):
    build_train_runner(load_config(recipe), str(work_dir), **kwargs).train()
    return load_checkpoint_file(work_dir / "epoch_3.pth")


def test_a_training_goes_on_with_the_gradients_and_counts_of_all_optimizers(tmp_path, recipe):
    whole = train(recipe, tmp_path / "whole")
    for epoch in (
        1,
        2,
    ):  # of both some wait at the end of the first epoch, of the second one those of the head
        start = str(tmp_path / f"whole/epoch_{epoch}.pth")
        again = train(recipe, tmp_path / f"again{epoch}", resume=start)
        for key, value in whole["state_dict"].items():
            assert torch.equal(value, again["state_dict"][key]), (epoch, key)
