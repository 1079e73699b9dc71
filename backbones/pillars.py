"""TransFuser on raw points: PointPillars of mmdet3d make the map that the bird's-eye-view branch reads.

mmdet3d is an optional dependency. It is imported when an encoder is built, never by this module;
``docs/mmdet3d.md`` says how to install it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from beyonddrive.backbones.transfuser import TransFuserBackbone
from beyonddrive.registry import MODELS
from beyonddrive.structures.errors import BeyondDriveError

POINT_DIM = 4
"""A point: x, y, z [m] in the ego frame, intensity in [0, 1]."""


class MMDet3DError(BeyondDriveError, RuntimeError):
    """mmdet3d is not installed, or what is installed cannot be imported; the message says what to install."""


def import_mmdet3d() -> None:
    """Import mmdet3d's models, which registers them with mmengine under the scope ``mmdet3d``.

    Raises:
        MMDet3DError: If that fails; the message says why and how to install it.
    """
    try:
        import mmcv.ops  # noqa: F401
        import mmdet3d.models  # noqa: F401
    # Besides missing modules: mmdet3d asserts versions, and numpy 2 lacks names that its parts use.
    except (ImportError, AssertionError, AttributeError) as error:
        raise MMDet3DError(
            f"PointPillars need mmdet3d, which cannot be imported ({type(error).__name__}: {error}): "
            f"pip install 'beyonddrive[mmdet3d]'. Its mmcv 2.1.0 must be built with its ops, for current "
            f"PyTorch with -std=c++20, beside numpy<2 and setuptools<81: docs/mmdet3d.md has the commands. "
            f"Without mmdet3d use TransFuserBackbone, which reads a histogram of the points"
        ) from error


@MODELS.register_module()
class PointPillarsEncoder(BaseModule):
    """Point clouds -> a map of the ground, one feature vector per cell, as in PointPillars.

    Voxelization, PillarFeatureNet and PointPillarsScatter are built from mmdet3d's registry. Rows of the map
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

    Raises:
        MMDet3DError: If mmdet3d cannot be imported.
        ValueError: If the settings make no grid.
    """

    def __init__(
        self,
        grid_size: tuple[int, int] = (256, 256),
        point_range: Sequence[float] = (-32.0, -32.0, -2.0, 32.0, 32.0, 6.0),
        feat_channels: Sequence[int] = (64,),
        max_points: int = 20,
        max_pillars: int | None = None,
        voxel_encoder: dict[str, Any] | None = None,
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
        import_mmdet3d()
        cells = (rows, columns, 1)  # a pillar is a cell of the whole height
        geometry = {
            "voxel_size": [(b - a) / n for a, b, n in zip(lower, upper, cells, strict=True)],
            "point_cloud_range": list(point_range),
        }
        self.grid_size = (rows, columns)
        self.out_channels = feat_channels[-1]
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
        self.scatter = MODELS.build(
            {
                "type": "mmdet3d.PointPillarsScatter",
                "in_channels": self.out_channels,
                "output_shape": [columns, rows],
            }
        )

    def forward(self, points: Sequence[Tensor]) -> Tensor:
        """Encode a batch.

        Args:
            points: One float (N_i, 4) tensor per scene: x, y, z [m], intensity; N_i may be 0.

        Returns:
            (B, C, rows, columns).

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
            return points[0].new_zeros(len(points), self.out_channels, *self.grid_size)
        features = self.voxel_encoder(pillars["voxels"], pillars["num_points"], pillars["coors"])
        # (B, C, y, x) -> (B, C, x, y)
        return self.scatter(features, pillars["coors"], len(points)).transpose(2, 3)


@MODELS.register_module()
class PillarTransFuserBackbone(TransFuserBackbone):
    """:class:`TransFuserBackbone` whose bird's-eye-view branch reads pillars instead of a histogram.

    The planner's input is then ``points``, made by the transform ``LoadPoints``, instead of ``lidar``.

    Args:
        pillars: Settings of the :class:`PointPillarsEncoder`; its ``grid_size`` is set from ``bev_size``.
        bev_size: Rows and columns of the map of pillars.
        latent: Must be False: with a latent there is nothing to read.
        kwargs: As for :class:`TransFuserBackbone`; ``lidar_channels`` follows from the pillars.
    """

    lidar_input = "points"

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
        encoder = MODELS.build({"type": "PointPillarsEncoder", **(pillars or {}), "grid_size": bev_size})
        super().__init__(bev_size=bev_size, lidar_channels=encoder.out_channels, **kwargs)
        self.pillars = encoder

    def _bev_input(self, lidar: Tensor | Sequence[Tensor] | None) -> Tensor:
        if lidar is None:
            raise ValueError(
                "PillarTransFuserBackbone: inputs have no 'points': add LoadPoints to the feature pipeline"
            )
        return self.pillars(lidar)
