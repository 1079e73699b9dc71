"""Losses or gradients that are not finite end a training; the message says where to look and how to go on."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from beyonddrive.engine.checkpoint_files import CheckpointError
from beyonddrive.engine.hooks.finite_losses import NonFiniteLossError
from beyonddrive.engine.runner import build_train_runner, find_last_checkpoint, load_config
from beyonddrive.tools import train


class Spoil(Hook):
    """Makes a target of one step infinite behind the back of the checks of inputs, and notes its scenes."""

    def __init__(self, iteration, value=float("nan")):
        self.iteration, self.value, self.tokens = iteration, value, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            self.tokens = [sample.metainfo["token"] for sample in data_batch["data_samples"]]
            self.handle = runner.model.trajectory_head.register_forward_hook(self.spoil)

    def spoil(self, head, inputs, output):
        self.handle.remove()
        output.encoded.data.fill_(self.value)


class SpoilGradients(Spoil):
    """Makes gradients of a batch infinite or NaN, of a loss that is finite."""

    def spoil(self, head, inputs, output):
        self.handle.remove()
        bias = next(parameter for parameter in head.parameters() if parameter.dim() == 1)
        self.handle = bias.register_hook(self.spoil_gradient)

    def spoil_gradient(self, gradient):
        self.handle.remove()
        return torch.full_like(gradient, self.value)


QUICK = {"train_cfg.val_interval": 99}


def run(recipe, work_dir, spoil, options=None, **kwargs):
    runner = build_train_runner(load_config(recipe, QUICK | (options or {})), str(work_dir), **kwargs)
    runner.register_hook(spoil)
    with pytest.raises(NonFiniteLossError) as caught:
        runner.train()
    return runner, str(caught.value)


def test_the_message_names_step_term_scenes_and_the_last_good_checkpoint(tmp_path, blind_recipe):
    spoil = Spoil(5)  # the second of three steps of the second epoch
    runner, message = run(blind_recipe, tmp_path / "w", spoil)
    kept = str(find_last_checkpoint(tmp_path / "w"))
    assert kept.endswith("epoch_1.pth") and f"go on from it with --resume {kept}" in message
    assert message.startswith("step 5 (epoch 2): loss_trajectory is nan, and the training ends")
    assert len(spoil.tokens) == 2 and f"scenes of the batch: {', '.join(spoil.tokens)}." in message
    assert runner.iter == 5  # (one step was under way when the losses arrived)


def test_nothing_is_saved_or_validated_after_it(tmp_path, blind_recipe):
    """The last step of an epoch, of the training, and before a checkpoint that counts steps."""
    validated = []

    class Note(Hook):
        def before_val_epoch(self, runner):
            validated.append(runner.iter)

    by_steps = {"default_hooks.checkpoint.by_epoch": False, "default_hooks.checkpoint.interval": 2}
    for name, at, options, last in (
        ("epoch", 6, {"train_cfg.val_interval": 2}, "epoch_1.pth"),
        ("steps", 4, QUICK | by_steps, "iter_2.pth"),
    ):
        runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / name))
        runner.register_hook(Spoil(at, float("inf")))
        runner.register_hook(Note())
        with pytest.raises(NonFiniteLossError, match=rf"step {at} .*is inf.*--resume \S*/{last}\."):
            runner.train()
        assert find_last_checkpoint(tmp_path / name).name == last
    assert not validated


@pytest.mark.parametrize("kind", ["accumulation", "mixed precision"])
def test_every_batch_counts_with_accumulation_and_in_mixed_precision(tmp_path, blind_recipe, kind):
    options = {"optim_wrapper.accumulative_counts": 3} if kind == "accumulation" else {}
    spoil = Spoil(2)
    _, message = run(blind_recipe, tmp_path / "w", spoil, options, amp=kind != "accumulation")
    assert message.startswith("step 2 (epoch 1): loss_trajectory is nan")
    assert all(token in message for token in spoil.tokens) and "no checkpoint had been written" in message


def test_what_the_step_after_it_raises_is_told_as_its_consequence(tmp_path, blind_recipe):
    class Upset(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 1:  # as a matching of boxes would, of costs that are not finite
                raise ValueError("matrix contains invalid numeric entries")

    runner = build_train_runner(load_config(blind_recipe, QUICK), str(tmp_path / "w"))
    runner.register_hook(Spoil(1))
    runner.register_hook(Upset())
    with pytest.raises(NonFiniteLossError, match="step 1 ") as caught:
        runner.train()
    assert "invalid numeric entries" in str(caught.value.__cause__)


CLIPPED = {"optim_wrapper.clip_grad": {"_delete_": True, "max_norm": 50.0}}
BY_VALUE = {"optim_wrapper.clip_grad": {"_delete_": True, "type": "value", "clip_value": 1.0}}


@pytest.mark.parametrize(
    ("at", "clip", "value"),
    [(5, CLIPPED, "nan"), (6, {"optim_wrapper.clip_grad": None}, "inf")],  # 6 is the last step of its epoch
)
def test_gradients_that_are_not_finite_are_told_of_their_own_step(tmp_path, blind_recipe, at, clip, value):
    spoil = SpoilGradients(at, float(value))
    _, message = run(blind_recipe, tmp_path / "w", spoil, clip)
    assert message.startswith(f"step {at} (epoch 2): the norm of the gradients is {value}, the losses are")
    assert f"scenes of the batch: {', '.join(spoil.tokens)}." in message
    assert f"--resume {tmp_path / 'w/epoch_1.pth'}" in message
    assert not (tmp_path / "w/epoch_2.pth").exists()


def test_infinite_gradients_that_clipping_makes_finite_are_no_end(tmp_path, blind_recipe):
    runner = build_train_runner(load_config(blind_recipe, QUICK | BY_VALUE), str(tmp_path / "w"))
    runner.register_hook(SpoilGradients(2, float("inf")))
    runner.train()
    assert runner.iter == 6


def test_gradients_of_accumulated_batches_may_be_of_any_of_their_scenes(tmp_path, blind_recipe):
    """The second batch of a step of two, and the first of the next one."""
    options = {"optim_wrapper.accumulative_counts": 2, "train_cfg.max_epochs": 4}
    for at, update in ((2, 2), (3, 4)):
        spoil = SpoilGradients(at)
        _, message = run(blind_recipe, tmp_path / str(at), spoil, options)
        assert message.startswith(f"step {update} (epoch {update // 2}): the norm of the gradients")
        named = message.split("scenes of the batches since the last update: ")[1].split(".")[0].split(", ")
        assert len(named) == 4 and set(spoil.tokens) <= set(named)


class ScaledOptimWrapper(OptimWrapper):
    """Scales gradients as AmpOptimWrapper does, which insists on a GPU."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler("cpu")

    def backward(self, loss, **kwargs):
        super().backward(self.loss_scaler.scale(loss), **kwargs)

    def step(self, **kwargs):
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


def test_a_gradient_scaler_passes_over_infinite_gradients_by_itself(tmp_path, blind_recipe):
    """A fused optimizer is given them all the same, and told so."""
    options = QUICK | {"optim_wrapper.optimizer.fused": True}
    runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / "w"))
    optimizer = runner.build_optim_wrapper(runner.optim_wrapper).optimizer
    runner.optim_wrapper = ScaledOptimWrapper(optimizer=optimizer)
    runner.register_hook(SpoilGradients(2, float("inf")))
    runner.train()
    assert runner.iter == 6 and runner.optim_wrapper.loss_scaler.get_scale() == 2.0**15


def test_weights_that_cannot_be_saved_name_the_last_scenes_and_the_checkpoint_before(tmp_path, blind_recipe):
    """Whatever made them so; here behind the back of losses and gradients."""
    seen = []

    class Break(Hook):
        priority = "VERY_HIGH"

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen.append([sample.metainfo["token"] for sample in data_batch["data_samples"]])
            if runner.iter + 1 == 4:
                next(runner.model.parameters()).data.fill_(float("nan"))

    by_steps = {"default_hooks.checkpoint.by_epoch": False, "default_hooks.checkpoint.interval": 2}
    runner = build_train_runner(load_config(blind_recipe, QUICK | by_steps), str(tmp_path / "w"))
    runner.register_hook(Break())
    with pytest.raises(CheckpointError, match="weights hold NaN") as caught:
        runner.train()
    assert f"step 4 (epoch 2) was the last, with the scenes {', '.join(seen[-1])}." in str(caught.value)
    assert f"the last good checkpoint is {tmp_path / 'w/iter_2.pth'}, go on from it" in str(caught.value)


def test_a_resumed_run_names_what_it_went_on_from(tmp_path, blind_recipe):
    build_train_runner(load_config(blind_recipe, QUICK), str(tmp_path / "w")).train()
    options = {"train_cfg.max_epochs": 3}
    _, message = run(blind_recipe, tmp_path / "w", Spoil(8), options, resume=True)
    assert f"--resume {tmp_path / 'w/epoch_2.pth'}" in message


def test_the_command_line_says_it_in_one_line(tmp_path, blind_recipe, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    options = ["optim_wrapper.optimizer.lr=1e30", "optim_wrapper.clip_grad=None", "train_cfg.val_interval=99"]
    options += ["train_cfg.max_epochs=20", "default_hooks.checkpoint.interval=99"]
    assert train.main([str(blind_recipe), "--cfg-options", *options]) == 1
    (line,) = [text for text in capfd.readouterr().err.splitlines() if text.startswith("train: ")]
    assert "loss_trajectory is" in line and "scenes of the batch" in line
