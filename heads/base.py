"""What every trajectory head offers, so that it can be trained, wrapped and read in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from beyonddrive.structures.delta import DeltaSpace
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import PlanOutput, SceneTokens
from beyonddrive.structures.transfers import to_device

Space = Literal["absolute", "delta"]


class TrajectoryHead(nn.Module):
    """Base of the heads that turn scene tokens into a plan.

    A head works in its own space: ``'absolute'`` poses (8, 3), or ``'delta'`` steps and heading vectors
    (8, 4). Losses, and the repulsion of a wrapping :class:`RepulsiveHead`, act in that space; a head that is
    to be wrapped sets ``attraction_weight``, and overrides ``supervised`` and ``modes`` where the defaults
    do not say what it does.

    Args:
        space: The head's own space.
        statistics: Arguments of :class:`DeltaSpace` in delta space; those of navtrain by default.

    Attributes:
        attraction_weight: Effective weight, in the total loss, of the mean L1 distance between the expert
            and each of the plans that ``supervised`` returns; a repulsion must be weaker. None if the head
            has no such term: it cannot be repelled then.
    """

    attraction_weight: float | None = None

    def __init__(self, space: Space = "absolute", statistics: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.space = space
        self.delta = DeltaSpace(**(statistics or {})) if space == "delta" else None

    @property
    def pose_dim(self) -> int:
        """Numbers per pose in the head's own space: 3 or 4."""
        return 3 if self.delta is None else self.delta.dim

    @property
    def trains_by_forward(self) -> bool:
        """Whether training calls ``forward``: compiling it, or keeping none of its activations, acts then."""
        return type(self).training_output is TrajectoryHead.training_output

    @property
    def bare(self) -> TrajectoryHead:
        """The head itself, without wrappers."""
        return self

    def forward(self, tokens: SceneTokens) -> PlanOutput:
        """Plan a batch, as at test time."""
        raise NotImplementedError

    def training_output(self, tokens: SceneTokens, samples: Sequence[PlanSample]) -> PlanOutput:
        """What ``loss`` and ``supervised`` read; heads whose training differs from planning override this."""
        return self(tokens)

    def loss(self, output: PlanOutput, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """Named loss terms of ``training_output``."""
        raise NotImplementedError

    def supervised(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor:
        """The plans that the attraction acts on, in the head's own space.

        Returns:
            (B, 8, D), or (B, L, 8, D) if the same attraction acts after each of L decoder layers; a
            repulsion is then summed over the layers, as the attraction is.
        """
        return output.encoded

    def modes(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor | None:
        """All modes (B, M, 8, D) of a multi-modal head in its own space, with gradient; None if it has one.

        Most modes are not pulled to any expert, so only a bounded repulsion may act on them.
        """
        return None

    def encode(self, plans: Tensor) -> Tensor:
        """Plans (..., 8, 3) in metres and radians -> the head's own space (..., 8, D)."""
        return plans if self.delta is None else self.delta.encode(plans)

    def decode(self, encoded: Tensor) -> Tensor:
        """The head's own space (..., 8, D) -> plans (..., 8, 3)."""
        return encoded if self.delta is None else self.delta.decode(encoded)

    def difference(self, plans: Tensor, others: Tensor) -> Tensor:
        """``plans - others`` (..., 8, D) in the head's own space, as its attraction takes it.

        A repulsion takes it alike: pull and push of a pose would otherwise point to different sides.
        """
        return plans - others

    def tensors(self, output: PlanOutput) -> dict[str, Tensor]:
        """Raw outputs under their public names, as ``planner(inputs, mode='tensor')`` returns them."""
        named = {"trajectory": output.trajectory}
        if self.space == "delta":
            named["delta_trajectory"] = output.encoded
        if output.proposals is not None:
            named["proposals"] = output.proposals
        if output.scores is not None:
            named["scores"] = output.scores
        return named

    def expert(self, samples: Sequence[PlanSample], like: Tensor) -> Tensor:
        """Expert plans (B, 8, D) of the samples in the head's own space, on the device of ``like``."""
        return self.encode(to_device(stack_field(samples, "gt", "trajectory"), like.device, torch.float32))


def draw_noise(
    batch: int, num_proposals: int, channels: int, generator: torch.Generator | None = None
) -> Tensor:
    """Standard-normal noise (batch, num_proposals, 8, channels), on the generator's device or the CPU."""
    device = torch.device("cpu") if generator is None else generator.device
    return torch.randn((batch, num_proposals, NUM_POSES, channels), generator=generator, device=device)


def as_poses(flat: Tensor, pose_dim: int) -> Tensor:
    """(..., 8 * D) network output, pose by pose -> (..., 8, D)."""
    return flat.unflatten(-1, (NUM_POSES, pose_dim))


def bound_heading(raw: Tensor) -> Tensor:
    """(..., 3) raw network output -> x [m], y [m], heading [rad] in (-pi, pi): ``pi * tanh``."""
    return torch.cat([raw[..., :2], torch.pi * raw[..., 2:3].tanh()], dim=-1)
