"""Boxes as mmdet3d has them: the same frame, another origin of the box."""

import numpy as np
import pytest
import torch

from beyonddrive.openmmlab import from_lidar_boxes, to_lidar_boxes
from beyonddrive.structures.boxes import box_corners

pytestmark = pytest.mark.mmdet3d
BOXES = torch.tensor(
    [[10.0, 3.0, 0.8, 4.5, 1.9, 1.6, 0.6, 5.0, 1.0], [-4.0, -7.0, 0.9, 0.6, 0.7, 1.8, -2.5, 0.0, -1.2]]
)


def test_there_and_back():
    assert torch.allclose(from_lidar_boxes(to_lidar_boxes(BOXES)), BOXES, atol=1e-6)
    assert from_lidar_boxes(to_lidar_boxes(BOXES[:0])).shape == (0, 9)


def test_mmdet3d_sees_the_same_corners_above_the_same_ground():
    boxes = to_lidar_boxes(BOXES)
    corners = boxes.corners.numpy()  # (N, 8, 3)
    for row, (x, y, z, length, width, height, heading, *_) in enumerate(BOXES.numpy()):
        ours = box_corners(np.array([x, y]), heading, length, width)
        theirs = np.unique(np.round(corners[row, :, :2], 3), axis=0)
        assert np.allclose(np.sort(theirs, axis=0), np.sort(np.round(ours, 3), axis=0), atol=2e-3)
        assert corners[row, :, 2].min() == pytest.approx(z - height / 2, abs=1e-5)
        assert corners[row, :, 2].max() == pytest.approx(z + height / 2, abs=1e-5)
    assert boxes.tensor[:, 7:].equal(BOXES[:, 7:])


def test_points_are_in_the_same_boxes():
    from mmcv.ops import points_in_boxes_cpu

    from beyonddrive.datasets.transforms.agent_boxes import points_in_boxes

    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4000, 3, generator=generator) * torch.tensor([20.0, 14.0, 3.0]) - torch.tensor(
        [6, 8, 0]
    )
    theirs = points_in_boxes_cpu(points[None], to_lidar_boxes(BOXES).tensor[None, :, :7])[0].sum(0)
    assert points_in_boxes(points.numpy(), BOXES.numpy()).tolist() == theirs.tolist()
    assert theirs.min() > 3


def test_other_shapes_are_refused_and_no_velocity_is_nan():
    from mmdet3d.structures import LiDARInstance3DBoxes

    with pytest.raises(ValueError, match=r"boxes must be \(N, 9\), got \(2, 7\)"):
        to_lidar_boxes(BOXES[:, :7])
    still = from_lidar_boxes(LiDARInstance3DBoxes(BOXES[:, :7], origin=(0.5, 0.5, 0.5)))
    assert torch.allclose(still[:, :7], BOXES[:, :7], atol=1e-6) and still[:, 7:].isnan().all()
    with pytest.raises(ValueError, match="7 or 9 columns, got 8"):
        from_lidar_boxes(LiDARInstance3DBoxes(BOXES[:, :8], box_dim=8))
