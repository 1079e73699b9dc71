"""DiffusionDrive beside its original: every step, the scheduler, losses of every case of negatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beyonddrive.checkpoints.golden import Comparison, GoldenFile
from beyonddrive.plugins.base.head_planner import HeadPlanner
from beyonddrive.plugins.diffusiondrive.head import DiffusionDraws, TruncatedDiffusionHead
from beyonddrive.structures.tokens import SceneTokens

CASES = ("nobd", "bd_all", "bd_none", "bd_mixed", "bd_negsum", "bd_allneg")
LAYER_WEIGHT = 12.0
"""The original reports the loss of each layer before this weight."""


def compare(golden: GoldenFile) -> Iterator[Comparison]:
    """Compare everything that the golden file holds."""
    planner = golden.build({"trajectory_head": _repulsive(golden)})
    with torch.no_grad():
        tokens = planner.encode(golden.inputs(lidar=True))
        yield from _compare_outputs(golden, planner, tokens)
        yield from _compare_scheduler(golden, _head(planner))
        yield from _compare_losses(golden, planner, tokens)


def _repulsive(golden: GoldenFile) -> dict[str, Any]:
    """The head of the conversion, wrapped as in BeyondDrive's release."""
    return {
        "_delete_": True,
        "type": "RepulsiveHead",
        "head": golden.conversion.model["trajectory_head"],
        "loss": {"type": "RepulsiveDistanceLoss", "weight": 60.0, "valid_rule": "sum_positive"},
    }


def _head(planner: HeadPlanner) -> TruncatedDiffusionHead:
    head = planner.trajectory_head.bare
    assert isinstance(head, TruncatedDiffusionHead)
    return head


def _compare_outputs(golden: GoldenFile, planner: HeadPlanner, tokens: SceneTokens) -> Iterator[Comparison]:
    head = _head(planner)
    scene_map = head.scene_map(tokens, "the comparison")
    yield from golden.compare(
        {
            "ego_query": tokens.queries[:, :1],
            "agents_query": tokens.queries[:, 1:],
            "cross_bev": scene_map.permute(0, 3, 1, 2),
        },
        "head_in/",
    )
    draws = golden.draws(0, 2, head.num_proposals, 8, 2)
    trace: list[tuple[Tensor, list[tuple[Tensor, Tensor]]]] = []
    # Step by step with the whole map; the outputs below look up the points one by one.
    head.sample(head.context(tokens), draws, trace=trace)
    for step, (points, layers) in enumerate(trace):
        yield from golden.compare({"noisy_points": points}, f"step{step}/")
        for index, (poses, logits) in enumerate(layers):
            values = {"poses_reg": poses, "poses_cls": logits}
            yield from golden.compare(values, f"step{step}/layer{index}/")
    output = head(tokens, draws=draws)
    named: dict[str, Any] = {"trajectory": output.trajectory, "pred_trajectorys": output.proposals}
    for auxiliary in (planner.agent_head, planner.bev_head):
        assert auxiliary is not None
        named |= auxiliary(tokens)
    yield from golden.compare(named)


def _compare_scheduler(golden: GoldenFile, head: TruncatedDiffusionHead) -> Iterator[Comparison]:
    ddim, scheduler = head.ddim, head.ddim.scheduler
    sample = golden.normal("input/ddim_sample", (2, 20, 8, 2))[0, :2]
    model = golden.normal("input/ddim_model", (2, 20, 8, 2))[0, :2]
    steps = np.asarray(scheduler.timesteps)
    yield from golden.compare(
        {
            "alphas_cumprod[0:60]": scheduler.alphas_cumprod[:60],
            "timesteps[0:5,-25:]": np.concatenate([steps[:5], steps[-25:]]),
            "ddim_step_t10": ddim.step(model, 10, sample),
            "ddim_step_t0": ddim.step(model, 0, sample),
            "ddim_add_noise_t8": ddim.add_noise(sample, model, golden.tensor([8])),
        }
    )


def _compare_losses(golden: GoldenFile, planner: HeadPlanner, tokens: SceneTokens) -> Iterator[Comparison]:
    head = _head(planner)
    draws = DiffusionDraws(
        golden.draws(0, 2, kind="int", high=head.train_window),
        golden.draws(1, 2, head.num_proposals, 8, 2),
    )
    plain: Mapping[str, Any] = {}
    for case in CASES:
        samples = golden.samples(None if case == "nobd" else case.removeprefix("bd_"))
        output = head.training_output(tokens, samples, draws)
        yield from golden.compare({"trajectory": output.trajectory}, "train/" if case == "nobd" else "none/")
        module = head if case == "nobd" else planner.trajectory_head
        terms = module.loss(output, samples)
        auxiliary: dict[str, Tensor] = {}
        for part in (planner.agent_head, planner.bev_head):
            assert part is not None
            auxiliary |= part.loss(tokens, samples)
        trajectory = sum(v for k, v in terms.items() if k.startswith("loss_"))
        values: dict[str, Any] = {
            "trajectory_loss": trajectory,
            "diffusion_loss": 0.0,
            "agent_class_loss": auxiliary["loss_agent_class"],
            "agent_box_loss": auxiliary["loss_agent_box"],
            "bev_semantic_loss": auxiliary["loss_bev_semantic"],
            "loss": trajectory + sum(auxiliary.values()),
        }
        values |= _layer_losses(golden, planner, output, case)
        plain = plain or values
        for name, value in values.items():
            # Without a negative the original takes a mean over nothing.
            yield from golden.compare_absent(f"train/{case}/{name}", value, plain[name])


def _layer_losses(golden: GoldenFile, planner: HeadPlanner, output: Any, case: str) -> dict[str, Any]:
    """Loss of each layer, by itself."""
    module = _head(planner) if case == "nobd" else planner.trajectory_head
    samples = golden.samples(None if case == "nobd" else case.removeprefix("bd_"))
    made = {}
    for layer in range(output.extras["poses"].shape[1]):
        extras = {name: value[:, layer : layer + 1] for name, value in output.extras.items()}
        single = type(output)(output.trajectory, output.encoded, output.proposals, output.scores, extras)
        terms = module.loss(single, samples)
        total = sum(v for k, v in terms.items() if k.startswith("loss_"))
        made[f"trajectory_loss_{layer}"] = total / LAYER_WEIGHT
    return made
