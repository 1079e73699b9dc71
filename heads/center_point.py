"""Auxiliary detection of agents as boxes by mmdet3d's CenterHead (CenterPoint, arXiv:2006.11275)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from beyonddrive.heads.center_targets import CenterMap, CenterTargets, center_targets
from beyonddrive.losses.counted_mean import CountOver, check_count_over, counted_mean
from beyonddrive.openmmlab import from_lidar_boxes
from beyonddrive.registry import MODELS
from beyonddrive.structures.agent_boxes import AGENT_CLASSES, BOX_DIM
from beyonddrive.structures.geometry import BOX_EXTENT, LIDAR_EXTENT, Limits, exactly
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import SceneTokens

_LEARNT = ("min_radius", "gaussian_overlap", "code_weights")
"""Settings of mmdet3d's ``train_cfg`` that targets and losses here follow."""
_CODE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
"""Of the terms of a box: offset x y, height, three sizes, sine and cosine of the heading, velocity x y."""


@MODELS.register_module()
class CenterPointHead(nn.Module):
    """A map of the ground -> boxes of agents with velocity, one task of mmdet3d's ``CenterHead`` per class.

    Needs the extra ``mmdet3d``, but no LiDAR: on the map ``bev`` it also serves a planner that has cameras
    only. Where samples say how many LiDAR points each agent has (``AgentBoxTargets`` behind ``LoadPoints``),
    those without one are no targets: nobody can find them.

    Args:
        in_channels: Channels of the map.
        map_size: Its rows and columns.
        reads: ``points``: the map that is learned from the points alone; ``bev``: the upscaled fused map.
        map_range: x, y, z from, x, y, z to [m] that the map covers.
        weight: Of both terms in the total loss.
        score_threshold: Boxes with a lower score are not predicted.
        max_boxes: Most boxes of a scene and class.
        count_over: Whether the agents of all ranks are counted in the denominators, or the rank's own.
        head: More settings of mmdet3d's ``CenterHead``, such as ``share_conv_channel``; mappings in it are
            merged into what this class gives. Of ``train_cfg`` it takes ``min_radius``, ``gaussian_overlap``
            and ``code_weights``: the rest is for targets of mmdet3d's own.

    Attributes:
        covers: x, y from, x, y to [m] of ``map_range``.
        trains_by_forward: Whether training calls ``forward``; the loss reads more than it returns.

    Raises:
        MMDet3DError: If mmdet3d cannot be imported.
        ValueError: If the settings make no map, or one of them would change nothing.
    """

    trains_by_forward: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        map_size: tuple[int, int],
        reads: Literal["points", "bev"] = "points",
        map_range: Sequence[float] = (-32.0, -32.0, -2.0, 32.0, 32.0, 6.0),
        weight: float = 1.0,
        score_threshold: float = 0.1,
        max_boxes: int = 100,
        count_over: CountOver = "all_ranks",
        head: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.code_weights: Tensor
        lower, upper = list(map_range[:3]), list(map_range[3:])
        rows, columns = map_size
        if len(map_range) != 6 or not all(a < b for a, b in zip(lower, upper, strict=True)):
            raise ValueError(
                f"CenterPointHead: map_range must be three lower and three larger upper bounds, got "
                f"{tuple(map_range)}"
            )
        if reads not in ("points", "bev"):
            raise ValueError(f"CenterPointHead: reads must be 'points' or 'bev', got {reads!r}")
        if min(in_channels, rows, columns, max_boxes) < 1 or weight <= 0:
            raise ValueError("CenterPointHead: in_channels, map_size, max_boxes and weight must be positive")
        self.reads: Literal["points", "bev"] = reads
        self.in_channels, self.map_size, self.weight = in_channels, (rows, columns), weight
        self.covers = (*lower[:2], *upper[:2])
        self.count_over = check_count_over(count_over, "CenterPointHead")
        cell = [(upper[0] - lower[0]) / rows, (upper[1] - lower[1]) / columns]
        limits = [lower[0], lower[1], -10.0, upper[0], upper[1], 10.0]
        settings: dict[str, Any] = {
            "type": "mmdet3d.CenterHead",
            "in_channels": in_channels,
            "tasks": [{"num_class": 1, "class_names": [name]} for name in AGENT_CLASSES],
            "common_heads": {"reg": (2, 2), "height": (1, 2), "dim": (3, 2), "rot": (2, 2), "vel": (2, 2)},
            "share_conv_channel": 64,
            "bbox_coder": {
                "type": "mmdet3d.CenterPointBBoxCoder",
                "pc_range": lower[:2],
                "post_center_range": limits,
                "max_num": 5 * max_boxes,
                "score_threshold": score_threshold,
                "out_size_factor": 1,
                "voxel_size": cell,
                "code_size": BOX_DIM,
            },
            "separate_head": {"type": "mmdet3d.SeparateHead", "init_bias": -2.19, "final_kernel": 3},
            "loss_cls": {"type": "mmdet.GaussianFocalLoss", "reduction": "sum"},
            "loss_bbox": {"type": "mmdet.L1Loss", "reduction": "sum", "loss_weight": 0.25},
            "train_cfg": {
                "grid_size": [rows, columns, 1],
                "point_cloud_range": lower + upper,
                "voxel_size": cell,
                "out_size_factor": 1,
                "dense_reg": 1,
                "gaussian_overlap": 0.1,
                "max_objs": 500,
                "min_radius": 2,
                "code_weights": list(_CODE_WEIGHTS),
            },
            "test_cfg": {
                "post_center_limit_range": limits,
                "max_per_img": max_boxes,
                "score_threshold": score_threshold,
                "nms_type": "rotate",
                "pre_max_size": 5 * max_boxes,
                "post_max_size": max_boxes,
                "nms_thr": 0.2,
            },
        }
        if idle := sorted(set((head or {}).get("train_cfg", ())).difference(_LEARNT)):
            raise ValueError(f"CenterPointHead: head.train_cfg: {', '.join(idle)} would change nothing here")
        for key, value in (head or {}).items():
            both = isinstance(value, Mapping) and isinstance(settings.get(key), Mapping)
            settings[key] = {**settings[key], **value} if both else value
        self.head = MODELS.build(settings)
        if not self.head.norm_bbox:
            raise ValueError("CenterPointHead: head.norm_bbox must be true: sizes are learned as logarithms")
        learnt = self.head.train_cfg
        self.ground = CenterMap(
            self.map_size,
            (lower[0], lower[1]),
            (cell[0], cell[1]),
            learnt["min_radius"],
            learnt["gaussian_overlap"],
        )
        self.register_buffer("code_weights", torch.tensor(learnt["code_weights"]), persistent=False)
        # Here, because mmengine does not look into lists of modules: heatmaps start near 0.1, not near 0.5.
        for task in self.head.task_heads:
            task.init_weights()

    @property
    def geometry_taken(self) -> Limits:
        """Agents on all of the map are targets; the fused map is that of the LiDAR raster."""
        farthest = max(abs(bound) for bound in self.covers)
        fused = {LIDAR_EXTENT: exactly(farthest)} if self.reads == "bev" else {}
        return {BOX_EXTENT: (farthest, math.inf), **fused}

    def forward(self, tokens: SceneTokens) -> dict[str, Tensor]:
        """``agent_heatmaps`` (B, classes, rows, columns): logits of a centre of an agent in a cell."""
        heatmaps = [task["heatmap"] for task in self._tasks(tokens)]
        return {"agent_heatmaps": torch.cat(heatmaps, dim=1).transpose(2, 3)}

    def loss(self, tokens: SceneTokens, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_center_heatmap`` and ``loss_center_box``, each the mean over the classes.

        Raises:
            KeyError: If a sample has no boxes; names the scene and what provides them.
        """
        tasks = self._tasks(tokens)
        targets = self.targets(samples, tokens.status.device)
        heatmap_loss, box_loss = tokens.status.new_zeros(()), tokens.status.new_zeros(())
        heatmaps = targets.heatmaps(sum(task["heatmap"].shape[1] for task in tasks))
        first = 0
        for task in tasks:
            # (B, C, H, W): the clamp of mmdet3d's own loss, which keeps its logarithm finite
            seen = task["heatmap"].sigmoid().clamp(1e-4, 1 - 1e-4)
            classes = range(first, first := first + seen.shape[1])
            heatmap = heatmaps[:, classes[0] : classes[-1] + 1]
            peaks = heatmap.eq(1).sum()
            heatmap_loss = heatmap_loss + counted_mean(
                self.head.loss_cls(seen, heatmap), peaks, self.count_over
            )
            raster = torch.cat([task[name] for name in ("reg", "height", "dim", "rot", "vel")], dim=1)
            raster = raster.flatten(2).transpose(1, 2)  # (B, H W, 10)
            found = raster.gather(1, targets.cells[..., None].expand(-1, -1, raster.shape[2]))
            mask = (targets.labels >= classes[0]) & (targets.labels <= classes[-1])
            total = self.head.loss_bbox(found, targets.values, mask[..., None] * self.code_weights)
            box_loss = box_loss + counted_mean(total, mask.sum(), self.count_over)
        scale = self.weight / len(tasks)
        return {"loss_center_heatmap": scale * heatmap_loss, "loss_center_box": scale * box_loss}

    def targets(self, samples: Sequence[PlanSample], device: torch.device) -> CenterTargets:
        """What is learned from scenes: their agents, without those that no LiDAR point is on.

        Raises:
            KeyError: If a sample has no boxes; names the scene and what provides them.
        """
        boxes, labels = zip(*(_agents(sample) for sample in samples), strict=True)
        on_device = [[each.to(device, non_blocking=True) for each in kind] for kind in (boxes, labels)]
        return center_targets(on_device[0], on_device[1], self.ground)

    @torch.no_grad()
    def detect(self, tokens: SceneTokens) -> list[BaseDataElement]:
        """Boxes of each scene, best first: ``boxes`` (N, 9), ``box_scores`` and ``box_labels`` (N,)."""
        from mmdet3d.structures import LiDARInstance3DBoxes

        tasks = tuple([task] for task in self._tasks(tokens))
        meta = {"box_type_3d": LiDARInstance3DBoxes}
        found = []
        for result in self.head.predict_by_feat(tasks, [meta] * len(tokens.status)):
            order = result.scores_3d.argsort(descending=True, stable=True)
            found.append(
                BaseDataElement(
                    boxes=from_lidar_boxes(result.bboxes_3d)[order],
                    box_scores=result.scores_3d[order],
                    box_labels=result.labels_3d[order].long(),
                )
            )
        return found

    def _tasks(self, tokens: SceneTokens) -> list[dict[str, Tensor]]:
        """Raw maps (B, C, y, x) of each class by name, in float32: the losses need it."""
        raster = tokens.require(self.reads, "CenterPointHead")
        if tuple(raster.shape[1:]) != (self.in_channels, *self.map_size):
            raise ValueError(
                f"CenterPointHead: the map {self.reads!r} is (B, {', '.join(map(str, raster.shape[1:]))}), "
                f"but in_channels is {self.in_channels} and map_size {self.map_size}: make them agree"
            )
        with torch.autocast(raster.device.type, enabled=False):
            return [task[0] for task in self.head([raster.float().transpose(2, 3)])]


def _agents(sample: PlanSample) -> tuple[Tensor, Tensor]:
    """Boxes (n, 9) and classes (n,) of a scene; the class is -1 where no LiDAR point is on the agent."""
    gt = getattr(sample, "gt", None)
    if gt is None or "boxes" not in gt:
        raise KeyError(
            f"scene {sample.metainfo.get('token', '?')} has no gt.boxes: add AgentBoxTargets to the feature "
            f"pipeline and keep PackPlanInputs last"
        )
    return gt.boxes, gt.box_labels.where(gt.box_points > 0, -1) if "box_points" in gt else gt.box_labels
