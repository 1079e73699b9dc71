"""From what a training goes on, and as what: exactly, as stated, or not at all."""

import json
import re
import resource
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from beyonddrive.engine.checkpoint_files import CheckpointError, load_checkpoint_file
from beyonddrive.engine.resuming import differing_data
from beyonddrive.engine.runner import ConfigError, build_train_runner, find_last_checkpoint, load_config

BY_STEPS = {
    "default_hooks.checkpoint.by_epoch": False,
    "default_hooks.checkpoint.interval": 2,
    "default_hooks.checkpoint.save_best": None,
    "default_hooks.checkpoint.max_keep_ckpts": -1,
    "train_cfg.val_interval": 9,
}
KEEP = {"train_cfg.val_interval": 9, "default_hooks.checkpoint.max_keep_ckpts": -1}


def train(recipe, work_dir, options=None, **kwargs):
    runner = build_train_runner(load_config(recipe, options), str(work_dir), **kwargs)
    runner.train()
    return runner


def log_of(work_dir):
    return "\n".join(path.read_text() for path in sorted(work_dir.glob("*/*.log")))


def test_a_checkpoint_from_within_an_epoch_is_refused(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", BY_STEPS)
    assert {path.name for path in (tmp_path / "w").glob("*.pth")} == {f"iter_{n}.pth" for n in (2, 4, 6)}
    with pytest.raises(ConfigError, match=r"iter_4\.pth: was written within epoch 2, after step 1 of 3"):
        train(blind_recipe, tmp_path / "r", BY_STEPS, resume=str(tmp_path / "w/iter_4.pth"))
    assert not list((tmp_path / "r").glob("*.pth"))
    # The last one was written again once its epoch had ended and been validated.
    assert train(blind_recipe, tmp_path / "r", BY_STEPS, resume=str(tmp_path / "w/iter_6.pth")).iter == 6


def test_the_last_step_is_in_a_file_also_if_the_training_ends_early(tmp_path, blind_recipe):
    class Stop(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            runner.train_loop.stop_training = runner.iter >= 2

    runner = build_train_runner(load_config(blind_recipe, BY_STEPS), str(tmp_path / "w"))
    runner.register_hook(Stop())
    runner.train()
    assert runner.iter == 3 and find_last_checkpoint(tmp_path / "w").name == "iter_3.pth"
    saved = load_checkpoint_file(tmp_path / "w/iter_3.pth")["state_dict"]
    assert all(torch.equal(value, saved[key]) for key, value in runner.model.state_dict().items())


def test_weights_alone_are_no_training_to_go_on_from(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w")
    (best,) = (tmp_path / "w").glob("best_*.pth")
    with pytest.raises(ConfigError, match=r"best_.*has weights, but no optimizer.*load_from"):
        train(blind_recipe, tmp_path / "r", resume=str(best))
    assert train(blind_recipe, tmp_path / "r", {"load_from": str(best)}).epoch == 2


def test_a_training_goes_on_with_the_seed_that_it_began_with(tmp_path, blind_recipe):
    unbroken = train(blind_recipe, tmp_path / "w", KEEP, seed=3)
    checkpoint = str(tmp_path / "w/epoch_1.pth")
    resumed = train(blind_recipe, tmp_path / "r", KEEP, resume=checkpoint)
    assert resumed.seed == resumed.train_dataloader.sampler.seed == resumed.cfg.randomness.seed == 3
    weights = unbroken.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in resumed.model.state_dict().items())
    with pytest.raises(ConfigError, match=r"--seed 4: .*epoch_1\.pth is of a training with seed 3"):
        train(blind_recipe, tmp_path / "r", KEEP, resume=checkpoint, seed=4)


def test_other_batches_go_on_at_the_end_of_an_epoch_and_say_what_differs(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", KEEP)
    options = {**KEEP, "train_cfg.max_epochs": 3, "train_dataloader.batch_size": 3}
    runner = train(blind_recipe, tmp_path / "r", options, resume=str(tmp_path / "w/epoch_1.pth"))
    assert (runner.epoch, runner.iter) == (3, 6)
    told = log_of(tmp_path / "r")
    differing = "batch_size 2 before, 3 now; steps_per_epoch 3 before, 2 now"
    assert f"going on after epoch 1 with other steps: {differing}" in told
    # What it wrote is a whole training to go on from, with the new steps.
    again = train(blind_recipe, tmp_path / "s", options, resume=str(tmp_path / "r/epoch_2.pth"))
    assert again.iter == 6 and "other steps" not in log_of(tmp_path / "s")


def test_other_batches_are_refused_where_gradients_would_be_of_a_part_of_an_update(tmp_path, blind_recipe):
    two = {"optim_wrapper.accumulative_counts": 2}
    train(blind_recipe, tmp_path / "w", KEEP | two)  # an epoch has three steps
    train(blind_recipe, tmp_path / "one", KEEP)
    longer = KEEP | {"train_cfg.max_epochs": 3}
    for folder, epoch, options, differs in (
        ("w", 1, two | {"train_dataloader.batch_size": 1}, "batch_size 2 before, 1 now"),
        ("w", 1, {}, "accumulative_counts 2 before, 1 now"),
        ("one", 1, two, "accumulative_counts 1 before, 2 now"),
        ("one", 2, {"optim_wrapper.accumulative_counts": 4}, "accumulative_counts 1 before, 4 now"),
    ):
        start = str(tmp_path / folder / f"epoch_{epoch}.pth")
        with pytest.raises(ConfigError, match=rf"epoch_{epoch}\.pth: lies within the steps.*{differs}"):
            train(blind_recipe, tmp_path / "r", longer | options, resume=start)
    train(blind_recipe, tmp_path / "s", longer | two, resume=str(tmp_path / "one/epoch_2.pth"))
    assert "with other steps: accumulative_counts 1 before, 2 now" in log_of(tmp_path / "s")


def test_other_batches_are_refused_where_steps_count(tmp_path, blind_recipe):
    schedule = {"type": "LinearLR", "by_epoch": False, "start_factor": 0.1, "_delete_": True}
    options = {**KEEP, "param_scheduler": schedule}
    train(blind_recipe, tmp_path / "w", options)
    options["train_dataloader.batch_size"] = 3
    with pytest.raises(ConfigError, match=r"a schedule counts steps .*batch_size 2 before, 3 now"):
        train(blind_recipe, tmp_path / "r", options, resume=str(tmp_path / "w/epoch_1.pth"))
    loop = {"by_epoch": False, "max_iters": 4, "val_interval": 9, "_delete_": True}
    options = {**BY_STEPS, "train_cfg": loop}
    del options["train_cfg.val_interval"]
    options["train_dataloader.sampler.type"] = "InfiniteSampler"
    options["param_scheduler"] = None
    loop["val_interval"] = 2
    assert not train(blind_recipe, tmp_path / "i", options).log_processor.by_epoch  # (it logs steps, too)
    (file,) = (tmp_path / "i").glob("*/vis_data/scalars.json")
    logged = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in logged if "iter" not in line] == [2, 4]
    options["train_dataloader.batch_size"] = 3
    with pytest.raises(ConfigError, match=r"by iterations goes on only with .*batch_size 2 before, 3 now"):
        train(blind_recipe, tmp_path / "j", options, resume=str(tmp_path / "i/iter_2.pth"))


def test_a_truncated_checkpoint_is_refused_with_the_one_before_it(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", {**KEEP, "train_cfg.max_epochs": 3})
    for number in (3, 2):
        path = tmp_path / f"w/epoch_{number}.pth"
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(CheckpointError, match=rf"epoch_{number}\.pth: cannot be read") as told:
            train(blind_recipe, tmp_path / "w", KEEP, resume=str(path))
        assert str(told.value).endswith(f"--resume {tmp_path}/w/epoch_{number - 1}.pth")
    assert train(blind_recipe, tmp_path / "w", KEEP, resume=str(tmp_path / "w/epoch_1.pth")).epoch == 2


def recipe_left_in(work_dir, recipe):
    return load_config(work_dir / recipe.name)


@pytest.mark.usefixtures("laid_out_configs")
def test_the_config_that_a_resumed_run_leaves_starts_from_the_beginning(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", {**KEEP, "log_level": "INFO"})
    first = (tmp_path / "w" / blind_recipe.name).read_text()
    train(blind_recipe, tmp_path / "w", {**KEEP, "log_level": "INFO"}, resume=str(tmp_path / "w/epoch_1.pth"))
    left = recipe_left_in(tmp_path / "w", blind_recipe)
    assert left.load_from is None and left.resume is False
    strip = re.compile(r"experiment_name = .*")
    assert strip.sub("", (tmp_path / "w" / blind_recipe.name).read_text()) == strip.sub("", first)
    told = log_of(tmp_path / "w")
    assert f"{tmp_path}/w/epoch_1.pth" in told and "resumed epoch: 1" in told
    meta = load_checkpoint_file(tmp_path / "w/epoch_2.pth")["meta"]
    assert "resume = False" in meta["cfg"] and "load_from = None" in meta["cfg"]


def test_weights_that_a_recipe_starts_from_stay_in_it(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", KEEP)
    start = {**KEEP, "load_from": str(tmp_path / "w/epoch_1.pth")}
    train(blind_recipe, tmp_path / "tuned", start)
    train(blind_recipe, tmp_path / "tuned", start, resume=True)
    assert recipe_left_in(tmp_path / "tuned", blind_recipe).load_from == start["load_from"]


def test_resume_may_be_an_option_too(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", KEEP)
    options = {**KEEP, "train_cfg.max_epochs": 3}
    assert "resumed epoch" not in log_of(tmp_path / "w")
    named = {"resume": True, "load_from": str(tmp_path / "w/epoch_1.pth"), "log_level": "INFO"}
    train(blind_recipe, tmp_path / "r", {**options, **named})
    assert "resumed epoch: 1" in log_of(tmp_path / "r")
    assert recipe_left_in(tmp_path / "r", blind_recipe).load_from is None
    train(blind_recipe, tmp_path / "w", {**options, "resume": True, "log_level": "INFO"})
    assert "resumed epoch: 2" in log_of(tmp_path / "w")


def test_a_full_disk_names_the_file_and_loses_nothing(tmp_path, blind_recipe, monkeypatch):
    train(blind_recipe, tmp_path / "whole", {**KEEP, "train_cfg.max_epochs": 3})
    runner = build_train_runner(
        load_config(blind_recipe, {**KEEP, "train_cfg.max_epochs": 3}), str(tmp_path / "w")
    )

    class Fill(Hook):
        priority = "VERY_HIGH"

        def after_train_epoch(self, runner):
            if runner.epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    runner.register_hook(Fill())
    try:
        with pytest.raises(OSError, match=r"the checkpoint cannot be written \(File too large\)") as told:
            runner.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told.value.filename == str(tmp_path / "w/epoch_2.pth")
    assert [path.name for path in (tmp_path / "w").glob("*.pth")] == ["epoch_1.pth"]
    assert not list((tmp_path / "w").rglob("*.partial"))
    train(blind_recipe, tmp_path / "w", {**KEEP, "train_cfg.max_epochs": 3}, resume=True)
    one, other = (load_checkpoint_file(tmp_path / name / "epoch_3.pth") for name in ("whole", "w"))
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())


def test_a_work_folder_that_cannot_be_written_is_refused(tmp_path, blind_recipe):
    (tmp_path / "file").write_text("")
    for folder, reason in (("/proc/runs", r"cannot be written"), (tmp_path / "file", r"is no folder")):
        with pytest.raises(ConfigError, match=rf"work_dir {re.escape(str(folder))}: {reason}"):
            build_train_runner(load_config(blind_recipe), str(folder))
    assert not Path("/proc/runs").exists() and not (tmp_path / "file").stat().st_size


def test_options_that_a_checkpoint_would_undo_are_refused(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", KEEP)
    start = str(tmp_path / "w/epoch_1.pth")
    for option, value in (
        ("optim_wrapper.optimizer.lr", 0.5),
        ("optim_wrapper.optimizer.weight_decay", 0.1),
        ("optim_wrapper.paramwise_cfg", {"bias_lr_mult": 2.0}),
        ("param_scheduler.eta_min", 1e-5),
        ("param_scheduler", {"type": "MultiStepLR", "milestones": [1], "_delete_": True}),
    ):
        with pytest.raises(ConfigError, match=rf"{option}.* before\).*leave it out.*load_from=") as told:
            train(blind_recipe, tmp_path / "r", {**KEEP, option: value}, resume=start)
        assert "\n" not in str(told.value) and start in str(told.value)
    told = r"auto_scale_lr\.enable=True: .* times 0\.125 \(1 with False before\)"
    with pytest.raises(ConfigError, match=told):
        train(blind_recipe, tmp_path / "r", KEEP, resume=start, auto_scale_lr=True)
    assert not list((tmp_path / "r").glob("*.pth"))
    anew = {**KEEP, "optim_wrapper.optimizer.lr": 0.5, "load_from": start}
    assert train(blind_recipe, tmp_path / "r", anew).epoch == 2


def test_a_longer_training_says_that_its_schedule_was_made_for_a_shorter_one(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", KEEP)
    assert train(blind_recipe, tmp_path / "w", {**KEEP, "train_cfg.max_epochs": 3}, resume=True).epoch == 3
    told = log_of(tmp_path / "w")
    assert "train_cfg.max_epochs=3 (2 before): the schedule" in told and "another length" in told
    plain = {**KEEP, "param_scheduler": None}
    train(blind_recipe, tmp_path / "p", plain)
    train(blind_recipe, tmp_path / "p", {**plain, "train_cfg.max_epochs": 3}, resume=True)
    assert "another length" not in log_of(tmp_path / "p")


def test_training_anew_beside_checkpoints_of_another_run_is_told(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", KEEP)
    train(blind_recipe, tmp_path / "w", KEEP, resume=True)
    assert "another run" not in log_of(tmp_path / "w")
    train(blind_recipe, tmp_path / "w", KEEP)
    assert "checkpoints of another run" in log_of(tmp_path / "w")
    assert "epoch_1.pth, epoch_2.pth" in log_of(tmp_path / "w")


def test_other_data_are_refused_also_if_they_are_as_many(tmp_path, blind_recipe):
    """The first five of six scenes, and the last five."""
    five = {**KEEP, "train_dataloader.dataset.indices": 5}
    train(blind_recipe, tmp_path / "w", five)
    start = str(tmp_path / "w/epoch_1.pth")
    other = {**five, "train_dataloader.dataset.indices": -5}
    told = (
        r"epoch_1\.pth: was trained on other data .*tokens \w+ before, \w+ now.*load_from=.*allow_other_data"
    )
    with pytest.raises(ConfigError, match=told):
        train(blind_recipe, tmp_path / "r", other, resume=start)
    more = {**KEEP, "train_dataloader.dataset.indices": 6}
    with pytest.raises(ConfigError, match=r"other data .*scenes 5 before, 6 now"):
        train(blind_recipe, tmp_path / "r", more, resume=start)
    assert not list((tmp_path / "r").glob("*.pth"))
    assert train(blind_recipe, tmp_path / "same", five, resume=start).epoch == 2
    (guard,) = (
        number
        for number, hook in enumerate(load_config(blind_recipe).custom_hooks)
        if hook.type == "CheckpointGuardHook"
    )
    allowed = {**other, f"custom_hooks.{guard}.allow_other_data": True}
    assert train(blind_recipe, tmp_path / "r", allowed, resume=start).epoch == 2
    assert "was trained on other data" in log_of(tmp_path / "r")
    # What it wrote is of the data that it went on with.
    last = str(tmp_path / "r/epoch_2.pth")
    train(blind_recipe, tmp_path / "s", {**other, "train_cfg.max_epochs": 3}, resume=last)


def test_a_pool_that_was_mined_again_is_other_data():
    before = {"split": "train", "tokens": "a", "digest": "b", "by": "content", "files": 3, "stores": []}
    pool = {"transform": "LoadNegatives", "kind": "negatives", "records": 5, "digest": "c"}
    assert differing_data([before], [before]) == []
    assert differing_data([before], [{**before, "by": "name and size", "digest": "d", "files": 2}]) == []
    assert differing_data([before], [{**before, "digest": "d"}]) == ["digest b before, d now"]
    (found,) = differing_data(
        [{**before, "stores": [pool]}], [{**before, "stores": [{**pool, "digest": "e"}]}]
    )
    assert found == "stores [LoadNegatives 5 c] before, [LoadNegatives 5 e] now"
    assert differing_data([before], [before, before]) == ["1 data sets before, 2 now"]


def test_a_checkpoint_that_does_not_say_its_data_can_be_gone_on_from(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", KEEP)
    path = tmp_path / "w/epoch_1.pth"
    checkpoint = load_checkpoint_file(path)
    assert checkpoint["meta"].pop("data")[0]["scenes"] == 6
    torch.save(checkpoint, path)
    assert train(blind_recipe, tmp_path / "r", KEEP, resume=str(path)).epoch == 2
