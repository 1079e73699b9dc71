"""Convolutions and linear layers with their weights in the CPU's own layout, for exported planners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from beyonddrive.backbones.resnet import StagedResNet
from beyonddrive.deploy.cpu import winograd
from beyonddrive.heads.layers import EncoderLayer, RectifiedConv2d

MIN_WEIGHTS = 2**14
"""Linear layers with fewer weights take less time than the call."""

LINEAR = (nn.Linear, NonDynamicallyQuantizableLinear)
"""Linear layers that do nothing else, those inside ``nn.MultiheadAttention`` among them."""


class Layouts:
    """A weight in other layouts, each made when it is needed first."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()
        self._made: dict[str, Tensor] = {}

    def get(self, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
        """The weight as ``make`` turns it."""
        if name not in self._made:
            self._made[name] = make(self.weight)
        return self._made[name]

    def __getstate__(self) -> dict[str, Any]:
        # oneDNN's tensors can be neither copied nor pickled.
        return {"weight": self.weight, "_made": {}}


def _pack_matrix(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


class PackedLinear(nn.Linear):
    """A linear layer with its weight in oneDNN's layout and, in the same pass, a ReLU.

    ``weight`` and ``bias`` stay readable for code that uses them by itself.
    """

    def __init__(self, linear: nn.Linear, relu: bool = False) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias, self.relu = linear.weight, linear.bias, relu
        self._layouts = Layouts(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), rectified if made so."""
        packed = self._layouts.get("oneDNN", _pack_matrix)
        act = "relu" if self.relu else "none"
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, self.bias, act, [], "")
        return result


class PackedConv2d(nn.Conv2d):
    """A convolution by the fastest way for its size and, in the same pass, a sum and a ReLU.

    3x3 convolutions are computed by Winograd's algorithm, on maps on which that is faster; 1x1 convolutions
    as matrix products; all others by oneDNN with the weight in its layout. Layouts of the weight are made
    when they are needed first. ``weight`` and ``bias`` stay readable for code that uses them by itself.
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
        self._pointwise = self.kernel_size == (1, 1) and self._geometry == ([0, 0], [1, 1], [1, 1], 1)
        self._winograd = winograd.can_convolve(conv)
        self._layouts = Layouts(self.weight)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Convolve; add ``other``, if given; rectify, if made so."""
        filtering = winograd.best_filter(x, self) if self._winograd else None
        if filtering is not None:
            name = f"winograd{filtering.outputs}"
            kernels = self._layouts.get(name, lambda weight: winograd.transform_kernel(weight, filtering))
            bias = self._layouts.get("bias", self._bias_or_zeros)
            return winograd.convolve(x, kernels, bias, other, self.relu, self._geometry[0][0])
        if self._pointwise:
            return self._multiply(x, other)
        packed = self._layouts.get("oneDNN", self._pack_kernels)
        x = x.contiguous(memory_format=torch.channels_last)
        fixed = (packed, self.bias, *self._geometry)
        act = "relu" if self.relu else "none"
        convolve = torch.ops.mkldnn._convolution_pointwise
        result: Tensor
        if other is None:
            result = convolve(x, *fixed, act, [], "")
        else:
            result = convolve.binary(x, other, *fixed, "add", 1.0, act if self.relu else None, [], "")
        return result

    def _multiply(self, x: Tensor, other: Tensor | None) -> Tensor:
        """A 1x1 convolution."""
        packed = self._layouts.get("oneDNN", lambda weight: _pack_matrix(weight.flatten(1)))
        act = "relu" if self.relu and other is None else "none"
        cells = x.permute(0, 2, 3, 1).contiguous()
        result = torch.ops.mkldnn._linear_pointwise(cells, packed, self.bias, act, [], "").permute(0, 3, 1, 2)
        if other is None:
            return result
        result = result + other
        return result.relu_() if self.relu else result

    def _pack_kernels(self, weight: Tensor) -> Tensor:
        packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *self._geometry)
        return packed

    def _bias_or_zeros(self, weight: Tensor) -> Tensor:
        return weight.new_zeros(len(weight)) if self.bias is None else self.bias.detach()


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


def can_pack(planner: nn.Module) -> bool:
    """Whether oneDNN runs the planner's convolutions: float32 on a CPU that has it."""
    weights = list(planner.parameters())
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
    )


def pack(planner: nn.Module) -> None:
    """Replace the convolutions and linear layers of a planner whose batch norms are folded, in place."""
    _replace(planner, lambda module, name, child: PackedBasicBlock(child) if _is_plain(child) else None)
    _replace(planner, _packed_layer)


def _replace(planner: nn.Module, replacement: Any) -> None:
    for module in list(planner.modules()):
        for name, child in list(module.named_children()):
            new = replacement(module, name, child)
            if new is not None:
                setattr(module, name, new)


def _packed_layer(module: nn.Module, name: str, child: nn.Module) -> nn.Module | None:
    """What a layer becomes; the ReLU behind it becomes nothing."""
    relu = _followed_by_relu(module, name)
    packed: nn.Module
    if type(child) is RectifiedConv2d:
        return PackedConv2d(child, relu=True)
    if type(child) is nn.Conv2d and child.padding_mode == "zeros" and child.padding != "same":
        packed = PackedConv2d(child, relu is not None)
    elif isinstance(child, nn.Linear) and type(child) in LINEAR and child.weight.numel() >= MIN_WEIGHTS:
        packed = PackedLinear(child, relu is not None)
    else:
        return None
    if relu is not None:
        setattr(module, relu, nn.Identity())
    return packed


def _followed_by_relu(module: nn.Module, name: str) -> str | None:
    """Name of the ReLU that alone reads the layer ``name`` of a module; None if it is not certain."""
    if type(module) is nn.Sequential:
        names = list(module._modules)
        following: Sequence[str] = names[names.index(name) + 1 :]
    elif isinstance(module, StagedResNet) and name == "conv1":
        following = ("bn1", "act1")
    elif isinstance(module, (EncoderLayer, nn.TransformerDecoderLayer)) and name == "linear1":
        following = ("activation",)
    else:
        return None
    for other in following:
        layer = getattr(module, other)
        if isinstance(layer, nn.ReLU) or layer is F.relu:
            return other
        if not isinstance(layer, nn.Identity):
            return None
    return None


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
