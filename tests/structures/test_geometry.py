"""Frames, angles and boxes."""

import numpy as np
import pytest

from beyonddrive.structures.boxes import (
    EGO_LENGTH,
    EGO_REAR_AXLE_TO_CENTER,
    EGO_WIDTH,
    box_corners,
    ego_corners,
)
from beyonddrive.structures.se2 import rotate, to_global, to_local, wrap_angle


def test_frames_are_inverse_of_each_other():
    rng = np.random.default_rng(0)
    origin = rng.normal(size=3) * [1e5, 1e6, 2]
    poses = rng.normal(size=(5, 8, 3)) * [20, 20, 1]
    there_and_back = to_local(to_global(poses, origin), origin)
    np.testing.assert_allclose(there_and_back[..., :2], poses[..., :2], atol=1e-8)
    np.testing.assert_allclose(wrap_angle(there_and_back[..., 2] - poses[..., 2]), 0, atol=1e-12)


def test_points_carry_no_heading():
    assert to_global(np.zeros((4, 2)), [1.0, 2.0, 0.3]).tolist() == [[1.0, 2.0]] * 4


def test_a_quarter_turn():
    np.testing.assert_allclose(rotate([1.0, 0.0], np.pi / 2), [0.0, 1.0], atol=1e-15)


@pytest.mark.parametrize(
    ("angle", "wrapped"), [(0, 0), (2 * np.pi, 0), (np.pi, np.pi), (-3.5, 2 * np.pi - 3.5)]
)
def test_wrap(angle, wrapped):
    assert wrap_angle(angle) == pytest.approx(wrapped, abs=1e-12)


def test_corner_order_follows_the_heading():
    corners = box_corners([1.0, 2.0], np.pi / 2, 4.0, 2.0)
    np.testing.assert_allclose(corners, [[0, 4], [0, 0], [2, 0], [2, 4]], atol=1e-12)


def test_the_ego_box_reaches_further_ahead_of_the_rear_axle_than_behind():
    corners = ego_corners(np.zeros((3, 3)))
    assert corners.shape == (3, 4, 2)
    assert (
        corners[0, :, 0].max()
        == pytest.approx(EGO_REAR_AXLE_TO_CENTER + EGO_LENGTH / 2)
        == pytest.approx(4.049)
    )
    assert corners[0, :, 0].min() == pytest.approx(-1.127)
    assert np.ptp(corners[0, :, 1]) == pytest.approx(EGO_WIDTH)
