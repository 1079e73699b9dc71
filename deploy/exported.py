"""Planners made ready for use: faster copies that only plan.

All changes are exact up to float32 rounding: batch norms are folded into the convolutions before them, layers
run with weights in the CPU's own layout, followed by their ReLU and residual sum in one pass over memory, 3x3
convolutions with fewer multiplications (:mod:`beyonddrive.deploy.cpu.packed`), images stay channels-last,
attention projects queries, keys and values at once, and what depends on weights alone (the bird's-eye-view
stem of a latent planner, the features of anchors and vocabularies) is computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from beyonddrive.backbones.fusion import SelfAttention
from beyonddrive.backbones.resnet import StagedResNet
from beyonddrive.deploy.cpu.packed import can_pack, pack
from beyonddrive.plugins.base.planner import Inputs, Planner
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.held import HoldsConstants
from beyonddrive.structures.sample import PlanSample


class ExportError(BeyondDriveError, ValueError):
    """A planner cannot be exported as asked; the message says what can be done."""


class ExportedPlanner(nn.Module):
    """A planner that only plans: same outputs, less time, no training.

    Args:
        planner: The planner; it is copied.
    """

    def __init__(self, planner: Planner) -> None:
        super().__init__()
        self.planner = freeze(planner)
        hold_constants(self.planner)
        _merge_attention(self.planner)
        if can_pack(self.planner):
            pack(self.planner)
        self._device_type = next((weight.device.type for weight in self.planner.parameters()), "cpu")
        self.eval()

    @torch.inference_mode()
    def forward(
        self, inputs: Inputs, data_samples: list[PlanSample] | None = None, mode: str = "tensor"
    ) -> dict[str, Tensor] | list[PlanSample]:
        """As :meth:`Planner.forward`, without mode ``'loss'``."""
        if mode == "loss":
            raise ExportError("an exported planner has no losses: train the planner that it was made from")
        if "camera" in inputs and inputs["camera"].dim() == 4:
            inputs = {**inputs, "camera": inputs["camera"].contiguous(memory_format=torch.channels_last)}
        # Packed weights are of float32.
        with torch.autocast(self._device_type, enabled=False):
            outputs: dict[str, Tensor] | list[PlanSample] = self.planner(inputs, data_samples, mode=mode)
        return outputs

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: weights are folded and packed.

        Raises:
            ExportError: Always.
        """
        raise ExportError(
            "an exported planner takes no other weights: load them into a planner and export it"
        )

    def _apply(self, fn: Any, recurse: bool = True) -> ExportedPlanner:
        """What ``to``, ``double`` and the like call."""
        for weight in self.parameters():
            changed = fn(weight)
            if (changed.dtype, changed.device) != (weight.dtype, weight.device):
                raise ExportError(
                    f"an exported planner stays what it is ({weight.dtype} on {weight.device}): move or cast "
                    f"the planner, then export it"
                )
        super()._apply(fn, recurse)
        return self

    def train(self, mode: bool = True) -> ExportedPlanner:
        """Stay in evaluation mode.

        Raises:
            ExportError: If training is asked for.
        """
        if mode:
            raise ExportError("an exported planner cannot be trained: train the one that it was made from")
        super().train(False)
        return self


def freeze(planner: Any) -> Any:
    """A copy in evaluation mode, without gradients, its batch norms folded."""
    frozen = copy.deepcopy(planner).eval().requires_grad_(False)
    for module in list(frozen.modules()):
        for norm, convolutions in _foldable(module):
            owner, name = convolutions
            folded = fuse_conv_bn_eval(getattr(owner, name), getattr(module, norm))
            setattr(owner, name, folded.requires_grad_(False))
            setattr(module, norm, nn.Identity())
    return frozen


def _foldable(module: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """Names of batch norms in a module, each with the convolution whose output alone it reads.

    A class that is derived from one of these may do more (an activation, other weights), or call its layers
    in another order: such layers stay as they are.
    """
    runs = type(module).forward
    if isinstance(module, nn.Sequential) and runs is nn.Sequential.forward:
        pairs = [(str(i), str(i + 1)) for i in range(len(module) - 1)]
    elif runs in (StagedResNet.forward, BasicBlock.forward):
        pairs = [("conv1", "bn1"), ("conv2", "bn2")]
    else:
        return
    for first, norm in pairs:
        owner, name = module, first
        stem = getattr(module, first, None)
        if isinstance(stem, nn.Sequential) and type(stem).forward is nn.Sequential.forward:
            owner, name = stem, str(len(stem) - 1)
        if type(getattr(owner, name, None)) is nn.Conv2d and _is_fixed_norm(getattr(module, norm, None)):
            yield norm, (owner, name)


def _is_fixed_norm(module: nn.Module | None) -> bool:
    """Whether a module is a batch norm that normalises by what it has learned, not by the batch."""
    return type(module) is nn.BatchNorm2d and module.running_mean is not None


@torch.no_grad()
def hold_constants(planner: nn.Module) -> None:
    """Compute once what no input changes."""
    for module in planner.modules():
        if isinstance(module, HoldsConstants):
            module.hold()


class MergedSelfAttention(nn.Module):
    """:class:`SelfAttention` in evaluation mode with one projection for queries, keys and values."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        parts = (attention.query, attention.key, attention.value)
        self.projection = nn.Linear(parts[0].in_features, 3 * parts[0].out_features, device="meta")
        self.projection.weight = _fixed([part.weight for part in parts])
        self.projection.bias = _fixed([part.bias for part in parts])
        self.num_heads, self.proj = attention.num_heads, attention.proj

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        projected = self.projection(x).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.proj(x.transpose(1, 2).flatten(-2))
        return attended


def _fixed(parts: list[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat(parts).detach(), requires_grad=False)


def _merge_attention(planner: nn.Module) -> None:
    for module in list(planner.modules()):
        for name, child in list(module.named_children()):
            if type(child) is SelfAttention:
                setattr(module, name, MergedSelfAttention(child))
