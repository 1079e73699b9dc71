"""The settings of a recipe that make its steps faster or smaller, each alone and all together."""

import copy

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from beyonddrive.engine.activation_checkpointing import checkpoint_activations, is_checkpointed
from beyonddrive.engine.checkpoint_files import load_checkpoint_file
from beyonddrive.engine.compilation import compile_parts, is_compiled
from beyonddrive.engine.configs import ConfigError, load_config
from beyonddrive.engine.gradient_norms import norm_of_gradients
from beyonddrive.engine.mmengine_compat import apply
from beyonddrive.engine.runner import build_train_runner
from beyonddrive.tests.test_planner_contract import CONFIGS, batch_of, fitted_planner, small_configs

LTF, FLOW = "ltf_tiny_1xb16-12e_synth", "flow_policy_tiny_1xb16-12e_synth"
SETTINGS = {
    "default_hooks.ema": {"type": "EMAHook"},
    "tf32": True,
    "optim_wrapper.accumulative_counts": 2,
    "optim_wrapper.clip_grad": {"max_norm": 1.0},
    "optim_wrapper.type": "AutocastOptimWrapper",
    "optim_wrapper.optimizer.fused": True,
    "activation_checkpointing": ["backbone", "decoder"],
    "compile": {"backend": "aot_eager", "parts": ["decoder"]},
    "channels_last": True,
}


@pytest.fixture(scope="module", autouse=True)
def _remedies():
    apply()


def losses_of(planner, steps=2, **optimizer):
    settings = {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.0, **optimizer}
    wrapper = build_optim_wrapper(planner, {"type": "OptimWrapper", "optimizer": settings})
    batch = batch_of(planner, 2)
    return [float(planner.train_step(copy.copy(batch), wrapper)["loss"]) for _ in range(steps)]


@pytest.fixture(scope="module")
def plain():
    planner = fitted_planner(copy.deepcopy(small_configs()[LTF])).train()
    return losses_of(planner), planner


def test_layout_and_fused_optimizer_leave_the_losses(plain):
    planner = fitted_planner(copy.deepcopy(small_configs()[LTF])).train()
    planner.to(memory_format=torch.channels_last)
    assert losses_of(planner, fused=True) == pytest.approx(plain[0], rel=1e-4)


def test_activations_that_are_not_kept_change_nothing(plain):
    """Neither losses nor weights, nor what batch norms have counted; the image needs no gradient."""
    planner = fitted_planner(copy.deepcopy(small_configs()[LTF])).train()
    checkpoint_activations(planner, ["backbone", "decoder"])
    assert losses_of(planner) == plain[0]
    expected = plain[1].state_dict()
    for name, value in planner.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
    twin = copy.deepcopy(planner)  # as EMAHook makes one
    torch.nn.init.zeros_(next(planner.backbone.parameters()))
    assert twin.backbone.forward.__self__ is twin.backbone


def test_a_part_that_is_not_there_is_named():
    planner = fitted_planner(copy.deepcopy(small_configs()[LTF]))
    with pytest.raises(ConfigError, match=r"no part 'backbon'.*backbone"):
        checkpoint_activations(planner, "backbon")


@pytest.mark.parametrize("part", ["trajectory_head", "backbone.image_encoder", "decoder.layers"])
def test_a_part_that_training_does_not_call_is_refused(part):
    """A head that trains otherwise than it plans, an encoder that is called stage by stage, a list."""
    planner = fitted_planner(copy.deepcopy(small_configs()[FLOW]))
    refused = rf"does not call part '{part}'.*choose from bev_head, backbone, decoder"
    with pytest.raises(ConfigError, match=refused):
        checkpoint_activations(planner, part)
    with pytest.raises(ConfigError, match=refused):
        compile_parts(planner, {"parts": part})
    assert compile_parts(planner, {"backend": "eager", "parts": "trajectory_head.denoiser"})
    with pytest.raises(ConfigError, match="trajectory_head"):
        repelled = {**copy.deepcopy(small_configs()[LTF]), "repulsion": {"weight": 1.0}}
        checkpoint_activations(fitted_planner(repelled), "trajectory_head")


def test_all_settings_together(tmp_path, monkeypatch):
    """A training runner with all of them makes steps; accumulated, clipped, averaged, in bfloat16."""
    config = load_config(CONFIGS / "ltf" / f"{LTF}.py", SETTINGS)
    runner = build_train_runner(config, str(tmp_path / "work"))
    planner, batch = runner.model, batch_of(runner.model, 2)
    steps, norms, precisions = [], [], set()
    planner.register_forward_pre_hook(lambda *_: precisions.add(torch.is_autocast_enabled("cpu")))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.optimizer.register_step_pre_hook(
        lambda optimizer, *_: norms.append(float(norm_of_gradients(optimizer)))
    )

    class Loop:
        """Two accumulated steps in place of the split's, whose data are not here."""

        iter, max_iters, dataloader = 0, 2, type("Loader", (), {"dataset": []})()

        def run(self):
            runner.call_hook("before_train")
            for self.iter in range(2):
                before = next(planner.backbone.parameters()).detach().clone()
                outputs = planner.train_step(copy.copy(batch), runner.optim_wrapper)
                runner.call_hook("after_train_iter", batch_idx=self.iter, data_batch=batch, outputs=outputs)
                changed = not torch.equal(before, next(planner.backbone.parameters()))
                steps.append((float(outputs["loss"]), changed))
            return planner

    monkeypatch.setattr(type(runner), "build_train_loop", lambda self, loop: Loop())
    for name in ("_val_loop", "_val_dataloader", "_val_evaluator", "param_schedulers"):
        setattr(runner, name, None)
    runner._hooks = [hook for hook in runner.hooks if type(hook).__name__ == "EMAHook"]
    assert len(runner.hooks) == 1
    Runner.train(runner)

    assert [changed for _, changed in steps] == [False, True]
    assert precisions == {True} and norms == [pytest.approx(1.0, rel=1e-3)]  # (clipped: it is larger before)
    assert float(runner.message_hub.get_scalar("train/grad_norm").current()) > 1.0
    assert is_checkpointed(planner.backbone) and is_checkpointed(planner.decoder)
    assert is_compiled(planner.decoder) and not is_compiled(planner.backbone)
    assert all(torch.isfinite(torch.tensor(loss)) for loss, _ in steps)
    assert runner.optim_wrapper.optimizer.param_groups[0]["fused"]
    weight = next(
        p for p in planner.backbone.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1
    )
    assert weight.is_contiguous(memory_format=torch.channels_last)
    average = runner.hooks[0].ema_model.module
    assert not torch.equal(next(average.backbone.parameters()), next(planner.backbone.parameters()))


def test_compiled_parts_leave_the_losses_and_the_names_of_weights(plain):
    planner = fitted_planner(copy.deepcopy(small_configs()[LTF])).train()
    names = list(planner.state_dict())
    assert compile_parts(copy.deepcopy(planner), True) == ["backbone"]
    assert compile_parts(planner, {"backend": "aot_eager", "parts": "decoder"}) == ["decoder"]
    assert losses_of(planner) == pytest.approx(plain[0], rel=1e-5)
    assert list(planner.state_dict()) == names


@pytest.mark.parametrize("kept", [["decoder"], ["decoder.layers.0"]])
def test_a_part_is_compiled_whose_activations_are_not_kept(plain, kept):
    """Itself, or something in it."""
    planner = fitted_planner(copy.deepcopy(small_configs()[LTF])).train()
    checkpoint_activations(planner, kept)
    compile_parts(planner, {"backend": "aot_eager", "parts": ["decoder"]})
    assert losses_of(planner) == pytest.approx(plain[0], rel=1e-5)


def test_what_cannot_be_compiled_is_named():
    planner = fitted_planner(copy.deepcopy(small_configs()[LTF]))
    with pytest.raises(ConfigError, match=r"compile.parts: .*no part 'heads'"):
        compile_parts(planner, {"parts": "heads"})
    with pytest.raises(ConfigError, match="compile=3"):
        compile_parts(planner, 3)
    assert compile_parts(planner, False) == compile_parts(planner, None) == []


class Stops(Hook):
    """Ends a training in its second epoch."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.epoch == 1:
            raise KeyboardInterrupt


def test_a_training_with_all_settings_goes_on_like_an_unbroken_one(tmp_path, blind_recipe):
    settings = {
        **SETTINGS,
        "activation_checkpointing": ["encoder"],
        "compile": {"backend": "aot_eager", "parts": ["encoder"]},
    }
    config = load_config(blind_recipe, settings)
    build_train_runner(config, str(tmp_path / "whole")).train()
    runner = build_train_runner(config, str(tmp_path / "broken"))
    runner.register_hook(Stops())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    build_train_runner(config, str(tmp_path / "broken"), resume=True).train()
    whole, broken = (load_checkpoint_file(tmp_path / name / "epoch_2.pth") for name in ("whole", "broken"))
    for part in ("state_dict", "ema_state_dict"):
        assert list(whole[part]) == list(broken[part])
        for name, value in whole[part].items():
            assert torch.equal(value, broken[part][name]), f"{part}: {name}"
    weights = [
        next(value for name, value in whole[part].items() if name.endswith("encoder.0.weight"))
        for part in ("state_dict", "ema_state_dict")
    ]
    assert torch.isfinite(weights[0]).all() and not torch.equal(*weights)
