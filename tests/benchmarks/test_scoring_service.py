"""What scores cost a training step, at its smallest: what is trained, scored and reported."""

import json
import os
import runpy
import sys

import numpy as np
import pytest

from beyonddrive.benchmarks import scoring_service, train_step

SMALL = ["--scenes", "2", "--batch", "2", "--plans", "3", "--blocks", "1", "--steps", "1", "--threads", "1"]


def test_batches_go_through_the_scenes_in_turn():
    source = scoring_service.batches(train_step.build("ltf-tiny"), 3, 2)
    tokens = [[sample.metainfo["token"][-1] for sample in next(source)["data_samples"]] for _ in range(3)]
    assert tokens == [["0", "1"], ["2", "0"], ["1", "2"]]


@pytest.fixture
def submitted(monkeypatch):
    """Tokens and plans of each batch that the service is given, and its scores."""
    found = []

    class Service(scoring_service.ScoringService):
        def submit(self, tokens, plans):
            future = super().submit(tokens, plans)
            found.append((tokens, plans, future))
            return future

    monkeypatch.setattr(scoring_service, "ScoringService", Service)
    return found


@pytest.fixture
def settings(monkeypatch):
    """What the service is started with."""
    found = []

    def start(num_workers, niceness):
        found.append((num_workers, niceness))
        return type_(num_workers, niceness=niceness)

    type_ = scoring_service.ServiceSettings
    start.niceness = type_.niceness
    monkeypatch.setattr(scoring_service, "ServiceSettings", start)
    return found


def test_steps_with_and_without_scores_are_reported(submitted, settings, monkeypatch, capsys):
    delivered = []

    class Exchange(scoring_service.NextStepScores):
        def exchange(self, tokens, plans, context):
            delivered.append(super().exchange(tokens, plans, context))
            return delivered[-1]

    class Step(train_step.Step):
        def __init__(self, planner, settings, device):
            super().__init__(planner, settings, device)
            steps.append((settings.channels_last, self.optimizer.param_groups[0]["fused"]))

    steps = []
    monkeypatch.setattr(train_step, "Step", Step)
    monkeypatch.setattr(scoring_service, "NextStepScores", Exchange)
    assert scoring_service.main([*SMALL, "--niceness", "7", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=pytest.fail)
    assert {key: found[key] for key in ("batch", "plans", "threads", "workers", "niceness")} == {
        "batch": 2, "plans": 3, "threads": 1, "workers": 1, "niceness": 7
    }  # fmt: skip
    assert settings == [(1, 7)]
    assert steps == [(True, True)]  # (as in the recipe)
    assert found["alone_ms"] > 0
    for kind in ("within_step", "next_step"):
        assert found[f"{kind}_ms"] > 0 <= found[f"{kind}_waited_ms"]
        expected = found[f"{kind}_ms"] / found["alone_ms"]
        assert found[f"{kind}_ratio"] == pytest.approx(expected, rel=1e-3, abs=1e-3)  # of a single block
        assert found[f"{kind}_quartiles"] == " ".join([f"{found[f'{kind}_ratio']:.3f}"] * 2)
    # Of each kind with scores one step to warm up, which goes through all scenes, one that does not count and
    # one that does.
    assert len(submitted) == 6
    for tokens, plans, future in submitted:
        assert [token[-1] for token in tokens] == ["0", "1"]
        assert plans.shape == (2, 3, 8, 3) and not np.array_equal(plans[0], plans[1])
        scores = future.result()
        assert scores.shape[:2] == (2, 3) and np.isfinite(scores).all()
        assert np.array_equal(scores, submitted[0][2].result())
    # Those of the warm-up are forgotten: what a block gets, it has handed in.
    assert [found is None for found in delivered] == [True, True, False]


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_as_in_a_training_and_that_is_said_before_torch_is_loaded(monkeypatch, given, expected):
    monkeypatch.setattr(os, "environ", {} if given is None else {"OMP_WAIT_POLICY": given})
    monkeypatch.setitem(sys.modules, "torch", None)  # whoever imports it fails
    with pytest.raises(ImportError, match="torch"):
        runpy.run_path(scoring_service.__file__, run_name="__main__")
    assert os.environ["OMP_WAIT_POLICY"] == expected
