"""What scores cost a training step, at its smallest: what is trained, scored and reported."""

import json

import numpy as np
import pytest

from beyonddrive.benchmarks import scoring_service

SMALL = ["--scenes", "2", "--batch", "2", "--plans", "3", "--blocks", "1", "--steps", "1", "--threads", "1"]


def test_batches_go_through_the_scenes_in_turn():
    source = scoring_service.batches(3, 2)
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

    def start(num_workers):
        found.append(num_workers)
        return type_(num_workers)

    type_ = scoring_service.ServiceSettings
    monkeypatch.setattr(scoring_service, "ServiceSettings", start)
    return found


def test_steps_with_and_without_scores_are_reported(submitted, settings, capsys):
    assert scoring_service.main([*SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=pytest.fail)
    assert {key: found[key] for key in ("batch", "plans", "threads", "workers")} == {
        "batch": 2, "plans": 3, "threads": 1, "workers": 1
    }  # fmt: skip
    assert settings == [1]
    assert found["step_alone_ms"] > 0 and found["step_with_scores_ms"] > 0 <= found["waited_ms_per_step"]
    expected = found["step_with_scores_ms"] / found["step_alone_ms"]
    assert found["ratio"] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    # Once to warm up, which goes through all scenes, and in every second block.
    assert len(submitted) == 2
    for tokens, plans, future in submitted:
        assert [token[-1] for token in tokens] == ["0", "1"]
        assert plans.shape == (2, 3, 8, 3) and not np.array_equal(plans[0], plans[1])
        scores = future.result()
        assert scores.shape[:2] == (2, 3) and np.isfinite(scores).all()
    assert np.array_equal(submitted[0][2].result(), submitted[1][2].result())
