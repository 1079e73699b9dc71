"""``docs/scoring_service.md`` as a reader follows it: its loss is written out and trained by."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.plugins.ego_mlp.planner import EgoStatusMLP
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample

GUIDE = Path(__file__).parents[1] / "docs" / "scoring_service.md"
RECIPE = """
_base_ = "{blind}"
model = dict(type="RewardWeightedMLP")
train_dataloader = dict(batch_size=3)
default_hooks = dict(scores=dict(type="ScoringServiceHook", cache_dir="{caches}", num_workers={workers}))
train_cfg = dict(max_epochs=2, val_interval=9)
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The module and the config of the guide, each named by the comment in its first line."""
    folder = tmp_path_factory.mktemp("guide")
    blocks = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE.read_text(), re.DOTALL))
    for name, text in blocks.items():
        (folder / name).write_text(text)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    MODELS._module_dict.pop("RewardWeightedLTF", None)
    MODELS._module_dict.pop("RewardWeightedMLP", None)


@pytest.fixture
def losses(example, tmp_path, split_root, blind_recipe):
    """Train a blind planner by the guide's loss: its terms, step by step, and the runner."""
    module = importlib.import_module("reward_weighted")
    if MODELS.get("RewardWeightedMLP") is None:
        MODELS.register_module(
            "RewardWeightedMLP", module=type("RewardWeightedMLP", (module.RewardWeighted, EgoStatusMLP), {})
        )
    cache_metrics(NavsimRoot(split_root), "train", SceneFilter(), tmp_path / "caches", SerialExecutor())

    def run(workers, **options):
        recipe = tmp_path / "recipe.py"
        recipe.write_text(RECIPE.format(blind=blind_recipe, caches=tmp_path / "caches", workers=workers))
        runner = build_train_runner(load_config(recipe, options), str(tmp_path / f"work-{workers}"), seed=1)
        runner.train()
        scalars = runner.message_hub.log_scalars
        names = "loss_reward_weighted", "best_reward"
        terms = {name: scalars[f"train/{name}"]._log_history for name in names}
        return runner, terms

    return run


def test_the_example_is_short():
    (text,) = re.findall(r"```python\n# reward_weighted.py\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len([line for line in text.splitlines() if line.strip()]) <= 40


def test_a_training_by_the_loss_of_the_guide_does_not_depend_on_the_workers(losses, caplog):
    runner, one = losses(1)
    _, two = losses(2)
    assert len(one["best_reward"]) == 4
    for name, values in one.items():
        assert values.tolist() == two[name].tolist()
    assert (one["best_reward"] > 0).all() and (one["best_reward"] <= 1).all()
    assert "train/scorer_wait" in runner.message_hub.log_scalars
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "ScoringServiceHook")
    assert hook.service is None  # closed


def test_the_reward_decides_what_is_imitated(example):
    """With a score that likes only slow plans, the gradient pulls backwards."""
    module = importlib.import_module("reward_weighted")

    class LikesSlow:
        def submit(self, tokens, plans):
            self.plans = plans
            return self

        def result(self):
            scores = torch.zeros(*self.plans.shape[:2], 7)
            scores[..., 6] = (self.plans[..., -1, 0] < 12.0).float()
            return scores.double().numpy()

    planner = type("Planner", (module.RewardWeighted, EgoStatusMLP), {})(hidden=8, num_layers=1)
    planner.use_scores(LikesSlow())
    expert = torch.zeros(8, 3)
    expert[:, 0] = torch.arange(1, 9) * 2.0
    sample = PlanSample(metainfo={"token": "a"}, gt=BaseDataElement(trajectory=expert))
    bias = planner.trajectory_head.mlp[-1].bias
    optimizer = torch.optim.Adam([bias], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        planner({"status": torch.zeros(1, 8)}, [sample], mode="loss")["loss_reward_weighted"].backward()
        optimizer.step()
    with torch.no_grad():
        (plan,) = planner({"status": torch.zeros(1, 8)}, mode="predict")
    assert plan.pred.trajectory[-1, 0] < 13.0 < expert[-1, 0]


def test_the_config_of_the_guide_builds_its_planner(example):
    config = load_config(example / "ltf-reward-weighted_tiny_1xb16-12e_synth.py")
    importlib.import_module("reward_weighted")
    planner = MODELS.build(config.model)
    assert type(planner).__name__ == "RewardWeightedLTF" and hasattr(planner, "use_scores")
    assert config.default_hooks.scores.cache_dir == "data/synth/cache/metrics/train"
