"""``DetectionMetric``: average precision of the boxes that a detection head finds, as nuScenes has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.dist import all_gather_object, get_world_size
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from beyonddrive.evaluation.pdms_metric import EvaluationError
from beyonddrive.openmmlab import from_lidar_boxes
from beyonddrive.registry import METRICS
from beyonddrive.structures.agent_boxes import AGENT_CLASSES

DISTANCES = (0.5, 1.0, 2.0, 4.0)
"""Distances of centres [m] below which a box is found, as in ``detection_cvpr_2019``; AP is the mean."""
MIN_RECALL = MIN_PRECISION = 0.1
ERRORS = {"ATE": "trans_err", "ASE": "scale_err", "AOE": "orient_err", "AVE": "vel_err"}
"""Errors of what is found within :data:`ERROR_DISTANCE`: m, 1 - IoU, rad, m/s."""
ERROR_DISTANCE = 2.0
_NAMES = {"vehicle": "car", "pedestrian": "pedestrian", "bicycle": "bicycle"}
"""What nuScenes calls the classes; it only compares these names."""


class SceneBoxes(NamedTuple):
    """Boxes (N, 9) and labels (N,) of one scene, those that are there and those that are found."""

    token: str
    true: NDArray[np.float64]
    true_labels: NDArray[np.int64]
    found: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


@METRICS.register_module()
class DetectionMetric(BaseMetric):
    """Average precision in percent, and mean errors, of boxes of agents, by nuScenes' own evaluator.

    ``AP_<class>`` for each class, their mean ``mAP``, and ``ATE_``, ``ASE_``, ``AOE_``, ``AVE_<class>``. A
    class that is nowhere in the split has none of them. Agents without a single LiDAR point do not count,
    as in nuScenes, if the features say how many each has (``AgentBoxTargets`` behind ``LoadPoints``).
    Scenes that cannot be planned are for :class:`PDMSMetric` to report; ``num_scenes`` says how many these
    figures are of. Serves runners of mmdet3d, too. Needs nuscenes-devkit, which comes with the extra
    ``mmdet3d``.

    Args:
        classes: Classes that are reported.
        prefix: Prefix of the names of all figures.

    Raises:
        EvaluationError: If nuscenes-devkit is missing; by ``process``, if a sample has no boxes; by
            ``evaluate``, if there is no agent of any class.
    """

    default_prefix = "detection"

    def __init__(self, classes: Sequence[str] = ("vehicle", "pedestrian"), prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        if not classes or (unknown := set(classes).difference(AGENT_CLASSES)):
            raise ValueError(
                f"DetectionMetric: classes must be some of {', '.join(AGENT_CLASSES)}, got "
                f"{sorted(unknown) if classes else 'none'}"
            )
        _evaluator()
        self.classes = tuple(classes)

    @property
    def figures(self) -> list[str]:
        """Names of the figures that it can give, for whoever selects checkpoints by one."""
        names = [f"{name}_{kind}" for kind in self.classes for name in ("AP", *ERRORS)]
        return [f"{self.prefix}/{name}" for name in ("mAP", *names, "num_scenes")]

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the boxes of a batch, of planners or of detectors of mmdet3d."""
        self.results += [
            _of_detector(sample) if "pred_instances_3d" in sample else _of_planner(sample)
            for sample in data_samples
        ]

    def evaluate(self, size: int) -> dict[str, float]:
        """Compare what was collected, on all ranks, and return the figures.

        Args:
            size: Scenes in the data set.
        """
        found: list[SceneBoxes] = list(self.results)
        self.results.clear()
        if get_world_size() > 1:
            found = [scene for part in all_gather_object(found) for scene in part]
        scenes = {scene.token: scene for scene in found}  # (a sampler may repeat some)
        metrics = self.compute_metrics([scenes[token] for token in sorted(scenes)])
        return {f"{self.prefix}/{name}": value for name, value in metrics.items()}

    def compute_metrics(self, results: list[SceneBoxes]) -> dict[str, float]:
        """Return the figures of these scenes."""
        accumulate, calc_ap, calc_tp, center_distance = _evaluator()
        true, found = _eval_boxes(results, of_truth=True), _eval_boxes(results, of_truth=False)
        metrics: dict[str, float] = {}
        precisions = []
        for kind in self.classes:
            label = AGENT_CLASSES.index(kind)
            if not any((scene.true_labels == label).any() for scene in results):
                continue
            curves = {
                distance: accumulate(true, found, _NAMES[kind], center_distance, distance)
                for distance in DISTANCES
            }
            precision = np.mean([calc_ap(curve, MIN_RECALL, MIN_PRECISION) for curve in curves.values()])
            precisions.append(precision)
            metrics[f"AP_{kind}"] = 100.0 * float(precision)
            for name, error in ERRORS.items():
                metrics[f"{name}_{kind}"] = float(calc_tp(curves[ERROR_DISTANCE], MIN_RECALL, error))
        if not precisions:
            raise EvaluationError(
                f"DetectionMetric: none of {len(results)} scenes has an agent of {', '.join(self.classes)}"
            )
        return {"mAP": 100.0 * float(np.mean(precisions)), **metrics, "num_scenes": float(len(results))}


def _of_planner(sample: Mapping[str, Any]) -> SceneBoxes:
    for element, maker in (
        ("pred", "give the planner a detection_head"),
        ("gt", "add AgentBoxTargets to the feature pipeline and rebuild the feature cache"),
    ):
        if "boxes" not in sample.get(element, ()):
            raise EvaluationError(f"DetectionMetric: scene {sample['token']} has no {element}.boxes: {maker}")
    gt, pred = sample["gt"], sample["pred"]
    seen = np.ones(len(gt["boxes"]), bool)
    if "box_points" in gt:
        seen = gt["box_points"].cpu().numpy() > 0
    true = [gt[name].cpu().numpy()[seen] for name in ("boxes", "box_labels")]
    found = [pred[name].cpu().numpy() for name in ("boxes", "box_scores", "box_labels")]
    return SceneBoxes(sample["token"], *true, *found)


def _of_detector(sample: Mapping[str, Any]) -> SceneBoxes:
    """Of mmdet3d, whose data set has left out agents without points; boxes may lack a velocity."""
    token = str(sample.get("token", sample.get("sample_idx")))
    truth = sample.get("eval_ann_info")
    if not truth:
        raise EvaluationError(
            f"DetectionMetric: scene {token} has no eval_ann_info: set test_mode=True on the data set, or "
            f"add AgentBoxTargets to the feature pipeline"
        )
    found = sample["pred_instances_3d"]
    return SceneBoxes(
        token,
        from_lidar_boxes(truth["gt_bboxes_3d"]).cpu().numpy(),
        np.asarray(truth["gt_labels_3d"]),
        from_lidar_boxes(found["bboxes_3d"]).cpu().numpy(),
        found["scores_3d"].cpu().numpy(),
        found["labels_3d"].cpu().numpy(),
    )


def _evaluator() -> tuple[Any, Any, Any, Any]:
    """Functions of nuScenes: ``accumulate``, ``calc_ap``, ``calc_tp`` and ``center_distance``."""
    try:
        from nuscenes.eval.common.utils import center_distance
        from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
    except ImportError as error:
        raise EvaluationError(
            f"DetectionMetric needs nuscenes-devkit ({error}): make mmdet3d, or pip install "
            f"'beyonddrive[mmdet3d]' (docs/mmdet3d.md); or leave the metric out of the evaluator"
        ) from error
    return accumulate, calc_ap, calc_tp, center_distance


def _eval_boxes(scenes: Sequence[SceneBoxes], of_truth: bool) -> Any:
    """Boxes of all scenes as nuScenes compares them; it never looks at more than one scene at a time."""
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    gathered = EvalBoxes()
    for scene in scenes:
        boxes = scene.true if of_truth else scene.found
        labels = scene.true_labels if of_truth else scene.labels
        scores = np.full(len(boxes), -1.0) if of_truth else scene.scores
        rows = zip(boxes.astype(float), labels, scores, strict=True)
        named = [
            DetectionBox(
                sample_token=scene.token,
                translation=tuple(box[:3]),
                size=tuple(box[[4, 3, 5]]),  # width, length, height
                rotation=(np.cos(box[6] / 2), 0.0, 0.0, np.sin(box[6] / 2)),
                velocity=tuple(box[7:9]),
                detection_name=_NAMES[AGENT_CLASSES[label]],
                detection_score=float(score),
            )
            for box, label, score in rows
        ]
        gathered.add_boxes(scene.token, named)
    return gathered
