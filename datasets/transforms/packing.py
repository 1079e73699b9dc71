"""The last step: arrays to the tensors and the sample that a planner takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from beyonddrive.datasets.transforms.base import VIEW_POSE, BaseTransform, Results
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.sample import PlanSample

_GT = {
    "trajectory": np.float32,
    "agent_states": np.float32,
    "agent_labels": np.bool_,
    "boxes": np.float32,
    "box_labels": np.int64,
    "box_points": np.int64,
    "bev_semantic_map": np.int64,
    "future_bev_semantic_map": np.int64,
    "vocabulary_scores": np.float32,
    "vocabulary_id": np.int64,
}
_NEGATIVES: dict[str, tuple[str, Any]] = {
    "plans": ("negative_plans", np.float32),
    "valid": ("negative_valid", np.bool_),
    "scores": ("negative_scores", np.float32),
    "columns": ("negative_columns", np.int64),
    "times": ("negative_times", np.float32),
}


@TRANSFORMS.register_module()
class PackPlanInputs(BaseTransform):
    """Turns results into ``dict(inputs=..., data_samples=PlanSample)``.

    ``inputs`` holds those of ``input_keys`` that the pipeline made, ``data_samples.gt`` the targets and
    ``data_samples.negatives`` the negatives, if there are any. Its ``metainfo`` holds ``token``,
    ``log_name`` and, if the view was moved, ``view_pose``: x, y [m], heading [rad] of the sample's frame in
    that of the scene.

    Args:
        input_keys: What a planner may look at.
        target_keys: Targets of your own, beside those that the suite knows (:class:`PlanSample`): they become
            ``gt.<key>`` where the pipeline made them.

    Raises:
        KeyError: If none of the inputs was made.
    """

    def __init__(
        self,
        input_keys: Sequence[str] = ("camera", "lidar", "points", "status"),
        target_keys: Sequence[str] = (),
    ) -> None:
        self.input_keys, self.target_keys = tuple(input_keys), tuple(target_keys)

    def transform(self, results: Results) -> Results:
        """Read all; return the packed dict."""
        inputs = {key: _tensor(results[key]) for key in self.input_keys if key in results}
        if not inputs:
            raise KeyError(
                f"scene {results.get('token')}: none of the inputs {self.input_keys} is there; add the "
                f"transforms that make them to the feature pipeline"
            )
        sample = PlanSample(metainfo={key: results[key] for key in ("token", "log_name") if key in results})
        if VIEW_POSE in results:
            sample.set_metainfo({VIEW_POSE: tuple(float(value) for value in results[VIEW_POSE])})
        kinds = {**dict.fromkeys(self.target_keys), **_GT}
        targets = {key: _tensor(results[key], kind) for key, kind in kinds.items() if key in results}
        if targets:
            sample.gt = BaseDataElement(**targets)
        negatives = _negatives(results)
        if negatives:
            sample.negatives = BaseDataElement(**negatives)
        return {"inputs": inputs, "data_samples": sample}


def _negatives(results: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: _tensor(results[key], kind) for name, (key, kind) in _NEGATIVES.items() if key in results}


def _tensor(array: Any, kind: Any = None) -> Tensor:
    # (ascontiguousarray turns a single number into an array of one)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=kind).reshape(np.shape(array)))
