"""The table of coverage: a row per sampling setting and number of proposals, all of the same scenes."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from beyonddrive.evaluation.scene_scoring import SceneScores
from beyonddrive.generators.mining_source import LoadedScene
from beyonddrive.results.effect import coverage
from beyonddrive.structures.plan import SCORE_COLUMNS

TOKENS = ["a", "b", "c"]


class Source:
    """Scenes whose expert stands still."""

    tokens = TOKENS

    def __getitem__(self, index):
        expert = SimpleNamespace(trajectory=torch.zeros(8, 3))
        sample = {"inputs": {}, "data_samples": SimpleNamespace(gt=expert)}
        return LoadedScene(TOKENS[index], "log", sample)


class Scorer:
    """A plan fails by leaving the road if it lies to the left; scene c never does."""

    def score(self, scenes):
        (scene,) = scenes
        values = np.ones((len(scene.plans), len(SCORE_COLUMNS)))
        fails = (scene.plans[:, 0, 1] > 0.0) & (scene.token != "c")
        for name in ("DAC", "PDMS"):
            values[fails, SCORE_COLUMNS.index(name)] = 0.0
        return [SceneScores(scene.token, scene.log_name, values, times=np.full(values.shape, np.inf))]


def draw(samples, tokens):
    """Proposals at 1, -2, 3, -4 m to the side; wide ones ten times as far."""
    plans = np.zeros((len(tokens), 4, 8, 3), np.float32)
    plans[..., 1] = np.array([1.0, -2.0, 3.0, -4.0])[:, None]
    return {"near": plans, "wide": 10.0 * plans}


def test_rows_have_the_first_proposals_of_their_setting():
    reports = coverage.measure(Source(), draw, Scorer(), {"near": (2, 64), "wide": (64,)})
    rows = {line["row"]: line for line in csv.DictReader(coverage.table(reports).splitlines())}
    assert list(rows) == ["near, 2 proposals", "near", "wide"]
    few, near, wide = rows.values()
    assert (few["proposals"], near["proposals"], near["scenes"]) == ("2", "4", "3")
    assert few["with a negative"] == near["with a negative"] == near["DAC fails"] == "66.7"
    assert near["NC fails"] == "0.0" and near["negatives"] == "33.3"
    assert (near["nearest"], wide["nearest"], wide["all"]) == ("1.00", "10.00", "25.00")
    assert few["diversity of negatives"] == "" and near["diversity of negatives"] == "2.00"


def test_a_scene_without_scores_is_named():
    class Broken:
        def score(self, scenes):
            return [SceneScores(scenes[0].token, "", None, "no map")]

    with pytest.raises(SystemExit, match="a: no map"):
        coverage.measure(Source(), draw, Broken(), {"near": (64,), "wide": (64,)})


def test_every_setting_builds_and_draws_what_its_rows_need():
    settings = coverage.strategies()
    assert all(max(most) == strategy.num_proposals for strategy, most in settings.values())
    assert settings["guidance 0.5, noise 0.4"][1] == (16, 64, 256)
    assert settings["farthest of a mixture of 256"][0].base.num_proposals == 256
