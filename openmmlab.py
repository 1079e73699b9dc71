"""The way to mmcv, mmdet and mmdet3d: imports with a remedy, and what of them cannot run without CUDA.

All three are optional (extra ``mmdet3d``). Nothing here imports them before it is called; run as a program,
``python -m beyonddrive.openmmlab``, it says whether they work.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import numpy

from beyonddrive.structures.agent_boxes import BOX_DIM
from beyonddrive.structures.errors import BeyondDriveError

if TYPE_CHECKING:
    from mmdet3d.structures import LiDARInstance3DBoxes
    from torch import Tensor, nn

SCOPES = ("mmcv", "mmdet", "mmdet3d")
"""Scopes of the registries that need the extra: ``type='mmdet3d.SECOND'``."""
INSTALL = (
    "make mmdet3d, or pip install 'beyonddrive[mmdet3d]'. Its mmcv 2.1.0 must be built with its ops, for "
    "current PyTorch with -std=c++20, beside numpy<2 and setuptools<81: docs/mmdet3d.md has the commands"
)

CUDA_ONLY: dict[tuple[str, str], str] = {
    ("mmcv.ops.scatter_points", "DynamicScatter"): (
        "hard voxels: voxel_type='hard' and PillarFeatureNet or HardVFE instead of the dynamic encoders"
    ),
    ("mmcv.ops.sparse_conv", "SparseConvolution"): (
        "pillars: PointPillarsScatter with SECOND instead of SparseEncoder"
    ),
    ("mmcv.ops.sparse_pool", "SparseMaxPool"): "pillars: PointPillarsScatter with SECOND",
    ("mmcv.ops.group_points", "QueryAndGroup"): "a voxel or pillar encoder instead of PointNet++",
    ("mmcv.ops.group_points", "GroupAll"): "a voxel or pillar encoder instead of PointNet++",
    ("mmcv.ops.points_sampler", "PointsSampler"): "a voxel or pillar encoder instead of PointNet++",
    ("mmcv.ops.roiaware_pool3d", "RoIAwarePool3d"): "a one-stage head, such as CenterHead",
    ("mmcv.ops.roipoint_pool3d", "RoIPointPool3d"): "a one-stage head, such as CenterHead",
    ("mmcv.ops.correlation", "Correlation"): "a cost volume of torch.nn.functional.unfold",
    ("mmcv.ops.cc_attention", "CrissCrossAttention"): "torch.nn.MultiheadAttention",
}
"""Modules of mmcv whose kernels exist for CUDA only -> what to use on the CPU. Sub-classes count, too."""


class MMDet3DError(BeyondDriveError, RuntimeError):
    """mmdet3d is not installed, or cannot be imported; the message says what to install."""


class CudaOnlyOpError(BeyondDriveError, RuntimeError):
    """A model holds ops of mmcv that have no kernels here; the message names them and what to use instead."""


def import_mmdet3d() -> None:
    """Import mmdet3d's models, which registers them with mmengine under the scope ``mmdet3d``.

    Raises:
        MMDet3DError: If that fails; the message says why and how to install it.
    """
    import_scope("mmdet3d")


def import_scope(scope: str) -> None:
    """Import what registers the components of one of :data:`SCOPES`.

    Raises:
        MMDet3DError: If that fails; the message says why and how to install it.
    """
    try:
        import_module("mmcv.ops")
        if scope != "mmcv":
            import_module(f"{scope}.models")
            # Missing in numpy 1.24 to 1.26, which mmdet3d's sampler of pasted objects has not noticed.
            if not hasattr(numpy, "long"):
                numpy.long = numpy.int_
    # Besides missing modules: mmdet3d asserts versions, and numpy 2 lacks names that its parts use.
    except (ImportError, AssertionError, AttributeError) as error:
        raise MMDet3DError(
            f"{scope} cannot be imported ({type(error).__name__}: {error}): {INSTALL}. Without it use what "
            f"needs none of it: TransFuserBackbone, which reads a histogram of the points, and AgentHead"
        ) from error


def to_lidar_boxes(boxes: Tensor) -> LiDARInstance3DBoxes:
    """``boxes`` (N, 9), see :mod:`beyonddrive.structures.agent_boxes`, as mmdet3d's boxes.

    Raises:
        ValueError: If they have another shape.
        MMDet3DError: If mmdet3d cannot be imported.
    """
    if boxes.dim() != 2 or boxes.shape[1] != BOX_DIM:
        raise ValueError(f"boxes must be (N, {BOX_DIM}), got {tuple(boxes.shape)}")
    import_mmdet3d()
    from mmdet3d.structures import LiDARInstance3DBoxes

    return LiDARInstance3DBoxes(boxes, box_dim=BOX_DIM, origin=(0.5, 0.5, 0.5))


def from_lidar_boxes(boxes: LiDARInstance3DBoxes) -> Tensor:
    """mmdet3d's boxes as (N, 9), as :func:`to_lidar_boxes` takes them; a velocity they lack is NaN.

    Raises:
        ValueError: If they are neither (N, 7) nor (N, 9).
    """
    import torch

    values: Tensor = boxes.tensor
    if values.shape[1] not in (7, BOX_DIM):
        raise ValueError(f"boxes of mmdet3d must have 7 or {BOX_DIM} columns, got {values.shape[1]}")
    if values.shape[1] == 7:
        values = torch.cat([values, values.new_full((len(values), 2), torch.nan)], dim=1)
    return torch.cat([boxes.gravity_center, values[:, 3:]], dim=1)


def cuda_ops_missing() -> bool:
    """Whether kernels for CUDA cannot run here: mmcv was compiled without them, or there is no GPU."""
    import torch

    version: str = import_module("mmcv.ops").get_compiling_cuda_version()
    return version == "not available" or not torch.cuda.is_available()


def check_ops(model: nn.Module) -> None:
    """Refuse a model that holds ops of mmcv without kernels on this machine; others pass at no cost.

    Raises:
        CudaOnlyOpError: With the modules, their ops, and what to use on the CPU.
    """
    if "mmcv.ops" not in sys.modules or not cuda_ops_missing():
        return
    classes = {
        getattr(import_module(module), name): (name, remedy) for (module, name), remedy in CUDA_ONLY.items()
    }
    found = [
        f"{path or type(model).__name__} needs {name}: use {remedy}"
        for path, part in model.named_modules()
        for kind, (name, remedy) in classes.items()
        if isinstance(part, kind)
    ]
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise CudaOnlyOpError(
            f"{type(model).__name__}: mmcv has these ops for CUDA only, and there is none here (no GPU, or "
            f"mmcv compiled without it): {'; '.join(found[:3])}{more}"
        )


def main() -> int:
    """Run an op of mmcv and import mmdet3d; the exit code is 1, with a remedy, if that does not work."""
    try:
        import_mmdet3d()
        import torch
        from mmcv.ops import nms_rotated

        # Two equal squares, one turned by 45 degrees, and one that is apart: the second is suppressed.
        boxes = torch.tensor([[0.0, 0, 2, 2, 0], [0.0, 0, 2, 2, 0.785], [5.0, 0, 2, 2, 0]])
        kept = nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)[1].tolist()
    except (MMDet3DError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    if kept != [0, 2]:
        print(
            f"mmcv's nms_rotated keeps boxes {kept} where 0 and 2 are right: build mmcv anew", file=sys.stderr
        )
        return 1
    versions = ", ".join(f"{name} {import_module(name).__version__}" for name in ("torch", *SCOPES))
    print(f"{versions}: an op of mmcv was run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
