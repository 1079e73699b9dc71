"""A loss that is not finite ends the training, and the message says where to look and how to go on."""

import pytest
from mmengine.hooks import Hook

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
        with pytest.raises(NonFiniteLossError, match=rf"step {at} .*loss_trajectory is inf"):
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
