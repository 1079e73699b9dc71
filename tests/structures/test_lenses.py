"""Lenses see nothing where their polynomials fold the world back into the image."""

import numpy as np

from beyonddrive.structures.lenses import FTheta, Pinhole


def seen(lens, angles):
    """Whether a lens sees rays so far [rad] to the right of its axis."""
    rays = np.stack([np.sin(angles), np.zeros(len(angles)), np.cos(angles)], axis=-1)
    return np.isfinite(lens.project(rays)).all(axis=-1).tolist()


def test_a_fisheye_sees_as_far_as_its_radius_grows():
    """Beyond 1.29 rad 500 (a - 0.2 a^3) falls: what is there would be shown where something else is."""
    lens = FTheta(960.0, 540.0, (0.0, 500.0, 0.0, -100.0), np.pi / 2)
    assert seen(lens, np.array([0.0, 1.0, 1.28, 1.3, 1.5])) == [True, True, True, False, False]
    assert seen(lens.scaled(0.5, 0.5), np.array([1.28, 1.3])) == [True, False]
    grows = FTheta(960.0, 540.0, (0.0, 500.0, 0.0, -20.0), 1.5)
    assert seen(grows, np.array([1.4, 1.49, 1.51])) == [True, True, False]


def test_a_pinhole_sees_as_far_as_its_radius_grows():
    lens = Pinhole(500.0, 500.0, 960.0, 540.0, (-1.0, 0.0, 0.0, 0.0, 0.0))
    limit = np.arctan(np.sqrt(1 / 3))
    assert seen(lens, np.array([limit - 0.01, limit + 0.01])) == [True, False]
