"""The head of the other road users."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from beyonddrive.heads.agents import AgentHead, DecodedAgentHead


def test_agent_head_bounds_and_freezing(make_tokens, make_samples):
    head = AgentHead(in_channels=16, hidden=8)
    nn.init.constant_(head.states[-1].bias, 100.0)
    output = head(make_tokens())
    assert output["agent_states"].shape == (2, 30, 5)
    assert output["agent_labels"].shape == (2, 30)
    assert output["agent_states"][..., :2].max().item() == pytest.approx(32.0)
    assert output["agent_states"][..., 2].max().item() == pytest.approx(math.pi)
    assert all(p.requires_grad for p in head.parameters())
    weightless = {"type": "HungarianAgentLoss", "class_weight": 0.0, "box_weight": 0.0}
    frozen = AgentHead(in_channels=16, loss=weightless)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert frozen.loss(make_tokens(), make_samples()) == {}
    with pytest.raises(ValueError, match="set num_queries to 31"):
        head(make_tokens(queries=20))
    with pytest.raises(ValueError, match="AgentHead: in_channels is 8, but the queries that it gets have 16"):
        AgentHead(in_channels=8)(make_tokens())
    with pytest.raises(ValueError, match=r"DecodedAgentHead: in_channels is 8, but the tokens .* have 16"):
        DecodedAgentHead(in_channels=8)(replace(make_tokens(), memory=torch.zeros(2, 5, 16)))
