"""Planners that start from noise and from plans of experts: seeds, training, hard negatives."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

import beyonddrive
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.transforms.base import BaseTransform
from beyonddrive.engine.checkpoint_files import load_checkpoint_file
from beyonddrive.engine.configs import load_config
from beyonddrive.generators.prior_hook import ExpertPriorError, ExpertPriorHook, expert_plans
from beyonddrive.generators.strategies import SamplingStrategy, scene_generators
from beyonddrive.heads.plan_prior import plan_priors
from beyonddrive.plugins.base.preprocessor import PlannerInputError
from beyonddrive.plugins.base.sampling import SamplingPlanner
from beyonddrive.registry import MODELS, TRANSFORMS
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.vocabulary import VocabularyError
from beyonddrive.tools import train

CONFIGS = Path(beyonddrive.__path__[0]) / "configs"
NAMES = ("diffusiondrive", "meanfuser")
NEGATIVES = ("all", "none", "mixed", "right")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def planner(name: str) -> SamplingPlanner:
    torch.manual_seed(0)
    config = load_config(CONFIGS / name / f"{name}-beyonddrive_tiny_1xb16-12e_synth.py")
    built: SamplingPlanner = MODELS.build(config.model)
    for prior in plan_priors(built):
        prior.fit(np.random.default_rng(0).normal(size=(100, 8, 3)).cumsum(axis=1))
    return built


def inputs(planner: SamplingPlanner, batch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    backbone = planner.backbone
    made = {
        "camera": torch.rand(batch, 3, *backbone.image_size, generator=generator),
        "status": torch.rand(batch, 8, generator=generator),
    }
    if not backbone.latent:
        made["lidar"] = torch.rand(batch, 1, *backbone.bev_size, generator=generator)
    return made


def samples(case: str, batch: int = 2) -> list[PlanSample]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for row in range(batch):
        sample = PlanSample(metainfo={"token": f"scene{row}"})
        plan = torch.rand(8, 3, generator=generator).cumsum(0)
        sample.gt = BaseDataElement(
            trajectory=plan,
            agent_states=torch.zeros(30, 5),
            agent_labels=torch.arange(30) < 3 * row,
            bev_semantic_map=torch.zeros(128, 256, dtype=torch.uint8),
        )
        negative = plan * torch.tensor([1.0, -4.0, -4.0]) if case == "right" else plan + 1.0
        valid = case != "none" and not (case == "mixed" and row == 0)
        sample.negatives = BaseDataElement(plans=negative[None], valid=torch.tensor([valid]))
        made.append(sample)
    return made


def test_same_seed_same_plan_alone_or_in_a_batch(planner: SamplingPlanner) -> None:
    planner.eval()
    given = inputs(planner, 3)

    def plans(rows: list[int], tokens: str) -> Tensor:
        batch = {key: value[rows] for key, value in given.items()}
        targets = [PlanSample(metainfo={"token": token}) for token in tokens]
        return torch.stack([s.pred.trajectory for s in planner(batch, targets, mode="predict")])

    together = plans([0, 1, 2], "abc")
    assert torch.equal(together, plans([0, 1, 2], "abc"))
    torch.testing.assert_close(together[1:2], plans([1], "b"), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[1:2], plans([1], "x"), rtol=1e-4, atol=1e-4)  # other noise


def test_noise_may_be_given_as_an_input(planner: SamplingPlanner) -> None:
    planner.eval()
    given, head = inputs(planner, 2), planner.trajectory_head.bare
    usual = planner(given)
    drawn = head.draw(1, head.num_proposals, torch.Generator().manual_seed(head.seed))
    same = planner({**given, "noise": torch.cat([drawn, drawn])})
    torch.testing.assert_close(same["proposals"], usual["proposals"], rtol=1e-4, atol=1e-4)
    other = planner({**given, "noise": torch.cat([drawn, -drawn])})
    torch.testing.assert_close(other["proposals"][0], usual["proposals"][0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(other["proposals"][1], usual["proposals"][1], rtol=1e-3, atol=1e-3)
    (first, second) = planner({**given, "noise": torch.cat([drawn, -drawn])}, samples("all"), mode="predict")
    torch.testing.assert_close(first.pred.proposals, other["proposals"][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second.pred.proposals, other["proposals"][1], rtol=1e-4, atol=1e-4)
    with pytest.raises(PlannerInputError, match=r"input 'noise' of .* must be finite .* got \(1, "):
        planner({**given, "noise": drawn})
    with pytest.raises(PlannerInputError, match="input 'noise'"):
        planner({**given, "noise": torch.cat([drawn, drawn * torch.nan])})


@pytest.mark.parametrize("count", [3, 24])
def test_proposals_for_mining(planner: SamplingPlanner, count: int) -> None:
    planner.eval()
    given = inputs(planner, 2)
    strategy = SamplingStrategy(num_proposals=count, noise=2.0, steps=3)
    plans = strategy(planner, given, ["a", "b"])
    assert plans.shape == (2, count, 8, 3) and plans.isfinite().all()
    second = {key: value[1:] for key, value in given.items()}
    alone = planner.propose(second, count, strategy, scene_generators(0, ["b"]))
    torch.testing.assert_close(plans[1:], alone, rtol=1e-4, atol=1e-4)
    shared = planner.propose(given, count, strategy, torch.Generator().manual_seed(0))
    assert torch.equal(shared, planner.propose(given, count, strategy, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("case", NEGATIVES)
def test_gradients_are_finite_in_every_case(planner: SamplingPlanner, case: str) -> None:
    planner.train()
    total, log = planner.parse_losses(planner(inputs(planner, 2), samples(case), mode="loss"))
    total.backward()
    assert total.isfinite() and (log["loss_repulsive"] == 0) == (case == "none")
    grads = [p.grad for p in planner.parameters() if p.requires_grad]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads)


def test_rule_of_the_release_drops_right_turns(planner: SamplingPlanner) -> None:
    head = planner.trajectory_head
    shares = {}
    for rule in ("mask", "sum_positive"):
        head.repulsion.valid_rule = rule
        torch.manual_seed(0)
        losses = planner(inputs(planner, 2), samples("right"), mode="loss")
        shares[rule] = float(losses["negative_share"])
    assert shares == {"mask": 1.0, "sum_positive": 0.0}


def test_weights_are_the_published_ones(name: str, planner: SamplingPlanner) -> None:
    head = planner.trajectory_head
    wanted = {"diffusiondrive": (96.0, 60.0), "meanfuser": (2.0, 1.5)}[name]
    assert (head.attraction_weight, head.repulsion.weight) == wanted


# ------------------------------------------------------------------ experts -> prior -> training
@TRANSFORMS.register_module()
class GreySensors(BaseTransform):
    """Sensors of a scene whose sensor files are not there."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``camera`` and ``lidar``."""
        results["camera"] = np.full((3, 64, 256), 90, np.uint8)
        results["lidar"] = np.zeros((1, 128, 128), np.float32)
        return results


RECIPE = """
_base_ = "{config}"
data_root = "{root}"
_data = dict(
    data_root=data_root,
    scene_filter=None,
    cache_dir=None,
    feature_pipeline=[
        dict(type="GreySensors"), dict(type="EgoStatus"), dict(type="PlanTarget"),
        dict(type="AgentTargets"), dict(type="BEVMapTarget", walkways=False),
    ],
)
_scores = dict(cache_dir=None, data_root=data_root, num_workers=0)
model = dict(trajectory_head=dict({size}))
train_dataloader = dict(batch_size=2, dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
val_evaluator = _scores
test_evaluator = _scores
train_cfg = dict(max_epochs=1, val_interval=1)
log_level = "WARNING"
"""


def test_training_from_a_config_makes_the_prior_first(
    name: str, tmp_path: Path, split_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    size = {"diffusiondrive": "num_anchors=4", "meanfuser": "num_components=4, num_proposals=4"}[name]
    recipe = tmp_path / "recipe.py"
    config = CONFIGS / name / f"{name}_tiny_1xb16-12e_synth.py"
    recipe.write_text(RECIPE.format(config=config, root=split_root, size=size))
    assert train.main([str(recipe), "--seed", "1"]) == 0
    (path,) = (tmp_path / "work_dirs" / "recipe").glob("epoch_1.pth")
    state = load_checkpoint_file(path)["state_dict"]
    dataset = NavsimDataset(split_root, "train", feature_pipeline=[{"type": "PlanTarget"}])
    (prior,) = plan_priors(MODELS.build(load_config(recipe).model))
    prior.fit(expert_plans(dataset, 100))
    for key, buffer in prior.named_buffers():
        prefix = "trajectory_head." + ("anchors." if name == "diffusiondrive" else "mixture.")
        torch.testing.assert_close(state[prefix + key], buffer)


def runner_of(model: torch.nn.Module, dataset: Any) -> Any:
    logger = SimpleNamespace(info=lambda message: None)
    return SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=dataset), logger=logger)


def test_hook_leaves_a_filled_prior_alone(planner: SamplingPlanner) -> None:
    before = {key: buffer.clone() for key, buffer in plan_priors(planner)[0].named_buffers()}
    ExpertPriorHook().before_train(runner_of(planner, None))  # reads nothing
    assert all(torch.equal(buffer, before[key]) for key, buffer in plan_priors(planner)[0].named_buffers())


def test_hook_names_data_that_cannot_help(name: str, split_root: Path) -> None:
    planner = MODELS.build(load_config(CONFIGS / name / f"{name}_tiny_1xb16-12e_synth.py").model)
    with pytest.raises(ExpertPriorError, match="cannot read expert plans from a list"):
        ExpertPriorHook().before_train(runner_of(planner, []))
    dataset = NavsimDataset(split_root, "train", feature_pipeline=[{"type": "PlanTarget"}])
    with pytest.raises(VocabularyError, match="6 plans cannot be cut into"):
        ExpertPriorHook().before_train(runner_of(planner, dataset))


def test_experts_are_spread_over_the_split(split_root: Path) -> None:
    dataset = NavsimDataset(split_root, "train", feature_pipeline=[{"type": "PlanTarget"}])
    everything = expert_plans(dataset, 100)
    assert everything.shape == (6, 8, 3)
    np.testing.assert_array_equal(expert_plans(dataset, 3), everything[::2])
    np.testing.assert_allclose(everything[4], dataset.features(4)["trajectory"], atol=1e-5)
