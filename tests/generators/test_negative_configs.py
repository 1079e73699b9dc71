"""The base configs of negatives build what they say."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from beyonddrive.engine.runner import load_config
from beyonddrive.generators.mining_job import (
    MiningError,
    fingerprint,
    merge_strategy,
    mining_dataset,
    mining_settings,
    share_cores,
)
from beyonddrive.generators.strategies import build_strategy
from beyonddrive.registry import HOOKS, MODELS, SELECTORS, TRANSFORMS
from beyonddrive.structures.plan import SCORE_COLUMNS

BASE = Path(__file__).parents[2] / "configs" / "_base_" / "negatives"
RECIPES = ("dac", "diverse", "pooled", "published")
"""Pieces that say how to mine and what to select; the others change one thing about the repulsion."""
PIECES = sorted({path.stem for path in BASE.glob("*.py")} - set(RECIPES))
REPELLED = BASE.parents[1] / "ltf/ltf-beyonddrive_tiny_1xb16-12e_synth.py"


def load(name):
    return Config.fromfile(BASE / f"{name}.py")


@pytest.mark.parametrize("name", RECIPES)
def test_strategy_and_selector_build(name):
    config = load(name)
    assert build_strategy(mining_settings(config)["strategy"]).num_proposals == 64
    assert SELECTORS.build(config.negative_selection).num_slots >= 1


def test_published_values():
    config = load("published")
    settings = mining_settings(config)
    assert settings["strategy"] == {
        "type": "SamplingStrategy",
        "num_proposals": 64,
        "guidance": 0.5,
        "noise": 0.4,
        "steps": 5,
    }
    assert settings["progress"] == "pair"
    assert config.negative_selection == {
        "type": "NearestNegatives",
        "column": "PDMS",
        "threshold": 0.6,
        "num": 1,
        "distance": "wrapped",
    }


def test_variants_change_what_their_names_say():
    assert mining_settings(load("pooled"))["progress"] == "pooled"
    assert load("pooled").negative_selection.distance == "reference"
    assert SELECTORS.build(load("dac").negative_selection).column == "DAC"
    assert build_strategy(mining_settings(load("diverse"))["strategy"]).base.num_proposals == 256


def test_a_config_without_settings_mines_as_published():
    settings = mining_settings(Config({}))
    published = build_strategy(mining_settings(load("published"))["strategy"])
    assert build_strategy(settings["strategy"]).config == published.config
    assert settings["progress"] == "pair"
    assert settings["shard_size"] == 64


def test_unknown_settings_are_named():
    with pytest.raises(MiningError, match=r"unknown keys \['treshold'\]"):
        mining_settings(Config({"negative_mining": {"treshold": 0.5}}))


def test_strategy_changes_merge_or_replace():
    base = {"type": "SamplingStrategy", "noise": 0.3}
    assert merge_strategy(base, {"type": "SamplingStrategy", "steps": 3}) == {**base, "steps": 3}
    assert merge_strategy(base, {"type": "PlainSampling"}) == {"type": "PlainSampling"}


def loader(split, **more):
    pipeline = [{"type": "LoadNegatives", "pool": "p"}, {"type": "PackPlanInputs"}]
    return {"dataset": {"type": "D", "split": split, "cache_dir": split, "pipeline": pipeline, **more}}


def test_the_data_set_of_a_split_is_found_with_its_cache():
    config = Config({"train_dataloader": loader("train"), "test_dataloader": loader("test")})
    assert mining_dataset(config)["cache_dir"] == "train"
    assert mining_dataset(config, split="test")["cache_dir"] == "test"
    other = mining_dataset(config, split="extra")
    assert (other["split"], other["cache_dir"], other["scene_filter"]) == ("extra", None, None)
    own = {"type": "D", "split": "own", "pipeline": []}
    assert mining_dataset(config, own) == own
    with pytest.raises(MiningError, match="no data set"):
        mining_dataset(Config({}))


def test_a_generator_does_not_ask_for_its_own_pool():
    config = Config({"train_dataloader": loader("train")})
    assert mining_dataset(config)["pipeline"] == [{"type": "PackPlanInputs"}]
    assert len(config.train_dataloader.dataset.pipeline) == 2  # the config itself is left alone


def test_cores_are_shared_between_drawing_and_scoring(monkeypatch):
    threads = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert [share_cores(), share_cores(0), share_cores(3), share_cores(20)] == [7, 0, 3, 20]
    assert threads == [1, 8, 5, 1]


def test_fingerprint_follows_model_and_weights(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"weights")
    (tmp_path / "b.pth").write_bytes(b"other weights")
    first = fingerprint(Config({"model": {"type": "M", "dim": 1}}), tmp_path / "a.pth")
    assert first == fingerprint(Config({"model": {"dim": 1, "type": "M"}}), tmp_path / "a.pth")
    other = fingerprint(Config({"model": {"type": "M", "dim": 2}}), tmp_path / "b.pth")
    assert first["config_hash"] != other["config_hash"]
    assert first["checkpoint_hash"] != other["checkpoint_hash"]
    with pytest.raises(MiningError, match=r"c\.pth: cannot be read"):
        fingerprint(Config({"model": {}}), tmp_path / "c.pth")


def compose(path, names):
    """A config of three lines that adds pieces to a BeyondDrive planner, as the docs show it."""
    bases = [str(REPELLED), *(str(BASE / f"{name}.py") for name in names)]
    loss = ", ".join(f"**_base_.{name}.get('loss', {{}})" for name in names)
    selection = " or ".join(f"_base_.{name}.get('selection')" for name in names)
    head = ", ".join(f"mode_loss=_base_.{name}.mode_loss" for name in names if name == "all_modes")
    first = "_base_.train_dataloader.dataset.pipeline[0]"
    path.write_text(
        f"_base_ = {bases}\n"
        f"model = dict(trajectory_head=dict(loss=dict({loss}), {head}))\n"
        f"train_dataloader = dict(dataset=dict(pipeline=[dict({first}, selection={selection} or "
        f"{first}.selection), dict(type='PackPlanInputs')]))\n"
    )
    return load_config(path)


@pytest.mark.parametrize(
    "names", [[name] for name in PIECES if name != "online"] + [["several", "moment", "reach"]], ids="+".join
)
def test_pieces_make_a_planner_and_a_pipeline(tmp_path, names):
    config = compose(tmp_path / "composed.py", names)
    head = MODELS.build(config.model.trajectory_head)
    loaded = TRANSFORMS.build(config.train_dataloader.dataset.pipeline[0])
    plain = load_config(REPELLED)
    changed = config.model.trajectory_head != plain.model.trajectory_head
    assert changed or config.train_dataloader.dataset != plain.train_dataloader.dataset
    if head.repulsion.needs_columns:
        columns = {SCORE_COLUMNS.index(name) for name in loaded.selector.slot_columns}
        head.repulsion.check_columns(torch.tensor([sorted(columns)]))
    assert (head.mode_repulsion is not None) == (names == ["all_modes"])


def test_pieces_change_what_their_names_say(tmp_path):
    def repulsion(*names):
        config = compose(tmp_path / "composed.py", names)
        return MODELS.build(config.model.trajectory_head).repulsion

    assert repulsion("several").reduction == "softmin"
    assert repulsion("sub_scores").column_weights == {"NC": 0.4, "DAC": 0.4, "TTC": 0.2}
    assert (repulsion("margin").margin, repulsion("margin").margin_unit) == (2.0, "expert")
    assert repulsion("moment").window is not None
    both = repulsion("several", "reach")
    assert (both.reach, both.weight, both.reduction) == (4.0, 2.5, "softmin")


def test_online_mining_has_a_config_of_its_own():
    config = load_config(BASE.parents[1] / "ltf/ltf-beyonddrive-online_tiny_1xb16-12e_synth.py")
    hooks = [hook.type for hook in config.custom_hooks]
    assert {"EpochSeedHook", "CheckpointGuardHook", "OnlineNegativesHook"} <= set(hooks)
    assert HOOKS.build(config.custom_hooks[-1]).interval == 4
    assert TRANSFORMS.build(config.train_dataloader.dataset.pipeline[0]).online


def test_every_setting_is_reached_from_the_command_line():
    options = {
        "model.trajectory_head.loss.weight": 3.0,
        "model.trajectory_head.loss.window.before": 2.0,
        "train_dataloader.dataset.pipeline.0.selection.num": 4,
    }
    config = load_config(REPELLED, options)
    repulsion = MODELS.build(config.model.trajectory_head).repulsion
    assert (repulsion.weight, repulsion.window.before) == (3.0, 2.0)
    assert TRANSFORMS.build(config.train_dataloader.dataset.pipeline[0]).selector.num_slots == 4
