"""What a sweep says of the row that validation scenes choose."""

from dataclasses import replace

import numpy as np
import pytest

from beyonddrive.evaluation.statistics.score_table import RunKey, table_of
from beyonddrive.visualization.sweep_choice import NOTHING_CHOSEN, choice_text

ROWS = ["weight=0", "weight=5", "weight=9"]


def scores(seed, means, seeds=(0, 1)):
    """A table whose rows have these means on 200 scenes; the scenes are alike in all rows."""
    rng = np.random.default_rng(seed)
    scenes = rng.uniform(-0.1, 0.1, 200)
    values = {
        RunKey(row, number): {
            f"{seed}-{index}": np.array([1.0, mean + scene + rng.normal(0.0, 0.01)])
            for index, scene in enumerate(scenes)
        }
        for row, mean in means.items()
        for number in (seeds if not isinstance(seeds, dict) else seeds[row])
    }
    return table_of(values, ("NC", "PDMS"))


def test_the_best_on_val_is_named_and_test_has_no_say():
    val = scores(0, {"weight=0": 0.5, "weight=5": 0.6, "weight=9": 0.55})
    test = scores(1, {"weight=0": 0.9, "weight=5": 0.3, "weight=9": 0.8})
    text = choice_text(ROWS, {"test": test, "val": val}, "test")
    assert "Chosen on val among 3 rows, by PDMS alone: **weight=5** (60." in text
    assert "next weight=9, 55." in text and "do not tell" not in text
    assert "On test, which took no part in that: 30." in text and "(2 seeds)" in text


def test_a_choice_by_chance_and_rows_that_lack_are_said():
    val = scores(0, {"weight=0": 0.5, "weight=5": 0.5001}, {"weight=0": [0, 1], "weight=5": [0, 1, 2]})
    text = choice_text(ROWS, {"val": val}, "val")
    assert "The scenes do not tell these two apart." in text
    assert "Without scores there: weight=9." in text and "Rows have different seeds" in text
    assert "compared by those that all have (0, 1)." in text
    assert "took no part" not in text
    apart = scores(0, {"weight=0": 0.5, "weight=5": 0.6}, {"weight=0": [0], "weight=5": [1]})
    text = choice_text(ROWS, {"val": apart}, "val")
    assert text == "Nothing is chosen here: the rows to choose among have no seed in common."


def test_a_row_does_not_win_by_its_only_seed():
    """Seed 0 was a good one for all; the mean of the row with three seeds has the bad ones in it."""
    val = scores(0, {"weight=0": 0.5, "weight=5": 0.6}, {"weight=0": [0], "weight=5": [0, 1, 2]})
    later = np.array([0.3 if run.seed else 0.0 for run in val.runs], np.float32)
    values = val.values.copy()
    values[..., -1] -= later[:, None]
    assert values[1:, :, -1].mean() < values[0, :, -1].mean()
    text = choice_text(ROWS, {"val": replace(val, values=values)}, "val")
    assert "**weight=5** (60." in text and "by those that all have (0)" in text


def test_one_scene_has_no_interval_and_tells_nothing_apart():
    val = scores(0, {"weight=0": 0.5, "weight=5": 0.6}, (0,))
    text = choice_text(ROWS, {"val": val.part(val.tokens[:1])}, "val")
    assert "nan" not in text and "The scenes do not tell these two apart." in text


@pytest.mark.parametrize("part", ["test", "val"])
def test_without_scores_on_val_nothing_is_chosen(part):
    only = scores(0, {"weight=0": 0.5} if part == "val" else {"weight=0": 0.5, "weight=5": 0.6})
    assert choice_text(ROWS, {part: only}, part) == NOTHING_CHOSEN
