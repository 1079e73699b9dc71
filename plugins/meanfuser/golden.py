"""MeanFuser beside its original: features, three ways of sampling, losses of every case of negatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from beyonddrive.checkpoints.golden import Comparison, GoldenFile
from beyonddrive.plugins.base.head_planner import HeadPlanner
from beyonddrive.plugins.meanfuser.head import MeanFlowHead
from beyonddrive.plugins.meanfuser.losses import MeanFlowDraws
from beyonddrive.structures.tokens import PlanOutput, SceneTokens

CASES = ("nobd", "bd_all", "bd_none", "bd_mixed", "bd_negsum", "bd_allneg")
SAMPLINGS: dict[str, dict[str, Any]] = {
    "1step_multi_gaussian": {"steps": 1, "start": "mixture"},
    "4step_multi_gaussian": {"steps": 4, "start": "mixture"},
    "1step_gaussian": {"steps": 1, "start": "gaussian"},
}


def compare(golden: GoldenFile) -> Iterator[Comparison]:
    """Compare everything that the golden file holds."""
    planner = golden.build({"trajectory_head": _repulsive(golden)})
    head = planner.trajectory_head.bare
    assert isinstance(head, MeanFlowHead)
    with torch.no_grad():
        tokens = planner.encode(golden.inputs())
        yield from _compare_encoder(golden, planner, head, tokens)
        for name, settings in SAMPLINGS.items():
            shape = (2, 8, 8, 4) if settings["start"] == "mixture" else (16, 8, 4)
            draws = golden.draws(0, *shape).reshape(2, 8, 8, 4)
            with patch.multiple(head, **settings):
                output = head(tokens, draws=draws)
            values = {
                "pred_diff_traj": output.extras["proposals"],
                "pred_trajectorys": output.proposals,
                "trajectory": output.trajectory,
                "diff_trajectory": output.encoded,
            }
            yield from golden.compare(values, f"{name}/")
        yield from _compare_network(golden, head)
        yield from _compare_losses(golden, planner, head, tokens)


def _repulsive(golden: GoldenFile) -> dict[str, Any]:
    """The head of the conversion, wrapped as in BeyondDrive's release."""
    return {
        "_delete_": True,
        "type": "RepulsiveHead",
        "head": {**golden.conversion.model["trajectory_head"], "cluster_distance": "reference"},
        "loss": {"type": "RepulsiveDistanceLoss", "weight": 1.5, "valid_rule": "sum_positive"},
    }


def _compare_encoder(
    golden: GoldenFile, planner: HeadPlanner, head: MeanFlowHead, tokens: SceneTokens
) -> Iterator[Comparison]:
    assert tokens.memory is not None
    cells = head.map_size[0] * head.map_size[1]
    yield from golden.compare(
        {
            "bev_feature_upscale": tokens.bev,
            "status_query": planner.decoder.status_proj(tokens.status)[:, None],
            "bev_query": head.context(tokens)[:, :cells],
            "trajectory_query": tokens.queries[:, :1],
            "context_query": tokens.queries[:, 1:],
        },
        "enc/",
    )


def _compare_network(golden: GoldenFile, head: MeanFlowHead) -> Iterator[Comparison]:
    dim, cells = head.denoiser.dim, head.map_size[0] * head.map_size[1]
    points = golden.normal("input/mf_z", (3, 8, 4))
    maps, queries = (
        golden.normal("input/mf_bev", (3, cells, dim)),
        golden.normal("input/mf_context", (3, 30, dim)),
    )
    times = golden.tensor([[0.0, 1.0], [0.2, 0.9], [0.5, 0.5]])
    velocity = head.denoiser(points[:, None], times, torch.cat([maps, queries], dim=1))[:, 0]
    yield from golden.compare({"model(z,r,t)": velocity})


def _compare_losses(
    golden: GoldenFile, planner: HeadPlanner, head: MeanFlowHead, tokens: SceneTokens
) -> Iterator[Comparison]:
    draws = MeanFlowDraws(
        golden.draws(0, 2, 8, 8, 4), golden.draws(1, 2, 2), golden.draws(2, 2, kind="uniform")
    )
    start = golden.draws(0, 2, 8, 8, 4)
    assert planner.bev_head is not None
    plain: Mapping[str, Any] = {}
    for case in CASES:
        samples = golden.samples(None if case == "nobd" else case.removeprefix("bd_"))
        output: PlanOutput = head.training_output(tokens, samples, draws, start)
        terms: dict[str, Tensor] = (head if case == "nobd" else planner.trajectory_head).loss(output, samples)
        bev = planner.bev_head.loss(tokens, samples)["loss_bev_semantic"]
        repulsion = terms.get("loss_repulsive", golden.tensor(0.0))
        values: dict[str, Any] = {
            "meanflow_loss": terms["loss_flow"],
            "arm_loss": terms["loss_trajectory"],
            "bev_semantic_loss": bev,
            "rde_loss": repulsion,
            "loss": terms["loss_flow"] + terms["loss_trajectory"] + bev + repulsion,
        }
        plain = plain or values
        for name, value in values.items():
            # Without a negative the original takes a mean over nothing.
            yield from golden.compare_absent(f"{case}/{name}", value, plain[name])
        if case == "nobd":
            yield from golden.compare({"meanflow_only_unweighted": terms["loss_flow"] / head.flow_weight})
