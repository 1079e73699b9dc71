"""Targets of a centre-based detector: those of mmdet3d, for all boxes of a batch at once."""

import math

import pytest
import torch
from mmengine.structures import InstanceData

from beyonddrive.heads.center_targets import CenterMap, center_targets

GROUND = CenterMap((32, 48), (-32.0, -24.0), (2.0, 1.0), 2, 0.1)


def boxes_of(count, seed):
    """Boxes in and around the map, from children to lorries; the last is flat."""
    rng = torch.Generator().manual_seed(seed)
    centers = torch.rand(count, 3, generator=rng) * torch.tensor([70.0, 52.0, 2.0]) - torch.tensor(
        [35.0, 26.0, 1.0]
    )
    sizes = 0.3 + torch.rand(count, 3, generator=rng) ** 2 * torch.tensor([14.0, 3.0, 3.0])
    sizes[-1, 0] = 0.0
    rest = torch.randn(count, 3, generator=rng)
    return torch.cat([centers, sizes, rest], dim=1), torch.randint(0, 3, (count,), generator=rng)


def test_a_box_is_in_its_cell_and_bells_meet_in_the_larger():
    box = torch.tensor([[3.0, -1.25, 0.5, 4.0, 2.0, 1.5, math.pi / 2, 3.0, -1.0]])
    near = box + torch.tensor([4.0, 0, 0, 0, 0, 0, 0, 0, 0])
    targets = center_targets(
        [torch.cat([box, near]), box[:0]], [torch.tensor([1, 1]), torch.tensor([])], GROUND
    )
    row, column = 17, 22
    assert targets.cells[0].tolist() == [column * 32 + row, column * 32 + row + 2]
    wanted = [0.5, 0.75, 0.5, math.log(4), math.log(2), math.log(1.5), 1.0, 0.0, 3.0, -1.0]
    assert targets.values[0, 0].tolist() == pytest.approx(wanted, abs=1e-6)
    assert targets.labels.tolist() == [[1, 1], [-1, -1]]
    heat = targets.heatmaps(2)[:, 1]
    assert heat.shape == (2, 48, 32) and heat[0, column, row] == heat[0, column, row + 2] == 1
    bell = math.exp(-1 / (2 * (5 / 6) ** 2))
    assert heat[0, column, [row - 1, row + 1]].tolist() == pytest.approx([bell, bell])
    assert heat[0, column, row + 5] == 0 and not heat[1].any() and not targets.heatmaps(1).any()


def test_scenes_without_boxes_have_empty_maps():
    none = torch.zeros(0, 9)
    targets = center_targets([none, none], [none[:, 0].long()] * 2, GROUND)
    assert not targets.heatmaps(2).any() and (targets.labels == -1).all() and targets.values.isfinite().all()


@pytest.mark.mmdet3d
@pytest.mark.parametrize("seed", range(5))
def test_they_are_those_of_mmdet3d(mmdet3d, seed):
    from beyonddrive.heads.center_point import CenterPointHead
    from beyonddrive.openmmlab import to_lidar_boxes

    (x, y), (dx, dy) = GROUND.lower, GROUND.cell
    reach = (x, y, -2.0, x + 32 * dx, y + 48 * dy, 6.0)
    head = CenterPointHead(4, GROUND.size, map_range=reach).head
    scenes = [boxes_of(count, 10 * seed + count) for count in (40, 1, 7)]
    instances = [InstanceData(bboxes_3d=to_lidar_boxes(b), labels_3d=labels) for b, labels in scenes]
    heatmaps, values, cells, masks = head.get_targets(instances)
    ours = center_targets([b for b, _ in scenes], [labels for _, labels in scenes], GROUND)
    maps, counted = ours.heatmaps(3), 0
    for label, (heatmap, value, cell, mask) in enumerate(zip(heatmaps, values, cells, masks, strict=True)):
        torch.testing.assert_close(maps[:, label], heatmap[:, 0], rtol=0, atol=1e-6)
        assert maps[:, label].eq(1).equal(heatmap[:, 0].eq(1))
        for scene in range(len(scenes)):
            chosen, theirs = ours.labels[scene] == label, mask[scene].bool()
            assert ours.cells[scene][chosen].equal(cell[scene][theirs])
            torch.testing.assert_close(ours.values[scene][chosen], value[scene][theirs], rtol=1e-6, atol=1e-6)
            counted += int(chosen.sum())
    assert 20 < counted < 48
