"""Options of a command line: what their texts mean, and where they go."""

from pathlib import Path

import pytest

from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.config_values import OptionText
from beyonddrive.engine.configs import ConfigError, load_config
from beyonddrive.registry import DATASETS
from beyonddrive.tools._command_line import add_config_options, command_parser

NAVTRAIN = Path(__file__).parents[2] / "configs/ltf/ltf-beyonddrive_r34_8xb4-100e_navtrain.py"


def typed(*words):
    """Options as a command line gives them."""
    parser = command_parser("fly", "Fly.")
    add_config_options(parser)
    return parser.parse_args(["--cfg-options", *words]).cfg_options


@pytest.mark.parametrize(
    "folder", ["2024", "a,b", "/mnt/two words", "Straße", "[x]", "(1,2)", "true", "1e3", "x=y", "'q'"]
)
@pytest.mark.parametrize(
    "name", ["data_root", "maps_root", "cache_root", "pool_dir", "work_dir", "load_from"]
)
def test_folders_stay_texts_and_whole(folder, name):
    config = load_config(NAVTRAIN, typed(f"{name}={folder}"))
    assert config[name] == folder
    dataset = config.train_dataloader.dataset
    if name == "data_root":
        assert dataset.data_root == folder
        assert dataset.scene_filter == f"{folder}/scene_filters/navtrain_train.yaml"
    elif name == "maps_root":
        assert dataset.maps_root == folder == config.val_evaluator.maps_root
    elif name == "cache_root":
        assert dataset.cache_dir.startswith(f"{folder}/features-")


def test_a_nested_text_stays_whole_too():
    words = ["test_dataloader.dataset.cache_dir=1,2", "train_dataloader.dataset.split=7", "work_dir=a b"]
    config = load_config(NAVTRAIN, typed(*words, "test_evaluator.out_file=3"))
    assert config.test_dataloader.dataset.cache_dir == "1,2" and config.train_dataloader.dataset.split == "7"
    assert config.work_dir == "a b" and config.test_evaluator.out_file == "3"


def test_other_values_mean_what_they_look_like(blind_recipe):
    words = [
        *("optim_wrapper.optimizer.lr=1e-4", "optim_wrapper.optimizer.betas=(0.8,0.9)"),
        *("train_cfg.max_epochs=7", "val_evaluator.cache_dir=None", "find_unused_parameters=false"),
        "train_dataloader.dataset.pipeline.0.input_keys=[status]",
        "default_hooks.checkpoint.save_best=pdms/PDMS,pdms/NC",
    ]
    config = load_config(blind_recipe, typed(*words))
    assert config.optim_wrapper.optimizer.lr == 1e-4 and config.optim_wrapper.optimizer.betas == (0.8, 0.9)
    assert config.train_cfg.max_epochs == 7 and config.val_evaluator.cache_dir is None
    assert config.find_unused_parameters is False
    assert config.train_dataloader.dataset.pipeline[0].input_keys == ["status"]
    assert config.default_hooks.checkpoint.save_best == ["pdms/PDMS", "pdms/NC"]
    assert load_config(blind_recipe, typed("optim_wrapper.optimizer.betas.0=0.5")).optim_wrapper.optimizer[
        "betas"
    ] == (0.5, 0.999)


def test_a_choice_called_none_is_that_choice():
    config = load_config(NAVTRAIN, typed("train_dataloader.dataset.negatives.missing=none"))
    assert config.train_dataloader.dataset.negatives.missing == "none"


def test_a_text_for_a_number_is_refused(blind_recipe):
    with pytest.raises(ConfigError, match=r"max_epochs=many: the config has the number 2 here"):
        load_config(blind_recipe, typed("train_cfg.max_epochs=many"))
    with pytest.raises(ConfigError, match=r"betas=\(1,2: brackets do not match"):
        load_config(blind_recipe, {"optim_wrapper.optimizer.betas": OptionText("(1,2")})


def test_an_option_without_a_value_is_told(capsys):
    with pytest.raises(SystemExit):
        typed("train_cfg.max_epochs")
    assert "train_cfg.max_epochs: write key=value" in capsys.readouterr().err


def test_settings_of_a_scene_filter_file_may_be_changed(blind_recipe, tmp_path):
    path = tmp_path / "scenes, all.yaml"
    path.write_text("frame_interval: 1\nhas_route: false\n")
    key = "test_dataloader.dataset.scene_filter"
    config = load_config(blind_recipe, typed(f"{key}={path}"))
    config = load_config(blind_recipe, {key: str(path)})
    blind_recipe.write_text(
        blind_recipe.read_text().replace("scene_filter=None", f"scene_filter={str(path)!r}")
    )
    config = load_config(blind_recipe, typed(f"{key}.max_scenes=2"))
    assert config.test_dataloader.dataset.scene_filter == {"path": str(path), "max_scenes": 2}
    dataset = DATASETS.build(config.test_dataloader.dataset)
    assert dataset.scene_filter == SceneFilter(frame_interval=1, has_route=False, max_scenes=2)
    assert len(dataset) == 2
    assert config.val_dataloader.dataset.scene_filter == str(path)


def test_a_variable_that_was_used_up_is_refused_with_where_its_value_went(blind_recipe):
    blind_recipe.write_text(f"{blind_recipe.read_text()}\nwidth = 24\nmodel = dict(hidden=width)\n")
    with pytest.raises(ConfigError, match=r"nothing reads width any more .*in model\.hidden, which can"):
        load_config(blind_recipe, typed("width=8"))
    assert load_config(blind_recipe, typed("model.hidden=8")).model.hidden == 8
