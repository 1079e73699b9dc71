"""What a recipe switches on: ImageNet weights, mixed precision, a learning rate for any number of GPUs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from beyonddrive.apis import init_planner
from beyonddrive.backbones.resnet import PretrainedWeightsError, StagedResNet
from beyonddrive.engine.configs import ConfigError, load_config
from beyonddrive.engine.runner import build_test_runner, build_train_runner
from beyonddrive.registry import MODELS
from beyonddrive.tools import train

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = CONFIGS / "ltf/ltf_tiny_1xb16-12e_synth.py"
PRETRAINED = "model.backbone.image_encoder.pretrained"


@pytest.fixture
def weights_file(tmp_path):
    encoder = load_config(TINY).model.backbone.image_encoder
    path = tmp_path / "1,2 ü.safetensors"
    save_file(StagedResNet(**encoder).state_dict(), path)
    return path


def scalars(folder):
    (path,) = folder.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_training_starts_from_the_weights_of_a_file(weights_file):
    config = load_config(TINY, {PRETRAINED: str(weights_file)})
    planner = MODELS.build(config.model)
    planner.init_weights()  # as the runner does
    other = StagedResNet(**{**config.model.backbone.image_encoder, "pretrained": str(weights_file)})
    other.init_weights()
    for key, value in other.state_dict().items():
        assert torch.equal(planner.backbone.image_encoder.state_dict()[key], value), key


@pytest.fixture
def no_network(monkeypatch):
    def refuse(self):
        raise PretrainedWeightsError("no network")

    monkeypatch.setattr(StagedResNet, "_pretrained_state", refuse)


def test_weights_are_read_when_a_training_starts_and_not_where_a_checkpoint_follows(tmp_path, no_network):
    config = load_config(TINY, {PRETRAINED: True})
    work = str(tmp_path / "w")
    started = build_train_runner(config, work)
    with pytest.raises(PretrainedWeightsError, match="no network"):
        started._init_model_weights()
    for follows in (
        build_train_runner(config, work, resume=str(tmp_path / "epoch_1.pth")),
        build_train_runner(load_config(TINY, {PRETRAINED: True, "load_from": "epoch_1.pth"}), work),
    ):
        follows._init_model_weights()
        assert follows.cfg.model.backbone.image_encoder.pretrained is True  # the recipe stays as it is
    build_test_runner(config, work_dir=work)
    init_planner(config)


def test_mixed_precision_of_a_recipe_needs_no_option(tmp_path, blind_recipe):
    wanted = "AmpOptimWrapper" if torch.cuda.is_available() else "AutocastOptimWrapper"
    config = load_config(blind_recipe, {"optim_wrapper.type": "AmpOptimWrapper"})
    runner = build_train_runner(config, str(tmp_path / "w"))
    assert type(runner.build_optim_wrapper(runner.optim_wrapper)).__name__ == wanted
    plain = build_train_runner(load_config(blind_recipe), str(tmp_path / "w"))
    assert type(plain.build_optim_wrapper(plain.optim_wrapper)).__name__ == "OptimWrapper"


def test_the_learning_rate_is_scaled_to_the_scenes_per_step(tmp_path, blind_recipe):
    rates = []
    for options in ([], ["--auto-scale-lr"]):
        work = tmp_path / f"work{len(options)}"
        assert train.main([str(blind_recipe), "--work-dir", str(work), *options]) == 0
        rates.append([line["lr"] for line in scalars(work) if "lr" in line])
    assert len(rates[0]) == 6
    # 2 scenes per step instead of 16, at every step of the schedule down to its floor
    for plain, scaled in zip(*rates, strict=True):
        assert scaled == pytest.approx(1e-6 + (plain - 1e-6) / 8, rel=0.05)


@pytest.mark.parametrize(("accumulated", "scale"), [(1, 1 / 8), (4, 1 / 2), (8, 1)])
def test_steps_whose_gradients_add_up_count_for_the_learning_rate(tmp_path, blind_recipe, accumulated, scale):
    config = load_config(blind_recipe, {"optim_wrapper.accumulative_counts": accumulated})
    runner = build_train_runner(config, str(tmp_path / "w"), auto_scale_lr=True)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(wrapper, runner.auto_scale_lr)
    wanted = config.optim_wrapper.optimizer.lr * scale
    assert [group["lr"] for group in wrapper.optimizer.param_groups] == pytest.approx([wanted])


def test_scenes_per_step_that_the_learning_rate_is_not_for_are_told(tmp_path, blind_recipe, capsys):
    work, told = str(tmp_path / "w"), "2 scenes per step (batch_size=2, 1 processes, accumulative_counts=1)"
    build_train_runner(load_config(blind_recipe), work)
    assert told in (said := capsys.readouterr()).out + said.err and "is for 16" in said.out + said.err
    build_train_runner(load_config(blind_recipe, {"optim_wrapper.accumulative_counts": 8}), work)
    build_train_runner(load_config(blind_recipe), work, auto_scale_lr=True)
    build_train_runner(load_config(blind_recipe), work, is_dry_run=True)
    said = capsys.readouterr()
    assert "scenes per step" not in said.out + said.err


def test_tf32_of_a_recipe_is_not_that_of_the_next(tmp_path, blind_recipe):
    def flags(tf32):
        build_train_runner(load_config(blind_recipe, {"tf32": tf32}), str(tmp_path / "w"))
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    own = flags(None)
    assert [flags(True), flags(None), flags(False), flags(None)] == [(True, True), own, (False, False), own]
    assert own == (False, True)  # (as docs/training_speed.md says)


def test_a_learning_rate_for_no_stated_number_of_scenes_cannot_be_scaled(tmp_path, blind_recipe, capsys):
    arguments = [str(blind_recipe), "--work-dir", str(tmp_path / "w"), "--auto-scale-lr"]
    assert train.main([*arguments, "--cfg-options", "auto_scale_lr=None"]) == 1
    assert "set auto_scale_lr.base_batch_size, or leave --auto-scale-lr out" in capsys.readouterr().err
    config = load_config(blind_recipe, {"auto_scale_lr": {"_delete_": True, "enable": True}})
    with pytest.raises(ConfigError, match="how many scenes per step"):
        build_train_runner(config, str(tmp_path / "w"))
