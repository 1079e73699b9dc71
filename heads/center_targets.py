"""What a centre-based detector learns (CenterPoint, arXiv:2006.11275): centres, and a box at each.

The numbers are those of mmdet3d's ``CenterHead.get_targets``. That draws box by box, with a dozen small
copies and a wait for the device each; here a batch is drawn at once, and the host waits for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

TARGET_DIM = 10
"""Values of a box: offset x y within the cell, height of the centre [m], logarithms of length, width and
height [m], sine and cosine of the heading, velocity x y [m/s]."""


@dataclass(frozen=True)
class CenterMap:
    """The ground as the detector sees it.

    Attributes:
        size: Rows (along x) and columns (along y).
        lower: x and y of its first corner [m].
        cell: Extent of a cell along x and y [m].
        min_radius: Least radius of a drawn centre [cells].
        overlap: Overlap with the true box that a box within the radius still has.
    """

    size: tuple[int, int]
    lower: tuple[float, float]
    cell: tuple[float, float]
    min_radius: int
    overlap: float


@dataclass(frozen=True)
class CenterTargets:
    """Targets of B scenes with at most N boxes each.

    Attributes:
        values: (B, N, 10) boxes, see :data:`TARGET_DIM`.
        cells: (B, N) int64, ``column * rows + row``: place in a map (..., y, x) that is flattened.
        labels: (B, N) int64 classes; -1 where there is no box, or its centre is outside of the map.
        bells_x, bells_y: (B, N, rows) and (B, N, columns): the bell of a centre is their product.
    """

    values: Tensor
    cells: Tensor
    labels: Tensor
    bells_x: Tensor
    bells_y: Tensor

    def heatmaps(self, num_classes: int) -> Tensor:
        """(B, classes, columns, rows): 1 at centres, falling off around them; the largest counts."""
        classes = torch.arange(num_classes, device=self.labels.device)
        bells_y = self.bells_y[:, :, None] * (self.labels[..., None] == classes)[..., None]
        maps = bells_y.new_zeros(len(bells_y), num_classes, bells_y.shape[-1], self.bells_x.shape[-1])
        bell = torch.empty_like(maps)
        # One box of each scene at a time: the bells of all of them would be larger than any other map here.
        for y, x in zip(bells_y.unbind(1), self.bells_x.unbind(1), strict=True):
            torch.mul(y[..., :, None], x[:, None, None, :], out=bell)
            torch.maximum(maps, bell, out=maps)
        return maps


@torch.no_grad()
def center_targets(boxes: Sequence[Tensor], labels: Sequence[Tensor], ground: CenterMap) -> CenterTargets:
    """Targets of a batch.

    Args:
        boxes: Per scene (n, 9), see :mod:`beyonddrive.structures.agent_boxes`.
        labels: Per scene (n,) classes; negative: not a target.
        ground: The map.
    """
    box = pad_sequence(list(boxes), batch_first=True)
    label = pad_sequence([each.long() for each in labels], batch_first=True, padding_value=-1)
    if box.shape[1] == 0:  # one box that is none, so that nothing has to be said of empty maps
        box, label = box.new_ones(len(box), 1, 9), label.new_full((len(label), 1), -1)
    cell = box.new_tensor(ground.cell)
    place = (box[..., :2] - box.new_tensor(ground.lower)) / cell
    index = place.int()  # (towards zero, as mmdet3d does: half a cell outside counts as the first cell)
    size = torch.tensor(ground.size, device=box.device)
    inside = ((index >= 0) & (index < size)).all(dim=-1) & (box[..., 3:5] > 0).all(dim=-1)
    label = label.where(inside, -1)
    index = index.clamp(min=0).minimum(size - 1)
    radius = _radius(box[..., 4] / cell[1], box[..., 3] / cell[0], ground.overlap)
    radius = radius.int().clamp(min=ground.min_radius)
    values = torch.cat(
        [
            place - index,
            box[..., 2:3],
            box[..., 3:6].log(),
            box[..., 6:7].sin(),
            box[..., 6:7].cos(),
            box[..., 7:9],
        ],
        dim=-1,
    )
    return CenterTargets(
        torch.where((label >= 0)[..., None], values, 0.0),
        index[..., 1].long() * ground.size[0] + index[..., 0].long(),
        label,
        *(_bells(index[..., axis], radius, ground.size[axis]) for axis in (0, 1)),
    )


def _radius(width: Tensor, length: Tensor, overlap: float) -> Tensor:
    """Radius [cells] within which a box of the same size still overlaps that much.

    The least of three cases (CornerNet, arXiv:1808.01244), each the larger root of a quadratic equation,
    divided by 2 and not by twice its first coefficient, as detectors have it since.
    """
    total, area = width + length, width * length
    cases = (
        (1.0, total, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * total, area * (1 - overlap)),
        (4 * overlap, -2 * overlap * total, area * (overlap - 1)),
    )
    roots = [(b + (b * b - 4 * a * c).sqrt()) / 2 for a, b, c in cases]
    return torch.stack(roots).amin(dim=0)


def _bells(center: Tensor, radius: Tensor, size: int) -> Tensor:
    """(B, N, size): a bell of a sixth of its diameter along one axis, cut at the radius."""
    distance = (torch.arange(size, device=center.device) - center[..., None]).abs()
    sigma = (2 * radius[..., None] + 1) / 6
    return torch.exp(-(distance**2) / (2 * sigma**2)).where(distance <= radius[..., None], 0.0)
