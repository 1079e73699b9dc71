"""The camera input: three front cameras side by side."""

from __future__ import annotations

from collections.abc import Sequence

from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.sensors import SensorError, camera_of, read_image
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.datasets.transforms.camera_rig import rig_of
from beyonddrive.datasets.transforms.strip_rig import CAMERAS, StripRig, stitch
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.frame import Frame

__all__ = ["CAMERAS", "LoadCameraStitch", "stitch"]


@TRANSFORMS.register_module()
class LoadCameraStitch(BaseTransform):
    """Adds ``camera``: uint8 (3, H, W) RGB, the left, front and right image of now as one strip.

    1920 x 1080 images lose 28 rows at top and bottom, the outer ones 416 columns at both sides; images of
    another size lose the same shares. The strip is resized bilinearly (MODELS, section 1).

    Args:
        size: (H, W) of the result [px].
        rig: Also add ``camera_rig``, float64 (3, 26), where points of the ego frame are in the strip
            (:mod:`~beyonddrive.datasets.transforms.camera_rig`); ``ViewAugmentation`` needs it.

    Raises:
        SensorError: If an image is missing or damaged, the three differ in size, or, with ``rig``, a
            calibration is not finite.
    """

    def __init__(self, size: Sequence[int] = (256, 1024), rig: bool = False) -> None:
        height, width = (int(value) for value in size)
        if height < 1 or width < 1:
            raise ValueError(f"LoadCameraStitch: size must be positive (H, W), got {tuple(size)}")
        self.size = (height, width)
        self.rig = rig

    def transform(self, results: Results) -> Results:
        """Read ``scene`` and ``root``; add ``camera``."""
        scene: Scene = results["scene"]
        folder = results["root"].sensor_root(scene.split)
        cameras = [camera_of(scene.now, name, folder) for name in CAMERAS]
        paths = [camera.path for camera in cameras]
        images = [read_image(path) for path in paths]
        for path, image in zip(paths, images, strict=True):
            if image.shape != images[1].shape:
                raise SensorError(
                    f"{path}: image is {image.shape[1]} x {image.shape[0]}, but {paths[1]} is "
                    f"{images[1].shape[1]} x {images[1].shape[0]}; restore or generate the frame again"
                )
        results["camera"] = stitch(images[0], images[1], images[2], self.size)
        if self.rig:
            height, width = images[1].shape[:2]
            results["camera_rig"] = rig_of(cameras, (height, width), self.size)
        return results

    def observe(self, frame: Frame, results: Results) -> Results:
        """Add ``camera``, as the rig of the planner's training shows what the frame's cameras show.

        ``camera_rig`` is not added: only training turns views.
        """
        rig: StripRig = results["strip_rig"]
        results["camera"] = rig.strip(frame.cameras, self.size)
        return results
