"""Plans of sweeps: from a grid, from a file, and what is refused."""

import pytest
import yaml

from beyonddrive.engine.config_values import read_text
from beyonddrive.engine.sweeps.plan import Row, SweepError, SweepPlan, plan_of_grid, read_plan, read_seeds
from beyonddrive.tools.sweep import parse_args, plan_of

PLAN = """
title: Weights
seeds: 0:3
options: {data_root: data/other, model: {hidden: 32}}
rows:
  plain: {config: ltf_tiny_1xb16-12e_synth}
  repelled:
    config: ltf-beyonddrive_tiny_1xb16-12e_synth
    bases: [_base_/negatives/several.py]
    options: {model.repulsion.weight: 2.5, columns: [NC, DAC], online: true}
    baseline: plain
subsets: {hard: filters/hard.yaml}
"""


def test_a_grid_makes_every_combination_and_pairs_it_with_the_baseline():
    grid = {"model.repulsion.weight": ["0", "5"], "train_cfg.max_epochs": ["1", "2"]}
    plan = plan_of_grid(["x/ltf.py"], grid, {"a": "1"}, (0, 1), "weight=0")
    assert [(row.name, row.baseline) for row in plan.rows] == [
        ("ltf weight=0 max_epochs=1", None),
        ("ltf weight=0 max_epochs=2", None),
        ("ltf weight=5 max_epochs=1", "ltf weight=0 max_epochs=1"),
        ("ltf weight=5 max_epochs=2", "ltf weight=0 max_epochs=2"),
    ]
    assert plan.rows[3].options == {"a": "1", "model.repulsion.weight": "5", "train_cfg.max_epochs": "2"}
    assert len({row.slug for row in plan.rows}) == 4


def test_values_are_chosen_by_validation_scenes(tmp_path):
    grid = {"model.repulsion.weight": ["0", "5"]}
    plan = plan_of_grid(["ltf"], grid, {}, (0,))
    assert plan.choices == ("ltf weight=0", "ltf weight=5") and plan.loaders == ("test", "val")
    assert plan_of_grid(["ltf"], grid, {}, (0,), loaders=("val",)).loaders == ("val",)
    single = plan_of_grid(["ltf", "ego_mlp"], {}, {}, (0,))
    assert single.choices == () and single.loaders == ("test",)

    path = tmp_path / "plan.yml"
    path.write_text(PLAN + "choices: all\n")
    assert read_plan(path).choices == ("plain", "repelled")
    assert read_plan(path).only(["plain"]).choices == ("plain",)
    for wrong, told in (("[plain, odd]", "odd is no row; there is plain, repelled"), ("3", "or all, got 3")):
        path.write_text(PLAN + f"choices: {wrong}\n")
        with pytest.raises(SweepError, match=f"choices: .*{told}"):
            read_plan(path)


def test_keys_with_the_same_end_stay_apart():
    plan = plan_of_grid(["ltf"], {"model.head.weight": ["1"], "model.loss.weight": ["2"]}, {}, (0,))
    assert plan.rows[0].name == "ltf head.weight=1 loss.weight=2"


def test_a_config_may_be_the_baseline():
    plan = plan_of_grid(["b::x/plain.py", "more"], {}, {}, (0,), "b::x/plain.py")
    assert [(row.name, row.baseline) for row in plan.rows] == [("plain", None), ("more", "plain")]


def test_a_row_may_do_without_the_options_of_all_rows(tmp_path):
    path = tmp_path / "plan.yml"
    row = "  human: {config: human_synth, shared_options: false, options: {seed: 1}}\n"
    path.write_text(PLAN.replace("rows:\n", "rows:\n" + row))
    assert read_plan(path).row("human").options == {"seed": "1"}
    path.write_text(path.read_text().replace("shared_options: false", "shared_options: 0"))
    with pytest.raises(SweepError, match=r"rows\.human\.shared_options: must be true or false"):
        read_plan(path)


def test_a_file_has_rows_shared_options_and_subsets(tmp_path):
    path = tmp_path / "plan.yml"
    path.write_text(PLAN)
    plan = read_plan(path)
    assert (plan.title, plan.seeds, plan.checkpoint, plan.loaders) == (
        "Weights",
        (0, 1, 2),
        "last",
        ("test",),
    )
    assert plan.row("plain").options == {"data_root": "data/other", "model.hidden": "32"}
    assert plan.row("repelled") == Row(
        "repelled",
        "ltf-beyonddrive_tiny_1xb16-12e_synth",
        ("_base_/negatives/several.py",),
        {
            "data_root": "data/other",
            "model.hidden": "32",
            "model.repulsion.weight": "2.5",
            "columns": "[NC,DAC]",
            "online": "true",
        },
        "plain",
    )
    assert {name: str(file) for name, file in plan.subsets.items()} == {"hard": "filters/hard.yaml"}


def test_rows_of_a_file_are_chosen_with_their_baselines(tmp_path):
    path = tmp_path / "plan.yml"
    plain, blind = "plain: {config: ltf_tiny_1xb16-12e_synth}", "blind: {config: ego_mlp_1xb16-12e_synth}"
    path.write_text(PLAN.replace(plain, f"{blind}\n  {plain[:-1]}, baseline: blind}}\n  odd: {{config: x}}"))
    words = ["--plan", str(path), "--out", str(tmp_path / "out"), "--rows", "repelled", "--seeds", "7"]
    plan = plan_of(parse_args([*words, "--cfg-options", "data_root=mine"]))
    assert [row.name for row in plan.rows] == ["blind", "plain", "repelled"]
    borrows = "  odd: {config: x, weights: plain}"
    path.write_text(path.read_text().replace("  odd: {config: x}", borrows))
    assert [row.name for row in plan_of(parse_args([*words[:5], "odd"])).rows] == ["blind", "plain", "odd"]
    assert plan.seeds == (7,) and plan.row("repelled").options["data_root"] == "mine"
    with pytest.raises(SweepError, match="--rows: the plan has no quux"):
        plan_of(parse_args([*words[:4], "--rows", "quux"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seeds: [0, 0]", "seeds: 0 is there twice"),
        ("seeds: often", "neither like 0:5"),
        ("seeds: []", "at least one"),
        ("rows: {a: {config: x, options: {test_cfg: {}}}}", r"rows\.a\.options\.test_cfg: an empty mapping"),
        ("options: {val_evaluator: [{type: PDMSMetric}]}", r"options\.val_evaluator: .*one in a list"),
        ('options: {logs: ["2024,spring"]}', r"options\.logs: '2024,spring' has a comma.*name that in bases"),
        ("checkpoint: luckiest", "must be 'last' or 'best'"),
        ("loaders: [train]", "must be some of test, val"),
        ("loaders: [[test]]", r"loaders: must be a list of test and val, got \[\['test'\]\]"),
        ("seeds: [4294967296]", "seeds: .* all below 4294967296"),
        ("speed: 3", "no key speed; there is checkpoint"),
        ("rows: {a: {config: x, baseline: b}}", "rows.a.baseline: 'b' is no other row"),
        ("rows: {a: {config: x, baseline: a}}", "rows.a.baseline: 'a' is no other row"),
        ("rows: {a: {config: x, weights: b}}", "rows.a.weights: 'b' is no row that is trained; there is $"),
        ("rows: {a: {config: x, weights: a}}", "rows.a.weights: 'a' is no row that is trained"),
        ("rows: {a: {}}", "rows.a.config: must name a config"),
        ("rows: {A b: {config: x}, a-b: {config: x}}", "rows: a-b is there twice"),
        ("rows: {a: {config: x, bases: y}}", "rows.a.bases: must be a list"),
        ("rows: [a]", "rows: must map names"),
        ("rows: {}", "at least one"),
        ("rows: {a: {config: [}", "cannot be read as a plan"),
        ("rows: {a: {config: x}, b: {config: x}, a: {config: y}}", "the key a is there twice"),
        ("subsets: {test: x.yaml}", "subsets.test: is part of the names of files"),
        ("further: [epdms]\nsubsets: {hard: x.yaml, hard-epdms: x.yaml}", "subsets.hard-epdms: "),
        ("subsets: {near/far: x.yaml}", "subsets.near/far: "),
    ],
)
def test_odd_files_are_refused_by_name_and_key(tmp_path, change, words):
    path = tmp_path / "plan.yml"
    rows = "" if change.startswith("rows") else "rows: {a: {config: x}}\n"
    path.write_text(rows + change)
    with pytest.raises(SweepError, match=words) as error:
        read_plan(path)
    assert str(path) in str(error.value)


def test_a_row_that_is_not_there_is_named():
    with pytest.raises(SweepError, match="no row 'c'; there is a, b"):
        SweepPlan((Row("a", "x"), Row("b", "y"))).row("c")


def test_rows_that_are_called_by_numbers_are_named_by_them(tmp_path):
    path = tmp_path / "plan.yml"
    rows = (
        "rows: {0: {config: x}, 2.5: {config: x, baseline: 0}, 5: {config: y, weights: 2.5}}\nchoices: [0, 5]"
    )
    path.write_text(rows)
    plan = read_plan(path)
    assert [(row.name, row.baseline, row.weights) for row in plan.rows] == [
        ("0", None, None),
        ("2.5", "0", None),
        ("5", None, "2.5"),
    ]
    assert plan.choices == ("0", "5")


def test_baselines_that_no_row_is_are_refused():
    with pytest.raises(SweepError, match="weight=1 is no value of the grid; it has model"):
        plan_of_grid(["ltf"], {"model.weight": ["0", "5"]}, {}, (0,), "weight=1")
    with pytest.raises(SweepError, match="no other row"):
        plan_of_grid(["ltf"], {}, {}, (0,), "other")


@pytest.mark.parametrize("key", ["num_threads", "randomness.seed", "work_dir"])
def test_options_that_a_sweep_sets_itself_are_refused(key):
    with pytest.raises(SweepError, match=rf"rows\.a\.options\.{key}: would be ignored: .*; leave it out"):
        plan_of_grid(["a"], {}, {key: "3"}, (0,))


def test_texts_in_a_list_stay_texts(tmp_path):
    logs = ["a b", "1234567890123456", "12e4", "true", "None", ""]
    path = tmp_path / "plan.yml"
    path.write_text(yaml.safe_dump({"rows": {"a": {"config": "x", "options": {"logs": [*logs, 3, None]}}}}))
    text = read_plan(path).rows[0].options["logs"]
    assert read_text(text, None, None) == [*logs, 3, None]


def test_a_range_of_seeds_is_no_time_of_day(tmp_path):
    """In yaml 1:5 is 65 seconds, which would be one training with the seed 65 instead of four."""
    path = tmp_path / "plan.yml"
    path.write_text("seeds: 1:5\nrows: {a: {config: x, options: {lr: 1.5e-3, n: -7, ratio: 16:9.5}}}")
    plan = read_plan(path)
    assert plan.seeds == (1, 2, 3, 4)
    assert plan.rows[0].options == {"lr": "0.0015", "n": "-7", "ratio": "16:9.5"}


def test_an_option_of_all_rows_is_not_in_the_grid():
    """The grid would win without a word."""
    with pytest.raises(SweepError, match=r"--cfg-options a\.b: --grid has values for it"):
        plan_of_grid(["ltf"], {"a.b": ["0", "5"]}, {"a.b": "3"}, (0,))


def test_seeds_are_not_negative():
    with pytest.raises(SweepError, match="none negative"):
        SweepPlan((Row("a", "x"),), read_seeds("-1,0"))
