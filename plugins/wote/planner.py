"""WoTE: plans chosen by what a world model expects of them (MODELS, section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from beyonddrive.plugins.base.head_planner import SensorPlanner
from beyonddrive.plugins.base.planner import Inputs
from beyonddrive.plugins.wote.bev_tokenizer import BEVTokenizer
from beyonddrive.plugins.wote.head import WorldModelHead
from beyonddrive.plugins.wote.world_model import SPLAT_AHEAD
from beyonddrive.registry import MODELS
from beyonddrive.structures.geometry import LIDAR_EXTENT, MAP_CELL, Limits, exactly
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import PlanOutput, SceneTokens
from beyonddrive.structures.transfers import to_device

EGO_CLASS = 7
"""Class of the ego's own box in the bird's-eye-view maps."""
EGO_SIZE = (4.0, 2.0)
"""Length and width of that box [m]."""
PIXEL = 0.25
"""Side of a pixel of the target maps [m]."""


def draw_ego(maps: Tensor, poses: Tensor) -> Tensor:
    """Draw the ego's box over label maps.

    Args:
        maps: (B, rows, columns) integer labels; row 0 is at the ego now, rows run ahead, columns to the left.
        poses: (B, 3) pose of the box's centre: x [m], y [m], heading [rad], ego frame at t = 0.

    Returns:
        (B, rows, columns) labels of the same type; pixels whose centre is in the box are ``EGO_CLASS``.

    >>> drawn = draw_ego(torch.zeros(1, 128, 256, dtype=torch.uint8), torch.tensor([[16.0, 0.0, 0.0]]))
    >>> int((drawn == EGO_CLASS).sum())  # 16 x 8 pixels
    128
    """
    rows, columns = maps.shape[-2:]
    ahead = (torch.arange(rows, device=maps.device) + 0.5) * PIXEL
    left = (torch.arange(columns, device=maps.device) + 0.5 - columns / 2) * PIXEL
    dx, dy = ahead[:, None] - poses[:, 0, None, None], left - poses[:, 1, None, None]
    cos, sin = poses[:, 2, None, None].cos(), poses[:, 2, None, None].sin()
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    inside = (along.abs() <= EGO_SIZE[0] / 2) & (across.abs() <= EGO_SIZE[1] / 2)
    return torch.where(inside, torch.full_like(maps, EGO_CLASS), maps)


@MODELS.register_module()
class WoTE(SensorPlanner):
    """Camera, LiDAR and ego status; anchors refined and rewarded by a world model.

    Its map head has an eighth class, the ego itself, which is drawn into the targets here: at the ego now,
    and in the map of the future (:class:`FutureBEVMapTarget`) at the last pose of an anchor drawn at random.

    Args:
        future_map_weight: Weight of the future map's loss; that of the map now is the map head's own.
        kwargs: As for :class:`SensorPlanner`; ``trajectory_head`` is a :class:`WorldModelHead`, bare or
            wrapped.
    """

    head_type = WorldModelHead
    decoder: BEVTokenizer

    def __init__(self, future_map_weight: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if future_map_weight < 0:
            raise ValueError(f"WoTE: future_map_weight must not be negative, got {future_map_weight}")
        if (self.bev_head is None) != (self.decoder.map_proj is None):
            raise ValueError("WoTE: give both decoder.map_size and bev_head, or set both to None")
        classes = getattr(self.bev_head, "num_classes", EGO_CLASS + 1)
        if classes <= EGO_CLASS:
            raise ValueError(
                f"WoTE: bev_head.num_classes is {classes}, and class {EGO_CLASS} of its maps is the ego's "
                f"own box: set it to {EGO_CLASS + 1}"
            )
        self.future_map_weight = future_map_weight
        self.future_embedding: nn.Embedding | None = None
        if self.bev_head is not None:
            rows, columns = self.decoder.bev_size
            self.future_embedding = nn.Embedding(rows * columns, self.decoder.dim)

    @property
    def geometry_taken(self) -> Limits:
        """The ego is drawn into maps of these cells, and put into features of this ground."""
        maps = {} if self.bev_head is None else {MAP_CELL: exactly(PIXEL)}
        return {LIDAR_EXTENT: exactly(SPLAT_AHEAD), **maps}

    @property
    def world_head(self) -> WorldModelHead:
        """The trajectory head, without wrappers."""
        head = self.trajectory_head.bare
        assert isinstance(head, WorldModelHead)
        return head

    def encode(self, inputs: Inputs, with_map: bool = True) -> SceneTokens:
        """Tokens of a batch; without the map that only auxiliary heads read, if so asked."""
        features = self.backbone(inputs["camera"], inputs.get(self.backbone.lidar_input))
        tokens: SceneTokens = self.decoder(features, inputs["status"], with_map)
        return tokens

    def encode_to_plan(self, inputs: Inputs) -> SceneTokens:
        """Tokens without the map, unless the detection head finds its agents on it."""
        finds = self.detection_head is not None and getattr(self.detection_head, "reads", "bev") == "bev"
        return self.encode(inputs, with_map=finds)

    def loss(self, inputs: Inputs, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """Terms of all heads, and of the map of the future."""
        tokens = self.encode(inputs)
        output = self.trajectory_head.training_output(tokens, samples)
        losses = self.trajectory_head.loss(output, samples)
        if self.agent_head is not None:
            losses.update(self.agent_head.loss(tokens, samples))
        if self.bev_head is not None:
            losses.update(self._map_losses(tokens, output, samples))
        if self.detection_head is not None:
            losses.update(self.detection_head.loss(tokens, samples))
        return losses

    def future_tokens(self, tokens: SceneTokens, output: PlanOutput) -> SceneTokens:
        """Tokens of the future that the world model imagines for the sampled anchors, with their map."""
        assert self.future_embedding is not None
        memory = output.extras["future_memory"] + self.future_embedding.weight
        return replace(tokens, memory=memory, bev=self.decoder.upscale(memory))

    def _map_losses(
        self, tokens: SceneTokens, output: PlanOutput, samples: Sequence[PlanSample]
    ) -> dict[str, Tensor]:
        """``loss_bev_semantic`` and ``loss_future_bev_semantic``."""
        assert self.bev_head is not None
        device = tokens.status.device
        end = self.world_head.anchors()[output.extras["sampled"], -1]
        targets = {
            name: to_device(stack_field(samples, "gt", name), device)
            for name in ("bev_semantic_map", "future_bev_semantic_map")
        }
        criterion = self.bev_head.criterion
        now = criterion(
            self.bev_head(tokens)["bev_semantic_map"],
            draw_ego(targets["bev_semantic_map"], torch.zeros_like(end)),
        )
        future = criterion(
            self.bev_head(self.future_tokens(tokens, output))["bev_semantic_map"],
            draw_ego(targets["future_bev_semantic_map"], end),
        )
        return {
            "loss_bev_semantic": now,
            "loss_future_bev_semantic": future * (self.future_map_weight / criterion.weight),
        }
