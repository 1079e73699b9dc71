"""``list`` names what there is, ``print-config`` what a config is in the end."""

import inspect

import pytest
from mmengine.config import Config

from beyonddrive.engine.configs import load_config
from beyonddrive.registry import METRICS, MODELS
from beyonddrive.tools import list as tool
from beyonddrive.tools import print_config


def lines_of(printed):
    """Kind -> name -> what is said of it."""
    kinds = {}
    for block in printed.strip().split("\n\n"):
        head, *lines = block.splitlines()
        kind, _, count = head.partition(" ")
        kinds[kind] = dict(line.strip().split(None, 1) for line in lines)
        assert count == f"({len(lines)})"
    return kinds


def test_everything_is_listed_once_with_what_it_is(capsys):
    assert tool.main([]) == 0
    kinds = lines_of(capsys.readouterr().out)
    assert list(kinds) == list(tool.KINDS)
    models = [name for kind in ("planners", "heads", "losses", "parts") for name in kinds[kind]]
    assert sorted(models) == sorted(MODELS.module_dict)
    assert set(kinds["metrics"]) == set(METRICS.module_dict)
    assert "TransFuserPlanner" in kinds["planners"] and "RepulsiveHead" in kinds["heads"]
    assert kinds["configs"]["ltf_tiny_1xb16-12e_synth"].startswith("LTF")
    assert not any("_base_" in name for name in kinds["configs"])
    assert "ltf_r34" in kinds["releases"]["ltf"]
    for name, said in kinds["planners"].items():
        assert said == tool.first_line(inspect.getdoc(MODELS.get(name)))


def test_a_function_may_be_registered_among_models(capsys):
    def four_layers():
        """Builds four layers."""

    MODELS.register_module(name="four_layers", module=four_layers)
    try:
        assert tool.main(["planners", "parts"]) == 0
    finally:
        MODELS.module_dict.pop("four_layers")
    assert lines_of(capsys.readouterr().out)["parts"]["four_layers"].startswith("Builds four layers.")


def test_single_kinds_are_listed_and_others_refused(capsys):
    assert tool.main(["selectors", "strategies"]) == 0
    assert list(lines_of(capsys.readouterr().out)) == ["selectors", "strategies"]
    with pytest.raises(SystemExit) as ended:
        tool.main(["planes"])
    assert ended.value.code == 2 and "'planes' is none of planners, heads" in capsys.readouterr().err


def test_what_a_config_says_of_itself_is_its_first_sentence(tmp_path):
    path = tmp_path / "config.py"
    for text, said in (
        ("# LTF v1.1, of\n# two lines. More.\nx = 1\n", "LTF v1.1, of two lines"),
        ('"""Of a docstring.\n\nMore."""\n', "Of a docstring"),
        ("x = 1\n", ""),
    ):
        path.write_text(text)
        assert tool.first_sentence(path) == said


def test_a_printed_config_is_the_config(capsys):
    words = ["ltf-beyonddrive_tiny_1xb16-12e_synth", "--cfg-options", "train_cfg.max_epochs=3"]
    assert print_config.main(words) == 0
    printed = Config.fromstring(capsys.readouterr().out, ".py")
    wanted = load_config(words[0], {"train_cfg.max_epochs": 3})
    assert printed._cfg_dict == wanted._cfg_dict and printed.train_cfg.max_epochs == 3
    assert print_config.main(["ltf_tny_1xb16-12e_synth"]) == 1
    assert capsys.readouterr().err.startswith(
        "print-config: ltf_tny_1xb16-12e_synth: no such config; did you"
    )
