"""FlowPolicy: proposals and plans repeat with their seeds, alone or in a batch."""

from dataclasses import dataclass

import pytest
import torch

from beyonddrive.plugins.base.preprocessor import PlannerDataPreprocessor
from beyonddrive.plugins.base.sampling import scene_generator
from beyonddrive.plugins.flow_policy.planner import FlowPolicy
from beyonddrive.tests.plugins.small import BACKBONE, DECODER, camera_batch, flow_policy


@dataclass
class Strategy:
    guidance: float = 0.5
    noise: float = 0.4
    steps: int = 5


def test_proposals_repeat_with_their_generator():
    planner, inputs = flow_policy(), PlannerDataPreprocessor()(camera_batch())["inputs"]
    first, again, other = (
        planner.propose(inputs, 6, Strategy(), torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert first.shape == (2, 6, 8, 3)
    assert not first.requires_grad
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_generator_per_scene_makes_proposals_independent_of_the_batch():
    planner, inputs = flow_policy(), PlannerDataPreprocessor()(camera_batch())["inputs"]
    both = planner.propose(inputs, 4, Strategy(), [scene_generator(0, name) for name in "ab"])
    second = {name: value[1:] for name, value in inputs.items()}
    alone = planner.propose(second, 4, Strategy(), [scene_generator(0, "b")])
    torch.testing.assert_close(alone[0], both[1])


def test_more_noise_spreads_the_proposals():
    planner, inputs = flow_policy(), PlannerDataPreprocessor()(camera_batch())["inputs"]
    spread = [
        planner.propose(inputs, 64, Strategy(noise=noise), torch.Generator().manual_seed(0)).std(1).mean()
        for noise in (0.1, 0.4)
    ]
    assert spread[1] > spread[0]


def test_flow_policy_plan_depends_on_scene_and_seed_but_not_on_the_batch():
    planner, batch = flow_policy(), PlannerDataPreprocessor()(camera_batch())
    together = [s.pred.trajectory for s in planner(batch["inputs"], batch["data_samples"], mode="predict")]
    second = {name: value[1:] for name, value in batch["inputs"].items()}
    alone = planner(second, batch["data_samples"][1:], mode="predict")[0].pred
    torch.testing.assert_close(alone.trajectory, together[1])
    assert alone.proposals.shape == (1, 8, 3)
    planner.trajectory_head.bare.seed = 1
    assert not torch.allclose(
        planner(second, batch["data_samples"][1:], mode="predict")[0].pred.trajectory, together[1]
    )


def test_flow_policy_needs_a_flow_head():
    with pytest.raises(ValueError, match="must be a FlowHead, got DeltaTrajectoryHead"):
        FlowPolicy(
            trajectory_head={"type": "DeltaTrajectoryHead", "in_channels": 8},
            backbone=BACKBONE,
            decoder=DECODER,
        )


@pytest.mark.parametrize(
    ("decoder", "head", "words"),
    [
        ({"num_queries": 2}, {}, "built for 3 context tokens of 8 channels .* gets 1 of 8"),
        ({"num_queries": 6}, {}, "gets 5 of 8: queries after the first are decoder.num_queries - 1"),
        ({}, {"num_context": 1}, "built for 1 context tokens .* gets 3 of 8"),
        ({}, {"dim": 16}, "of 16 channels .* gets 3 of 8"),
    ],
)
def test_a_context_of_another_size_is_refused(decoder, head, words):
    denoiser = {"dim": 8, "num_context": 3, "num_heads": 2, "ffn_dim": 8, **head}
    planner = FlowPolicy(
        trajectory_head={"type": "FlowHead", "denoiser": denoiser},
        backbone=BACKBONE,
        decoder={**DECODER, **decoder},
    )
    with pytest.raises(ValueError, match=words):
        planner.eval()(PlannerDataPreprocessor()(camera_batch())["inputs"])
