"""Our references and commands beside those of HUGSIM's official controllers, call by call (section 5)."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np

from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import check_plan, command_of, plan_reference
from beyonddrive.evaluation.closed_loop.hugsim.settings import Controller, HugsimError
from beyonddrive.evaluation.closed_loop.hugsim.tracker import MAX_ITERATIONS, Floats, track
from beyonddrive.evaluation.golden import Arrays, FileComparison, read_arrays

STABLE = 1e-6
"""Answers of the tracker that move more than this when its input moves by 1e-12 are not judged."""
CHAOTIC_INSIDE = "teleport"
"""Kind of calls whose answer is stable, but not the inputs after it."""
SUMMED = 1e-9
"""Tolerance of what is iterated [m, rad, m/s2, rad/s]."""
HEADING_FLOAT32 = 4 * 2.0**-22
"""Tolerance of headings of float32 plans [rad]: four units in the last place of an angle up to pi.

Which float32 ``arctan2`` gives depends on the processor. numpy's version for AVX-512, which the golden data
were made with, is allowed four units and is off by up to two there; the C library, which it calls elsewhere,
is off by up to one. Nothing else differs: differences of points are rounded alike everywhere.
"""
COMMAND_FLOAT32 = 5 * HEADING_FLOAT32
"""Tolerance of commands of float32 plans [m/s2, rad/s]: stable golden calls magnify a change by up to 4.3."""
FLOAT32_NOTE = "headings of float32 plans depend on the processor: 4 units in the last place are allowed"


def has_headings_in_float32(version: str, dtype: str) -> bool:
    """Whether a version of the controller computes headings of such plans in float32."""
    return dtype == "float32" and version in ("main", "pr57")


def compare_controller(directory: Path, found: FileComparison) -> None:
    """Compare ``controller.npz``: every version, and that ours refuses what the official code fails on."""
    z = read_arrays(directory / "controller.npz")
    for version in get_args(Controller):
        if f"{version}_control" in z:
            for i in range(len(z["n"])):
                _call(z, i, version, found)


def _call(z: Arrays, i: int, version: Controller, found: FileComparison) -> None:
    n, what, dtype = int(z["n"][i]), f"{version} call {i}", str(z["dtype"][i])
    plan = z["plan"][i, :n].astype(dtype)
    speed, steering = z["state"][i]
    if z[f"{version}_error"][i]:
        found.add(f"{what} refused", float(_is_refused(plan, speed, steering, version)), 1.0)
        return
    if not z[f"{version}_sensitivity"][i] < STABLE:
        return
    golden = z[f"{version}_ref"][i, : n + 1]
    reference = plan_reference(check_plan(plan), version)
    if has_headings_in_float32(version, dtype):
        found.note(FLOAT32_NOTE)
        # The first heading is computed in float64 all the same.
        found.add(f"{what} first heading", reference[:2, 2], golden[:2, 2])
        found.add(f"{what} later headings", reference[2:, 2], golden[2:, 2], HEADING_FLOAT32)
        found.add(f"{what} reference", np.delete(reference, 2, axis=1), np.delete(golden, 2, axis=1))
        answer = track(golden, speed, steering)
    else:
        found.add(f"{what} reference", reference, golden)
        answer = command_of(plan, speed, steering, version)
    found.add(f"{what} command", answer.inputs[0], z[f"{version}_control"][i], SUMMED)
    if z["kind"][i] == CHAOTIC_INSIDE:
        return
    _add_costs(found, f"{what} costs", answer.costs, z[f"{version}_cost"][i])
    found.add(f"{what} iterations", answer.iterations, z[f"{version}_iterations"][i])
    if f"{version}_inputs" in z:
        for name, ours in (("warm", answer.warm), ("first", answer.first), ("inputs", answer.inputs)):
            found.add(f"{what} {name}", ours, z[f"{version}_{name}"][i, :n], SUMMED)
        found.add(f"{what} states", answer.states, z[f"{version}_states"][i, : n + 1], SUMMED)


def _is_refused(plan: Floats, speed: float, steering: float, version: Controller) -> bool:
    try:
        command_of(plan, speed, steering, version)
    except HugsimError:
        return True
    return False


def _add_costs(found: FileComparison, what: str, ours: tuple[float, float], golden: Floats) -> None:
    """Compare sums of squares, large ones by their share."""
    scale = np.maximum(1.0, np.abs(golden))
    found.add(what, np.array(ours) / scale, golden / scale, SUMMED)


def compare_resampled(directory: Path, found: FileComparison) -> None:
    """Compare ``controller_resampled.npz``; its plans are in ``controller.npz``."""
    z, calls = read_arrays(directory / "controller_resampled.npz"), read_arrays(directory / "controller.npz")
    for i in np.flatnonzero(z["sensitivity"] < STABLE):
        n = int(calls["n"][i])
        plan = calls["plan"][i, :n].astype(str(calls["dtype"][i]))
        answer = command_of(plan, calls["state"][i, 0], calls["state"][i, 1], "resampled")
        found.add(f"call {i} reference", plan_reference(plan, "resampled"), z["ref"][i, : 2 * n + 1])
        found.add(f"call {i} command", answer.inputs[0], z["control"][i], SUMMED)
        found.add(f"call {i} iterations", answer.iterations, z["iterations"][i])
        # What has not converged is stable in the answer only.
        if answer.iterations < MAX_ITERATIONS:
            found.add(f"call {i} inputs", answer.inputs, z["inputs"][i, : 2 * n], SUMMED)
