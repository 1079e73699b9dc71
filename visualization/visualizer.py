"""The visualizer of a runner: draws plans from above and from the camera, wherever its figures go."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.visualization import LocalVisBackend, Visualizer
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.registry import VISUALIZERS
from beyonddrive.structures.sample import PlanSample
from beyonddrive.visualization.bev import draw_bev
from beyonddrive.visualization.camera import draw_camera
from beyonddrive.visualization.canvas import Picture
from beyonddrive.visualization.layers import PlanLayer, View, expert_layer
from beyonddrive.visualization.scene_pages import CAMERAS, CLOSE, SURROUND
from beyonddrive.visualization.surround import draw_surround


@VISUALIZERS.register_module()
class PlanVisualizer(Visualizer):
    """mmengine's visualizer, which can also draw scenes with plans.

    Figures and pictures go to ``vis_backends``, for instance the work folder (``LocalVisBackend``),
    TensorBoard (``TensorboardVisBackend``), Weights & Biases (``WandbVisBackend``) or MLflow
    (``MLflowVisBackend``). ``scalars.json`` of the work folder keeps mmengine's names, and counts
    validations by epochs, where the training does. Everywhere else figures are ``train/...`` and
    ``val/...``, pictures ``plans/...``, and all are placed at the step of the training that they are of.

    Args:
        name: mmengine keeps it by this name.
        cameras: Which cameras are drawn: ``front``, ``arc`` (front left, front, front right), ``all``
            eight, or None for none, where there are no images.
        num_proposals: Proposals of a multi-modal planner that are drawn, those with the highest scores.
        height: Height of the pictures [px].
        min_box_score: Boxes that a planner's detection head found with a lower score are not drawn.
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
        min_box_score: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, **kwargs)
        if cameras is not None and cameras not in (*CAMERAS, SURROUND):
            raise ValueError(
                f"PlanVisualizer: cameras must be None or one of {', '.join([*CAMERAS, SURROUND])}, got "
                f"{cameras!r}"
            )
        self.cameras, self.num_proposals, self.height = cameras, num_proposals, height
        self.min_box_score = min_box_score
        self._at: tuple[str, int] | None = None

    def now_at(self, phase: str, iteration: int) -> None:
        """Say of what the figures and pictures to come are.

        Args:
            phase: ``train`` or ``val``.
            iteration: Steps that have been done.
        """
        self._at = (phase, iteration)

    @master_only
    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Send the config to the backends; the first that they get, so that they are opened now.

        Raises:
            ImportError: If the package of a backend is missing; names it and what to do without it.
        """
        for name, backend in self._vis_backends.items():
            try:
                backend.add_config(config, **kwargs)
            except ImportError as error:
                raise ImportError(
                    f"visualizer.vis_backends: {name} cannot be used ({' '.join(str(error).split())}); "
                    "install its package with pip install, or leave figures to the work folder alone: "
                    'visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])'
                ) from error

    @master_only
    def add_scalars(
        self, scalar_dict: dict[str, Any], step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Send figures to the backends, as described above."""
        for backend in self._vis_backends.values():
            if self._at is None or isinstance(backend, LocalVisBackend):
                backend.add_scalars(scalar_dict, step, file_path, **kwargs)
            else:
                phase, iteration = self._at
                named = {f"{phase}/{name}": value for name, value in scalar_dict.items() if name != "step"}
                backend.add_scalars(named, iteration, file_path, **kwargs)

    @master_only
    def add_image(self, name: str, image: Picture, step: int = 0) -> None:
        """Send a picture to the backends, as described above."""
        for backend in self._vis_backends.values():
            if self._at is None or isinstance(backend, LocalVisBackend):
                backend.add_image(name, image, step)
            else:
                backend.add_image(f"plans/{name}", image, self._at[1])

    def draw_scene(
        self, scene: Scene, root: NavsimRoot, sample: PlanSample | None = None
    ) -> dict[str, Picture]:
        """Draw the expert, and what a planner predicts.

        Args:
            scene: The scene.
            root: Its data root, for map and images.
            sample: A sample with ``pred.trajectory`` and maybe ``pred.proposals``, ``pred.scores``,
                ``pred.boxes``, ``pred.box_scores``.

        Returns:
            Pictures ``bev`` and, unless there are no cameras, ``camera``; uint8 RGB.

        Raises:
            SensorError: If an image is missing or damaged.
            NuPlanMapError: If the map cannot be read.
            PlanError: If a plan holds NaN or infinity.
        """
        layers = [*self._layers(sample), expert_layer(scene)]
        view = View.fit([layer.plans for layer in layers], self.height, self.height)
        found = self._detections(sample)
        nuplan_map = root.map(scene.map_location)
        pictures = {"bev": draw_bev(scene, nuplan_map, layers, view, detections=found)}
        folder = root.sensor_root(scene.split)
        if self.cameras == SURROUND:
            close = draw_bev(scene, nuplan_map, layers, CLOSE, legend=False, detections=found)
            pictures["camera"] = draw_surround(scene, folder, layers, close, round(1.6 * self.height))
        elif self.cameras is not None:
            names = CAMERAS[self.cameras]
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

    def _detections(self, sample: PlanSample | None) -> NDArray[np.float64] | None:
        if sample is None or "boxes" not in sample.pred:
            return None
        return _array(sample.pred.boxes)[_array(sample.pred.box_scores) >= self.min_box_score]


def _array(values: Any) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().cpu().double().numpy()
    return array
