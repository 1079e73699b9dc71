"""The visualizer of a runner: draws plans from above and from the camera, wherever its figures go."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.visualization import Visualizer
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.registry import VISUALIZERS
from beyonddrive.structures.sample import PlanSample
from beyonddrive.visualization.bev import draw_bev
from beyonddrive.visualization.camera import draw_camera
from beyonddrive.visualization.canvas import Picture
from beyonddrive.visualization.layers import PlanLayer, View, expert_layer
from beyonddrive.visualization.scene_pages import CAMERAS


@VISUALIZERS.register_module()
class PlanVisualizer(Visualizer):
    """mmengine's visualizer, which can also draw scenes with plans.

    Figures and pictures go to ``vis_backends``, for instance the work folder (``LocalVisBackend``),
    TensorBoard (``TensorboardVisBackend``), Weights & Biases (``WandbVisBackend``) or MLflow
    (``MLflowVisBackend``).

    Args:
        name: mmengine keeps it by this name.
        cameras: Which cameras are drawn: ``front``, ``arc`` (front left, front, front right), or None for
            none, where there are no images.
        num_proposals: Proposals of a multi-modal planner that are drawn, those with the highest scores.
        height: Height of the pictures [px].
        **kwargs: As for mmengine's ``Visualizer``.

    Raises:
        ValueError: If the cameras are unknown.
    """

    def __init__(
        self,
        name: str = "visualizer",
        *,
        cameras: str | None = "front",
        num_proposals: int = 64,
        height: int = 600,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, **kwargs)
        if cameras is not None and cameras not in CAMERAS:
            raise ValueError(
                f"PlanVisualizer: cameras must be None or one of {', '.join(sorted(CAMERAS))}, got "
                f"{cameras!r}"
            )
        self.cameras, self.num_proposals, self.height = cameras, num_proposals, height

    def draw_scene(
        self, scene: Scene, root: NavsimRoot, sample: PlanSample | None = None
    ) -> dict[str, Picture]:
        """Draw the expert, and what a planner predicts.

        Args:
            scene: The scene.
            root: Its data root, for map and images.
            sample: A sample with ``pred.trajectory`` and maybe ``pred.proposals``, ``pred.scores``.

        Returns:
            Pictures ``bev`` and, unless there are no cameras, ``camera``; uint8 RGB.

        Raises:
            SensorError: If an image is missing or damaged.
            NuPlanMapError: If the map cannot be read.
            PlanError: If a plan holds NaN or infinity.
        """
        layers = [*self._layers(sample), expert_layer(scene)]
        view = View.fit([layer.plans for layer in layers], self.height, self.height)
        pictures = {"bev": draw_bev(scene, root.map(scene.map_location), layers, view)}
        if self.cameras is not None:
            folder, names = root.sensor_root(scene.split), CAMERAS[self.cameras]
            width = round(self.height * 16 / 9 * (1 if len(names) == 1 else 2))
            pictures["camera"] = draw_camera(scene, folder, layers, names, width, self.height)
        return pictures

    @master_only
    def add_scene(self, scene: Scene, root: NavsimRoot, sample: PlanSample | None, step: int) -> None:
        """Send the pictures of :meth:`draw_scene` to the backends, named by the token."""
        for name, picture in self.draw_scene(scene, root, sample).items():
            self.add_image(f"{scene.token}_{name}", picture, step)

    def _layers(self, sample: PlanSample | None) -> list[PlanLayer]:
        if sample is None:
            return []
        layers = []
        if "proposals" in sample.pred:
            proposals = _array(sample.pred.proposals)
            if "scores" in sample.pred:
                proposals = proposals[np.argsort(-_array(sample.pred.scores), kind="stable")]
            layers.append(PlanLayer("proposals", proposals[: self.num_proposals], "proposals"))
        layers.append(PlanLayer("planner", _array(sample.pred.trajectory)[None], "plan"))
        return layers


def _array(values: Any) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().cpu().double().numpy()
    return array
