"""Comparison with two-stage scores that the official code of NAVSIM v2 gave (EPDMS_TWO_STAGE)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.synthetic import read_synthetic_scene
from beyonddrive.evaluation.golden import Arrays, FileComparison, compared, read_arrays
from beyonddrive.evaluation.pdm.cache.two_stage import (
    Policy,
    TwoStageScene,
    build_two_stage_scene,
    end_points,
)
from beyonddrive.evaluation.pdm.inputs.map_index import map_index
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.reference.reactive_scene import ReactiveTrafficError
from beyonddrive.evaluation.pdm.reference.start_segments import lane_locator
from beyonddrive.evaluation.pdm.scores.epdms import filter_by_human
from beyonddrive.evaluation.pdm.scores.two_stage import (
    Group,
    SceneResult,
    aggregate,
    read_groups,
    two_stage_score,
)

RUN, WEIGHTS, SEGMENTS = "two_stage.npz", "weight_cases.npz", "segment_cases.npz"
SPLIT = Path("data") / "two_stage_split.json"
TOLERANCE = 1e-6
"""Of sub-scores, weights, averages, and positions of the traffic [m]."""


def is_golden(directory: Path) -> bool:
    """Whether a directory is laid out like the golden data of two stages."""
    return (directory / RUN).is_file() and (directory / SPLIT).is_file()


def compare_directory(directory: Path, maps_root: Path) -> Iterator[FileComparison]:
    """Compare every file of a golden directory that is there, as far as its scenes are."""
    golden = _Golden(directory, maps_root)
    if (directory / SEGMENTS).is_file():
        yield compared(SEGMENTS, golden.compare_segments)
    parts = (
        ("failing_scenes", directory / "data" / "failing_scenes", "*.pkl", golden.compare_failing),
        ("scenes", directory / "scenes", "*.npz", golden.compare_scene),
    )
    for name, folder, pattern, compare in parts:
        for path in sorted(folder.glob(pattern)):
            yield compared(f"{name}/{path.name}", partial(compare, path))
    yield compared(RUN, golden.compare_run)
    if (directory / WEIGHTS).is_file():
        yield compared(WEIGHTS, golden.compare_weights)


class _Golden:
    """One golden directory, and what was scored of it so far."""

    def __init__(self, directory: Path, maps_root: Path) -> None:
        self.directory = directory
        self.root = NavsimRoot(directory / "data", maps_root)
        self.run: Arrays = read_arrays(directory / RUN)
        self.row_of = {str(token): row for row, token in enumerate(self.run["token"])}
        split = json.loads((directory / SPLIT).read_text())
        self.groups = read_groups(split["reactive_all_mapping"], str(directory / SPLIT))
        self.split = str(split["data_split"])
        self.names = [str(name) for name in self.run["names"]]
        policies: tuple[Policy, ...] = ("reactive", "replay")
        self.results: dict[Policy, list[dict[str, SceneResult]]] = {
            policy: [{} for _ in self.names] for policy in policies
        }

    @cached_property
    def scenes(self) -> dict[str, Scene]:
        """Original and follow-up scenes by token."""
        windows = SceneFilter(num_future_frames=8, frame_interval=1)
        scenes: dict[str, Scene] = {
            scene.token: scene
            for scene in self.root.scenes(self.split, windows)
            if scene.token in self.row_of
        }
        for path in sorted((self.directory / "data" / "synthetic_scene_pickles").glob("*.pkl")):
            scene = read_synthetic_scene(path)
            scenes[scene.token] = scene
        return scenes

    def build(self, scene: Scene) -> TwoStageScene:
        """The scene, ready to be scored."""
        return build_two_stage_scene(scene, self.root.map(scene.map_location))

    def compare_segments(self, found: FileComparison) -> None:
        """Lanes that vehicles start on."""
        z = read_arrays(self.directory / SEGMENTS)
        for i, name in enumerate(z["segment"]):
            index = map_index(self.root.map(str(z["location"][i])))
            segment = lane_locator(index).start_segment(z["x"][i], z["y"][i], z["h"][i])
            ours = "" if segment is None else str(index.lane_ids[segment.lane])
            found.add(f"segment {i}", float(ours == str(name)), 1.0)
            if segment is not None and name:
                found.add(f"progress {i}", segment.progress, z["arc"][i], TOLERANCE)
                found.add(f"pose {i}", segment.pose, z["pose"][i], TOLERANCE)

    def compare_failing(self, path: Path, found: FileComparison) -> None:
        """A scene whose traffic the official code cannot simulate: ours says so, and replays it."""
        scene = self.build(read_synthetic_scene(path))
        standing = np.zeros((1, 8, 3))
        try:
            scene.score(standing)
            found.faults += ("reactive traffic was simulated, where the official code fails",)
        except ReactiveTrafficError:
            found.rows += 1
        found.add("replay", float(np.isfinite(scene.score(standing, "replay")[0].values).all()), 1.0)

    def compare_scene(self, path: Path, found: FileComparison) -> None:
        """All submissions in one scene: motion, traffic, sub-scores before and after the filter."""
        z = read_arrays(path)
        token, row = str(z["token"]), self.row_of[str(z["token"])]
        scene = self.build(self.scenes[token])
        found.add("start", scene.time_us, z["start_time_us"])
        ends = end_points(scene, self.run["poses"][:, row])
        found.add("ends", ends, self.run["endpoint"][:, row], TOLERANCE)
        if "human_scores" in z:
            filtered = scene.human_scores() == 0
            found.add("human", filtered[[0, 1, 2, 3, 5, 6]], (z["human_scores"] == 0)[[0, 1, 2, 3, 5, 6]])
        self._compare_traffic(found, scene, z, row)
        policies: dict[Policy, str] = {"reactive": "", "replay": "replay_"}
        for policy, prefix in policies.items():
            for k in self._submissions(prefix):
                raw = scene.score(self.run["poses"][k, row][None], policy, human_filter=False)[0]
                values = raw.values[:, :8]
                found.add(f"{prefix}raw {k}", values[0], self.run[f"{prefix}scores_raw"][k, row], TOLERANCE)
                if not scene.is_synthetic:
                    values = filter_by_human(values, scene.human_scores(policy))
                found.add(
                    f"{prefix}filtered {k}",
                    values[0],
                    self.run[f"{prefix}scores_filtered"][k, row],
                    TOLERANCE,
                )
                if policy == "reactive":
                    found.add(f"states {k}", raw.simulated[0], z["states"][k], TOLERANCE)
                self.results[policy][k][token] = SceneResult(
                    values[0], raw.simulated[0], scene.time_us * 1e-6, ends[k], scene.ego_state[:2]
                )

    def _submissions(self, prefix: str) -> Sequence[int]:
        scores = self.run[f"{prefix}scores_raw"]
        return [k for k in range(len(self.names)) if np.isfinite(scores[k]).all()]

    def _compare_traffic(self, found: FileComparison, scene: TwoStageScene, z: Arrays, row: int) -> None:
        columns = [scene.tracks.tokens.index(str(token)) for token in z["traffic_tokens"]]
        created = [scene.tracks.tokens[vehicle.row] for vehicle in scene.traffic.vehicles]
        order = [created.index(str(token)) for token in z["idm_tokens"]]
        for n, k in enumerate(z["traffic_submission"]):
            maps = scene.react(self.run["poses"][k, row])
            heading = np.arctan2(maps.boxes[..., 3], maps.boxes[..., 2])
            turn = (heading[:, columns] - z["traffic"][n, ..., 2] + np.pi) % (2 * np.pi) - np.pi
            found.add("positions", maps.boxes[:, columns, :2], z["traffic"][n, ..., :2], TOLERANCE)
            found.add("headings", turn, np.where(np.isnan(turn), np.nan, 0.0), TOLERANCE)
            found.add("speeds", maps.speed[:, columns], z["traffic"][n, ..., 3], TOLERANCE)
            found.add("trace", maps.trace[:, order], z["idm_trace"][n], TOLERANCE)
            number = {index: i for i, index in enumerate(order)}
            leads = [[number.get(lead, lead) for lead in row] for row in maps.lead[:, order].tolist()]
            found.add("leads", np.array(leads).reshape(len(maps.lead), len(order)), z["idm_nearest"][n])

    def compare_run(self, found: FileComparison) -> None:
        """Comfort, weights, scores and averages, over the groups whose scenes are all here."""
        policies: dict[Policy, str] = {"reactive": "", "replay": "replay_"}
        for policy, prefix in policies.items():
            for k in self._submissions(prefix):
                results = self.results[policy][k]
                whole = [g for g in self.groups if all(token in results for token in g.tokens)]
                if not whole:
                    raise ValueError("no group has all of its scenes")
                of_whole = {token: results[token] for group in whole for token in group.tokens}
                run = two_stage_score(of_whole, whole)
                rows = [self.row_of[token] for token in run.tokens]
                found.add(f"{prefix}ec {k}", run.values[:, 8], self.run[f"{prefix}ec"][k, rows], TOLERANCE)
                found.add(f"{prefix}weight {k}", run.weights, self.run[f"{prefix}weight"][k, rows], TOLERANCE)
                found.add(
                    f"{prefix}score {k}", run.values[:, 9], self.run[f"{prefix}score"][k, rows], TOLERANCE
                )
                if not prefix:
                    of_group = [self.groups.index(group) for group in whole]
                    found.add(f"groups {k}", run.groups, self.run["group_scores"][k, of_group], TOLERANCE)
                if len(whole) == len(self.groups):
                    for name in ("combined", "stage_one", "stage_two"):
                        ours = getattr(run, name)
                        found.add(f"{prefix}{name} {k}", ours, self.run[f"{prefix}{name}"][k], TOLERANCE)

    def compare_weights(self, found: FileComparison) -> None:
        """The aggregation alone, with other ends and starts."""
        z = read_arrays(self.directory / WEIGHTS)
        tokens = [str(token) for token in self.run["token"]]
        for case, k in enumerate(z["submission"]):
            values = np.column_stack([self.run["scores_filtered"][k], self.run["ec"][k]])
            run = aggregate(
                self.groups,
                dict(zip(tokens, values, strict=True)),
                _by_token(tokens, z["endpoint"][case], self.groups, lambda g: (g.now, g.previous)),
                _by_token(tokens, z["start_point"][case], self.groups, lambda g: g.tokens[2:]),
            )
            rows = [self.row_of[token] for token in run.tokens]
            found.add(f"weight {case}", run.weights, z["weight"][case, rows], TOLERANCE)
            found.add(f"groups {case}", run.groups, z["group_scores"][case], TOLERANCE)
            found.add(f"combined {case}", run.combined, z["combined"][case], TOLERANCE)
            found.add(f"stage two {case}", run.stage_two, z["stage_two"][case], TOLERANCE)


def _by_token(
    tokens: Sequence[str],
    values: Floats,
    groups: Sequence[Group],
    wanted: Callable[[Group], Sequence[str]],
) -> dict[str, Floats]:
    row_of = {token: row for row, token in enumerate(tokens)}
    return {token: values[row_of[token]] for group in groups for token in wanted(group)}
