"""Whether an interpreter's numpy fits speeds by least squares as it should; needs numpy and nothing else.

The score's tracker turns the poses of a plan into speeds by regularised least squares (PDMS_V1, section 2).
The NAVSIM devkit solves that with ``numpy.linalg.pinv``, which gives wrong numbers where an AVX-512 kernel of
the OpenBLAS in numpy 1.23.4 runs (with its kernel Cooperlake speeds are off by 200 km/s): plans then drive at
other speeds, and nothing says so. This file solves such problems by ``pinv`` and by elimination in plain
Python, in which no such library takes part, and compares. It runs by itself, in any Python from 3.8 on::

    python velocity_fit.py        # one line of JSON
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 40
"""Steps of a plan."""
STEP = 0.1
"""Length of a step [s]."""
PENALTY = 1e-4
"""Weight of the squared jerk."""
PLANS = 60
"""Plans that are fitted."""
TOLERANCE = 1e-6
"""Largest error of a speed that passes [m/s]; a sound library stays below 1e-9."""


def headings_and_speeds(plan: int) -> tuple[list[float], list[float]]:
    """Heading [rad] and speed [m/s] of each step of a made-up plan; every third is straight and steady."""
    chance = random.Random(plan)
    speed, heading = chance.uniform(0.0, 15.0), chance.uniform(-math.pi, math.pi)
    rate, turn = (0.0, 0.0) if plan % 3 == 0 else (chance.uniform(-3.0, 2.0), chance.uniform(-0.4, 0.4))
    speeds = [max(speed + rate * STEP * k, 0.0) for k in range(STEPS)]
    return [heading + turn * STEP * k for k in range(STEPS)], speeds


def normal_equations(headings: list[float], speeds: list[float]) -> tuple[list[list[float]], list[float]]:
    """Matrix (40, 40) and right side (40,) of the fit; unknown are the first speed and 39 accelerations."""
    # Row 2 k and 2 k + 1: how far step k goes along x and y, for each unknown.
    rows: list[list[float]] = []
    moves: list[float] = []
    for heading, speed in zip(headings, speeds):  # noqa: B905 - Python 3.9 has no strict
        k = len(rows) // 2
        along = [STEP] + [STEP * STEP] * k + [0.0] * (STEPS - 1 - k)
        for direction in (math.cos(heading), math.sin(heading)):
            rows.append([direction * value for value in along])
            moves.append(direction * speed * STEP)
    matrix = [[sum(row[i] * row[j] for row in rows) for j in range(STEPS)] for i in range(STEPS)]
    # As published: a ridge on the accelerations, and only the last row is a difference of two of them.
    for i in range(1, STEPS):
        matrix[i][i] += PENALTY
    matrix[-1][-2] -= PENALTY
    matrix[-2][-1] -= PENALTY
    right = [sum(row[i] * move for row, move in zip(rows, moves)) for i in range(STEPS)]  # noqa: B905
    return matrix, right


def eliminate(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a system by Gaussian elimination with pivots, without any library.

    >>> eliminate([[2.0, 0.0], [0.0, 4.0]], [2.0, 2.0])
    [1.0, 0.5]
    """
    size = len(right)
    table = [[*row, value] for row, value in zip(matrix, right)]  # noqa: B905
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(table[k][i]))
        table[i], table[pivot] = table[pivot], table[i]
        for k in range(i + 1, size):
            factor = table[k][i] / table[i][i]
            table[k] = [a - factor * b for a, b in zip(table[k], table[i])]  # noqa: B905
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum(table[i][k] * solution[k] for k in range(i + 1, size))
        solution[i] = (table[i][size] - known) / table[i][i]
    return solution


def fitted_speeds(solution: Any) -> list[float]:
    """Speed of each step (40,) from the first speed and the accelerations."""
    speeds = [float(solution[0])]
    for acceleration in solution[1:]:
        speeds.append(speeds[-1] + STEP * float(acceleration))
    return speeds


def fit_error() -> dict[str, float]:
    """Largest error of a fitted speed [m/s] by way of solving: ``pinv`` as the devkit does, and ``solve``."""
    worst = {"pinv": 0.0, "solve": 0.0}
    for plan in range(PLANS):
        matrix, right = normal_equations(*headings_and_speeds(plan))
        wanted = fitted_speeds(eliminate(matrix, right))
        a, b = np.array(matrix), np.array(right)
        ways = {
            "pinv": lambda a=a, b=b: np.linalg.pinv(a) @ b,
            "solve": lambda a=a, b=b: np.linalg.solve(a, b),
        }
        for name, way in ways.items():
            try:
                found = fitted_speeds(way())
            except np.linalg.LinAlgError:
                found = [math.inf] * STEPS
            errors = [abs(x - y) if math.isfinite(x) else math.inf for x, y in zip(found, wanted)]  # noqa: B905
            worst[name] = max(worst[name], *errors)
    return worst


def blas_kernel() -> str:
    """Name of the kernel that numpy's OpenBLAS has chosen for this processor; empty if unknown."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return ""
    libraries = sorted({line.split()[-1] for line in lines if "openblas" in line.lower() and "/" in line})
    names = [f"{before}openblas_get_corename{after}" for before in ("", "scipy_") for after in ("64_", "")]
    for library in libraries:
        loaded = ctypes.CDLL(library)  # (is loaded already)
        for name in names:
            if hasattr(loaded, name):
                ask = getattr(loaded, name)
                ask.restype = ctypes.c_char_p
                return str(ask().decode())
    return ""


def interpreter_facts() -> dict[str, Any]:
    """Python, numpy, and the place of the package ``navsim``, which is looked for and not imported."""
    spec = importlib.util.find_spec("navsim")
    places = [] if spec is None else list(spec.submodule_search_locations or [spec.origin or ""])
    return {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "blas_kernel": blas_kernel(),
        "navsim": str(places[0]) if places else "",
        "error": fit_error(),
    }


if __name__ == "__main__":
    print(json.dumps(interpreter_facts()))
