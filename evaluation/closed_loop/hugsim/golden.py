"""Comparison with arrays that HUGSIM's official code gave: one function per file of a golden directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim import attack
from beyonddrive.evaluation.closed_loop.hugsim.agents import (
    IntelligentDriver,
    Replay,
    forecasts,
    moved_straight,
)
from beyonddrive.evaluation.closed_loop.hugsim.footprints import corners, touch
from beyonddrive.evaluation.closed_loop.hugsim.golden_controller import compare_controller, compare_resampled
from beyonddrive.evaluation.closed_loop.hugsim.golden_runs import SINGLE, compare_episode, compare_records
from beyonddrive.evaluation.closed_loop.hugsim.hd_score import MIN_CELLS, comfort_signals, discomfort
from beyonddrive.evaluation.closed_loop.hugsim.points import PointGrid
from beyonddrive.evaluation.closed_loop.hugsim.route import Route, euler_of, plan_in_record, pose_matrix
from beyonddrive.evaluation.closed_loop.hugsim.settings import PRESETS, HugsimError
from beyonddrive.evaluation.golden import Arrays, FileComparison, compared, read_arrays

FILES = (
    "overlap.npz",
    "footprint.npz",
    "comfort.npz",
    "frames.npz",
    "agents.npz",
    "controller.npz",
    "controller_resampled.npz",
    "records.json",
)
"""Files that are compared, beside ``episodes/*.npz``; ``points.npz``, ``variants.json`` belong to records."""
OUTSIDE = ("cameras.json", "http.json")
"""Files about what is between a simulator and a driver: :mod:`beyonddrive.deploy.drivers.golden` and
:mod:`beyonddrive.synth.live.golden` compare them."""
NOT_COMPARED = {
    "overlap.npz": "distance, area of boxes (the scorer asks only whether they touch)",
    "frames.npz": "traj_back_in_ego (nothing here takes a plan back)",
    "agents.npz": "map_start, map_local, map_world, map_back (maps are not read)",
    "http.json": "retries and ports of the package's client, sessions of several scenarios (the tests of "
    "drivers and server cover them), eval_json (scores are compared by records.json)",
}
"""What a golden directory holds beyond that, by file."""


def is_golden(directory: Path) -> bool:
    """Whether a directory is laid out like HUGSIM's golden data."""
    known = any((directory / name).is_file() for name in (*FILES, *OUTSIDE))
    known |= any((directory / "episodes").glob("*.npz"))
    return known and not (directory / "recipe.py").exists()


def compare_directory(directory: Path) -> Iterator[FileComparison]:
    """Compare every file of a golden directory that is there, but those of :data:`OUTSIDE`."""
    for name in FILES:
        if (directory / name).is_file():
            yield compared(name, partial(_COMPARE[name], directory))
    for path in sorted((directory / "episodes").glob("*.npz")):
        yield compared(f"episodes/{path.name}", partial(compare_episode, path))


def not_compared(directory: Path) -> str:
    """What files of a golden directory hold that nothing compares, in words."""
    return "; ".join(f"{name}: {what}" for name, what in NOT_COMPARED.items() if (directory / name).is_file())


def _overlap(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "overlap.npz")
    a, b = z["a"], z["b"]
    found.add("corners", corners(a[:, [0, 1, 4]], a[:, 2:4]), z["corners"])
    found.add("intersects", touch(a[:, [0, 1, 4]], a[:, 2:4], b[:, [0, 1, 4]], b[:, 2:4]), z["intersects"])
    ends = np.cumsum(z["box_count"])
    counts = [
        PointGrid(points).count_in_boxes(box[None])[0]
        for points, box in zip(np.split(z["box_points"], ends[:-1]), z["box_ego"], strict=True)
    ]
    found.add("points in boxes", np.array(counts) <= 100, z["box_no_collision"])


def _footprint(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "footprint.npz")
    rows = np.split(z["traj"], np.cumsum(z["traj_count"])[:-1])
    grounds = np.split(z["ground"], np.cumsum(z["ground_count"])[:-1])
    ours = [
        (PointGrid(np.column_stack([g, np.zeros(len(g))])).filled_cells(r, 1.6, 3.0) >= MIN_CELLS).all()
        for r, g in zip(rows, grounds, strict=True)
    ]
    found.add("dac", ours, z["dac"])


_SIGNALS = ("yaw rate", "yaw acceleration", "acceleration", "jerk")
"""In the order of the golden extremes."""


def _comfort(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "comfort.npz")
    rows = np.split(z["traj"], np.cumsum(z["count"])[:-1])
    limit = PRESETS["main"].comfort_lon_max
    ours = [not discomfort(r, float(step), limit) for r, step in zip(rows, z["timestep"], strict=True)]
    found.add("comfortable", ours, z["comfortable"])
    for i, (r, step) in enumerate(zip(rows, z["timestep"], strict=True)):
        if len(r) >= 4:
            signals = comfort_signals(r, float(step), limit)
            # Differences divided by the step three times over lose three digits.
            found.add(f"extremes {i}", [_extremes(signals[k]) for k in _SIGNALS], z["extremes"][i], 1e-9)


def _extremes(signal: tuple[NDArray[np.float64], float, float]) -> tuple[float, float]:
    values = signal[0]
    return float(values.min()), float(values.max())


def _frames(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "frames.npz")
    poses = np.array([pose_matrix(e, t) for e, t in zip(z["euler"], z["translation"], strict=True)])
    found.add("pose", poses, z["pose"])
    found.add("euler", np.column_stack([euler_of(poses), poses[:, :3, 3]]), z["euler_translation_back"])
    placed = [plan_in_record(plan, box) for plan, box in zip(z["plan"], z["ego_box"], strict=True)]
    found.add("plan", placed, z["traj_global"])
    for key in sorted(key.removesuffix("_poses") for key in z if key.endswith("_poses")):
        route = Route(z[f"{key}_poses"], z[f"{key}_commands"], 0.0)
        found.add(f"{key} dense", route.poses, z[f"{key}_dense"])
        found.add(f"{key} commands", route.commands, z[f"{key}_dense_commands"])
        query = z[f"{key}_query"]
        found.add(f"{key} ego height", [route.ego_height(q) for q in query], z[f"{key}_ego_height"])
        heights = np.array([route.road_height(q) for q in query])
        # (the camera height of these is a constant that the file does not name)
        above = z[f"{key}_agent_height"] - heights
        found.add(f"{key} agent height", above, np.full_like(above, above[0]))
        found.add(f"{key} completion", [route.completion(q) for q in query], z[f"{key}_route_completion"])


def _agents(directory: Path, found: FileComparison) -> None:
    z = read_arrays(directory / "agents.npz")
    found.add("constant", [moved_straight(s.astype(float)) for s in z["state"]], z["constant"], SINGLE)
    found.add("forecast", forecasts(z["headaway"][:, 0].astype(float)), z["headaway"], SINGLE)
    found.add("idm", [_idm(z, i) for i in range(len(z["idm_state"]))], z["idm_out"], SINGLE)
    draws = attack.DrawNumbers()
    for limit in (2, 3, 5, 10):
        ours = [draws.below(limit) for _ in z[f"randint_{limit}"]]
        found.add(f"randint {limit}", ours, z[f"randint_{limit}"])
    for car, expected in zip(z["unicycle"], z["unicycle_out"], strict=True):
        replay = Replay(car[:, 0], car[:, [1, 2, 4, 3]])
        found.add("unicycle", [replay.at(time) for time in z["unicycle_query"]], expected, SINGLE)
    for state, count in zip(z["attack_state"].astype(float), z["attack_candidates"], strict=True):
        # (whether the manoeuvre at exactly the limit is kept, float32 decides in the official code)
        either = [len(attack.candidates(state, with_limit)) for with_limit in (False, True)]
        found.add("attack candidates", float(count in either), 1.0)
    for i in np.flatnonzero(z["attack_unique"]):
        state, victim, others = (z[f"attack_{k}"][i].astype(float) for k in ("state", "victim", "neighbors"))
        rows = attack.choose(state, victim, others, 1, attack.DrawNumbers())
        assert rows is not None
        found.add("attack", rows[1 : 1 + len(z["attack_rows"][i])], z["attack_rows"][i], SINGLE)


def _idm(z: Arrays, i: int) -> NDArray[np.float64]:
    path = z["idm_path"][i]
    path = path[np.isfinite(path[:, 0])]
    try:
        return IntelligentDriver().step(
            z["idm_state"][i].astype(float), path, z["idm_neighbors"][i].astype(float)
        )
    except HugsimError:
        return np.full(4, np.nan)


_COMPARE: dict[str, Callable[[Path, FileComparison], None]] = {
    "overlap.npz": _overlap,
    "footprint.npz": _footprint,
    "comfort.npz": _comfort,
    "frames.npz": _frames,
    "agents.npz": _agents,
    "controller.npz": compare_controller,
    "controller_resampled.npz": compare_resampled,
    "records.json": compare_records,
}
