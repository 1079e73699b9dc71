"""The base configs of negatives build what they say."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from beyonddrive.engine.config_files import find_config
from beyonddrive.engine.configs import ConfigError, load_config
from beyonddrive.engine.sweeps.plan import read_plan
from beyonddrive.generators.mining_job import (
    MiningError,
    fingerprint,
    hash_inputs,
    merge_strategy,
    mining_dataset,
    mining_settings,
    share_cores,
)
from beyonddrive.generators.online_hook import OnlineNegativesHook
from beyonddrive.generators.strategies import build_strategy
from beyonddrive.losses.repulsive import Negatives
from beyonddrive.registry import DATASETS, HOOKS, MODELS, SELECTORS, TRANSFORMS
from beyonddrive.structures.plan import SCORE_COLUMNS

BASE = Path(__file__).parents[2] / "configs" / "_base_" / "negatives"
VARIANTS = sorted({path.stem for path in BASE.glob("*.py")} - {"published", "pool"})
RECIPES = BASE.parents[1]
RESULTS = RECIPES.parent / "results/effect"
REPELLED = RECIPES / "ltf/ltf-beyonddrive_tiny_1xb16-12e_synth.py"
GENERATOR = RECIPES / "flow_policy/flow_policy_tiny_1xb16-12e_synth.py"


def add(path, config, *names):
    """A config that adds variants to another, as the docs show it: by naming them."""
    bases = [str(config), *(str(BASE / f"{name}.py") for name in names)]
    path.write_text(f"_base_ = {bases}\n")
    return load_config(path)


@pytest.mark.parametrize("name", ["published", "dac", "diverse", "pooled"])
def test_strategy_and_selector_build(tmp_path, name):
    config = add(tmp_path / "generator.py", GENERATOR, name)
    assert build_strategy(mining_settings(config)["strategy"]).num_proposals == 64
    assert SELECTORS.build(config.negative_selection).num_slots >= 1


def test_published_values():
    config = load_config(BASE / "published.py")
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


def test_variants_change_how_a_generator_mines(tmp_path):
    def settings(name):
        return mining_settings(add(tmp_path / "generator.py", GENERATOR, name))

    assert settings("pooled")["progress"] == "pooled"
    assert build_strategy(settings("diverse")["strategy"]).base.num_proposals == 256
    assert settings("dac") == settings("published")


def test_a_config_without_settings_mines_as_published():
    settings = mining_settings(Config({}))
    published = build_strategy(mining_settings(load_config(BASE / "published.py"))["strategy"])
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
    config = Config({"train_dataloader": loader("train", indices=10), "test_dataloader": loader("test")})
    assert mining_dataset(config)["cache_dir"] == "train"
    assert mining_dataset(config, split="test")["cache_dir"] == "test"
    other = mining_dataset(config, split="extra")
    assert (other["split"], other["cache_dir"], other["scene_filter"]) == ("extra", None, None)
    # All its scenes: what the training takes a part of is another split.
    assert other["indices"] is None and mining_dataset(config, split="train")["indices"] == 10
    own = {"type": "D", "split": "own", "pipeline": []}
    assert mining_dataset(config, own) == own
    with pytest.raises(MiningError, match="no data set"):
        mining_dataset(Config({}))


def test_a_generator_does_not_ask_for_its_own_pool():
    config = Config({"train_dataloader": loader("train")})
    assert mining_dataset(config)["pipeline"] == [{"type": "PackPlanInputs"}]
    control = loader("train")
    control["dataset"]["pipeline"].insert(1, {"type": "PerturbedNegatives"})
    assert mining_dataset(Config({"train_dataloader": control})) == mining_dataset(config)
    assert "negatives" not in mining_dataset(load_config(REPELLED))
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


def test_the_hash_of_inputs_follows_what_a_generator_is_shown():
    def shown(*steps, size=(64, 256), **more):
        features = [{"type": "LoadCameraStitch", "size": size}, *steps]
        return hash_inputs({"type": "NavsimDataset", "feature_pipeline": features, **more})

    plain = shown()
    assert plain == shown({"type": "PlanTarget"}, data_root="elsewhere", split="val", indices=3)
    assert plain == shown(pipeline=[{"type": "LoadVocabularyScores", "store": "a", "vocabulary": "b"}])
    hidden = {"type": "HideStatus", "parts": ("acceleration",)}
    others = [shown(size=(32, 128)), shown({"type": "EgoStatus"}), shown(pipeline=[hidden])]
    others.append(shown(shuffled=("camera",)))
    assert len({plain, *others}) == 5


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["near", "sub_scores"], r"sub_scores\.py replaces .*: max_distance=2\.0 \(near\.py\)"),
        (["dac", "controls/passing"], r"passing\.py replaces .*: column='DAC' \(dac\.py\)"),
        (["dac", "controls/random_failure"], r"random_failure\.py replaces .*: column='DAC' \(dac\.py\)"),
        (
            ["several", "dac", "controls/worst_failure"],
            r"column='DAC' \(dac\.py\).* num=4 \(several\.py\).*before dac\.py and several\.py",
        ),
        (["pooled", "controls/passing"], r"distance='reference' \(pooled\.py\)"),
        (["controls/passing", "sub_scores"], r"type='PassingPlans' \(passing\.py\)"),
    ],
    ids=str,
)
def test_a_base_that_would_take_the_choice_of_another_out_is_refused(tmp_path, names, words):
    with pytest.raises(ConfigError, match=rf"negative_selection: .*{words}.* in the config itself"):
        add(tmp_path / "both.py", REPELLED, *names)
    bases = [str(REPELLED), *(str(BASE / f"{name}.py") for name in names[:-1])]
    (tmp_path / "own.py").write_text(f"_base_ = {bases}\n")
    with pytest.raises(ConfigError, match=r"negative_selection: .* \(own\.py\).* before own\.py"):
        add(tmp_path / "both.py", tmp_path / "own.py", names[-1])


def test_what_is_chosen_after_a_replacement_counts(tmp_path):
    selection = add(tmp_path / "both.py", REPELLED, "sub_scores", "near").negative_selection
    assert (selection.type, selection.max_distance) == ("NearestNegativesPerColumn", 2.0)
    assert add(tmp_path / "both.py", REPELLED, "controls/passing", "dac").negative_selection.column == "DAC"


def test_a_choice_that_a_replacement_has_by_default_is_not_lost(tmp_path):
    texts = {
        "first": "type='NearestNegatives', distance='reference'",
        "wrapped": "distance='wrapped'",
        "alike": "num=1, spacing=0.0",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(f"negative_selection = dict({text})\n")
    first, wrapped, alike = (str(tmp_path / f"{name}.py") for name in texts)
    for bases in (
        [first, wrapped, str(BASE / "controls/passing.py")],
        [str(REPELLED), str(BASE / "several.py"), alike, str(BASE / "sub_scores.py")],
    ):
        (tmp_path / "child.py").write_text(f"_base_ = {bases}\n")
        selection = load_config(tmp_path / "child.py").negative_selection
        assert selection.type in ("PassingPlans", "NearestNegativesPerColumn")
        assert not {"distance", "spacing"} & selection.keys()


def test_how_a_generator_mines_is_not_lost_either(tmp_path):
    (tmp_path / "wide.py").write_text("negative_mining = dict(strategy=dict(noise=0.8))\n")
    with pytest.raises(
        ConfigError, match=r"negative_mining\.strategy: diverse\.py .*: noise=0\.8 \(wide\.py\)"
    ):
        add(tmp_path / "generator.py", GENERATOR, str(tmp_path / "wide"), "diverse")


@pytest.mark.parametrize("plan", sorted(path.name for path in RESULTS.glob("*.yml")))
def test_the_rows_of_results_combine_bases_that_keep_each_others_choices(tmp_path, plan):
    for row in read_plan(RESULTS / plan).rows:
        bases = [str(find_config(name)) for name in (row.config, *row.bases)]
        (tmp_path / "row.py").write_text(f"_base_ = {bases}\n")
        assert load_config(tmp_path / "row.py").model


def head_of(config):
    return MODELS.build(config.model).trajectory_head


def transform_of(config):
    data = config.train_dataloader.dataset
    return DATASETS.build({**data, "scene_filter": None, "lazy_init": True}).transforms[0]


@pytest.mark.parametrize(
    "names", [*([name] for name in VARIANTS), ["several", "moment", "reach"]], ids="+".join
)
def test_variants_are_added_to_a_planner_by_naming_them(tmp_path, names):
    config, plain = add(tmp_path / "planner.py", REPELLED, *names), load_config(REPELLED)
    head, negatives = head_of(config), transform_of(config)
    assert config.model.trajectory_head == plain.model.trajectory_head
    assert config._cfg_dict != plain._cfg_dict
    if head.repulsion.needs_columns:
        columns = {SCORE_COLUMNS.index(name) for name in negatives.selector.slot_columns}
        head.repulsion.check_columns(torch.tensor([sorted(columns)]))
    assert (head.mode_repulsion is not None) == (names == ["all_modes"])
    assert negatives.root == Path("data/synth/pool/train")
    assert negatives.expected["split"] == "train"
    assert negatives.expected["progress"] == mining_settings(config)["progress"]


def test_variants_change_what_their_names_say(tmp_path):
    def config(*names):
        return add(tmp_path / "planner.py", REPELLED, *names)

    def repulsion(*names):
        return head_of(config(*names)).repulsion

    def selector(*names):
        return transform_of(config(*names)).selector

    assert (repulsion("several").reduction, repulsion("several").temperature) == ("softmin", 0.5)
    assert (selector("several").num, selector("several").spacing) == (4, 0.5)
    assert repulsion("sub_scores").column_weights == {"NC": 0.4, "DAC": 0.4, "TTC": 0.2}
    assert selector("sub_scores").slot_columns == ("NC", "DAC", "TTC")
    assert (repulsion("margin").margin, repulsion("margin").margin_unit) == (2.0, "expert")
    assert (repulsion("moment").window.before, repulsion("moment").window.after) == (1.0, 0.5)
    assert (selector("in_range").min_distance, selector("in_range").max_distance) == (0.3, 3.0)
    assert repulsion("in_range").average == repulsion("near").average == "batch"
    assert (selector("near").min_distance, selector("near").max_distance) == (0.0, 2.0)
    assert selector("dac").column == "DAC"
    assert selector("pooled").distance == "reference"
    assert head_of(config("all_modes")).mode_repulsion.margin == 0.5
    both = repulsion("several", "reach")
    assert (both.reach, both.weight, both.reduction) == (4.0, 2.5, "softmin")


def test_online_mining_has_a_config_of_its_own():
    config = load_config(RECIPES / "ltf/ltf-beyonddrive-online_tiny_1xb16-12e_synth.py")
    assert {hook.type for hook in config.custom_hooks} >= {"EpochSeedHook", "CheckpointGuardHook"}
    hook = HOOKS.build(config.default_hooks.online_negatives)
    assert isinstance(hook, OnlineNegativesHook) and hook.interval == 4 and hook.mining.num_workers == 1
    assert transform_of(config).online


def test_rounds_are_scored_as_the_pool_is(tmp_path):
    config = add(tmp_path / "planner.py", REPELLED, "pooled", "online")
    assert HOOKS.build(config.default_hooks.online_negatives).mining.progress == "pooled"
    assert transform_of(config).expected["progress"] == "pooled"


def test_every_setting_is_reached_from_the_command_line():
    options = {
        "model.repulsion.weight": 3.0,
        "model.repulsion.window.before": 2.0,
        "negative_selection.num": 4,
        "pool_dir": "/elsewhere/pool",
        "train_dataloader.dataset.negatives.selection.threshold": 0.5,
    }
    config = load_config(REPELLED, options)
    repulsion, negatives = head_of(config).repulsion, transform_of(config)
    assert (repulsion.weight, repulsion.window.before) == (3.0, 2.0)
    assert (negatives.selector.num_slots, negatives.selector.threshold) == (4, 0.5)
    assert negatives.root == Path("/elsewhere/pool")
    assert config.negative_selection.threshold == 0.6  # only where it was asked for


def test_a_weight_of_zero_leaves_the_planner_to_its_expert():
    config = load_config(REPELLED, {"model.repulsion.weight": 0})
    head = head_of(config)
    plan = torch.ones(2, 8, 4, requires_grad=True)
    term = head.repulsion(plan, Negatives(torch.zeros(2, 1, 8, 4), torch.ones(2, 1, dtype=torch.bool)))
    term.backward()
    assert term.item() == 0.0 and not plan.grad.any()


@pytest.mark.parametrize("control", sorted(path.stem for path in (BASE / "controls").glob("*.py")))
def test_controls_change_what_a_sample_is_repelled_from_and_nothing_of_the_planner(tmp_path, control):
    plain, changed = load_config(REPELLED), add(tmp_path / "control.py", REPELLED, f"controls/{control}")
    assert changed.model == plain.model and changed.optim_wrapper == plain.optim_wrapper
    assert (changed.train_dataloader, changed.custom_hooks) != (plain.train_dataloader, plain.custom_hooks)
    for settings in changed.train_dataloader.dataset.pipeline:
        TRANSFORMS.build(settings)
    TRANSFORMS.build({"type": "LoadNegatives", **changed.train_dataloader.dataset.negatives})
    assert [hook for hook in plain.custom_hooks if hook not in changed.custom_hooks] == []
    for hook in changed.custom_hooks:
        HOOKS.build(hook)
