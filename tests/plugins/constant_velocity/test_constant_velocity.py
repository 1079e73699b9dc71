"""The planner that keeps its speed."""

import torch

from beyonddrive.registry import MODELS


def test_constant_velocity_keeps_its_speed():
    planner = MODELS.build({"type": "ConstantVelocity"})
    status = torch.tensor([[0, 1, 0, 0, 6.0, 0.5, 1.0, 1.0], [1, 0, 0, 0, -1.0, 0, 0, 0]])
    plan = planner({"status": status})["trajectory"]
    torch.testing.assert_close(plan[0, :, 0], 3.0 * torch.arange(1, 9))
    torch.testing.assert_close(plan[1, :, 0], -0.5 * torch.arange(1, 9))
    assert not plan[..., 1:].any()
    assert not list(planner.parameters())
