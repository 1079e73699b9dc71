"""Heads that regress a plan, in absolute poses or in delta space."""

import math

import pytest
import torch
from torch import nn

from beyonddrive.heads.trajectory import AbsoluteTrajectoryHead, DeltaTrajectoryHead
from beyonddrive.structures.delta import DeltaSpace
from beyonddrive.structures.tokens import PlanOutput


def test_absolute_plan_has_bounded_heading_and_free_position(make_tokens):
    head = AbsoluteTrajectoryHead(in_channels=16, hidden=8)
    nn.init.constant_(head.mlp[-1].bias, 50.0)
    output = head(make_tokens())
    assert output.trajectory.shape == (2, 8, 3)
    assert output.encoded is output.trajectory
    assert (output.trajectory[..., :2] > 40).all()
    torch.testing.assert_close(output.trajectory[..., 2], torch.full((2, 8), math.pi))


def test_metres_are_not_rounded_under_autocast(make_tokens):
    """A plan in bfloat16 is off by up to 0.125 m beyond 32 m, and its distance to a negative with it."""
    head, tokens = AbsoluteTrajectoryHead(in_channels=16, hidden=8), make_tokens()
    nn.init.constant_(head.mlp[-1].bias, 50.123)
    plain = head(tokens).trajectory
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens.queries = tokens.queries.bfloat16().float()
        mixed = head(tokens).trajectory
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, atol=0.03, rtol=0)


def test_delta_plan_is_the_decoded_output(make_tokens):
    head = DeltaTrajectoryHead(in_channels=16, hidden=8, statistics={"dx": (-1, 0, 1), "dy": (-2, 0, 2)})
    output = head(make_tokens())
    expected = DeltaSpace(dx=(-1, 0, 1), dy=(-2, 0, 2)).decode(output.encoded)
    torch.testing.assert_close(output.trajectory, expected)
    assert set(head.tensors(output)) == {"trajectory", "delta_trajectory"}


def test_a_plan_reads_the_first_query_only(make_tokens):
    head, tokens = DeltaTrajectoryHead(in_channels=16), make_tokens()
    plan = head(tokens).trajectory
    tokens.queries[:, 1:] = 0
    assert torch.equal(head(tokens).trajectory, plan)


def test_expert_is_compared_in_the_heads_own_space(make_samples):
    head, samples = DeltaTrajectoryHead(in_channels=16), make_samples()
    expert = torch.stack([sample.gt.trajectory for sample in samples])
    output = PlanOutput(trajectory=expert, encoded=head.encode(expert) + 0.5)
    assert head.loss(output, samples)["loss_trajectory"].item() == pytest.approx(5.0, rel=1e-5)


def test_an_attraction_has_to_say_how_strong_it_is():
    with pytest.raises(ValueError, match="DeltaTrajectoryHead: loss L1Loss has no attribute weight"):
        DeltaTrajectoryHead(in_channels=16, loss={"type": nn.L1Loss})


@pytest.mark.parametrize("head", [AbsoluteTrajectoryHead, DeltaTrajectoryHead])
def test_a_head_of_other_channels_than_the_queries_says_which(make_tokens, head):
    with pytest.raises(ValueError, match=rf"{head.__name__}: in_channels is 8, but the queries .* have 16"):
        head(in_channels=8)(make_tokens())
    with pytest.raises(ValueError, match=f"{head.__name__}: activation 'Sigh' is no class of torch"):
        head(activation="Sigh")
