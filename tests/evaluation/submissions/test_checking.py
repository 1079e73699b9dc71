"""Scores of a submission as its board gives them: what a board refuses is refused before it is scored."""

from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.evaluation.bases.places import TwoStageData
from beyonddrive.evaluation.pdm.scores.two_stage import TwoStageError, read_groups
from beyonddrive.evaluation.submissions.checking import score_two_stages

DATA = Path(__file__).parents[2] / "data/golden/two_stage/data"


@pytest.mark.parametrize("stage", ["first", "second"])
def test_a_plan_in_the_list_of_the_other_stage_is_refused(stage):
    split = TwoStageSplit.read(DATA / "two_stage_split.json")
    data = TwoStageData(split, DATA, DATA / "synthetic_scene_pickles")
    [group, *_] = read_groups(split.pairs)
    plan = np.zeros((8, 3), np.float32)
    first = dict.fromkeys((group.now, group.previous), plan)
    # (a pair is missing, so that without this check the file is refused as well, but for another reason)
    second = dict.fromkeys((token for pair in group.pairs[1:] for token in pair), plan)
    right = "second" if stage == "first" else "first"
    token = group.pairs[1][0] if stage == "first" else group.now
    (first if stage == "first" else second)[token] = plan + 1
    told = rf"{stage}_stage_predictions: 1 of \d+ plans are .* {right} stage of .*\({token}\)"
    with pytest.raises(TwoStageError, match=told):
        score_two_stages(data, (first, second), SerialExecutor())
