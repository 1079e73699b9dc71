"""Planners made ready for use: :meth:`Planner.export`.

All changes are exact up to float32 rounding: batch norms are folded into the convolutions before them,
convolutions run with weights in the CPU's own layout, followed by their ReLU and residual sum in one pass
over memory, or with fewer multiplications (:mod:`beyonddrive.plugins.winograd`), images stay channels-last,
attention projects queries, keys and values at once, and the bird's-eye-view stem of a latent planner, which
sees no input, is computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from beyonddrive.backbones.fusion import SelfAttention
from beyonddrive.backbones.resnet import StagedResNet
from beyonddrive.backbones.transfuser import TransFuserBackbone
from beyonddrive.plugins import winograd
from beyonddrive.plugins.planner import Inputs, Planner
from beyonddrive.structures.sample import PlanSample


class ExportError(ValueError):
    """A planner cannot be exported as asked; the message says what can be done."""


class ExportedPlanner(nn.Module):
    """A planner that only plans: same outputs, less time, no training. Made by :meth:`Planner.export`.

    Args:
        planner: The planner; it is copied.
    """

    def __init__(self, planner: Planner) -> None:
        super().__init__()
        self.planner = freeze(planner)
        hold_latents(self.planner)
        _merge_attention(self.planner)
        if _can_pack(self.planner):
            _pack_convolutions(self.planner)
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
        outputs: dict[str, Tensor] | list[PlanSample] = self.planner(inputs, data_samples, mode=mode)
        return outputs

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
    """Names of batch norms in a module, each with the convolution whose output alone it reads."""
    if isinstance(module, nn.Sequential):
        pairs = [(str(i), str(i + 1)) for i in range(len(module) - 1)]
    elif isinstance(module, (StagedResNet, BasicBlock)):
        pairs = [("conv1", "bn1"), ("conv2", "bn2")]
    else:
        return
    for first, norm in pairs:
        owner, name = module, first
        if isinstance(getattr(module, first, None), nn.Sequential):  # a stem of several convolutions
            owner, name = getattr(module, first), str(len(getattr(module, first)) - 1)
        if isinstance(getattr(owner, name, None), nn.Conv2d) and isinstance(
            getattr(module, norm, None), nn.BatchNorm2d
        ):
            yield norm, (owner, name)


@torch.no_grad()
def hold_latents(planner: nn.Module) -> None:
    """Compute what a latent backbone makes of its latent alone, once."""
    for module in planner.modules():
        if isinstance(module, TransFuserBackbone) and module.latent:
            module.hold_latent()


class MergedSelfAttention(nn.Module):
    """:class:`SelfAttention` in evaluation mode with one projection for queries, keys and values."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        parts = (attention.query, attention.key, attention.value)
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.cat([part.weight for part in parts]).detach(), persistent=False)
        self.register_buffer("bias", torch.cat([part.bias for part in parts]).detach(), persistent=False)
        self.num_heads, self.proj = attention.num_heads, attention.proj

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        projected = F.linear(x, self.weight, self.bias).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.proj(x.transpose(1, 2).flatten(-2))
        return attended


def _merge_attention(planner: nn.Module) -> None:
    for module in list(planner.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SelfAttention):
                setattr(module, name, MergedSelfAttention(child))


class PackedConv2d(nn.Conv2d):
    """A convolution with its weight in oneDNN's layout and, in the same pass, a sum and a ReLU.

    A 3x3 convolution of many channels is computed by Winograd's algorithm, for maps on which that is faster.
    ``weight`` and ``bias`` stay readable for code that uses them by itself.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=False,
            device="meta",
        )
        self.weight, self.bias, self.relu = conv.weight, conv.bias, relu
        padding = [0, 0] if self.padding == "valid" else [int(size) for size in self.padding]
        self._geometry = (padding, list(self.stride), list(self.dilation), self.groups)
        self._packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
            conv.weight.detach().to_mkldnn(), *self._geometry
        )
        self._transformed: Tensor | None = None
        if (
            self._geometry == ([1, 1], [1, 1], [1, 1], 1)
            and self.kernel_size == (3, 3)
            and min(self.in_channels, self.out_channels) >= winograd.MIN_CHANNELS
        ):
            self._transformed = winograd.transform_kernel(conv.weight.detach())

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Convolve; add ``other``, if given; rectify, if made so."""
        result: Tensor
        if self._transformed is not None and winograd.is_worth_it(x):
            result = winograd.convolve(x, self._transformed, self.bias)
            if other is not None:
                result += other
            return result.relu_() if self.relu else result
        x = x.contiguous(memory_format=torch.channels_last)
        convolve = torch.ops.mkldnn._convolution_pointwise
        fixed = (self._packed, self.bias, *self._geometry)
        if other is None:
            result = convolve(x, *fixed, "relu" if self.relu else "none", [], "")
        else:
            act = "relu" if self.relu else None
            result = convolve.binary(x, other, *fixed, "add", 1.0, act, [], "")
        return result


class PackedBasicBlock(nn.Module):
    """timm's ``BasicBlock`` with folded batch norms, as two passes over memory."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1 = PackedConv2d(block.conv1, relu=True)
        self.conv2 = PackedConv2d(block.conv2, relu=True)
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.conv2(self.conv1(x), shortcut)
        return result


def _is_plain(block: nn.Module) -> bool:
    """Whether a block is nothing but two convolutions with folded norms, a shortcut and ReLUs."""
    return (
        type(block) is BasicBlock
        and isinstance(block.bn1, nn.Identity)
        and isinstance(block.bn2, nn.Identity)
        and isinstance(block.act1, nn.ReLU)
        and isinstance(block.act2, nn.ReLU)
        and isinstance(block.drop_block, nn.Identity)
        and isinstance(block.aa, nn.Identity)
        and block.se is None
        and block.drop_path is None
    )


def _can_pack(planner: nn.Module) -> bool:
    """Whether oneDNN runs the planner's convolutions: float32 on a CPU that has it."""
    weights = list(planner.parameters())
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
    )


def _pack_convolutions(planner: nn.Module) -> None:
    for module in list(planner.modules()):
        for name, child in list(module.named_children()):
            if _is_plain(child):
                setattr(module, name, PackedBasicBlock(child))  # type: ignore[arg-type]
    for module in list(planner.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv2d and child.padding_mode == "zeros" and child.padding != "same":
                relu = _followed_by_relu(module, name)
                setattr(module, name, PackedConv2d(child, relu is not None))
                if relu is not None:
                    setattr(module, relu, nn.Identity())


def _followed_by_relu(module: nn.Module, name: str) -> str | None:
    """Name of the ReLU that alone reads the convolution ``name`` of a module; None if it is not certain."""
    if isinstance(module, nn.Sequential):
        following: Sequence[str] = [str(i) for i in range(int(name) + 1, len(module))]
    elif isinstance(module, StagedResNet) and name == "conv1":
        following = ("bn1", "act1")
    else:
        return None
    for other in following:
        layer = getattr(module, other)
        if isinstance(layer, nn.ReLU):
            return other
        if not isinstance(layer, nn.Identity):
            return None
    return None
