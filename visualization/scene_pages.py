"""Pages of a scene, one per planner: scored, drawn from above and from the camera, put on one panel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.sensors import SensorError, camera_of
from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.evaluation.pdm import MetricCache, build_metric_cache, score
from beyonddrive.evaluation.pdm.scores.scorer import Progress, Version
from beyonddrive.structures.plan import check_plans
from beyonddrive.visualization.bev import draw_bev
from beyonddrive.visualization.camera import draw_camera
from beyonddrive.visualization.canvas import Picture
from beyonddrive.visualization.failures import Verdict, judge
from beyonddrive.visualization.layers import PlanLayer, View
from beyonddrive.visualization.palette import EXPERT, PREDICTION
from beyonddrive.visualization.panel import Bundle, PanelRow, draw_panel
from beyonddrive.visualization.scene_choice import HUMAN, PlansError
from beyonddrive.visualization.surround import draw_surround

CAMERAS = {"front": ("CAM_F0",), "arc": ("CAM_L0", "CAM_F0", "CAM_R0")}
"""Which cameras are shown in a row, from left to right."""
SURROUND = "all"
"""All eight cameras, each where it looks, with a close view from above in their middle."""
CLOSE = View(640, 360, ahead=17.0, behind=9.0)
COMMANDS = ("turn left", "go straight", "turn right", "no command")


@dataclass(frozen=True)
class PageSettings:
    """How pages are made.

    Attributes:
        cameras: A key of :data:`CAMERAS`, or :data:`SURROUND`.
        allow_missing_sensors: Leave the camera out when an image is missing, instead of an error.
        height: Height of the bird's-eye view [px]; everything else follows. Beside all cameras it is a third
            higher than wide.
        version: ``v1`` judges plans by the PDM score, ``v2`` by the one-stage EPDMS without extended comfort.
    """

    cameras: str = "front"
    allow_missing_sensors: bool = False
    height: int = 900
    version: Version = "v1"

    def __post_init__(self) -> None:
        known = [*CAMERAS, SURROUND]
        if self.cameras not in known:
            raise ValueError(f"cameras: {self.cameras!r} is unknown, choose one of {known}")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the bird's-eye view [px]."""
        return self.height, round(self.height * (4 / 3 if self.cameras == SURROUND else 1))


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

    def draw(
        self, scene: Scene, plans: Mapping[str, NDArray[np.float64]], note: str = ""
    ) -> dict[str, Picture]:
        """One page per planner and one of the human, all through the same window.

        Args:
            scene: The scene.
            plans: (N, 8, 3) by planner: row 0 is the plan, further rows are proposals it was chosen from. One
                called ``human`` must be the expert's and changes nothing.
            note: Why the scene is shown, for the head of the pages.

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
            return judge(score(cache, some, version=self.settings.version), cache)

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
        view = View.fit([layer.plans for layer in shown], *self.settings.size)

        pages = {}
        for name, bundle in bundles.items():
            layers = [bundle] if bundle is not None else []
            layers += [human, *([chosen[name]] if name in chosen else [])]
            pages[name] = self._page(scene, name, layers, view, cache, note)
        return pages

    def newest_image(self, scene: Scene) -> float:
        """When the newest image that the pages of a scene show came to lie there [s]; -inf without any."""
        names = scene.now["cams"] if self.settings.cameras == SURROUND else CAMERAS[self.settings.cameras]
        folder, newest = self.root.sensor_root(scene.split), -math.inf
        for name in names:
            with suppress(OSError, SensorError):  # (whoever draws says what is missing)
                # (an archive keeps the times at which files were changed, but not this one)
                newest = max(newest, camera_of(scene.now, name, folder).path.stat().st_ctime)
        return newest

    def _page(
        self,
        scene: Scene,
        name: str,
        layers: Sequence[PlanLayer],
        view: View,
        cache: MetricCache,
        note: str,
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
            self._camera(scene, layers, cache),
            name,
            describe(scene, note, self.settings.version),
            rows,
            bundle,
        )

    def _camera(self, scene: Scene, layers: Sequence[PlanLayer], cache: MetricCache) -> Picture | None:
        if self.settings.cameras == SURROUND:
            return self._surround(scene, layers, cache)
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

    def _surround(self, scene: Scene, layers: Sequence[PlanLayer], cache: MetricCache) -> Picture | None:
        nuplan_map = self.root.map(scene.map_location)
        close = draw_bev(scene, nuplan_map, layers, CLOSE, cache.centerline, legend=False)
        allow_missing = self.settings.allow_missing_sensors
        width, folder = round(1.6 * self.settings.height), self.root.sensor_root(scene.split)
        try:
            return draw_surround(scene, folder, layers, close, width, allow_missing)
        except SensorError:
            if allow_missing:
                return None
            raise

    def _negatives(self, scene: Scene, cache: MetricCache) -> PlanLayer | None:
        if self.pool is None or scene.token not in self.pool:
            return None
        plans = check_plans(self.pool[scene.token].plans, f"{self.pool.root}: scene {scene.token}")
        progress: Progress = "pooled" if self.pool.description.progress == "pooled" else "pair"
        judged = judge(score(cache, plans, progress, self.settings.version), cache, progress)
        return PlanLayer("proposals of the pool", plans, "proposals", verdicts=judged)


def describe(scene: Scene, note: str = "", version: Version = "v1") -> str:
    """Where a scene is and what the ego is about to do, in a line.

    Args:
        scene: The scene.
        note: What to say first.
        version: The score that its page shows.
    """
    command = scene.driving_command
    order = COMMANDS[int(command.argmax())] if command.sum() == 1 else COMMANDS[-1]
    speed = float(np.hypot(*scene.ego_dynamic[:2]))
    of_score = "EPDMS of one scene: no extended comfort" if version == "v2" else ""
    words = [note, of_score, f"{order}, {speed:.1f} m/s", scene.log_name, scene.token]
    return "  ·  ".join(word for word in words if word)
