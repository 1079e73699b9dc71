"""Agent matching, imitation and bird's-eye-view losses by hand-computed cases."""

import math
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F

from beyonddrive.losses.agents import (
    CAMERA_FIELD_OF_VIEW,
    HungarianAgentLoss,
    agent_losses,
    match_agents,
    visible,
)
from beyonddrive.losses.imitation import PlanL1Loss
from beyonddrive.losses.semantic import BEVSemanticLoss
from beyonddrive.losses.semantic_focal import BEVFocalLoss
from beyonddrive.structures.sample import IGNORED_LABEL


def _scene(batch=2, agents=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(batch, agents, 5, generator=generator) * 10
    logits = torch.randn(batch, agents, generator=generator)
    targets = torch.randn(batch, agents, 5, generator=generator) * 10
    labels = torch.arange(agents) < torch.tensor([[3], [1]])[:batch]
    return states, logits, targets * labels[..., None], labels


def test_matching_is_the_cheapest_of_all():
    states, logits, targets, labels = _scene()
    matches = match_agents(states, logits, targets, labels, 10.0, 1.0)

    def cost(row, order):
        total = 0.0
        for prediction, target in enumerate(order):
            label = labels[row, target].float()
            total += 10.0 * F.binary_cross_entropy_with_logits(logits[row, prediction], label)
            total += label * (states[row, prediction, :2] - targets[row, target, :2]).abs().sum()
        return float(total)

    for row in range(2):
        best = min(cost(row, order) for order in permutations(range(4)))
        assert cost(row, matches[row].tolist()) == pytest.approx(best)


def test_class_and_box_terms():
    states = torch.zeros(1, 2, 5)
    logits = torch.tensor([[0.0, 100.0]])
    targets = torch.tensor([[[1.0, 2.0, 0.5, 4.0, 2.0], [0.0] * 5]])
    labels = torch.tensor([[True, False]])
    classification, box = agent_losses(states, logits, targets, labels, torch.tensor([[1, 0]]))
    # Prediction 1 holds the agent with certainty; prediction 0 says "perhaps" to an empty slot.
    assert classification.item() == pytest.approx(math.log(2) / 2)
    assert box.item() == pytest.approx(9.5)


def test_scene_without_agents_has_no_box_loss():
    states, logits, targets, _ = _scene()
    labels = torch.zeros(2, 4, dtype=torch.bool)
    terms = HungarianAgentLoss()(states, logits, targets, labels)
    assert terms["loss_agent_box"].item() == 0.0
    assert terms["loss_agent_class"].isfinite()


def test_agents_outside_the_field_of_view_do_not_count():
    bearing = torch.tensor([79.9, 80.1, -79.9, -80.1, 180.0]).deg2rad()
    states = torch.stack([10 * bearing.cos(), 10 * bearing.sin(), *[torch.ones(5)] * 3], dim=-1)[None]
    labels = torch.ones(1, 5, dtype=torch.bool)
    assert visible(states, labels, CAMERA_FIELD_OF_VIEW).tolist() == [[True, False, True, False, False]]


def test_weights_zero_skip_the_matching():
    states, logits, targets, labels = _scene()
    assert HungarianAgentLoss(0.0, 0.0)(states * math.nan, logits, targets, labels) == {}


@pytest.mark.parametrize("rows", [3, 5])
def test_other_numbers_of_predictions_than_of_targets_are_refused(rows):
    """Of five targets four predictions would have taken the empty row, and left an agent out."""
    states, labels = torch.zeros(1, rows, 5), torch.ones(1, rows, dtype=torch.bool)
    labels[0, -1] = False
    with pytest.raises(
        ValueError, match=rf"4 agents are predicted and the targets have {rows} rows: .*num_agents"
    ):
        HungarianAgentLoss()(torch.ones(1, 4, 5), torch.zeros(1, 4), states, labels)


def test_diverged_predictions_are_named():
    states, logits, targets, labels = _scene()
    with pytest.raises(ValueError, match="NaN or infinite"):
        HungarianAgentLoss()(states * math.nan, logits, targets, labels)


def test_semantic_loss_skips_pixels_of_the_target():
    target = torch.zeros(1, 8, 16, dtype=torch.uint8)
    target[:, 2::4, 2::4] = 3
    logits = torch.zeros(1, 7, 2, 4)
    logits[:, 3] = 50.0
    assert BEVSemanticLoss(target_stride=4)(logits, target).item() == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="after stride 2"):
        BEVSemanticLoss(target_stride=2)(logits, target)


@pytest.mark.parametrize("loss", [BEVSemanticLoss(2.0), BEVFocalLoss(2.0)], ids=["entropy", "focal"])
def test_cells_that_nobody_knows_teach_nothing_and_ranks_may_share_them(loss):
    target = torch.randint(0, 7, (4, 8, 16), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(4, 7, 8, 16, generator=torch.Generator().manual_seed(1))
    known = loss(logits, target)
    target[0, :4], target[1:3, :, 9:] = IGNORED_LABEL, IGNORED_LABEL
    logits.requires_grad_()
    whole = loss(logits, target)
    whole.backward()
    gone = (target == IGNORED_LABEL)[:, None].expand_as(logits)
    assert not logits.grad[gone].any() and logits.grad[~gone].all()
    assert 0 < whole.item() < known.item()
    halves = [loss(logits[part], target[part]).item() for part in (slice(0, 2), slice(2, 4))]
    assert whole.item() == pytest.approx(sum(halves) / 2, rel=1e-6)


@pytest.mark.parametrize("loss", [BEVSemanticLoss(2.0), BEVFocalLoss(2.0)], ids=["entropy", "focal"])
def test_a_batch_without_a_known_cell_has_no_loss_and_no_gradient(loss):
    logits = torch.randn(2, 7, 4, 8, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 8), IGNORED_LABEL))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_pixels_that_are_quite_right_or_unknown_have_a_gradient_that_is_a_number(gamma):
    logits = torch.zeros(1, 3, 1, 3)
    logits[0, 0, 0, 0] = 60.0  # so sure that its probability rounds to 1
    logits.requires_grad_()
    BEVFocalLoss(1.0, gamma=gamma)(logits, torch.tensor([[[0, IGNORED_LABEL, 1]]])).backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[..., 1].any() and logits.grad[..., 2].all()


def test_plan_l1():
    assert PlanL1Loss(10.0)(torch.zeros(2, 8, 4), torch.full((2, 8, 4), -0.3)).item() == pytest.approx(3.0)
    with pytest.raises(ValueError, match="positive"):
        PlanL1Loss(0.0)
