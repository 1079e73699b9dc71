"""TransFuser on raw points: PointPillars of mmdet3d make the map that the bird's-eye-view branch reads.

mmdet3d is an optional dependency. It is imported when an encoder is built, never by this module;
``docs/mmdet3d.md`` says how to install it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from beyonddrive.backbones.transfuser import TransFuserBackbone
from beyonddrive.openmmlab import import_mmdet3d
from beyonddrive.registry import MODELS

POINT_DIM = 4
"""A point: x, y, z [m] in the ego frame, intensity in [0, 1]."""
SECOND_WIDTHS = (128, 128, 256)
"""Channels of the stages of mmdet3d's SECOND, unless its ``out_channels`` say otherwise."""


@MODELS.register_module()
class PointPillarsEncoder(BaseModule):
    """Point clouds -> a map of the ground, one feature vector per cell, as in PointPillars.

    Voxelization and PillarFeatureNet are built from mmdet3d's registry. Rows of the map
    run along x from behind to ahead, columns along y from right to left, as in the LiDAR histogram (MODELS,
    section 1); mmdet3d's own map has them the other way round. A cell without points is 0.

    Args:
        grid_size: Rows (x) and columns (y) of the map.
        point_range: x, y, z from, x, y, z to [m]; points outside are not seen.
        feat_channels: Channels of the layers of the PillarFeatureNet; the last is C.
        max_points: Points kept of one pillar: the first ones, so shuffle the points.
        max_pillars: Pillars kept of one scene; by default as many as there are cells, so that none is lost.
        voxel_encoder: More settings of the PillarFeatureNet (``mode``, ``with_distance``, ``norm_cfg``, ...),
            or another ``type`` with the same calls.
        backbone: Settings of a convolutional backbone behind the pillars, ``mmdet3d.SECOND`` by default of
            type; its ``in_channels`` are set from the pillars. None for none.
        neck: Settings of what makes one map of its stages, ``mmdet3d.SECONDFPN`` by default of type; its
            ``in_channels`` are set from the backbone. Needs a backbone, and a backbone needs it.

    Attributes:
        out_channels: C, channels of the map.
        out_size: Rows and columns of the map: those of the grid, or what the neck makes of them.
        ground: x, y from, x, y to [m] that the map covers.

    Raises:
        MMDet3DError: If mmdet3d cannot be imported.
        ValueError: If the settings make no grid, or no map with one backbone and one neck.
    """

    def __init__(
        self,
        grid_size: tuple[int, int] = (256, 256),
        point_range: Sequence[float] = (-32.0, -32.0, -2.0, 32.0, 32.0, 6.0),
        feat_channels: Sequence[int] = (64,),
        max_points: int = 20,
        max_pillars: int | None = None,
        voxel_encoder: dict[str, Any] | None = None,
        backbone: dict[str, Any] | None = None,
        neck: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        rows, columns = grid_size
        lower, upper = point_range[:3], point_range[3:]
        if len(point_range) != 6 or not all(a < b for a, b in zip(lower, upper, strict=True)):
            raise ValueError(
                f"PointPillarsEncoder: point_range must be three lower and three larger upper bounds, "
                f"got {tuple(point_range)}"
            )
        if min(rows, columns, max_points, *feat_channels) < 1 or not feat_channels:
            raise ValueError("PointPillarsEncoder: grid_size, feat_channels and max_points must be positive")
        if (backbone is None) != (neck is None):
            raise ValueError("PointPillarsEncoder: give both, backbone and neck, or neither")
        import_mmdet3d()
        cells = (rows, columns, 1)  # a pillar is a cell of the whole height
        geometry = {
            "voxel_size": [(b - a) / n for a, b, n in zip(lower, upper, cells, strict=True)],
            "point_cloud_range": list(point_range),
        }
        self.grid_size = (rows, columns)
        self.ground = (*lower[:2], *upper[:2])
        self.pillar_channels = feat_channels[-1]
        limits = {"max_num_points": max_points, "max_voxels": max_pillars or rows * columns}
        # The preprocessor is the one part of mmdet3d's registry that voxelizes.
        self.voxelizer = MODELS.build(
            {"type": "mmdet3d.Det3DDataPreprocessor", "voxel": True, "voxel_layer": {**geometry, **limits}}
        )
        self.voxel_encoder = MODELS.build(
            {
                "type": "mmdet3d.PillarFeatureNet",
                "in_channels": POINT_DIM,
                "feat_channels": tuple(feat_channels),
                # Not legacy: that one overwrites the positions of points by their offsets.
                "legacy": False,
                **geometry,
                **(voxel_encoder or {}),
            }
        )
        self.backbone: nn.Module | None = None
        self.neck: nn.Module | None = None
        self.out_channels, self.out_size = self.pillar_channels, self.grid_size
        if backbone is not None and neck is not None:
            self.backbone = MODELS.build(
                {"type": "mmdet3d.SECOND", **backbone, "in_channels": self.pillar_channels}
            )
            widths = list(backbone.get("out_channels", SECOND_WIDTHS))
            self.neck = MODELS.build({"type": "mmdet3d.SECONDFPN", **neck, "in_channels": widths})
            self.out_channels, self.out_size = self._size_of_map()

    @torch.no_grad()
    def _size_of_map(self) -> tuple[int, tuple[int, int]]:
        """Channels, and rows and columns, that backbone and neck make of the grid; runs them once."""
        was_training = self.training
        self.eval()
        features = self._refined(torch.zeros(1, self.pillar_channels, *reversed(self.grid_size)))
        self.train(was_training)
        return features.shape[1], (features.shape[3], features.shape[2])

    def _refined(self, raster: Tensor) -> Tensor:
        """Map (B, C, y, x) of pillars -> that of backbone and neck, if there are some."""
        if self.backbone is None or self.neck is None:
            return raster
        maps = self.neck(self.backbone(raster))
        refined: Tensor = maps[0]
        return refined

    def _placed(self, features: Tensor, places: Tensor, batch: int) -> Tensor:
        """Features (M, C) of pillars at (M, 4) batch, z, y, x -> map (B, C, y, x), zero elsewhere.

        The channels of a cell lie together, as the convolutions behind it have them: mmdet3d's
        ``PointPillarsScatter`` makes the same map in the other order, which is then copied there and back.
        """
        rows, columns = self.grid_size
        cells = (places[:, 0] * columns + places[:, 2]) * rows + places[:, 3]
        raster = features.new_zeros(batch * columns * rows, features.shape[1])
        raster = raster.index_copy(0, cells, features)
        return raster.view(batch, columns, rows, -1).permute(0, 3, 1, 2)

    def forward(self, points: Sequence[Tensor]) -> Tensor:
        """Encode a batch.

        Args:
            points: One float (N_i, 4) tensor per scene: x, y, z [m], intensity; N_i may be 0.

        Returns:
            (B, ``out_channels``, *``out_size``).

        Raises:
            ValueError: If a scene has another shape or type.
        """
        for row, cloud in enumerate(points):
            if cloud.dim() != 2 or cloud.shape[1] != POINT_DIM or not cloud.is_floating_point():
                raise ValueError(
                    f"PointPillarsEncoder: points of scene {row} of the batch must be float "
                    f"(N, {POINT_DIM}), got {cloud.dtype} {tuple(cloud.shape)}: make them by LoadPoints"
                )
        pillars = self.voxelizer.voxelize([cloud.float().contiguous() for cloud in points], None)
        if not len(pillars["voxels"]):  # batch norm cannot learn from nothing
            raster = points[0].new_zeros(len(points), self.pillar_channels, *reversed(self.grid_size))
        else:
            features = self.voxel_encoder(pillars["voxels"], pillars["num_points"], pillars["coors"])
            raster = self._placed(features, pillars["coors"].long(), len(points))
        # (B, C, y, x) -> (B, C, x, y)
        return self._refined(raster).transpose(2, 3)


@MODELS.register_module()
class PillarTransFuserBackbone(TransFuserBackbone):
    """:class:`TransFuserBackbone` whose bird's-eye-view branch reads pillars instead of a histogram.

    The planner's input is then ``points``, made by the transform ``LoadPoints``, instead of ``lidar``.

    Args:
        pillars: Settings of the :class:`PointPillarsEncoder`; its ``grid_size`` is ``bev_size`` unless given.
        bev_size: Rows and columns of the map that it makes.
        latent: Must be False: with a latent there is nothing to read.
        kwargs: As for :class:`TransFuserBackbone`; ``lidar_channels`` follows from the pillars.
    """

    lidar_input = "points"
    learns_from_points = True

    def __init__(
        self,
        pillars: dict[str, Any] | None = None,
        bev_size: tuple[int, int] = (256, 256),
        latent: bool = False,
        **kwargs: Any,
    ) -> None:
        if latent:
            raise ValueError("PillarTransFuserBackbone: a latent replaces the points: set latent=False")
        # Built first, because the channels of the next branch depend on it.
        encoder = MODELS.build({"type": "PointPillarsEncoder", "grid_size": bev_size, **(pillars or {})})
        if encoder.out_size != tuple(bev_size):
            raise ValueError(
                f"PillarTransFuserBackbone: bev_size is {tuple(bev_size)}, but the pillars make a map of "
                f"{encoder.out_size} cells: set bev_size to that, or pillars.grid_size, or the strides of "
                f"pillars.backbone and pillars.neck"
            )
        super().__init__(bev_size=bev_size, lidar_channels=encoder.out_channels, **kwargs)
        self.pillars = encoder

    @property
    def ground(self) -> tuple[float, ...]:
        """x, y from, x, y to [m] that the maps cover."""
        bounds: tuple[float, ...] = self.pillars.ground
        return bounds

    def _bev_input(self, lidar: Tensor | Sequence[Tensor] | None) -> Tensor:
        if lidar is None:
            raise ValueError(
                "PillarTransFuserBackbone: inputs have no 'points': add LoadPoints to the feature pipeline"
            )
        return self.pillars(lidar)
