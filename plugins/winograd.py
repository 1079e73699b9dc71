"""3x3 convolutions by Winograd's minimal filtering: 2.25 times fewer multiplications, exact up to rounding.

F(2x2, 3x3): every 2x2 block of outputs is computed from a 4x4 block of inputs by additions, sixteen matrix
products over the channels, which all blocks share, and additions again. The transforms hold only 0, 1, -1 and
1/2, so that rounding errors are no larger than those of a direct convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_CHANNELS = 256
"""Below, the additions cost what the products save."""
MIN_BLOCKS = 64
"""Below, reading sixteen transformed kernels takes longer than a direct convolution."""
MAX_BLOCKS = 4096
"""Above, the sixteen products leave the processor's caches."""


def transform_kernel(weight: Tensor) -> Tensor:
    """Kernels (K, C, 3, 3) -> (16, C, K), for :func:`convolve`.

    >>> transform_kernel(torch.ones(2, 5, 3, 3)).shape
    torch.Size([16, 5, 2])
    """
    rows = torch.tensor(
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64, device=weight.device
    )
    turned = torch.einsum("ai,kcij,bj->abck", rows, weight.double(), rows)
    return turned.flatten(0, 1).to(weight.dtype).contiguous()


def is_worth_it(x: Tensor) -> bool:
    """Whether a map (B, C, H, W) has whole blocks, and as many as make the transforms pay."""
    batch, _, height, width = x.shape
    return height % 2 == 0 and width % 2 == 0 and MIN_BLOCKS <= batch * height * width // 4 <= MAX_BLOCKS


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve with a transformed 3x3 kernel, stride 1, padding 1.

    Args:
        x: (B, C, H, W) of even height and width, best channels-last.
        kernel: (16, C, K), from :func:`transform_kernel`.
        bias: (K,).

    Returns:
        (B, K, H, W), channels-last.
    """
    batch, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (B, H + 2, W + 2, C)
    size = (batch, height // 2, width // 2)
    rows = x.new_empty(4, batch, height // 2, width + 2, channels)
    first, second, third, fourth = (padded[:, i : i + height : 2] for i in range(4))
    torch.sub(first, third, out=rows[0])
    torch.add(second, third, out=rows[1])
    torch.sub(third, second, out=rows[2])
    torch.sub(second, fourth, out=rows[3])
    blocks = x.new_empty(4, 4, *size, channels)
    first, second, third, fourth = (rows[:, :, :, i : i + width : 2] for i in range(4))
    torch.sub(first, third, out=blocks[:, 0])
    torch.add(second, third, out=blocks[:, 1])
    torch.sub(third, second, out=blocks[:, 2])
    torch.sub(second, fourth, out=blocks[:, 3])
    product = torch.bmm(blocks.view(16, -1, channels), kernel).view(4, 4, *size, -1)
    halves = x.new_empty(2, *product.shape[1:])
    torch.add(product[0], product[1], out=halves[0]).add_(product[2])
    torch.sub(product[1], product[2], out=halves[1]).sub_(product[3])
    result = x.new_empty(batch, height // 2, 2, width // 2, 2, product.shape[-1])
    for row in range(2):
        half = halves[row]
        left, right = result[:, :, row, :, 0], result[:, :, row, :, 1]
        torch.add(half[0], half[1], out=left).add_(half[2])
        torch.sub(half[1], half[2], out=right).sub_(half[3])
    whole = result.view(batch, height, width, -1)
    if bias is not None:
        whole += bias
    return whole.permute(0, 3, 1, 2)
