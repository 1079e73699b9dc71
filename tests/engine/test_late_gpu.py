"""A training whose losses and checks are on a GPU that is late: what it waits for, and when it ends.

The planner itself runs on the CPU. Its losses are put on the GPU, which does nothing before it is waited for.
"""

from __future__ import annotations

import pytest
import torch
from mmengine.hooks import Hook

from beyonddrive.engine.hooks.finite_losses import FiniteLossesHook, NonFiniteLossError
from beyonddrive.engine.runner import build_train_runner, find_last_checkpoint, load_config
from beyonddrive.structures.transfers import LateChecks

STEPS = 3
"""Steps of an epoch, of which there are two."""
QUIET = {
    "train_cfg.val_interval": 99,
    "default_hooks.logger.interval": STEPS,
    "optim_wrapper.clip_grad": None,
}


class Checked(torch.nn.Module):
    """A part with checks."""

    def __init__(self):
        super().__init__()
        self.checks = LateChecks()


class Move(Hook):
    """Puts the losses of each step on the GPU, makes a check there, and notes what the step has waited for.

    Args:
        gpu: The GPU.
        bad_check: Step whose check fails, counted from 1.
        bad_loss: Step whose loss is NaN.

    Attributes:
        in_steps: What steps have waited for.
        between: The same of what was done before each step, since the one before.
    """

    priority = "VERY_HIGH"

    def __init__(self, gpu, bad_check=None, bad_loss=None):
        self.gpu, self.bad_check, self.bad_loss = gpu, bad_check, bad_loss
        self.done = 0
        self.in_steps = []
        self.between = []
        self.seen = 0

    def before_train(self, runner):
        step, checks = runner.model.train_step, runner.model.checked.checks

        def moved(*args, **kwargs):
            self.done += 1
            before = len(self.gpu.waits())
            self.between.append(self.gpu.waits()[self.seen :])
            found = step(*args, **kwargs)
            if self.done == self.bad_loss:
                found = {name: value * float("nan") for name, value in found.items()}
            number = self.done
            good = self.gpu.put(torch.tensor(number != self.bad_check))
            checks(good, lambda: ValueError(f"step {number} had a bad input"))
            self.in_steps += self.gpu.waits()[before:]
            self.seen = len(self.gpu.waits())
            return {name: self.gpu.put(value) for name, value in found.items()}

        runner.model.train_step = moved


def trained(recipe, work_dir, move):
    runner = build_train_runner(load_config(recipe, QUIET), str(work_dir))
    runner.model.checked = Checked()
    runner.register_hook(move)
    return runner


def test_no_step_waits_and_the_figures_are_those_of_a_training_on_the_host(tmp_path, blind_recipe, gpu):
    plain = build_train_runner(load_config(blind_recipe, QUIET), str(tmp_path / "plain"))
    plain.train()
    assert gpu.log == []
    move = Move(gpu)
    runner = trained(blind_recipe, tmp_path / "late", move)
    runner.train()
    assert move.done == 2 * STEPS and move.in_steps == []
    assert "read" not in gpu.log
    # Between steps: nothing, the losses of step 1 in step 2, and what the log of step 3 shows.
    assert [len(waits) for waits in move.between[:3]] == [0, 0, 1]
    assert len(move.between[3]) > 2 * STEPS
    for name in ("train/loss", "train/loss_trajectory"):
        figures, expected = (r.message_hub.get_scalar(name).data[0].tolist() for r in (runner, plain))
        assert len(figures) == 2 * STEPS and figures == pytest.approx(expected)


def assert_ended(move, steps, folder, kept):
    """After so many steps, none of which waited, with this checkpoint as the last."""
    assert move.done == steps and move.in_steps == []
    found = find_last_checkpoint(folder)
    assert (found and found.name) == kept


@pytest.mark.parametrize(
    ("at", "steps", "kept"),
    [
        (1, 3, None),  # the losses of step 1, which were sent after its check, are waited for in step 2
        (STEPS, STEPS, None),
        (STEPS + 1, STEPS + 3, "epoch_1.pth"),
        (2 * STEPS, 2 * STEPS, "epoch_1.pth"),
    ],
)
def test_a_check_that_fails_ends_the_training_before_a_checkpoint(
    tmp_path, blind_recipe, gpu, at, steps, kept
):
    move = Move(gpu, bad_check=at)
    runner = trained(blind_recipe, tmp_path / "w", move)
    with pytest.raises(ValueError, match=f"step {at} had a bad input"):
        runner.train()
    assert_ended(move, steps, tmp_path / "w", kept)


@pytest.mark.parametrize(("at", "steps", "kept"), [(1, 2, None), (STEPS, STEPS, None), (5, 6, "epoch_1.pth")])
def test_losses_are_looked_at_a_step_later_and_before_a_checkpoint(
    tmp_path, blind_recipe, gpu, at, steps, kept
):
    move = Move(gpu, bad_loss=at)
    runner = trained(blind_recipe, tmp_path / "w", move)
    with pytest.raises(NonFiniteLossError, match=rf"step {at} .*loss_trajectory is nan"):
        runner.train()
    assert_ended(move, steps, tmp_path / "w", kept)


def test_the_losses_of_a_step_are_waited_for_after_those_of_the_next_were_sent(gpu, tmp_path, blind_recipe):
    runner = build_train_runner(load_config(blind_recipe, QUIET), str(tmp_path))
    hook = FiniteLossesHook()
    hook.before_train(runner)
    for index in range(3):
        hook.after_train_iter(runner, index, None, {"loss": gpu.put(torch.tensor(1.0))})
    assert gpu.log == ["record 1", "record 2", "synchronize 1", "record 3", "synchronize 2"]
    hook.before_save_checkpoint(runner, {})
    assert gpu.log[5:] == ["synchronize 3"]
    hook.after_train_epoch(runner)  # (looked at once)
    hook.after_train(runner)
    assert len(gpu.log) == 6
