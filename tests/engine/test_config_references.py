"""``${name}`` in a config stands for what ``name`` is in the end."""

import pytest
from mmengine.config import Config

from beyonddrive.engine.config_options import apply_options
from beyonddrive.engine.config_references import ConfigReferenceError, resolve_references
from beyonddrive.engine.configs import load_config

TEXT = """
data_root = "data/a"
maps_root = "${data_root}/maps"
steps = [dict(type="Load", size=(1, 2)), dict(type="Pack", root="${data_root}")]
names = dict(split="first")
train = dict(steps="${steps}", where=("${maps_root}/${names.split}", 1))
test = dict(steps="${steps}")
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "base.py").write_text(TEXT)
    return tmp_path / "base.py"


def test_references_follow_the_last_word(path):
    child = path.with_name("child.py")
    child.write_text("_base_ = 'base.py'\ndata_root = '/b'\nnames = dict(split='second')\n")
    assert load_config(path).train.where == ("data/a/maps/first", 1)
    assert load_config(child).train.where == ("/b/maps/second", 1)
    config = load_config(child, {"maps_root": "/c d,e", "names.split": "7"})
    assert config.train.where == ("/c d,e/7", 1)
    assert config.test.steps[1].root == "/b" and config.test.steps[0]["size"] == (1, 2)
    assert "${" not in config.pretty_text


def test_what_is_referred_to_is_not_shared(path):
    config = load_config(path)
    config.train.steps[0].type = "Other"
    assert config.test.steps[0].type == config.steps[0].type == "Load"


@pytest.mark.parametrize("order", [1, -1])
def test_an_option_through_a_reference_changes_that_place_alone(path, order):
    path.write_text("steps = [dict(a=1, b=2)]\ntrain_cfg = dict(steps='${steps}')\nother = '${steps}'\n")
    config = Config.fromfile(path)
    options = {"train_cfg.steps.0.a": 5, "steps.0.b": 6}
    apply_options(config, dict([*options.items()][::order]))
    resolve_references(config)
    assert config.train_cfg.steps == [{"a": 5, "b": 6}]
    assert config.steps == config.other == [{"a": 1, "b": 6}]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"root": "a", "maps": "${rot}/maps"}, r"maps: refers to rot, .*did you mean root\?"),
        (
            {"part": {"list": ["${nowhere.far}"]}},
            r"part\.list\.0: refers to nowhere\.far, .*set nowhere\.far",
        ),
        ({"a": "${b}", "b": "x${c}", "c": "${a}"}, r"a: b -> c -> a -> b stands for itself"),
        ({"a": "${a}"}, r"a: a -> a stands for itself"),
        ({"n": 3, "a": "x/${n}"}, r"a = 'x/\$\{n\}': n is 3, no text"),
    ],
)
def test_references_to_nothing_are_named(settings, words):
    with pytest.raises(ConfigReferenceError, match=words):
        resolve_references(Config(settings))
