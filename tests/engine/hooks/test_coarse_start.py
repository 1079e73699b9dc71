"""A training whose first epochs see coarse pictures."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn

from beyonddrive.backbones.transfuser import TransFuserBackbone
from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.hooks.coarse_start import CoarseStartHook
from beyonddrive.engine.runner import build_train_runner, load_config

ENCODER = {
    "name": "resnet18",
    "layers": (1, 1, 1, 1),
    "channels": (8, 8, 16, 16),
    "stem_type": "deep",
    "stem_width": 4,
}


def _planner(latent=True):
    torch.manual_seed(0)
    planner = nn.Module()
    planner.backbone = TransFuserBackbone(
        image_encoder=ENCODER,
        bev_encoder=ENCODER,
        latent=latent,
        image_size=(64, 128),
        bev_size=(64, 64),
        num_layers=1,
        top_down_channels=8,
    )
    return planner


def _runner(planner, max_epochs=4, loop=EpochBasedTrainLoop):
    return SimpleNamespace(model=planner, max_epochs=max_epochs, train_loop=loop.__new__(loop), epoch=0)


def test_the_first_epochs_are_coarse_wherever_a_run_goes_on():
    planner = _planner()
    runner, hook = _runner(planner), CoarseStartHook(epochs=2)
    hook.before_train(runner)
    seen = []
    for runner.epoch in (0, 1, 2, 3, 1):
        hook.before_train_epoch(runner)
        seen.append(planner.backbone.coarseness)
    assert seen == [2, 2, 1, 1, 2]


@pytest.mark.parametrize("latent", [True, False])
def test_coarse_features_have_the_sizes_of_whole_ones_and_are_of_means_of_pixels(latent):
    backbone = _planner(latent).backbone.train()
    camera, lidar = torch.rand(2, 3, 64, 128), None if latent else torch.rand(2, 1, 64, 64)
    whole = backbone(camera, lidar)
    seen = []
    for encoder in (backbone.image_encoder, backbone.bev_encoder):
        encoder.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone.coarseness = 2
    coarse = backbone(camera, lidar)
    assert [tuple(x.shape[-2:]) for x in seen] == [(32, 64), (32, 32)]
    torch.testing.assert_close(seen[0][0, :, 3, 5], camera[0, :, 6:8, 10:12].mean((1, 2)))
    for name in ("bev", "image", "top_down"):
        assert getattr(coarse, name).shape == getattr(whole, name).shape, name
    assert not torch.allclose(coarse.bev, whole.bev)


def test_plans_are_made_from_whole_pictures():
    backbone = _planner().backbone.eval()
    camera = torch.rand(2, 3, 64, 128)
    expected = backbone(camera).bev
    backbone.coarseness = 2
    torch.testing.assert_close(backbone(camera).bev, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "runner", "message"),
    [
        ({"epochs": 4}, {}, "epochs=4 of 4"),
        ({"epochs": 0}, {}, "epochs=0 of 4"),
        ({"epochs": 2, "factor": 1}, {}, "factor=1 must be 2 or more"),
        ({"epochs": 2, "factor": 3}, {}, "factor=3 .* divide the sizes"),
        ({"epochs": 2}, {"loop": IterBasedTrainLoop}, "train_cfg.by_epoch"),
    ],
)
def test_what_cannot_start_coarse_is_refused(settings, runner, message):
    with pytest.raises(ConfigError, match=message):
        CoarseStartHook(**settings).before_train(_runner(_planner(), **runner))


def test_a_planner_that_sees_nothing_is_refused_before_the_first_step(tmp_path, blind_recipe):
    options = {"default_hooks.coarse.type": "CoarseStartHook", "default_hooks.coarse.epochs": 1}
    runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / "work"))
    with pytest.raises(ConfigError, match="CoarseStartHook: EgoStatusMLP cannot see coarsely"):
        runner.train()
