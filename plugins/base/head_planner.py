"""Planners made of an encoder and heads; :class:`SensorPlanner` has a sensor backbone for an encoder."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from beyonddrive.heads.base import TrajectoryHead
from beyonddrive.losses.repulsive import RepulsiveDistanceLoss
from beyonddrive.plugins.base.planner import Inputs, Planner
from beyonddrive.registry import MODELS
from beyonddrive.structures.calibration import PlanCalibration
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import PlanOutput, SceneTokens


class HeadPlanner(Planner):
    """A planner made of an encoder, a trajectory head, and auxiliary heads.

    Subclasses implement :meth:`encode`.

    Attributes:
        head_type: What the trajectory head must be, wrappers aside.
        config_parts: Keys of those arguments that are mappings without a ``type``.
        config_taken: Keys of arguments that are not for the class that their ``type`` names.

    Args:
        trajectory_head: Settings of a :class:`TrajectoryHead`.
        agent_head: Settings of an auxiliary agent head, or None.
        bev_head: Settings of an auxiliary bird's-eye-view head, or None.
        detection_head: Settings of an auxiliary detector of agents, such as :class:`CenterPointHead`, or
            None.
        repulsion: Settings of the repulsion from hard negatives, which make a BeyondDrive planner of it:
            those of :class:`RepulsiveDistanceLoss`, and ``mode_loss`` as for :class:`RepulsiveHead`, which
            then wraps the trajectory head. None for none. Checkpoints have the same keys either way.
        calibration: Settings of a :class:`PlanCalibration` of what is planned; training does not see it. None
            for none.
        data_preprocessor: Settings of the preprocessor; :class:`PlannerDataPreprocessor` by default.
        init_cfg: Initialisation as mmengine understands it.

    Raises:
        ValueError: If the trajectory head is of another type, or is to be repelled twice.
    """

    head_type: ClassVar[type[TrajectoryHead]] = TrajectoryHead
    config_parts: ClassVar[Mapping[str, Collection[str]]] = {
        "repulsion": (*inspect.signature(RepulsiveDistanceLoss).parameters, "mode_loss"),
        "calibration": tuple(inspect.signature(PlanCalibration).parameters),
    }
    config_taken: ClassVar[Mapping[str, Collection[str]]] = {"repulsion": ("mode_loss",)}

    def __init__(
        self,
        trajectory_head: dict[str, Any],
        agent_head: dict[str, Any] | None = None,
        bev_head: dict[str, Any] | None = None,
        detection_head: dict[str, Any] | None = None,
        repulsion: dict[str, Any] | None = None,
        calibration: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if repulsion is not None:
            loss = {key: value for key, value in repulsion.items() if key != "mode_loss"}
            trajectory_head = {
                "type": "RepulsiveHead",
                "head": trajectory_head,
                "loss": loss,
                "mode_loss": repulsion.get("mode_loss"),
            }
        self.trajectory_head: TrajectoryHead = MODELS.build(trajectory_head)
        bare = getattr(self.trajectory_head, "bare", self.trajectory_head)
        if not isinstance(bare, self.head_type):
            raise ValueError(
                f"{type(self).__name__}: trajectory_head must be a {self.head_type.__name__}, got "
                f"{type(bare).__name__}"
            )
        self.calibration = None if calibration is None else PlanCalibration(**calibration)
        self.agent_head = None if agent_head is None else MODELS.build(agent_head)
        self.bev_head = None if bev_head is None else MODELS.build(bev_head)
        self.detection_head = None if detection_head is None else MODELS.build(detection_head)

    @abstractmethod
    def encode(self, inputs: Inputs) -> SceneTokens:
        """Tokens of a batch."""

    def encode_to_plan(self, inputs: Inputs) -> SceneTokens:
        """Tokens of a batch that is only planned: what auxiliary heads alone read may be left out."""
        return self.encode(inputs)

    def tensors(self, inputs: Inputs) -> dict[str, Tensor]:
        """Raw outputs of all heads by name."""
        tokens = self.encode(inputs)
        named = self.trajectory_head.tensors(self.calibrated(self.plan_from(tokens, inputs)))
        for head in (self.agent_head, self.bev_head, self.detection_head):
            if head is not None:
                named.update(head(tokens))
        return named

    def loss(self, inputs: Inputs, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """Terms of all heads."""
        tokens = self.encode(inputs)
        output = self.trajectory_head.training_output(tokens, samples)
        losses = self.trajectory_head.loss(output, samples)
        for head in (self.agent_head, self.bev_head, self.detection_head):
            if head is not None:
                losses.update(head.loss(tokens, samples))
        return losses

    def plan(self, inputs: Inputs, samples: Sequence[PlanSample] | None = None) -> PlanOutput:
        """Plans of the trajectory head, and what the detection head finds."""
        tokens = self.encode_to_plan(inputs)
        output = self.calibrated(self.plan_from(tokens, inputs, samples))
        if self.detection_head is not None:
            output.detections = self.detection_head.detect(tokens)
        return output

    def plan_from(
        self, tokens: SceneTokens, inputs: Inputs, samples: Sequence[PlanSample] | None = None
    ) -> PlanOutput:
        """Plans of scenes that have been encoded."""
        return self.trajectory_head(tokens)

    def calibrated(self, output: PlanOutput) -> PlanOutput:
        """Plans as they leave the planner."""
        return output if self.calibration is None else self.calibration.of_output(output)


class SensorPlanner(HeadPlanner):
    """A head planner on a sensor backbone and a query decoder.

    Args:
        backbone: Settings of the backbone, a :class:`TransFuserBackbone` by default.
        decoder: Settings of the decoder, a :class:`QueryDecoder` by default; its channels and sizes are taken
            from the backbone unless given.
        kwargs: As for :class:`HeadPlanner`.

    Raises:
        ValueError: As :class:`HeadPlanner`; if the detection head takes its map for that of other ground than
            the backbone's.
    """

    def __init__(self, backbone: dict[str, Any], decoder: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backbone = MODELS.build({"type": "TransFuserBackbone", **backbone})
        size = {
            "in_channels": self.backbone.out_channels,
            "bev_size": self.backbone.out_size,
        }
        self.decoder = MODELS.build({"type": "QueryDecoder", **size, **decoder})
        self._check_ground()
        if not self.backbone.latent:
            self.required_inputs = ("camera", self.backbone.lidar_input, "status")

    def _check_ground(self) -> None:
        taken, ground = getattr(self.detection_head, "covers", None), getattr(self.backbone, "ground", None)
        if taken is not None and ground is not None and tuple(taken) != tuple(ground):
            raise ValueError(
                f"{type(self).__name__}: detection_head.map_range covers {tuple(taken)} (x, y from, x, y to "
                f"[m]), the map of backbone.pillars.point_range {tuple(ground)}: make them agree"
            )

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Ego status, and what the backbone takes."""
        camera = (self.backbone.image_encoder.in_channels, *self.backbone.image_size)
        lidar = (self.backbone.lidar_channels, *self.backbone.bev_size)
        return {**super().input_shapes(), "camera": camera, "lidar": lidar}

    def encode(self, inputs: Inputs) -> SceneTokens:
        """Backbone, then decoder."""
        features = self.backbone(inputs["camera"], inputs.get(self.backbone.lidar_input))
        return self.decoder(features, inputs["status"])
