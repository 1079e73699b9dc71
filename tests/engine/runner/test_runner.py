"""Training as users run it: resuming, seeds, checkpoints that survive a kill, refusals."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import Hook

from beyonddrive.apis import init_planner
from beyonddrive.checkpoints.loading import load_weights
from beyonddrive.engine.checkpoint_files import CheckpointError, load_checkpoint_file
from beyonddrive.engine.hooks import PlannerCheckpointHook
from beyonddrive.engine.runner import (
    ConfigError,
    build_test_runner,
    build_train_runner,
    find_last_checkpoint,
    load_config,
)
from beyonddrive.evaluation.pdms_metric import PDMSMetric
from beyonddrive.registry import MODELS
from beyonddrive.version import __version__

REPOSITORY = Path(__file__).parents[3]


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


class KillAfter(Hook):
    priority = "LOWEST"

    def __init__(self, epoch):
        self.epoch = epoch

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == self.epoch:
            raise Killed


def train(recipe, work_dir, options=None, kill_after=None, **kwargs):
    runner = build_train_runner(load_config(recipe, options), str(work_dir), **kwargs)
    if kill_after is not None:
        runner.register_hook(KillAfter(kill_after))
    runner.train()
    return runner


def logged_losses(work_dir):
    (path,) = work_dir.glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_resumed_run_ends_exactly_where_the_uninterrupted_one_does(tmp_path, blind_recipe):
    options = {"train_cfg.max_epochs": 4, "train_cfg.val_interval": 2}
    train(blind_recipe, tmp_path / "whole", options)
    with pytest.raises(Killed):
        train(blind_recipe, tmp_path / "killed", options, kill_after=3)
    assert find_last_checkpoint(tmp_path / "killed").name == "epoch_3.pth"
    resumed = train(blind_recipe, tmp_path / "killed", options, resume=True)
    assert resumed.epoch == 4
    whole = load_checkpoint_file(tmp_path / "whole" / "epoch_4.pth")
    again = load_checkpoint_file(tmp_path / "killed" / "epoch_4.pth")
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, again["state_dict"][key]), key
    assert (
        whole["message_hub"]["runtime_info"]["best_score_pdms/PDMS"]
        == again["message_hub"]["runtime_info"]["best_score_pdms/PDMS"]
    )


class KillInValidation(Hook):
    def __init__(self, epoch):
        self.epoch = epoch

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.epoch == self.epoch:
            raise Killed


@pytest.mark.parametrize("epoch", [2, 4])
def test_a_run_that_was_killed_in_its_validation_is_validated_when_it_is_resumed(
    tmp_path, blind_recipe, epoch
):
    options = {"train_cfg.max_epochs": 4, "train_cfg.val_interval": 2}
    scores = {}
    for name in ("whole", "killed"):
        runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / name))
        if name == "killed":
            runner.register_hook(KillInValidation(epoch))
            with pytest.raises(Killed):
                runner.train()
            runner = train(blind_recipe, tmp_path / name, options, resume=True)
            assert runner.epoch == 4
        else:
            runner.train()
        scores[name] = runner.message_hub.get_scalar("val/pdms/PDMS").data[0].tolist()
        last = load_checkpoint_file(tmp_path / name / "epoch_4.pth")["message_hub"]["runtime_info"]
        assert (
            last["last_validated"] == 4
            and (tmp_path / name / Path(last["best_ckpt_pdms/PDMS"]).name).exists()
        )
        # What has been validated is not validated again.
        again = train(blind_recipe, tmp_path / name, options, resume=True)
        assert again.message_hub.get_scalar("val/pdms/PDMS").data[0].tolist() == scores[name]
    assert scores["killed"] == scores["whole"] and len(scores["whole"]) == 2
    names = [sorted(path.name for path in (tmp_path / name).glob("*.pth")) for name in ("whole", "killed")]
    assert names[0] == names[1] and len(names[0]) == 3


def test_the_seed_decides_the_losses(tmp_path, blind_recipe):
    runs = {}
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        train(blind_recipe, tmp_path / name, {"train_cfg.val_interval": 5}, seed=seed)
        runs[name] = logged_losses(tmp_path / name)
    assert len(runs["first"]) == 6
    assert runs["first"] == runs["again"] != runs["other"]


@pytest.mark.parametrize("hooks", [{}, {"custom_hooks": [{"type": "EMAHook"}]}], ids=["own", "others"])
def test_random_numbers_of_an_epoch_depend_on_seed_and_epoch_only(tmp_path, blind_recipe, hooks):
    """Also if the config lists other hooks than those of its base."""
    drawn = []

    class Draw(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if batch_idx == 0:
                drawn.append((runner.epoch, float(torch.rand(1)), float(np.random.rand())))

    for folder, epochs, resume in (("cut", 2, False), ("cut", 3, True), ("whole", 3, False)):
        options = {"train_cfg.max_epochs": epochs, "train_cfg.val_interval": 9, **hooks}
        runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / folder), resume=resume)
        runner.register_hook(Draw())
        runner.train()
    assert [epoch for epoch, *_ in drawn] == [0, 1, 2, 0, 1, 2]
    assert drawn[:3] == drawn[3:]
    assert len({number for _, *numbers in drawn[:3] for number in numbers}) == 6


def test_a_kill_while_a_checkpoint_is_written_leaves_the_last_one_whole(tmp_path, blind_recipe, monkeypatch):
    put = LocalBackend.put

    def interrupted(self, content, path):
        if "epoch_2" in str(path):
            put(self, content[: len(content) // 2], path)
            raise Killed
        put(self, content, path)

    options = {"train_cfg.max_epochs": 3, "default_hooks.checkpoint.max_keep_ckpts": 1}
    monkeypatch.setattr(LocalBackend, "put", interrupted)
    with pytest.raises(Killed):
        train(blind_recipe, tmp_path / "w", options)
    last = find_last_checkpoint(tmp_path / "w")
    assert last.name == "epoch_1.pth"
    load_checkpoint_file(last)
    best = load_checkpoint_file(last)["message_hub"]["runtime_info"]["best_ckpt_pdms/PDMS"]
    load_checkpoint_file(best)
    monkeypatch.undo()
    train(blind_recipe, tmp_path / "w", options, resume="auto")
    assert sorted(path.name for path in (tmp_path / "w").glob("epoch_*.pth")) == ["epoch_3.pth"]
    assert not list((tmp_path / "w").glob(".*.partial"))


def test_best_and_newest_checkpoints_are_kept_and_signed(tmp_path, blind_recipe):
    options = {"train_cfg.max_epochs": 4, "default_hooks.checkpoint.max_keep_ckpts": 2}
    runner = train(blind_recipe, tmp_path / "w", options)
    names = sorted(path.name for path in (tmp_path / "w").glob("*.pth"))
    best = [name for name in names if name.startswith("best_pdms_PDMS_epoch_")]
    assert len(best) == 1 and [name for name in names if name not in best] == ["epoch_3.pth", "epoch_4.pth"]
    checkpoint = load_checkpoint_file(tmp_path / "w" / best[0])
    meta = checkpoint["meta"]
    assert meta["planner"] == "EgoStatusMLP" and meta["beyonddrive_version"] == __version__
    assert "EgoStatusMLP" in meta["cfg"] and meta["seed"] == 0
    scores = runner.message_hub.get_scalar("val/pdms/PDMS").data[0]
    assert meta["best_score"] == scores.max()
    assert int(best[0].split("_")[-1].removesuffix(".pth")) == int(np.argmax(scores)) + 1
    assert not list((tmp_path / "w").glob(".*.partial"))


def test_a_planner_that_fails_in_scenes_is_not_the_best_by_the_rest(tmp_path, blind_recipe, monkeypatch):
    """60 in two scenes of three is 40 over all; 45 in all of them is better, though the figure is less."""
    given = iter([(60.0, 2, 1), (45.0, 3, 0), (90.0, 1, 2)])

    def evaluate(self, size):
        self.results.clear()
        score, scored, failed = next(given)
        return {"pdms/PDMS": score, "pdms/num_scenes": float(scored), "pdms/num_failed": float(failed)}

    monkeypatch.setattr(PDMSMetric, "evaluate", evaluate)
    train(blind_recipe, tmp_path / "w", {"train_cfg.max_epochs": 3})
    (best,) = (tmp_path / "w").glob("best_*.pth")
    assert best.name == "best_pdms_PDMS_epoch_2.pth"
    assert load_checkpoint_file(best)["meta"]["best_score"] == 45.0
    told = "".join(path.read_text() for path in (tmp_path / "w").glob("*/*.log"))
    assert "pdms/PDMS 90.0000 is of 33.3 % of the scenes; it counts as 30.0000" in told


def test_a_kill_before_an_old_checkpoint_is_removed_leaves_it_to_the_resumed_run(
    tmp_path, blind_recipe, monkeypatch
):
    options = {"train_cfg.max_epochs": 4, "default_hooks.checkpoint.max_keep_ckpts": 2}

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(PlannerCheckpointHook, "_remove", kill)
        with pytest.raises(Killed):
            train(blind_recipe, tmp_path / "killed", options)
    assert sorted(path.name for path in (tmp_path / "killed").glob("epoch_*")) == [
        f"epoch_{epoch}.pth" for epoch in (1, 2, 3)
    ]
    train(blind_recipe, tmp_path / "killed", options, resume=True)
    kept = sorted(path.name for path in (tmp_path / "killed").glob("epoch_*"))
    assert kept == ["epoch_3.pth", "epoch_4.pth"]


def test_the_best_checkpoint_of_each_metric_is_kept_and_found_again(tmp_path, blind_recipe):
    keys = ["pdms/PDMS", "pdms/EP"]
    options = {
        "train_cfg.max_epochs": 4,
        "default_hooks.checkpoint.save_best": keys,
        "default_hooks.checkpoint.rule": ["greater", "less"],
    }
    train(blind_recipe, tmp_path / "whole", options)
    with pytest.raises(Killed):
        train(blind_recipe, tmp_path / "killed", options, kill_after=3)
    train(blind_recipe, tmp_path / "killed", options, resume=True)
    kept = [sorted(path.name for path in (tmp_path / name).glob("best*.pth")) for name in ("whole", "killed")]
    runner = train(blind_recipe, tmp_path / "whole", options, resume=True)
    expected = []
    for key, pick in zip(keys, (np.argmax, np.argmin), strict=True):
        scores = runner.message_hub.get_scalar(f"val/{key}").data[0]
        expected.append(f"best_{key.replace('/', '_')}_epoch_{pick(scores) + 1}.pth")
        meta = load_checkpoint_file(tmp_path / "whole" / expected[-1])["meta"]
        assert meta["best_score"] == scores[pick(scores)]
    assert kept == [sorted(expected)] * 2


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"save_best": "auto"}, "save_best must name metrics"),
        ({"save_best": ["a", "a"]}, "each once"),
        ({"save_best": ["a", "b"], "rule": ["less"] * 3}, "one for each of its 2 metrics"),
        ({"save_best": "a", "rule": "most"}, "'greater' or 'less'"),
        ({"published_keys": ["meta", "state_dict"]}, "published_keys does nothing here"),
        ({"file_client_args": {"backend": "disk"}}, "file_client_args does nothing here"),
    ],
)
def test_a_checkpoint_hook_of_settings_that_it_cannot_heed_is_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        PlannerCheckpointHook(**settings)


def test_a_moved_work_folder_is_still_resumed(tmp_path, blind_recipe):
    train(blind_recipe, tmp_path / "w", {"train_cfg.val_interval": 9})
    (tmp_path / "w").rename(tmp_path / "elsewhere")
    assert find_last_checkpoint(tmp_path / "elsewhere") == tmp_path / "elsewhere" / "epoch_2.pth"
    for path in (tmp_path / "elsewhere").glob("*.pth"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"epoch_2\.pth, which is gone"):
        find_last_checkpoint(tmp_path / "elsewhere")
    assert find_last_checkpoint(tmp_path) is None


def test_the_checkpoint_of_an_earlier_training_in_the_work_folder_is_not_the_last(tmp_path, blind_recipe):
    """Two trainings of one work folder, of which the second has its checkpoints elsewhere."""
    short = {"train_cfg.max_epochs": 1, "train_cfg.val_interval": 9}
    elsewhere = {**short, "default_hooks.checkpoint.out_dir": str(tmp_path / "all")}
    train(blind_recipe, tmp_path / "w", short)
    train(blind_recipe, tmp_path / "w", elsewhere, seed=5)
    config = load_config(blind_recipe, {**elsewhere, "train_cfg.max_epochs": 2})
    runner = build_train_runner(config, str(tmp_path / "w"), resume=True)
    assert runner._load_from == str(tmp_path / "all" / "w" / "epoch_1.pth") and runner.seed == 5


def test_building_a_runner_leaves_the_config_as_it_was(tmp_path, blind_recipe):
    """What one run is asked for must not be done by the next one of a notebook."""
    config = load_config(blind_recipe)
    before = config.dump()
    build_train_runner(config, str(tmp_path / "w"), amp=True, seed=3, auto_scale_lr=True)
    build_test_runner(config, work_dir=str(tmp_path / "t"), out_file=str(tmp_path / "scores.csv"))
    assert config.dump() == before


@pytest.mark.parametrize(("intervals", "validated"), [([(3, 1)], [3, 4]), ([(2, 4)], [4])])
def test_a_resumed_run_validates_when_an_unbroken_one_does(tmp_path, blind_recipe, intervals, validated):
    options = {"train_cfg.max_epochs": 4, "train_cfg.val_interval": 2 if len(validated) > 1 else 1}
    options |= {"train_cfg.dynamic_intervals": intervals, "train_cfg.val_begin": 3}

    class Note(Hook):
        def __init__(self, epochs):
            self.epochs = epochs

        def before_val_epoch(self, runner):
            self.epochs.append(runner.epoch)

    def run(name, stop=None, **kwargs):
        runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / name), **kwargs)
        runner.register_hook(Note(epochs := []))
        if stop is not None:
            runner.register_hook(KillAfter(stop))
        with pytest.raises(Killed) if stop is not None else nullcontext():
            runner.train()
        return epochs

    assert run("whole") == validated
    assert run("killed", stop=3) == []
    assert run("killed", resume=True) == validated


def save_weights(path, planner, name="EgoStatusMLP"):
    torch.save({"state_dict": planner.state_dict(), "meta": {"planner": name}}, path)
    return path


def test_a_checkpoint_of_another_planner_is_refused_whole(tmp_path, blind_recipe):
    other = MODELS.build({"type": "EgoStatusMLP", "hidden": 16, "num_layers": 2})
    path = save_weights(tmp_path / "other.pth", other, "DeeperMLP")
    with pytest.raises(CheckpointError, match=r"other\.pth.*EgoStatusMLP.*2 unexpected.*DeeperMLP"):
        init_planner(blind_recipe, path)
    for options in ({"load_from": str(path)}, None):
        runner = build_train_runner(
            load_config(blind_recipe, options), str(tmp_path / "w"), resume=False if options else str(path)
        )
        with pytest.raises(CheckpointError, match=r"other\.pth.*Nothing was loaded"):
            runner.train()
    wider = MODELS.build({"type": "EgoStatusMLP", "hidden": 8, "num_layers": 1})
    path = save_weights(tmp_path / "narrow.pth", wider)
    with pytest.raises(CheckpointError, match=r"of another shape \(.*\(8, 8\) for \(16, 8\)"):
        init_planner(blind_recipe, path)


def test_a_checkpoint_with_nan_is_refused(tmp_path, blind_recipe):
    planner = MODELS.build(load_config(blind_recipe).model)
    planner.encoder[0].bias.data[0] = float("nan")
    path = save_weights(tmp_path / "diverged.pth", planner)
    with pytest.raises(CheckpointError, match=r"diverged\.pth: 1 weights.*encoder\.0\.bias"):
        init_planner(blind_recipe, path)


def test_a_diverged_planner_is_not_saved(tmp_path, blind_recipe):
    class Diverge(Hook):
        priority = "HIGHEST"

        def after_train_epoch(self, runner):
            runner.model.encoder[0].bias.data.fill_(float("inf"))

    runner = build_train_runner(load_config(blind_recipe), str(tmp_path / "w"))
    runner.register_hook(Diverge())
    with pytest.raises(CheckpointError, match=r"EgoStatusMLP diverged.*encoder\.0\.bias"):
        runner.train()
    assert not list((tmp_path / "w").glob("*.pth"))


def test_loaded_weights_are_the_saved_ones(tmp_path, blind_recipe):
    planner = MODELS.build(load_config(blind_recipe).model)
    path = save_weights(tmp_path / "a.pth", planner)
    loaded = init_planner(blind_recipe, path)
    assert not loaded.training
    runner = build_train_runner(load_config(blind_recipe, {"load_from": str(path)}), str(tmp_path / "w"))
    runner.load_or_resume()
    for key, value in planner.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]) and torch.equal(
            value, runner.model.state_dict()[key]
        )


def test_a_repelled_planner_takes_the_weights_of_the_bare_one(tmp_path, blind_recipe):
    head = {"type": "DeltaTrajectoryHead", "in_channels": 16, "hidden": 8}
    model = {"type": "EgoStatusMLP", "hidden": 16, "num_layers": 1}
    bare = MODELS.build({**model, "trajectory_head": head})
    path = save_weights(tmp_path / "bare.pth", bare)
    config = load_config(blind_recipe)
    config.model = {
        **model,
        "trajectory_head": {"type": "RepulsiveHead", "head": head, "loss": {"weight": 5.0}},
    }
    runner = build_test_runner(config, work_dir=str(tmp_path / "w"))
    load_weights(runner.model, path)
    for planner in (runner.model, init_planner(config, path)):
        for key, value in bare.state_dict().items():
            assert torch.equal(value, planner.state_dict()[key]), key


def test_a_planner_without_its_checkpoint_is_refused(tmp_path, blind_recipe):
    runner = build_test_runner(load_config(blind_recipe), work_dir=str(tmp_path / "w"))
    with pytest.raises(CheckpointError, match="EgoStatusMLP has weights: give the checkpoint"):
        load_weights(runner.model, None)


def test_selection_on_the_test_split_is_refused(tmp_path, blind_recipe):
    options = {"val_dataloader.dataset.split": "test", "val_evaluator.split": "test"}
    root = load_config(blind_recipe).data_root
    for same in (root, f"{root}/../{Path(root).name}"):
        config = load_config(blind_recipe, {**options, "val_dataloader.dataset.data_root": same})
        with pytest.raises(ConfigError, match="selected on the test split"):
            build_train_runner(config, str(tmp_path / "w"))


def test_a_planner_without_weights_cannot_be_trained(tmp_path, blind_recipe):
    config = load_config(blind_recipe)
    config.model = {"type": "ConstantVelocity"}
    with pytest.raises(ConfigError, match="no weights to train"):
        build_train_runner(config, str(tmp_path / "w"))


def test_parameter_groups_keep_their_scale_through_the_schedule(tmp_path, blind_recipe):
    config = load_config(blind_recipe, {"train_cfg.max_epochs": 3, "train_cfg.val_interval": 9})
    config.optim_wrapper.paramwise_cfg = {"custom_keys": {"trajectory_head": {"lr_mult": 0.1}}}
    runner = build_train_runner(config, str(tmp_path / "w"))
    seen = []

    class Look(Hook):
        def before_train_epoch(self, runner):
            groups = runner.optim_wrapper.optimizer.param_groups
            heads = {id(p) for p in runner.model.trajectory_head.parameters()}
            rates = {id(group["params"][0]) in heads: group["lr"] for group in groups}
            seen.append(rates[True] / rates[False])

    runner.register_hook(Look())
    runner.train()
    np.testing.assert_allclose(seen, [0.1] * 3, rtol=1e-9)


def test_mixed_precision_runs_on_this_machine(tmp_path, blind_recipe):
    runner = train(blind_recipe, tmp_path / "w", {"train_cfg.val_interval": 9}, amp=True)
    wanted = "AmpOptimWrapper" if torch.cuda.is_available() else "AutocastOptimWrapper"
    assert type(runner.optim_wrapper).__name__ == wanted
    assert (tmp_path / "w" / "epoch_2.pth").exists()


NAVTRAIN = REPOSITORY / "configs/ltf/ltf-beyonddrive_r34_8xb4-100e_navtrain.py"


def paths_of(node):
    """All strings of a config that name a place below a folder ``data`` or ``mnt``."""
    if isinstance(node, (dict, list, tuple)):
        return [
            path for value in (node.values() if isinstance(node, dict) else node) for path in paths_of(value)
        ]
    return [node] if isinstance(node, str) and node.startswith(("data/", "/mnt/")) else []


def test_folders_given_as_options_change_every_path_of_the_config():
    options = {"maps_root": "/mnt/maps", "data_root": "/mnt/navsim/", "cache_root": "/mnt/cache"}
    for order in (options, dict(reversed(options.items()))):
        config = load_config(NAVTRAIN, {**order, "pool_dir": Path("/mnt/pool")})
        assert not [path for path in paths_of(config._cfg_dict) if path.startswith("data/")]
        for part in ("train", "val", "test"):
            dataset = config[f"{part}_dataloader"].dataset
            assert dataset.data_root == "/mnt/navsim" and dataset.maps_root == "/mnt/maps"
            assert dataset.scene_filter.startswith("/mnt/navsim/scene_filters/nav")
            assert dataset.cache_dir.startswith("/mnt/cache/features-")
            if part != "train":
                metric = config[f"{part}_evaluator"]
                assert (metric.data_root, metric.maps_root) == ("/mnt/navsim", "/mnt/maps")
        assert config.train_dataloader.dataset.negatives.pool == "/mnt/pool"
    assert load_config(NAVTRAIN, {"data_root": "/mnt"}).test_dataloader.dataset.maps_root == "/mnt/maps"


@pytest.mark.parametrize("name", ["data_root", "maps_root", "cache_root", "pool_dir"])
def test_a_folder_that_a_child_config_sets_reaches_every_path_that_uses_it(tmp_path, name):
    path = tmp_path / "mine.py"
    path.write_text(f'_base_ = "{NAVTRAIN}"\n{name} = "/mnt/navsim"\n')
    by_option = load_config(NAVTRAIN, {name: "/mnt/navsim"})
    assert load_config(path)._cfg_dict == by_option._cfg_dict != load_config(NAVTRAIN)._cfg_dict


def test_a_folder_that_a_child_config_sets_in_vain_is_refused(tmp_path):
    (tmp_path / "base.py").write_text(
        'maps_root = "/data/maps"\ntest_dataloader = dict(dataset=dict(maps_root=maps_root))\n'
    )
    path = tmp_path / "mine.py"
    path.write_text('_base_ = "base.py"\nmaps_root = "/mnt/maps"\n')
    with pytest.raises(
        ConfigError, match=r"mine\.py: nothing in it reads maps_root = '/mnt/maps'.*--cfg-options"
    ):
        load_config(path)


def test_a_config_that_a_run_left_behind_takes_folders_as_options(tmp_path):
    path = tmp_path / "left.py"
    load_config(NAVTRAIN).dump(path)
    options = {"data_root": "/mnt/navsim", "cache_root": "/mnt/cache"}
    assert load_config(path, options)._cfg_dict == load_config(NAVTRAIN, options)._cfg_dict


def test_a_child_config_may_set_the_paths_themselves(tmp_path):
    path = tmp_path / "mine.py"
    base = NAVTRAIN.parents[1] / "human/human_navtest.py"
    settings = "dict(data_root='/mnt/navsim', maps_root='/mnt/maps', cache_dir=None, scene_filter=None)"
    path.write_text(
        f'_base_ = "{base}"\ntest_dataloader = dict(dataset={settings})\n'
        "test_evaluator = dict(data_root='/mnt/navsim', maps_root='/mnt/maps', cache_dir=None)\n"
    )
    assert load_config(path).test_dataloader.dataset.data_root == "/mnt/navsim"


def test_options_that_nothing_would_read_are_refused(blind_recipe):
    with pytest.raises(ConfigError, match=r"dataroot: .*no such setting; did you mean data_root\?"):
        load_config(blind_recipe, {"dataroot": "/mnt/navsim"})
    with pytest.raises(ConfigError, match=r"lr: .*full key"):
        load_config(blind_recipe, {"lr": 1e-3})
    for name in ("auto_scale_lr", "compile", "visualizer"):  # of mmengine, though the config has none
        assert load_config(blind_recipe, {name: None}).get(name) is None


def test_plans_of_one_data_root_are_not_scored_by_another(tmp_path, blind_recipe):
    config = load_config(blind_recipe, {"val_dataloader.dataset.data_root": str(tmp_path / "other")})
    with pytest.raises(
        ConfigError, match=r"val_dataloader\.dataset\.data_root is .*other, but val_evaluator"
    ):
        build_train_runner(config, str(tmp_path / "w"))


def test_the_console_shows_progress_and_the_log_file_everything(tmp_path, blind_recipe, capfd):
    train(blind_recipe, tmp_path / "w", {"log_level": "INFO", "train_cfg.val_interval": 9})
    printed = capfd.readouterr().out
    (log,) = (tmp_path / "w").glob("*/*.log")
    assert "Epoch(train) [2][3/3]" in printed and "Epoch(train) [2][3/3]" in log.read_text()
    assert "System environment" in log.read_text() and "System environment" not in printed
    assert "FileClient" not in printed
