"""Kernels against the dense or brute-force form of the rule they implement."""

from collections import deque

import numpy as np
import pytest
from scipy.signal import savgol_filter

from beyonddrive.evaluation.pdm.inputs.route import search
from beyonddrive.evaluation.pdm.kernels.comfort import savgol, savgol_bands
from beyonddrive.evaluation.pdm.kernels.plan_states import plan_stamps, sampling, wrap
from beyonddrive.evaluation.pdm.kernels.simulate import SPEED_MATRIX, curvature_profile, speed_profile

DT = 0.1


@pytest.mark.parametrize(
    ("window", "order", "derivative"), [(41, 2, 0), (8, 2, 0), (41, 2, 1), (5, 2, 1), (5, 3, 2), (15, 2, 1)]
)
@pytest.mark.parametrize("size", [41, 56])
def test_filters_are_savitzky_golay(window, order, derivative, size):
    rng = np.random.default_rng(window)
    signal = rng.normal(0, 3, size)
    expected = savgol_filter(signal, window, order, deriv=derivative, delta=DT)
    out = np.empty(size)
    savgol(savgol_bands(window, order, derivative), signal, out)
    np.testing.assert_allclose(out, np.round(expected, 8), rtol=0, atol=1.01e-8)
    np.testing.assert_array_equal(np.round(out, 8), out)


def test_angles_are_wrapped_as_by_sine_and_cosine():
    angles = np.concatenate([np.linspace(-20, 20, 4001), [0.0, 1e-300, 3.0, -3.0, np.pi, -np.pi, 3 * np.pi]])
    wrapped = np.array([wrap(angle) for angle in angles])
    np.testing.assert_allclose(
        wrapped, np.arctan2(np.sin(angles), np.cos(angles)), rtol=4 * np.finfo(float).eps, atol=1e-16
    )


def reference_poses(speed, turn, rng):
    heading = np.cumsum(rng.normal(turn, abs(turn) + 1e-3, 41))
    step = speed * DT * np.column_stack([np.cos(heading), np.sin(heading)])
    return np.column_stack([np.cumsum(step, axis=0), heading])


@pytest.mark.parametrize(("speed", "turn"), [(12.0, 0.01), (0.5, 0.2), (-3.0, 0.0), (0.0, 0.0)])
def test_profiles_solve_the_normal_equations(speed, turn):
    poses = reference_poses(speed, turn, np.random.default_rng(1))
    lower = np.tril(np.full((40, 40), DT * DT))
    lower[:, 0] = DT
    ridge = np.zeros((38, 40))
    ridge[:, 1:39] = -np.eye(38)
    ridge[-1, -1] = 1
    step = np.diff(poses, axis=0)
    along = np.cos(poses[:-1, 2]) * step[:, 0] + np.sin(poses[:-1, 2]) * step[:, 1]
    x = np.linalg.solve(lower.T @ lower + 1e-4 * ridge.T @ ridge, lower.T @ along)
    speeds = x[0] + np.concatenate([[0], np.cumsum(DT * x[1:])])
    ours, cosine, sine = np.empty((3, 40))
    speed_profile(poses, cosine, sine, ours)
    np.testing.assert_allclose(ours, speeds, rtol=0, atol=1e-10)
    np.testing.assert_allclose(SPEED_MATRIX @ along, speeds, rtol=0, atol=1e-10)

    increments = np.arctan2(np.sin(step[:, 2]), np.cos(step[:, 2]))
    matrix = ours[:, None] * lower
    penalty = 1e-2 * np.eye(40)
    penalty[0, 0] = 1e-10
    z = np.linalg.solve(matrix.T @ matrix + penalty, matrix.T @ increments)
    expected = z[0] + np.concatenate([[0], np.cumsum(DT * z[1:])])
    curvature = np.empty(40)
    curvature_profile(poses, ours, np.empty(40), curvature)
    np.testing.assert_allclose(curvature, expected, rtol=0, atol=1e-7)


def test_samples_lose_a_microsecond_to_truncation():
    """Of stamps of real size about three knots and samples in ten are one microsecond early."""
    early_knots, early_samples = [], []
    for time_us in range(1633000000000000, 1633000002000000, 10007):
        stamps = plan_stamps(time_us)
        early_knots.append(time_us + 500000 * np.arange(9) - stamps)
        interval, time = sampling(time_us, stamps)
        early_samples.append(time_us + 100000 * np.arange(41) - (stamps[interval] + time[:, 0]))
        assert (interval[1:] >= interval[:-1]).all() and (time[:, 0] <= time[:, 1]).all()
    for early in (np.array(early_knots)[:, 1:], np.array(early_samples)[:, 1:]):
        assert set(np.unique(early)) == {0, 1}
        assert 0.2 < early.mean() < 0.4


def naive_search(start, goals, graph, max_depth):
    """The rule as it is stated: no memory of what was visited, the last parent of a block and depth wins."""
    queue, parents = deque([(start, 1)]), {}
    while queue:
        block, depth = queue.popleft()
        if depth > max_depth:
            return None
        if block in goals:
            path = [block]
            while depth > 1:
                path.append(parents[path[-1], depth])
                depth -= 1
            return path[::-1]
        for follower in graph[block]:
            parents[follower, depth + 1] = block
            queue.append((follower, depth + 1))
    return None


def test_search_is_the_one_without_memory():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(1500):
        count = rng.integers(3, 14)
        graph = [rng.permutation(count)[: rng.integers(0, 3)].tolist() for _ in range(count)]
        start, goals = int(rng.integers(count)), set(rng.integers(0, count, 2).tolist())
        expected = naive_search(start, goals, graph, 9)
        assert search(start, goals, graph.__getitem__, 9) == expected
        found += expected is not None and len(expected) > 3
    assert found > 20


def test_search_ends_where_the_queue_would_explode():
    ring = {i: [(i + 1) % 40, (i + 2) % 40, (i + 3) % 40] for i in range(40)}
    assert search(0, [99], ring.__getitem__, 30) is None
    assert search(0, [39], ring.__getitem__, 5) is None
    assert len(search(0, [39], ring.__getitem__, 30)) == 14
