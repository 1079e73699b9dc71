"""The base class of planners: what a runner, a generator and an evaluation may rely on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from beyonddrive.backbones.query_decoder import STATUS_DIM
from beyonddrive.plugins.base.preprocessor import PlannerInputError
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import NUM_POSES, PlanError
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import PlanOutput
from beyonddrive.structures.transfers import LateChecks

Inputs = dict[str, Tensor]


class Planner(BaseModel):
    """A planner: sensors and ego status in, a plan of eight poses out.

    Inputs, by name: ``camera`` (B, 3, H, W) in [0, 1]; ``lidar`` (B, C, h, w) or ``points``, a list of B
    (N_i, 4) tensors; ``status`` (B, 8) [driving command one-hot 4 | vx vy m/s | ax ay m/s^2] (MODELS,
    section 1).

    Attributes:
        required_inputs: Names of the inputs that must be there.
    """

    required_inputs: tuple[str, ...] = ("camera", "status")

    def __init__(
        self, data_preprocessor: dict[str, Any] | None = None, init_cfg: dict[str, Any] | None = None
    ) -> None:
        # Built here because mmengine would look the name up in its own registry.
        super().__init__(MODELS.build(data_preprocessor or {"type": "PlannerDataPreprocessor"}), init_cfg)
        self._checks = LateChecks()

    def forward(
        self, inputs: Inputs, data_samples: list[PlanSample] | None = None, mode: str = "tensor"
    ) -> dict[str, Tensor] | list[PlanSample]:
        """Run a batch.

        Args:
            inputs: Batched float tensors, as the data preprocessor makes them.
            data_samples: Samples of the batch; needed for ``'loss'``, filled for ``'predict'``.
            mode: ``'tensor'``: dict of raw outputs (``trajectory`` and whatever else the planner has);
                ``'loss'``: dict of terms, of which those with ``loss`` in their name are summed;
                ``'predict'``: the samples, each with ``pred.trajectory`` (8, 3) and, if the planner has them,
                ``pred.proposals`` (M, 8, 3) and ``pred.scores`` (M,).

        Raises:
            PlannerInputError: If an input is missing or does not fit; one that holds NaN on a GPU is named
                at a later call, so that none waits.
            PlanError: If a predicted plan or proposal is not finite, or what is predicted has other shapes.
        """
        self._check_inputs(inputs, data_samples)
        if mode == "tensor":
            return self.tensors(inputs)
        if mode == "loss":
            if not data_samples:
                raise PlannerInputError("mode 'loss' needs data_samples with targets")
            return self.loss(inputs, data_samples)
        if mode == "predict":
            return self.predict(inputs, data_samples)
        raise ValueError(f"mode must be 'tensor', 'loss' or 'predict', got {mode!r}")

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of inputs by name, without the batch: what export and the count of operations make up.

        A planner that reads more than the ego status, and has no backbone that knows, adds its own.
        """
        return {"status": (STATUS_DIM,)}

    @abstractmethod
    def tensors(self, inputs: Inputs) -> dict[str, Tensor]:
        """Raw outputs by name: ``trajectory`` (B, 8, 3) [m, m, rad], and whatever else the planner has."""

    @abstractmethod
    def loss(self, inputs: Inputs, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """Named loss terms and figures to log, scalars: those with ``loss`` in their name are summed."""

    @abstractmethod
    def plan(self, inputs: Inputs, samples: Sequence[PlanSample] | None = None) -> PlanOutput:
        """Plans of a batch."""

    @torch.no_grad()
    def predict(self, inputs: Inputs, samples: list[PlanSample] | None = None) -> list[PlanSample]:
        """Fill ``pred`` of the samples, or of new ones; keeps no gradients."""
        output = self.plan(inputs, samples)
        self._check_output(output, None if samples is None else len(samples))
        if samples is None:
            samples = [PlanSample() for _ in output.trajectory]
        self._checks.finish()
        whole = torch.isfinite(output.trajectory).flatten(1).all(dim=1)
        if output.proposals is not None:
            whole = whole & torch.isfinite(output.proposals).flatten(1).all(dim=1)
        finite = whole.tolist()
        for row, sample in enumerate(samples):
            if not finite[row]:
                raise PlanError(
                    f"scene {sample.metainfo.get('token', '?')}: {type(self).__name__} predicts a plan with "
                    f"NaN or infinity: check its inputs and the weights of its checkpoint"
                )
            pred = BaseDataElement(trajectory=output.trajectory[row])
            if output.proposals is not None:
                pred.set_field(output.proposals[row], "proposals")
            if output.scores is not None:
                pred.set_field(output.scores[row], "scores")
            if output.detections is not None:
                pred.update(output.detections[row])
            sample.pred = pred
        return samples

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Total to minimise, and the figures to log: in distributed training their means over the ranks.

        Raises:
            ValueError: If none of the terms is to be minimised.
        """
        if not any("loss" in name for name in losses):
            raise ValueError(
                f"{type(self).__name__}: nothing to minimise: terms with 'loss' in their name are summed, "
                f"and its loss gives {sorted(losses)}"
            )
        total, figures = super().parse_losses(losses)
        if get_world_size() > 1:
            values = torch.stack([value.detach().float() for value in figures.values()])
            all_reduce(values, op="mean")
            figures = dict(zip(figures, values, strict=True))
        return total, figures

    def _check_output(self, output: PlanOutput, scenes: int | None) -> None:
        name = type(self).__name__
        if not isinstance(output, PlanOutput):
            raise PlanError(f"{name}: plan must give a PlanOutput, as its head does, got {_shown(output)}")
        count: int | str = "B" if scenes is None else scenes
        modes: int | str = "M"
        wanted: dict[str, tuple[int | str, ...]] = {"trajectory": (count, NUM_POSES, 3)}
        if output.proposals is not None:
            if isinstance(output.proposals, Tensor) and output.proposals.dim() > 1:
                modes = output.proposals.shape[1]
            wanted["proposals"] = (count, modes, NUM_POSES, 3)
        if output.scores is not None:
            wanted["scores"] = (count, modes)
        for key, shape in wanted.items():
            value = getattr(output, key)
            if not _has_shape(value, shape) or not value.is_floating_point():
                raise PlanError(
                    f"{name}: {key} of a batch must be a tensor of floats ({', '.join(map(str, shape))}), "
                    f"got {_shown(value)}: mend the planner's plan, or the forward of its trajectory head"
                )

    def _check_inputs(self, inputs: Inputs, samples: Sequence[PlanSample] | None) -> None:
        tokens = [str(sample.metainfo.get("token", "?")) for sample in samples or ()]
        scene = tokens[0] if tokens else "?"
        for name in self.required_inputs:
            if inputs.get(name) is None:
                raise PlannerInputError(
                    f"scene {scene}: {type(self).__name__} needs input {name!r}, the batch has "
                    f"{sorted(inputs)}: add it to the feature pipeline, rebuild the feature cache, and name "
                    f"an input of your own in input_keys of PackPlanInputs"
                )
        status = inputs.get("status")
        if status is not None and (status.dim() != 2 or status.shape[1] != STATUS_DIM):
            raise PlannerInputError(
                f"scene {scene}: input 'status' must be (B, {STATUS_DIM}) = [command 4 | vx vy | ax ay], got "
                f"{tuple(status.shape)}"
            )
        sizes = {name: len(inputs[name]) for name in self.required_inputs}
        if samples is not None:
            sizes["data_samples"] = len(samples)
        if len(set(sizes.values())) != 1:
            raise PlannerInputError(f"scene {scene}: batch sizes differ: {sizes}")
        for name in self.required_inputs:
            value = inputs[name]
            if isinstance(value, Tensor):
                # (a sum is finite if all are, and takes one pass over an image)
                rest = tuple(range(1, value.dim()))
                finite = (value.sum(dim=rest, dtype=torch.float32) if rest else value).isfinite()
                self._checks(finite.all(), partial(_not_finite, tokens, name, finite))


def _has_shape(value: object, wanted: Sequence[int | str]) -> bool:
    """Whether a value is a tensor of this shape, in which letters stand for any size."""
    return (
        isinstance(value, Tensor)
        and value.dim() == len(wanted)
        and all(isinstance(size, str) or size == own for size, own in zip(wanted, value.shape, strict=True))
    )


def _shown(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _not_finite(tokens: Sequence[str], name: str, finite: Tensor) -> PlannerInputError:
    row = finite.tolist().index(False)
    scene = tokens[row] if tokens else f"number {row} of the batch"
    return PlannerInputError(
        f"scene {scene}: input {name!r} holds NaN or infinity: remove the scene from the split or rebuild "
        f"its features"
    )
