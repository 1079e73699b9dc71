"""The last step for detectors of mmdet3d: arrays to what its models take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData

from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.openmmlab import import_mmdet3d, to_lidar_boxes
from beyonddrive.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackDet3DSample(BaseTransform):
    """Turns results into ``dict(inputs=dict(points=...), data_samples=Det3DDataSample)``.

    With it a :class:`NavsimDataset` works in a runner of mmdet3d, feature cache and all;
    ``feature_pipeline`` has ``LoadPoints`` and, to learn or to be judged, ``AgentBoxTargets``.

    Args:
        with_velocity: Whether boxes keep vx and vy: 9 numbers rather than 7, as the head wants them.
        only_with_points: Whether agents without a LiDAR point are left out.
    """

    def __init__(self, with_velocity: bool = True, only_with_points: bool = True) -> None:
        self.with_velocity, self.only_with_points = with_velocity, only_with_points

    def transform(self, results: Results) -> Results:
        """Read ``points`` and, if there are some, ``boxes``; return the packed dict.

        Raises:
            KeyError: If there are no points.
            MMDet3DError: If mmdet3d cannot be imported.
        """
        import_mmdet3d()
        from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes

        if "points" not in results:
            raise KeyError(f"scene {results.get('token')}: no points; add LoadPoints to the feature pipeline")
        sample = Det3DDataSample()
        names: dict[str, Any] = {key: results[key] for key in ("token", "log_name") if key in results}
        sample.set_metainfo(names | {"box_type_3d": LiDARInstance3DBoxes})
        if "boxes" in results:
            kept = np.ones(len(results["boxes"]), bool)
            if self.only_with_points and "box_points" in results:
                kept = results["box_points"] > 0
            boxes = to_lidar_boxes(torch.from_numpy(results["boxes"][kept]))
            if not self.with_velocity:
                boxes = LiDARInstance3DBoxes(boxes.tensor[:, :7])
            labels = torch.from_numpy(results["box_labels"][kept]).long()
            sample.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=labels)
            sample.eval_ann_info = {"gt_bboxes_3d": boxes, "gt_labels_3d": labels.numpy()}
        points = torch.from_numpy(np.ascontiguousarray(results["points"], np.float32))
        return {"inputs": {"points": points}, "data_samples": sample}
