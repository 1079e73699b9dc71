"""Comparison of TransFuser, LTF and LTF* with their golden files: features, outputs, losses, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from beyonddrive.backbones.transfuser import FusedFeatures
from beyonddrive.checkpoints.golden import Comparison, GoldenFile
from beyonddrive.losses.agents import CAMERA_FIELD_OF_VIEW, agent_losses, match_agents, visible
from beyonddrive.plugins.base.head_planner import HeadPlanner
from beyonddrive.structures.tokens import PlanOutput, SceneTokens

BEYONDDRIVE_CASES = ("nobd", "bd_all", "bd_none", "bd_mixed", "bd_negsum", "bd_allneg")
"""Without a repulsion, and with it for the recipe's negatives."""
EMPTY_CASES = ("bd_none", "bd_allneg")
"""Cases in which the original finds no valid negative."""


def compare(golden: GoldenFile) -> Iterator[Comparison]:
    """Compare whichever of the four the file is of."""
    if golden.conversion.release.name in ("transfuser", "ltf"):
        yield from _compare_navsim(golden)
    else:
        yield from _compare_beyonddrive(golden)


class FeatureTrace:
    """Records the features that pass through a TransFuser backbone, under their golden names."""

    def __init__(self, planner: HeadPlanner) -> None:
        self.features: dict[str, Tensor] = {}
        backbone = planner.backbone
        for index, stage in enumerate(backbone.fusions):
            stage.register_forward_hook(lambda _, given, result, i=index: self._stage(i, given, result))
        backbone.register_forward_hook(lambda _, given, result: self._backbone(result))

    def _stage(self, i: int, given: tuple[Tensor, Tensor], result: tuple[Tensor, Tensor]) -> None:
        self.features |= {f"pre_img_{i}": given[0], f"pre_lid_{i}": given[1]}
        self.features |= {f"fused_img_{i}": result[0], f"fused_lid_{i}": result[1]}

    def _backbone(self, result: FusedFeatures) -> None:
        self.features["fused"] = result.bev
        if result.top_down is not None:
            self.features["bev_upscale"] = result.top_down


def _compare_encoder(
    golden: GoldenFile, planner: HeadPlanner, tokens: SceneTokens, trace: FeatureTrace
) -> Any:
    yield from golden.compare(trace.features, "backbone/")
    query = planner.decoder.query_embedding.weight.expand(2, -1, -1)
    yield from golden.compare({"query": query, "keyval": tokens.memory, "out": tokens.queries}, "decoder/")


@torch.no_grad()
def _outputs(planner: HeadPlanner, tokens: SceneTokens) -> dict[str, Tensor]:
    named = planner.trajectory_head.tensors(planner.trajectory_head(tokens))
    for head in (planner.agent_head, planner.bev_head):
        assert head is not None
        named |= head(tokens)
    return named


def _compare_agents(
    golden: GoldenFile, planner: HeadPlanner, tokens: SceneTokens, latent: bool
) -> Iterator[Comparison]:
    """Unweighted class and box terms under the config's matching weights and under 10 and 1."""
    assert planner.agent_head is not None
    criterion = planner.agent_head.criterion
    with torch.no_grad():
        output = planner.agent_head(tokens)
    for empty in (False, True):
        states, labels = map(golden.tensor, golden.recipe.agents(empty=empty))
        if latent:
            labels = visible(states, labels, CAMERA_FIELD_OF_VIEW)
        for suffix, weights in (
            ("", (criterion.class_weight, criterion.box_weight)),
            ("_w10_1", (10.0, 1.0)),
        ):
            given = (output["agent_states"], output["agent_labels"], states, labels)
            terms = agent_losses(*given, match_agents(*given, *weights))
            names = (f"agent_ce{suffix}/empty={int(empty)}", f"agent_l1{suffix}/empty={int(empty)}")
            yield from golden.compare(dict(zip(names, terms, strict=True)))


def _compare_navsim(golden: GoldenFile) -> Iterator[Comparison]:
    latent = bool(golden.conversion.settings["backbone.latent"])
    planner = golden.build()
    trace = FeatureTrace(planner)
    with torch.no_grad():
        tokens = planner.encode(golden.inputs(lidar=not latent))
    yield from _compare_encoder(golden, planner, tokens, trace)
    yield from golden.compare(_outputs(planner, tokens))
    yield from _compare_agents(golden, planner, tokens, latent)
    assert planner.agent_head is not None and planner.bev_head is not None
    for empty in (False, True):
        targets = golden.samples(empty=empty)
        with torch.no_grad():
            terms = planner.trajectory_head.loss(planner.trajectory_head(tokens), targets)
            terms |= planner.agent_head.loss(tokens, targets) | planner.bev_head.loss(tokens, targets)
        yield from golden.compare({f"total/empty={int(empty)}": sum(terms.values())})
    attraction = planner.trajectory_head.attraction_weight
    assert attraction is not None
    unweighted = {
        "trajectory_l1": terms["loss_trajectory"] / attraction,
        "bev_ce": terms["loss_bev_semantic"] / planner.bev_head.criterion.weight,
    }
    yield from golden.compare(unweighted)


def _compare_beyonddrive(golden: GoldenFile) -> Iterator[Comparison]:
    head = golden.conversion.model["trajectory_head"]
    repulsion = {"type": "RepulsiveDistanceLoss", "weight": 5.0, "valid_rule": "sum_positive"}
    repulsive = {"_delete_": True, "type": "RepulsiveHead", "head": head, "loss": repulsion}
    planner = golden.build({"trajectory_head": repulsive})
    trace = FeatureTrace(planner)
    with torch.no_grad():
        tokens = planner.encode(golden.inputs())
    yield from _compare_encoder(golden, planner, tokens, trace)
    yield from golden.compare(_outputs(planner, tokens))
    yield from _compare_agents(golden, planner, tokens, latent=True)
    assert planner.agent_head is not None and planner.bev_head is not None
    with torch.no_grad():
        plan = planner.trajectory_head(tokens)
        bev_loss = planner.bev_head.loss(tokens, golden.samples())["loss_bev_semantic"]
    prediction = "trajectory" if planner.trajectory_head.space == "absolute" else "delta_trajectory"
    plain = golden.tensor(torch.nan)
    for case in BEYONDDRIVE_CASES:
        targets = golden.samples(None if case == "nobd" else case.removeprefix("bd_"))
        encoded = plan.encoded.clone().requires_grad_()
        module = planner.trajectory_head.bare if case == "nobd" else planner.trajectory_head
        terms = module.loss(PlanOutput(trajectory=plan.trajectory, encoded=encoded), targets)
        repelled = terms.get("loss_repulsive", golden.tensor(0.0))
        total = terms["loss_trajectory"] + bev_loss + repelled
        total.backward()
        if case == "nobd":
            plain = total.detach()
        yield from golden.compare({f"{case}/{prediction}": encoded.grad})
        values = {
            "trajectory_loss": terms["loss_trajectory"],
            "bev_semantic_loss": bev_loss,
            # Weights 0: the heads skip what the original computes and multiplies by 0.
            "agent_class_loss": sum(planner.agent_head.loss(tokens, targets).values()),
            "agent_box_loss": 0.0,
        }
        yield from golden.compare(values, f"{case}/")
        if case in EMPTY_CASES:
            yield from golden.compare_absent(f"{case}/rde_loss", repelled, 0.0)
            yield from golden.compare_absent(f"{case}/loss", total, plain)
        else:
            yield from golden.compare({"rde_loss": repelled, "loss": total}, f"{case}/")
    if prediction == "delta_trajectory":
        module = planner.trajectory_head
        encoded_target = module.encode(golden.tensor(golden.recipe.trajectory("target/trajectory")))
        negatives = golden.tensor(golden.recipe.negatives("negsum"))
        values = {
            "diff_traj(target)": encoded_target,
            "cumsum(diff(target))": module.decode(encoded_target),
            "diff_traj(negsum)": module.encode(negatives),
        }
        yield from golden.compare(values)
