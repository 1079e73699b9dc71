"""Trainings by iterations whose schedule or checkpoints count epochs, and figures that nothing gives."""

from types import SimpleNamespace

import pytest

from beyonddrive.engine.runner import ConfigError, build_train_runner, load_config
from beyonddrive.engine.runner.loop_checks import check_schedules_move

BY_STEPS = {
    "train_cfg": {"by_epoch": False, "max_iters": 4, "val_interval": 9, "_delete_": True},
    "default_hooks.checkpoint.by_epoch": False,
    "train_dataloader.sampler.type": "InfiniteSampler",
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"default_hooks.checkpoint.by_epoch": True},
            r"counts steps, and default_hooks\.checkpoint writes after an epoch.*checkpoint\.by_epoch=False",
        ),
        ({}, r"param_scheduler\.type=WarmupCosineLR: counts epochs, and the training steps.*by_epoch=False"),
        (
            {"param_scheduler.convert_to_iter_based": True},
            r"param_scheduler\.type=WarmupCosineLR: convert_to_iter_based=True without end",
        ),
    ],
)
def test_what_counts_epochs_is_refused_where_there_are_none(tmp_path, blind_recipe, options, message):
    """The schedule of the recipe would leave the learning rate where it is from first to last step."""
    config = load_config(blind_recipe, BY_STEPS | options)
    with pytest.raises(ConfigError, match=message):
        build_train_runner(config, str(tmp_path / "w")).train()
    assert not list((tmp_path / "w").glob("*.pth"))


def test_a_schedule_that_follows_validations_may_count_them():
    plateau = SimpleNamespace(by_epoch=True, need_val_args=True)
    check_schedules_move({"type": "ReduceOnPlateauLR"}, [plateau, SimpleNamespace(by_epoch=False)])
    check_schedules_move(None, None)


def test_an_early_end_by_a_figure_that_nothing_gives_is_refused(tmp_path, blind_recipe):
    """mmengine warns after each validation, and never ends."""
    stopping = {"type": "EarlyStoppingHook", "monitor": "pdms/PMDS", "rule": "greater"}
    runner = build_train_runner(load_config(blind_recipe, {"custom_hooks": [stopping]}), str(tmp_path / "w"))
    with pytest.raises(ConfigError, match=r"monitor='pdms/PMDS': .* no such figure; did you mean pdms/PDMS"):
        runner.train()
    assert not list((tmp_path / "w").glob("*.pth"))
