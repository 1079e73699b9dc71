"""The wrapper that repels the plan of any head from negatives."""

import copy
from typing import Any

import pytest
import torch
from mmengine.runner.checkpoint import get_state_dict
from torch import nn

from beyonddrive.heads.base import TrajectoryHead
from beyonddrive.heads.repulsive import RepulsiveHead
from beyonddrive.heads.trajectory import AbsoluteTrajectoryHead, DeltaTrajectoryHead
from beyonddrive.losses.repulsive import Negatives, RepulsiveDistanceLoss
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import MissingFieldError, PlanSample
from beyonddrive.structures.tokens import PlanOutput

DELTA = {"type": "DeltaTrajectoryHead", "in_channels": 16, "hidden": 8}


ABSOLUTE = {"type": "AbsoluteTrajectoryHead", "in_channels": 16, "hidden": 8}


@pytest.mark.parametrize("config", [DELTA, ABSOLUTE])
def test_repulsion_acts_in_the_heads_own_space(config, make_tokens, make_samples):
    torch.manual_seed(0)
    head = RepulsiveHead(head=config, loss={"type": "RepulsiveDistanceLoss", "weight": 5.0})
    tokens, samples = make_tokens(), make_samples()
    output = head.training_output(tokens, samples)
    losses = head.loss(output, samples)
    negative = head.head.encode(samples[0].negatives.plans[0])
    expected = -5.0 * (output.encoded[0] - negative).abs().mean()
    torch.testing.assert_close(losses["loss_repulsive"], expected)
    assert losses["negative_share"].item() == 0.5
    bare = head.head.loss(output, samples)
    torch.testing.assert_close(losses["loss_trajectory"], bare["loss_trajectory"])
    assert torch.equal(head(tokens).trajectory, head.head(tokens).trajectory)
    assert head.space == head.head.space
    assert head.bare is head.head


def test_repulsion_moves_a_plan_away_from_the_negative_but_not_past_the_expert(make_samples):
    """Gradient descent on attraction and repulsion ends at the expert, from either side."""
    head = RepulsiveHead(head=ABSOLUTE, loss={"type": "RepulsiveDistanceLoss", "weight": 5.0})
    samples = make_samples(1)
    samples[0].gt.trajectory = torch.zeros(8, 3)
    samples[0].negatives.plans = torch.ones(1, 8, 3)
    for start in (-0.7, 0.6):
        plan = torch.full((1, 8, 3), start, requires_grad=True)
        optimizer = torch.optim.SGD([plan], lr=0.02)
        for _ in range(300):
            losses = head.loss(PlanOutput(trajectory=plan, encoded=plan), samples)
            optimizer.zero_grad()
            (losses["loss_trajectory"] + losses["loss_repulsive"]).backward()
            optimizer.step()
        assert plan.detach().abs().max().item() < 0.02


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ({"weight": 10.0}, "no minimum"),
        ({"weight": 5.0, "attraction_weight": 20.0}, "has weight 10.0"),
    ],
)
def test_repulsion_that_does_not_suit_the_head_is_refused(loss, words):
    with pytest.raises(ValueError, match=words):
        RepulsiveHead(head=DELTA, loss={"type": "RepulsiveDistanceLoss", **loss})


def test_head_without_attraction_is_refused(monkeypatch):
    monkeypatch.setattr("beyonddrive.heads.repulsive.MODELS.build", lambda config: TrajectoryHead())
    with pytest.raises(ValueError, match="has no attraction_weight"):
        RepulsiveHead(head={"type": "anything"})


def test_an_attraction_that_nobody_sums_holds_no_plan(make_tokens, make_samples, monkeypatch):
    head = RepulsiveHead(head=DELTA)
    monkeypatch.setattr(head.head, "loss", lambda output, samples: {"distance": torch.zeros(())})
    with pytest.raises(ValueError, match=r"loss of DeltaTrajectoryHead gives \['distance'\]: rename"):
        head.loss(head(make_tokens()), make_samples())


def test_samples_without_negatives_are_named(make_tokens, make_samples):
    head, samples = RepulsiveHead(head=DELTA), make_samples()
    samples[1] = PlanSample(metainfo={"token": "scene1"})
    samples[1].gt = samples[0].gt
    with pytest.raises(MissingFieldError, match=r"^scene scene1 has no negatives\.plans: .*set pool_dir"):
        head.loss(head(make_tokens()), samples)


class _Holder(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.trajectory_head = head
        self.other = nn.Linear(2, 2)


@pytest.mark.parametrize("state_of", [lambda m: m.state_dict(), get_state_dict], ids=["torch", "mmengine"])
def test_checkpoints_of_wrapped_and_bare_heads_are_interchangeable(state_of):
    bare = _Holder(DeltaTrajectoryHead(in_channels=16, hidden=8))
    wrapped = _Holder(RepulsiveHead(head=DELTA))
    assert set(state_of(wrapped)) == set(state_of(bare))
    assert not torch.equal(wrapped.trajectory_head.head.mlp[0].weight, bare.trajectory_head.mlp[0].weight)
    wrapped.load_state_dict(copy.deepcopy(state_of(bare)), strict=True)
    assert torch.equal(wrapped.trajectory_head.head.mlp[0].weight, bare.trajectory_head.mlp[0].weight)
    nn.init.ones_(wrapped.trajectory_head.head.mlp[0].weight)
    bare.load_state_dict(copy.deepcopy(state_of(wrapped)), strict=True)
    assert (bare.trajectory_head.mlp[0].weight == 1).all()
    clone = copy.deepcopy(wrapped)
    assert set(state_of(clone)) == set(state_of(bare))
    missing = state_of(bare)
    missing.pop("trajectory_head.mlp.0.weight")
    with pytest.raises(RuntimeError, match=r"Missing key.*trajectory_head\.head\.mlp\.0\.weight"):
        wrapped.load_state_dict(missing, strict=True)


class _LayeredHead(AbsoluteTrajectoryHead):
    """Supervised after two layers: the plan, and the plan moved by one."""

    def supervised(self, output, samples):
        return torch.stack([output.encoded, output.encoded + 1.0], dim=1)


def test_repulsion_is_summed_over_the_layers_that_are_supervised(make_samples):
    head = RepulsiveHead(head=ABSOLUTE, loss={"type": "RepulsiveDistanceLoss", "weight": 5.0})
    samples, plan = make_samples(1), torch.zeros(1, 8, 3)
    samples[0].negatives.plans = torch.full((1, 8, 3), 3.0)
    output = PlanOutput(trajectory=plan, encoded=plan)
    assert head.loss(output, samples)["loss_repulsive"].item() == -5.0 * 3.0
    head.head.__class__ = _LayeredHead
    assert head.loss(output, samples)["loss_repulsive"].item() == -5.0 * (3.0 + 2.0)
    assert head.modes(output, samples) is None


class _TwoModes(AbsoluteTrajectoryHead):
    """The plan and the plan moved by four."""

    def modes(self, output, samples):
        return torch.stack([output.encoded, output.encoded + 4.0], dim=1)


def test_all_modes_are_repelled_within_a_margin(make_samples):
    mode_loss = {"weight": 6.0, "margin": 2.0}
    head = RepulsiveHead(head=ABSOLUTE, loss={"weight": 0.0}, mode_loss=mode_loss)
    head.head.__class__ = _TwoModes
    samples, plan = make_samples(), torch.zeros(2, 8, 3)
    samples[0].negatives.plans = torch.full((1, 8, 3), 3.0)
    losses = head.loss(PlanOutput(trajectory=plan, encoded=plan), samples)
    # The first mode is 3 away and out of reach; the second is 1 away; the mean is over both modes.
    assert losses["loss_repulsive_modes"].item() == 6.0 * (0.0 + (2.0 - 1.0)) / 2
    assert losses["loss_repulsive"].item() == 0.0


def test_modes_are_repelled_in_the_samples_of_the_plan_and_among_as_many(make_samples):
    def terms(loss, **mode_loss):
        mode_loss = {"weight": 6.0, "margin": 2.0, **mode_loss}
        head = RepulsiveHead(head=ABSOLUTE, loss={"weight": 1.0, **loss}, mode_loss=mode_loss)
        head.head.__class__ = _TwoModes
        samples, plan = make_samples(), torch.zeros(2, 8, 3)  # the first has a negative
        samples[0].negatives.plans = torch.full((1, 8, 3), side * 3.0)
        losses = head.loss(PlanOutput(trajectory=plan, encoded=plan), samples)
        return losses["loss_repulsive"].item(), losses["loss_repulsive_modes"].item()

    side = 1.0
    assert terms({}) == (-3.0, 3.0)
    assert terms({"average": "batch"}) == (-1.5, 1.5)
    assert terms({"average": "batch"}, average="negatives") == (-1.5, 3.0)
    side = -0.5
    assert terms({}) == (-1.5, 1.5)
    assert terms({"valid_rule": "sum_positive"}) == (0.0, 0.0)


def test_modes_need_a_margin_and_a_head_that_has_some(make_tokens, make_samples):
    with pytest.raises(ValueError, match=r"mode_loss needs a margin.*mode_loss\.margin"):
        RepulsiveHead(head=ABSOLUTE, mode_loss={"weight": 1.0})
    head = RepulsiveHead(head=ABSOLUTE, mode_loss={"weight": 1.0, "margin": 1.0})
    with pytest.raises(ValueError, match="AbsoluteTrajectoryHead shows no modes"):
        head.loss(head(make_tokens()), make_samples())


def test_a_head_gives_its_repulsion_what_it_reads(make_tokens, make_samples):
    loss = {
        "weight": 2.0,
        "margin": 1.0,
        "margin_unit": "expert",
        "window": {"before": 1.0, "after": 1.0},
        "column_weights": {"NC": 1.0},
    }
    head = RepulsiveHead(head=DELTA, loss=loss)
    samples = make_samples(2, valid=(True, True))
    output = head.training_output(make_tokens(), samples)
    with pytest.raises(KeyError, match=r"scene0 has no negatives\.columns"):
        head.loss(output, samples)
    for sample in samples:
        sample.negatives.set_field(torch.tensor([0]), "columns")
    with pytest.raises(ValueError, match=r"loss\.window needs to know when.*negatives by LoadNegatives"):
        head.loss(output, samples)
    for sample in samples:
        sample.negatives.set_field(torch.tensor([2.0]), "times")
    assert head.loss(output, samples)["loss_repulsive"].item() >= 0.0
    samples[0].negatives.set_field(torch.tensor([6]), "columns")
    with pytest.raises(ValueError, match="chosen for"):
        head.loss(output, samples)


def test_a_repulsion_of_ones_own_is_named_by_its_type():
    """As a planner's ``repulsion`` names it, with a setting that the suite's own has not."""

    class TwiceRepelled(RepulsiveDistanceLoss):
        def __init__(self, times: float = 2.0, **settings: Any) -> None:
            super().__init__(**settings)
            self.times = times

        def forward(self, *args: Any) -> torch.Tensor:
            return self.times * super().forward(*args)

    def repelled(**repulsion: Any) -> torch.Tensor:
        head = {"type": "AbsoluteTrajectoryHead"}
        settings = {
            "type": "EgoStatusMLP",
            "trajectory_head": head,
            "repulsion": {"weight": 0.5, **repulsion},
        }
        planner = MODELS.build(settings)
        plan, plans = torch.zeros(1, 8, 3), torch.ones(1, 1, 8, 3)
        return planner.trajectory_head.repulsion(plan, Negatives(plans, torch.tensor([[True]])))

    MODELS.register_module(module=TwiceRepelled)
    try:
        assert repelled(type="TwiceRepelled", times=3.0) == 3 * repelled()
    finally:
        MODELS.module_dict.pop("TwiceRepelled")


def test_what_a_repulsion_of_ones_own_has_counted_is_saved_and_loaded():
    class Counting(RepulsiveDistanceLoss):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.register_buffer("seen", torch.zeros(()))

    def repelled() -> nn.Sequential:
        loss = {"type": "Counting", "weight": 5.0}
        return nn.Sequential(RepulsiveHead(head=DELTA, loss=loss, mode_loss={**loss, "margin": 1.0}))

    MODELS.register_module(module=Counting)
    try:
        one, other = repelled(), repelled()
    finally:
        MODELS.module_dict.pop("Counting")
    one[0].repulsion.seen += 3.0
    one[0].mode_repulsion.seen += 4.0
    other.load_state_dict(one.state_dict(), strict=True)
    assert (other[0].repulsion.seen.item(), other[0].mode_repulsion.seen.item()) == (3.0, 4.0)
    assert torch.equal(other[0].head.mlp[0].weight, one[0].head.mlp[0].weight)
