"""Comparison of FlowPolicy with its golden file: context, samples of four settings, the field, losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch

from beyonddrive.checkpoints.golden import Comparison, GoldenFile
from beyonddrive.plugins.base.head_planner import HeadPlanner
from beyonddrive.plugins.flow_policy.head import FlowHead
from beyonddrive.plugins.flow_policy.losses import FlowDraws
from beyonddrive.structures.tokens import SceneTokens

VARIANTS: dict[str, dict[str, Any]] = {
    "default(5step,24prop,cfg0.5,noise0.2)": {"num_proposals": 24, "guidance": 0.5},
    "eval(5step,1prop,cfg1.0,noise0.2)": {"num_proposals": 1},
    "pool(5step,64prop,cfg0.5,noise0.4)": {"num_proposals": 64, "guidance": 0.5, "noise": 0.4},
    "predv(3step,4prop,cfg2.0)": {"num_proposals": 4, "steps": 3, "guidance": 2.0, "prediction": "v"},
}
"""Golden name of a way to sample -> settings of the head."""
MANY = 32
"""Samples of the larger loss case."""


def compare(golden: GoldenFile) -> Iterator[Comparison]:
    """Compare what a file of FlowPolicy holds."""
    planner = golden.build({"trajectory_head.flow_weight": 10.0})
    head = planner.trajectory_head
    assert isinstance(head, FlowHead)
    with torch.no_grad():
        lidar = not golden.conversion.settings["backbone.latent"]
        tokens = planner.encode(golden.inputs(lidar))
        yield from golden.compare({"context_query": head.context(tokens), "bev_upscale": tokens.bev})
        for variant, settings in VARIANTS.items():
            noise = golden.draws(0, 2 * settings["num_proposals"], 8, 4).unflatten(0, (2, -1))
            with patch.multiple(head, **settings):
                output = head(tokens, draws=noise)
            values = {"pred_trajectorys": output.proposals, "trajectory": output.trajectory}
            yield from golden.compare(values, f"{variant}/")
        z = golden.normal("input/flow_z", (4, 8, 4))
        context = golden.normal("input/flow_context", (4, 30, 256))
        time = golden.tensor([0.0, 0.25, 0.5, 0.95])
        yield from golden.compare({"dit(z,t,context)": head.denoiser(z[:, None], time, context)[:, 0]})
        for prediction in ("x", "v"):
            with patch.object(head, "prediction", prediction):
                yield from _compare_losses(golden, planner, head, tokens)


def _compare_losses(
    golden: GoldenFile, planner: HeadPlanner, head: FlowHead, tokens: SceneTokens
) -> Iterator[Comparison]:
    assert planner.bev_head is not None
    flag = int(head.prediction == "x")
    bev = planner.bev_head.loss(tokens, golden.samples())["loss_bev_semantic"]
    context = golden.normal("input/flow_context32", (MANY, 30, 256))
    many = SceneTokens(queries=torch.cat([context[:, :1], context], dim=1), status=context.new_zeros(MANY, 8))

    def draws(batch: int, drop: bool) -> FlowDraws:
        dropped = golden.draws(2, batch, kind="uniform") if drop else None
        return FlowDraws(golden.draws(0, batch), golden.draws(1, batch, 8, 4), dropped)

    for phase, training in (("eval", False), ("train_head", True)):
        head.train(training)
        output = head.training_output(tokens, golden.samples(), draws=draws(2, training))
        loss = head.loss(output, golden.samples())["loss_flow"]
        values = {"loss": loss + bev, "flowmatching_loss": loss, "bev_semantic_loss": bev}
        yield from golden.compare(values, f"{phase}/pred_x={flag}/")
    targets = golden.samples(batch=MANY)
    for drop in (False, True):
        head.train(drop)
        output = head.training_output(many, targets, draws=draws(MANY, drop))
        loss = head.loss(output, targets)["loss_flow"] / head.flow_weight
        yield from golden.compare({f"fm32/pred_x={flag}/drop={int(drop)}": loss})
    head.eval()
