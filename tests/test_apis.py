"""From a config to plans, as in a notebook."""

import re

import pytest
import torch

from beyonddrive.apis import init_planner, load_config, plan
from beyonddrive.engine.runner import ConfigError, build_train_runner
from beyonddrive.registry import DATASETS
from beyonddrive.tools import flops


def test_a_trained_planner_plans_the_scenes_of_a_data_set(tmp_path, blind_recipe):
    config = load_config(blind_recipe, {"train_cfg.max_epochs": 1})
    build_train_runner(config, str(tmp_path / "w")).train()
    planner = init_planner(blind_recipe, tmp_path / "w" / "epoch_1.pth", options={"model.hidden": 16})
    dataset = DATASETS.build(config.test_dataloader.dataset)
    plans = plan(planner, [dataset[index] for index in range(len(dataset))])
    assert [sample.metainfo["token"] for sample in plans] == dataset.tokens
    assert all(sample.pred.trajectory.shape == (8, 3) for sample in plans)
    again = plan(planner, [dataset[2]])
    torch.testing.assert_close(again[0].pred.trajectory, plans[2].pred.trajectory)


def test_options_change_a_config_that_was_read_before(blind_recipe, caplog):
    config = load_config(blind_recipe)
    with caplog.at_level("WARNING"):
        planner = init_planner(config, options={"model.hidden": 4})
    assert "EgoStatusMLP has its initial weights, for no checkpoint was given" in caplog.text
    assert planner.encoder[0].out_features == 4 and not planner.training
    assert config.model.hidden == 16


def test_options_of_a_config_that_was_read_reach_all_that_they_are_for(blind_recipe):
    """A folder is changed wherever the config uses it, and what nothing reads is refused."""
    text = blind_recipe.read_text()
    config = load_config(blind_recipe)
    root, before = config.data_root, config.dump()
    planner = init_planner(config, options={"data_root": "elsewhere"})
    assert planner.cfg.test_dataloader.dataset.data_root == "elsewhere" != root
    with pytest.raises(ConfigError, match=r"modelx: .*did you mean model"):
        init_planner(config, options={"modelx": {"hidden": 4}})
    assert config.dump() == before and blind_recipe.read_text() == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["model.hidden=-3"], "model: Trying to create tensor with negative dimension -3"),
        (["model.repulsion.weight=0", "model.repulsion.window=7"], "model: TypeError: .* mapping, not int"),
    ],
)
def test_a_planner_that_cannot_be_built_is_one_line(blind_recipe, options, words, capsys):
    assert flops.main([str(blind_recipe), "--cfg-options", *options]) == 1
    assert re.search(f"flops: {words}", capsys.readouterr().err)
    with pytest.raises(ConfigError, match=words):
        init_planner(blind_recipe, options={key: int(value) for key, _, value in map(_parts, options)})


def _parts(option):
    return option.partition("=")
