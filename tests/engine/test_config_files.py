"""Configs by path, by package and by bare name."""

import importlib
import sys
from importlib.metadata import EntryPoint

import pytest
from mmengine.config import Config

from beyonddrive.apis import load_config
from beyonddrive.engine import config_files, mmengine_compat
from beyonddrive.engine.config_files import ConfigNameError, config_folder, find_config, recipes

LTF = "ltf/ltf_tiny_1xb16-12e_synth.py"


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """An importable package with configs, one of which has the name of one of ours."""
    configs = tmp_path / "its_recipes" / "configs"
    (configs / "_base_").mkdir(parents=True)
    (configs.parent / "__init__.py").touch()
    (configs / "human_synth.py").write_text("_base_ = 'beyonddrive::human/human_synth.py'\n")
    (configs / "of_its_own.py").write_text("_base_ = 'its_recipes::human_synth.py'\nwork_dir = 'its'\n")
    (configs / "_base_" / "part.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield configs
    sys.modules.pop("its_recipes", None)


@pytest.fixture
def as_plugin(other_package, monkeypatch):
    point = EntryPoint("its", "its_recipes.planners", "beyonddrive.plugins")
    monkeypatch.setattr(config_files, "plugin_entry_points", lambda: (point,))
    return other_package


def test_a_config_is_found_by_path_package_and_name(tmp_path, monkeypatch):
    ours = config_folder("beyonddrive") / LTF
    monkeypatch.chdir(tmp_path)
    for name in (f"beyonddrive::{LTF}", f"beyonddrive::{LTF[:-3]}", LTF[4:], LTF[4:-3], str(ours), ours):
        assert find_config(name) == ours
    assert find_config(f"beyonddrive::{LTF[4:]}") == ours  # the folder may be left out
    assert find_config("beyonddrive::_base_/datasets/synth.py").is_file()
    (tmp_path / LTF[4:]).touch()  # a file that is there is meant
    assert find_config(LTF[4:]).resolve() == tmp_path / LTF[4:]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigNameError, match=r"^ltf_tny_1xb16-12e_synth: no such .*mean ltf_tiny_1xb16-12e"):
        find_config("ltf_tny_1xb16-12e_synth")
    with pytest.raises(ConfigNameError, match=r"configs/ltf/x\.py: no such config; beyonddrive list configs"):
        find_config("configs/ltf/x.py")
    with pytest.raises(ConfigNameError, match=r"beyonddrive::human_sinth: .*did you mean human_synth"):
        find_config("beyonddrive::human_sinth")
    with pytest.raises(ConfigNameError, match="no package nobody with a folder of configs is installed"):
        find_config("nobody::x.py")
    with pytest.raises(ConfigNameError, match="no such config"):
        find_config("synth")  # parts in _base_ are no recipes
    with pytest.raises(ConfigNameError, match=r"no_such\.py: no such config"):
        load_config("no_such.py")


def test_a_name_that_fits_several_is_refused_with_the_list(as_plugin):
    assert list(recipes("its_recipes")) == ["its_recipes::human_synth.py", "its_recipes::of_its_own.py"]
    assert find_config("of_its_own") == as_plugin / "of_its_own.py"
    both = "human_synth: fits 2 configs, say which: beyonddrive::human/human_synth.py, its_recipes::human_s"
    with pytest.raises(ConfigNameError, match=both):
        find_config("human_synth")
    assert find_config("its_recipes::human_synth") == as_plugin / "human_synth.py"


def test_configs_build_on_those_of_any_package(other_package):
    config = load_config("its_recipes::of_its_own.py")
    assert config.work_dir == "its" and config.model.type == "HumanReplay"
    (other_package / "wrong.py").write_text("_base_ = 'its_recipes::human_sinth.py'\n")
    mmengine_compat.apply()
    with pytest.raises(ConfigNameError, match="did you mean human_synth"):
        Config.fromfile(other_package / "wrong.py")
