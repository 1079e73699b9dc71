"""Distances of plans and of the nearest failures from the expert."""

import numpy as np

from beyonddrive.results.effect import errors


def test_distances_are_means_over_positions():
    plans = np.zeros((2, 8, 3))
    plans[0, :, :2] = 3.0, 4.0
    plans[1, 4:, 1] = 2.0
    plans[:, :, 2] = 1.0  # (headings do not count)
    assert errors.distances(plans, np.zeros((2, 8, 3))).tolist() == [5.0, 1.0]


def test_a_row_is_compared_with_the_failures():
    cells = errors.cells_of(np.array([1.0, 2.0, 3.0, 2.0]), np.array([4.0, 4.0, 2.0, 6.0]))
    assert cells == {"scenes": "4", "distance": "2.00", "ratio": "0.50", "nearer than the failure": "75.0"}
