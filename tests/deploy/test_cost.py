"""What a planner costs, counted against what its layers are known to cost."""

import pytest
import torch
from torch import nn

from beyonddrive.apis import load_config
from beyonddrive.deploy.cost import measure_cost
from beyonddrive.plugins.base.planner import Planner
from beyonddrive.registry import MODELS
from beyonddrive.tools import flops


def build(name):
    return MODELS.build(load_config(f"beyonddrive::_base_/models/{name}").model).eval()


def test_an_mlp_costs_two_operations_per_weight():
    planner = build("ego_mlp")
    cost = measure_cost(planner, batch=3)
    weights = [module.weight for module in planner.modules() if isinstance(module, nn.Linear)]
    assert cost.flops == 3 * 2 * sum(weight.numel() for weight in weights)
    assert cost.parameters == cost.trained == sum(p.numel() for p in planner.parameters())
    # Kept are what enters the layers after the first (ReLU keeps its output, which is the same storage), and
    # single precision takes four bytes.
    hidden = [weight.shape[1] for weight in weights[1:]]
    assert cost.activations >= 3 * 4 * sum(hidden)


def test_the_parts_of_a_planner_add_up_and_scale_with_the_batch():
    planner = build("transfuser_tiny")
    one, two = measure_cost(planner), measure_cost(planner, batch=2)
    assert two.flops == 2 * one.flops
    assert two.activations == pytest.approx(2 * one.activations, rel=0.02)
    assert sum(part.flops for part in one.parts) == one.flops
    assert sum(part.parameters for part in one.parts) == one.parameters
    parts = {part.name: part.flops for part in one.parts}
    assert parts["backbone"] == max(parts.values()) and parts["decoder"] > 0
    planner.backbone.requires_grad_(False)
    assert measure_cost(planner).trained < one.trained <= one.parameters
    latent = build("ltf_tiny")  # whose bird's-eye view begins with a latent that is the same for all scenes
    assert measure_cost(latent, batch=2).flops < 2 * measure_cost(latent).flops


def test_an_input_of_unknown_size_is_refused():
    class Other(Planner):
        required_inputs = ("status", "radar")
        tensors = loss = plan = None

    message = r"Other reads 'radar', whose size its method input_shapes does not give \(it gives status\)"
    with pytest.raises(ValueError, match=message):
        measure_cost(Other())


def test_the_command_prints_the_parts_and_the_sum(capsys):
    assert flops.main(["ltf_tiny_1xb16-12e_synth", "--batch", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["part", "parameters", "GFLOPs"]
    assert lines[-2].split()[0] == "TransFuserPlanner"
    assert "forward pass of 2 scenes" in lines[-1] and "MiB of activations" in lines[-1]
    assert flops.main(["human_synth"]) == 1
    assert "flops: HumanReplay reads the driver's plan" in capsys.readouterr().err
    assert torch.is_grad_enabled()
