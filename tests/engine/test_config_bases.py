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


@pytest.mark.parametrize(
    ("planner", "base", "lost"),
    [
        ("ltf/ltf_tiny_1xb16-12e_synth.py", "datasets/no_acceleration.py", "HideStatus"),
        ("wote/wote_tiny_1xb16-12e_synth.py", None, "LoadVocabularyScores"),
    ],
)
def test_a_base_that_would_take_transforms_out_is_refused(tmp_path, planner, base, lost):
    bases = [planner, *([] if base is None else [f"_base_/{base}"]), "_base_/augmentations/photometric.py"]
    path = tmp_path / "both.py"
    path.write_text(f"_base_ = {[f'beyonddrive::{name}' for name in bases]}\n")
    with pytest.raises(ConfigError, match=rf"dataset\.pipeline: photometric\.py would take {lost} out"):
        load_config(path)


def test_a_base_may_add_to_what_another_has_put_into_a_list_and_take_it_out_when_it_says_so(tmp_path):
    steps = {"first": "['A']", "more": "['B', 'A']", "fewer": "['B']"}
    for name, types in steps.items():
        text = f"part = dict(steps=[dict(type=name) for name in {types}])\n"
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "child.py").write_text("_base_ = ['first.py', 'more.py']\n")
    assert [step.type for step in load_config(tmp_path / "child.py").part.steps] == ["B", "A"]
    (tmp_path / "child.py").write_text("_base_ = ['more.py', 'fewer.py']\n")
    with pytest.raises(ConfigError, match=r"part\.steps: fewer\.py would take A out.*\(more\.py\)"):
        load_config(tmp_path / "child.py")
    (tmp_path / "fewer.py").write_text("part = dict(_delete_=True, steps=[dict(type='B')])\n")
    assert [step.type for step in load_config(tmp_path / "child.py").part.steps] == ["B"]
