"""Bases that set the same thing are merged in their order."""

import pytest

from beyonddrive.engine.configs import ConfigError, load_config

FILES = {
    "first": "part = dict(size=1, depth=1, parts=dict(a=1, b=2))\nsteps = [1]",
    "second": "part = dict(depth=2, parts=dict(b=3))",
    "third": "_base_ = 'second.py'\npart = dict(parts=dict(_delete_=True, c=4))\nsteps = [2]",
    "child": "_base_ = ['first.py', 'second.py']\npart = dict(size=_base_.part.size + 1)",
    "grandchild": "_base_ = ['child.py', 'third.py', 'other.py']",
    "other": "threads = '{{ fileBasenameNoExtension }}'",
    "words": "_base_ = ['first.py', 'scalar.py']",
    "scalar": "part = 3",
    "dict_on_scalar": "_base_ = ['scalar.py', 'first.py']",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text + "\n")
    return tmp_path


def test_the_last_base_wins_and_the_config_itself_wins_over_all(folder):
    config = load_config(folder / "child.py")
    assert config.part == {"size": 2, "depth": 2, "parts": {"a": 1, "b": 3}}
    assert config.steps == [1]


def test_bases_of_bases_and_deletions(folder):
    config = load_config(folder / "grandchild.py")
    # (what third.py has deleted is gone from third.py alone: a base says what it says, once it is merged)
    assert config.part == {"size": 2, "depth": 2, "parts": {"a": 1, "b": 3, "c": 4}}
    assert config.steps == [2] and config.threads == "other"
    assert all(text in config.text for text in FILES["third"].splitlines())


def test_a_value_may_replace_a_dict_but_not_the_other_way_round(folder):
    assert load_config(folder / "words.py").part == 3
    with pytest.raises(ConfigError, match="cannot inherit from"):
        load_config(folder / "dict_on_scalar.py")


def test_a_base_with_a_deletion_of_its_own(folder):
    (folder / "deletes.py").write_text("part = dict(parts=dict(_delete_=True, c=4))\n")
    (folder / "both.py").write_text("_base_ = ['first.py', 'deletes.py']\n")
    assert load_config(folder / "both.py").part == {"size": 1, "depth": 1, "parts": {"c": 4}}
