"""Pages of a scene, one per planner: scored, drawn from above and from the camera, put on one panel."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.sensors import SensorError
from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.evaluation.pdm import MetricCache, build_metric_cache, score
from beyonddrive.evaluation.pdm.scores.scorer import Progress
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import check_plans
from beyonddrive.visualization.bev import draw_bev
from beyonddrive.visualization.camera import draw_camera
from beyonddrive.visualization.canvas import Picture
from beyonddrive.visualization.failures import Verdict, judge
from beyonddrive.visualization.layers import PlanLayer, View
from beyonddrive.visualization.palette import EXPERT, PREDICTION
from beyonddrive.visualization.panel import Bundle, PanelRow, draw_panel, save_png
from beyonddrive.visualization.report_inputs import ScenePicture, write_picture_index

HUMAN = "human"
CAMERAS = {"front": ("CAM_F0",), "arc": ("CAM_L0", "CAM_F0", "CAM_R0")}
"""Which cameras a page shows, from left to right."""
COMMANDS = ("turn left", "go straight", "turn right", "no command")


class PlansError(BeyondDriveError, ValueError):
    """A file of plans is missing or damaged; the message names file and remedy."""


def read_plans(path: Path) -> dict[str, NDArray[np.float64]]:
    """Plans (N, 8, 3) by scene token from an npz file; a single plan may be stored as (8, 3).

    Raises:
        PlansError: If the file is missing or no npz archive of numbers.
        PlanError: If plans have the wrong shape or are not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {token: archive[token] for token in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise PlansError(
            f"{path}: not an npz file of plans ({error}); write it with beyonddrive test --plans"
        ) from error
    return {
        token: check_plans(array[None] if array.ndim == 2 else array, f"{path}: {token}")
        for token, array in arrays.items()
    }


@dataclass(frozen=True)
class PageSettings:
    """How pages are made.

    Attributes:
        cameras: A key of :data:`CAMERAS`.
        allow_missing_sensors: Leave the camera out when an image is missing, instead of an error.
        height: Height of the bird's-eye view [px]; everything else follows.
    """

    cameras: str = "front"
    allow_missing_sensors: bool = False
    height: int = 900

    def __post_init__(self) -> None:
        if self.cameras not in CAMERAS:
            raise ValueError(f"cameras: {self.cameras!r} is unknown, choose one of {sorted(CAMERAS)}")


class ScenePages:
    """Draws scenes of a data root.

    Args:
        root: The data root.
        split: Split of the scenes.
        pool: Where the negatives of a scene come from, if any.
        settings: How pages are made.
    """

    def __init__(
        self,
        root: NavsimRoot,
        split: str,
        pool: NegativePool | None = None,
        settings: PageSettings | None = None,
    ) -> None:
        self.root, self.split, self.pool = root, split, pool
        self.settings = settings or PageSettings()

    def draw(self, scene: Scene, plans: Mapping[str, NDArray[np.float64]]) -> dict[str, Picture]:
        """One page per planner and one of the human, all through the same window.

        Args:
            scene: The scene.
            plans: (N, 8, 3) by planner: row 0 is the plan, further rows are proposals it was chosen from. One
                called ``human`` must be the expert's and changes nothing.

        Returns:
            Pages by planner, the human first. A planner with proposals is shown with them, any other with
            the pool's negatives.

        Raises:
            PlansError: If a planner is called human and is not.
            MetricCacheError: If the scene cannot be scored.
            SensorError: If an image is missing, unless that is allowed.
        """
        cache = build_metric_cache(scene, self.root.map(scene.map_location))

        def verdicts(some: NDArray[np.float64]) -> list[Verdict]:
            return judge(score(cache, some), cache)

        expert = check_plans(scene.expert_plan[None], scene.token)
        if HUMAN in plans and not np.allclose(plans[HUMAN][0], expert[0], atol=1e-3):
            raise PlansError(
                f"scene {scene.token}: the plan called {HUMAN!r} is not what the log's driver did; "
                f"give the planner another name, or its plans of this data root"
            )
        human = PlanLayer(HUMAN, expert, "expert", verdicts=verdicts(expert))
        negatives = self._negatives(scene, cache)
        bundles: dict[str, PlanLayer | None] = {HUMAN: negatives}
        chosen: dict[str, PlanLayer] = {}
        for name, array in plans.items():
            if name == HUMAN:
                continue
            judged = verdicts(array)
            chosen[name] = PlanLayer(name, array[:1], "plan", verdicts=judged[:1])
            own = PlanLayer("proposals", array[1:], "proposals", verdicts=judged[1:])
            bundles[name] = own if len(array) > 1 else negatives
        shown = [human, *chosen.values(), *(bundle for bundle in bundles.values() if bundle is not None)]
        view = View.fit([layer.plans for layer in shown], self.settings.height, self.settings.height)

        pages = {}
        for name, bundle in bundles.items():
            layers = [bundle] if bundle is not None else []
            layers += [human, *([chosen[name]] if name in chosen else [])]
            pages[name] = self._page(scene, name, layers, view, cache)
        return pages

    def _page(
        self, scene: Scene, name: str, layers: Sequence[PlanLayer], view: View, cache: MetricCache
    ) -> Picture:
        nuplan_map = self.root.map(scene.map_location)
        rows = [
            PanelRow(layer.label, EXPERT if layer.role == "expert" else PREDICTION, layer.verdicts[0])
            for layer in layers
            if layer.role != "proposals"
        ]
        bundle = next((Bundle(layer.label, layer.verdicts) for layer in layers if layer.by_failure), None)
        return draw_panel(
            draw_bev(scene, nuplan_map, layers, view, cache.centerline),
            self._camera(scene, layers),
            name,
            describe(scene),
            rows,
            bundle,
        )

    def _camera(self, scene: Scene, layers: Sequence[PlanLayer]) -> Picture | None:
        cameras = CAMERAS[self.settings.cameras]
        width = self.settings.height * (16.0 / 15.0 if len(cameras) == 1 else 1.6)
        height = width * (9.0 / 16.0 if len(cameras) == 1 else 0.25)
        sensor_root = self.root.sensor_root(scene.split)
        try:
            return draw_camera(scene, sensor_root, layers, cameras, round(width), round(height))
        except SensorError:
            if self.settings.allow_missing_sensors:
                return None
            raise

    def _negatives(self, scene: Scene, cache: MetricCache) -> PlanLayer | None:
        if self.pool is None or scene.token not in self.pool:
            return None
        plans = check_plans(self.pool[scene.token].plans, f"{self.pool.root}: scene {scene.token}")
        progress: Progress = "pooled" if self.pool.description.progress == "pooled" else "pair"
        judged = judge(score(cache, plans, progress=progress), cache, progress)
        return PlanLayer("proposals of the pool", plans, "proposals", verdicts=judged)


def describe(scene: Scene) -> str:
    """Where a scene is and what the ego is about to do, in a line."""
    command = scene.driving_command
    order = COMMANDS[int(command.argmax())] if command.sum() == 1 else COMMANDS[-1]
    speed = float(np.hypot(*scene.ego_dynamic[:2]))
    return f"{order}, {speed:.1f} m/s  ·  {scene.log_name}  ·  {scene.token}"


def choose_tokens(
    root: NavsimRoot,
    split: str,
    count: int,
    seed: int,
    plans: Mapping[str, Mapping[str, NDArray[np.float64]]],
    pool: NegativePool | None = None,
    scene_filter: SceneFilter | None = None,
) -> list[str]:
    """Scenes of a split, chosen by chance among those for which all that is to be drawn is there.

    Args:
        root: The data root.
        split: Split of the scenes.
        count: How many; fewer if there are not so many.
        seed: Of the choice.
        plans: Plans by planner and token.
        pool: Negatives, if any.
        scene_filter: Which windows of the logs are scenes; None is the default filter.

    Raises:
        PlansError: If no scene of the split has a plan of every planner and, if there is a pool, a record.
    """
    tokens = sorted({ref.token for ref in root.refs(split, scene_filter)})
    kept = [
        t for t in tokens if all(t in by_token for by_token in plans.values()) and (pool is None or t in pool)
    ]
    if not kept:
        wanted = [*plans, *([f"the pool {pool.root}"] if pool is not None else [])]
        raise PlansError(
            f"split {split} of {root.root} has {len(tokens)} scenes, but not one that is known to "
            f"{' and '.join(wanted) or 'the scene filter'}; were they made for this split?"
        )
    chosen = np.random.default_rng(seed).permutation(len(kept))[:count]
    return [kept[index] for index in sorted(chosen)]


def draw_scenes(
    pages: ScenePages,
    tokens: Sequence[str],
    plans: Mapping[str, Mapping[str, NDArray[np.float64]]],
    out: Path,
) -> tuple[list[ScenePicture], list[str]]:
    """Draw the pages of scenes to ``out`` as ``<token>_<planner>.png``, with an index that a report reads.

    Args:
        pages: Draws them.
        tokens: Which scenes.
        plans: (N, 8, 3) by planner and token.
        out: Folder.

    Returns:
        What was drawn, and what could not be, each with the reason; the rest is drawn all the same.
    """
    scenes, reasons = pages.root.find(pages.split, tokens)
    problems = [f"scene {token}: {reason}" for token, reason in reasons.items()]
    pictures: list[ScenePicture] = []
    for token, scene in tqdm(scenes.items(), desc="draw scenes", unit="scene"):
        known = {name: by_token[token] for name, by_token in plans.items() if token in by_token}
        problems += [f"scene {token}: {name} has no plan of it" for name in plans if name not in known]
        try:
            drawn = pages.draw(scene, known)
        except (ValueError, RuntimeError) as error:
            problems.append(f"scene {token}: {error}")
            continue
        for name, picture in drawn.items():
            path = Path(out) / f"{token}_{file_name(name)}.png"
            save_png(path, picture)
            pictures.append(ScenePicture(token, scene.log_name, name, path))
    write_picture_index(out, pictures)
    return pictures, [*pages.root.problems, *problems]


def file_name(label: str) -> str:
    """A label as part of a file name.

    >>> file_name('LTF + BeyondDrive')
    'ltf-beyonddrive'
    """
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "planner"
