"""``NavsimInfoDataset``: what ``beyonddrive create-data mmdet3d-infos`` wrote, as a data set of mmdet3d."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from beyonddrive.openmmlab import import_mmdet3d
from beyonddrive.registry import DATASETS
from beyonddrive.structures.agent_boxes import AGENT_CLASSES

if TYPE_CHECKING:
    from mmdet3d.datasets import NuScenesDataset

_PALETTE = ((122, 138, 160), (70, 160, 150), (88, 128, 200))


@DATASETS.register_module("NavsimInfoDataset")
def navsim_info_dataset(**settings: Any) -> NuScenesDataset:
    """mmdet3d's ``NuScenesDataset`` with our classes: vehicle, pedestrian, bicycle.

    For configs of mmdet3d: ``dict(type='beyonddrive.NavsimInfoDataset', data_root=..., ann_file=...)``. A
    function, because the class exists only where mmdet3d does.

    Args:
        settings: As for ``NuScenesDataset``; ``with_velocity=False`` leaves boxes of seven numbers.

    Raises:
        MMDet3DError: If mmdet3d cannot be imported.
    """
    return _dataset_class()(**settings)


@cache
def _dataset_class() -> Any:
    import_mmdet3d()
    from mmdet3d.datasets import NuScenesDataset

    meta = {"classes": AGENT_CLASSES, "version": "navsim", "palette": list(_PALETTE)}
    return type("NavsimInfoDataset", (NuScenesDataset,), {"METAINFO": meta, "__module__": __name__})
