"""A scene and its token have one plan, whoever asks: evaluation, mining, an exported planner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

import beyonddrive
from beyonddrive.apis import plan
from beyonddrive.deploy.exported import ExportedPlanner
from beyonddrive.deploy.graph import PlannerGraph
from beyonddrive.generators.own_plans import OwnPlans
from beyonddrive.plugins.base.planner import Planner
from beyonddrive.plugins.base.sampling import SamplingPlanner
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample

TINY = sorted(
    path.stem
    for path in (Path(beyonddrive.__path__[0]) / "configs/_base_/models").glob("*.py")
    if ("tiny" in path.stem or "mlp" in path.stem) and "pillars" not in path.stem
)
TOKENS = ["5f1a", "0c2e", "77d0"]


@pytest.fixture(params=TINY)
def planner(request: pytest.FixtureRequest) -> Planner:
    torch.manual_seed(0)
    path = Path(beyonddrive.__path__[0]) / "configs/_base_/models" / f"{request.param}.py"
    planner: Planner = MODELS.build(Config.fromfile(path).model).eval()
    for buffer in planner.buffers():
        if not bool(torch.isfinite(buffer).all()):  # anchors that a checkpoint brings
            buffer.copy_(torch.rand_like(buffer))
    return planner


def inputs_of(graph: PlannerGraph) -> dict[str, Tensor]:
    """Three times the same scene: only the token tells them apart."""
    named = dict(zip(graph.input_names, graph.example_inputs(1), strict=True))
    named.pop("noise", None)
    return {name: value.expand(len(TOKENS), *value.shape[1:]) for name, value in named.items()}


def samples() -> list[PlanSample]:
    return [PlanSample(metainfo={"token": token, "log_name": "log"}) for token in TOKENS]


def stacked(predicted: list[PlanSample]) -> Tensor:
    return torch.stack([sample.pred.trajectory for sample in predicted])


def test_a_scene_has_one_plan(planner: Planner) -> None:
    graph = PlannerGraph(planner)
    inputs = inputs_of(graph)
    judged = stacked(planner(inputs, samples(), mode="predict"))
    mined = OwnPlans(num_proposals=1)(planner, inputs, TOKENS, seed=5)
    assert torch.equal(mined[:, 0], judged)
    more = OwnPlans(num_proposals=8)(planner, inputs, TOKENS, seed=5)
    assert torch.equal(more[:, 0], judged) and more.shape[1] == 8
    exported = stacked(ExportedPlanner(planner)(inputs, samples(), mode="predict"))
    close = {"rtol": 0, "atol": 1e-4 * (1 + float(judged.abs().max()))}
    torch.testing.assert_close(exported, judged, **close)
    packed = [
        {"inputs": {name: value[row] for name, value in inputs.items()}, "data_samples": sample}
        for row, sample in enumerate(samples())
    ]
    assert pseudo_collate(packed)["data_samples"][0].token == TOKENS[0]
    torch.testing.assert_close(stacked(plan(planner, packed)), judged, **close)
    if isinstance(planner, SamplingPlanner):
        check_noise(planner, graph, inputs, judged, close)
    else:
        torch.testing.assert_close(judged[0], judged[1], **close)


def check_noise(
    planner: SamplingPlanner, graph: PlannerGraph, inputs: dict[str, Tensor], judged: Tensor, close: Any
) -> None:
    """A planner that samples plans by the token, and as a graph by the noise of the token."""
    assert not torch.allclose(judged[0], judged[1], atol=1e-3)  # the same scene under another token
    noise = planner.noise_of(TOKENS)
    torch.testing.assert_close(planner({**inputs, "noise": noise})["trajectory"], judged, **close)
    named = {**inputs, "noise": noise}
    outputs = dict(zip(graph.output_names, graph(*(named[name] for name in graph.input_names)), strict=True))
    torch.testing.assert_close(outputs["trajectory"], judged, **close)
    assert torch.equal(noise[1:2], planner.noise_of(TOKENS[1:2]))
