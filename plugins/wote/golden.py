"""Comparison of WoTE with its golden file: every stage of planning, training outputs, losses."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from beyonddrive.checkpoints.golden import Comparison, GoldenFile
from beyonddrive.plugins.wote.head import METRICS, WorldModelHead
from beyonddrive.plugins.wote.planner import WoTE
from beyonddrive.plugins.wote.world_model import splat_weights
from beyonddrive.structures.tokens import SceneTokens

CLASSES = 8
"""Classes of the maps, the ego among them."""
SAMPLED = (3, 200)
"""Anchors whose future was supervised."""


def compare(golden: GoldenFile) -> Iterator[Comparison]:
    """Compare what a file of WoTE holds."""
    planner = golden.build()
    assert isinstance(planner, WoTE)
    with torch.no_grad():
        tokens = planner.encode(golden.inputs(lidar=True, batch=1), with_map=False)
        yield from _compare_stages(golden, planner, tokens)
        output = planner.trajectory_head(tokens)
        assert output.proposals is not None and output.scores is not None
        values = {
            "trajectory": output.trajectory,
            "all_trajectory": output.proposals[0],
            "final_rewards": output.scores,
            "best_index": output.scores.argmax(dim=1),
            "im_rewards": output.extras["imitation_logits"].softmax(dim=1),
        }
        yield from golden.compare(values)
        yield from golden.compare({"inject": _injected(golden)})
        yield from _compare_training(golden, planner)


def _compare_stages(golden: GoldenFile, planner: WoTE, tokens: SceneTokens) -> Iterator[Comparison]:
    """What passes between the parts when one scene is planned."""
    head = planner.world_head
    bev, status, anchors = tokens.require("memory", "golden"), tokens.queries[:, 0], head.anchors()
    mixed = head.encoder.mix(anchors[None])
    features = head.encoder.with_status(mixed, status)
    decoded = features
    for layer in head.offset_decoder:
        decoded = layer(decoded, bev)
    offsets, _ = head.offsets(features, bev)
    ego = head.encoder(anchors + offsets, status)
    model, reward = head.world_model, head.reward
    future_ego, future = model(bev, ego, model.prepare(bev))
    start = splat_weights(bev.new_zeros(2), model.bev_size)
    end = splat_weights(anchors[:, -1, :2], model.bev_size)
    before = bev[:, None] + start[:, None] * ego[:, :, None]
    after = future + end[:, :, None] * future_ego[:, :, None]
    position = model.position_embedding.weight
    scene = reward.forward_map(reward.prepare(bev), after, ego)
    values = {
        "flatten_bev": bev,
        "cluster_feat_anchor": mixed,
        "offset_dec_in_tgt": features,
        "offset_dec_out": decoded,
        "wm_in": torch.cat([ego[:, :, None], before], dim=2)[0] + position,
        "wm_out": torch.cat([future_ego[:, :, None], future], dim=2)[0],
        "reward_conv_in": torch.cat([before, after], dim=-1)[0].transpose(1, 2).unflatten(-1, model.bev_size),
        "reward_conv_out": scene[0, :, :, None, None],
        "reward_feature": reward.fuse(torch.cat([ego, future_ego, scene], dim=-1))[0],
    }
    yield from golden.compare(values)


def _injected(golden: GoldenFile) -> Tensor:
    """Features put into a map."""
    features = golden.normal("input/wote_newfeat", (3, 4))
    bev = golden.normal("input/wote_bev", (3, 4, 8, 8))
    weights = splat_weights(golden.tensor([[0.0, 0.0], [13.3, -7.1], [31.0, 31.9]]), (8, 8))
    return bev + features[:, :, None, None] * weights.unflatten(-1, (8, 8))[:, None]


def _compare_training(golden: GoldenFile, planner: WoTE) -> Iterator[Comparison]:
    """Outputs and losses of the training branch for two scenes, modules in evaluation mode."""
    head: WorldModelHead = planner.world_head
    assert planner.bev_head is not None and planner.agent_head is not None
    tokens = planner.encode(golden.inputs(lidar=True))
    output = head.training_output(tokens, [], sampled=golden.tensor(SAMPLED))
    assert output.proposals is not None
    extras, anchors = output.extras, head.anchors()
    future: SceneTokens = planner.future_tokens(tokens, output)
    maps = {
        "bev_semantic_map": planner.bev_head(tokens)["bev_semantic_map"],
        "fut_bev_semantic_map": planner.bev_head(future)["bev_semantic_map"],
    }
    values = {
        "im_rewards": extras["imitation_logits"].softmax(dim=1),
        "trajectory_anchors": anchors,
        "sim_rewards": extras["metric_logits"].sigmoid(),
        "trajectory_offset": output.proposals - anchors,
        "trajectory_offset_rewards": extras["offset_logits"].softmax(dim=1),
        **planner.agent_head(tokens),
        **maps,
    }
    yield from golden.compare(values, "train/")

    samples = golden.samples(classes=CLASSES)
    rewards = golden.recipe.rng_for("target/sim_reward").random((2, 1, 5, len(anchors))).round(1)
    for sample, reward in zip(samples, golden.tensor(rewards[:, 0]).float(), strict=True):
        assert len(reward) == len(METRICS)
        scores = torch.cat([reward.T, reward.new_zeros(len(anchors), 1)], dim=1)
        identity = golden.tensor(head.anchors.identity)
        sample.gt.update(BaseDataElement(vocabulary_scores=scores, vocabulary_id=identity))
    losses = head.loss(output, samples)
    agents = planner.agent_head.loss(tokens, samples)
    criterion = planner.bev_head.criterion
    targets = {
        "map": torch.stack([sample.gt.bev_semantic_map for sample in samples]),
        "future": golden.tensor(golden.recipe.bev_map(classes=CLASSES, name="target/fut_bev")),
    }
    values = {
        "traj_offset_loss": losses["loss_offset"],
        "offset_im_reward_loss": losses["loss_offset_imitation"],
        "im_reward_loss": losses["loss_imitation"],
        "sim_reward_loss": losses["loss_metrics"],
        "agent_cls_loss": agents.get("loss_agent_class", golden.tensor(0.0)),
        "agent_box_loss": agents.get("loss_agent_box", golden.tensor(0.0)),
        "map_loss": criterion(maps["bev_semantic_map"], targets["map"]),
        "fut_map_loss": criterion(maps["fut_bev_semantic_map"], targets["future"])
        * (planner.future_map_weight / criterion.weight),
    }
    yield from golden.compare(values)
