"""Bands around lines and distances of rings, against GEOS."""

import numpy as np
import pytest
import shapely

from beyonddrive.evaluation.pdm.kernels.bands import band_ring, ring_capacity
from beyonddrive.evaluation.pdm.kernels.rings import box_ring, ring_distance, rings_touch

FAR = np.array([664000.0, 3998000.0])
"""Maps are in metres of a UTM zone."""


def line(rng, turn, step, around=(0.0, 0.0)):
    count = rng.integers(2, 20)
    heading = rng.uniform(-3, 3) + turn * np.cumsum(rng.normal(size=count))
    steps = np.column_stack([np.cos(heading), np.sin(heading)]) * step * rng.uniform(0.3, 2.0, (count, 1))
    return FAR + around + np.cumsum(steps, axis=0)


def band(xy, half):
    heading = np.arctan2(*np.diff(xy, axis=0).T[::-1])
    ring = np.empty((ring_capacity(len(xy), np.abs(np.diff(np.unwrap(heading))).sum()), 2))
    geos = shapely.buffer(shapely.LineString(xy), half, quad_segs=16, cap_style="flat", join_style="round")
    return ring[: band_ring(xy, half, ring)].copy(), geos


@pytest.mark.parametrize("turn, step", [(0.0, 1.0), (0.01, 1.0), (0.1, 1.0), (0.05, 0.02), (0.6, 2.0)])
def test_a_band_has_the_outline_of_geos(turn, step):
    rng, compared = np.random.default_rng(0), 0
    for _ in range(100):
        ring, geos = band(line(rng, turn, step), rng.uniform(0.4, 1.4))
        shape = shapely.Polygon(ring)
        if shape.is_valid:  # (else the ring overlaps itself)
            assert shapely.hausdorff_distance(shape.exterior, geos.exterior) < 1e-6
            compared += 1
    assert compared > 10


def test_repeated_vertices_do_not_matter():
    xy = np.array([[0.0, 0.0], [0.0, 0.0], [5.0, 0.0], [5.0, 0.0], [9.0, 1.0]])
    assert np.array_equal(band(xy, 1.0)[0], band(xy[[0, 2, 4]], 1.0)[0])


@pytest.mark.parametrize("turn", [0.0, 0.1, 0.6, 2.0])
def test_distances_are_those_of_geos(turn):
    rng, touching = np.random.default_rng(1), 0
    for _ in range(200):
        a, geos_a = band(line(rng, turn, 1.0), rng.uniform(0.4, 1.4))
        b, geos_b = band(line(rng, turn, 1.0, rng.normal(0, 6, 2)), rng.uniform(0.4, 1.4))
        expected = shapely.distance(geos_a, geos_b)
        assert ring_distance(a, b, np.inf) == pytest.approx(expected, abs=1e-8)
        assert ring_distance(a, b, 0.5) == pytest.approx(min(expected, 0.5), abs=1e-8)
        assert rings_touch(a, b) == (expected == 0.0)
        touching += expected == 0.0
    assert 0 < touching < 200


def test_a_box_inside_another_touches_it():
    outer, inner = np.empty((4, 2)), np.empty((4, 2))
    box_ring(np.array([3.0, 1.0, 0.4]), 5.0, 2.0, outer)
    box_ring(np.array([3.0, 1.0, 0.2]), 1.0, 0.5, inner)
    assert ring_distance(outer, inner, np.inf) == ring_distance(inner, outer, np.inf) == 0.0
