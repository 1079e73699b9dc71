"""A training that ends early does so after the same epoch if it was killed, and stays at its end."""

from itertools import chain, repeat

import pytest
from mmengine.hooks import Hook

from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.evaluation.pdms_metric import PDMSMetric


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


class KillAfterThree(Hook):
    """Between an epoch and its validation."""

    priority = "LOWEST"

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == 3:
            raise Killed


@pytest.fixture
def train(tmp_path, blind_recipe, monkeypatch):
    """``train(name, patience)`` trains in a folder, or goes on there; the first validation is the best."""
    given = {}

    def run(name, *hooks, patience=2):
        scores = given.setdefault(name, chain([50.0], repeat(40.0)))

        def evaluate(self, size):
            self.results.clear()
            return {"pdms/PDMS": next(scores)}

        monkeypatch.setattr(PDMSMetric, "evaluate", evaluate)
        stopping = {
            "type": "EarlyStoppingHook",
            "monitor": "pdms/PDMS",
            "rule": "greater",
            "patience": patience,
        }
        options = {"train_cfg.max_epochs": 6, "custom_hooks": [stopping]}
        runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / name), resume=True)
        for hook in hooks:
            runner.register_hook(hook)
        runner.train()
        return runner.epoch

    return run


def test_a_killed_training_ends_early_where_an_unbroken_one_does(train):
    assert train("whole") == 3
    with pytest.raises(Killed):
        train("killed", KillAfterThree())
    assert train("killed") == 3
    assert train("killed") == 3
    assert train("killed", patience=4) == 5
