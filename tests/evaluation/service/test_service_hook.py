"""The scoring service of a training that fails in a process that goes on: its workers end."""

import os

import pytest
from mmengine.hooks import Hook

from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.evaluation.service.errors import ScoringServiceError
from beyonddrive.plugins.ego_mlp.planner import EgoStatusMLP
from beyonddrive.registry import MODELS


class Scored(EgoStatusMLP):
    """A planner that takes scores."""

    def use_scores(self, service):
        self.service = service


class Fails(Hook):
    """Ends the training at its second step."""

    def __init__(self, error):
        self.error = error

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            self.workers = runner.model.service.process_ids
            raise self.error


@pytest.mark.parametrize("error", [ValueError("a bad step"), KeyboardInterrupt()])
def test_workers_end_with_a_training_that_fails(tmp_path, blind_recipe, monkeypatch, error):
    monkeypatch.setitem(MODELS.module_dict, "Scored", Scored)
    options = {
        "model.type": "Scored",
        "default_hooks.scores": {"type": "ScoringServiceHook", "num_workers": 2},
    }
    runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / "w"))
    fails = Fails(error)
    runner.register_hook(fails)
    with pytest.raises(type(error)) as failure:
        runner.train()
    assert failure.value is error and len(fails.workers) == 2
    assert not runner.model.service.is_running  # though runner and service are still there
    for worker in fails.workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


class ReturnsToScene(Scored):
    """One that says that it brings its plans back."""

    returns_to_scene = True


def test_moved_views_are_refused_unless_plans_are_brought_back(tmp_path, blind_recipe, monkeypatch):
    steps = [{"type": "ViewAugmentation"}, {"type": "PackPlanInputs"}]
    for planner in (Scored, ReturnsToScene):
        monkeypatch.setitem(MODELS.module_dict, planner.__name__, planner)
        options = {
            "model.type": planner.__name__,
            "default_hooks.scores": {"type": "ScoringServiceHook"},
            "train_dataloader.dataset.pipeline": steps,
            "train_cfg.max_epochs": 1,
        }
        config = load_config(blind_recipe, options)
        runner = build_train_runner(config, str(tmp_path / planner.__name__))
        if planner is Scored:
            with pytest.raises(ScoringServiceError, match=r"ViewAugmentation.*Scored.*returns_to_scene"):
                runner.train()
        else:
            runner.train()
