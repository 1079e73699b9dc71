"""Colours of the camera image as another exposure, lens or weather would give them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.transforms.augmentation import Augmentation
from beyonddrive.datasets.transforms.base import Results
from beyonddrive.registry import TRANSFORMS

_MIDDLE = 128.0
"""Value that a change of contrast leaves as it is."""


@TRANSFORMS.register_module()
class PhotometricAugmentation(Augmentation):
    """Changes gamma, contrast, brightness and saturation of ``camera``, each drawn evenly; nothing else.

    Args:
        brightness: Largest change, as a share of 255.
        contrast: Largest change of the factor by which values differ from the middle.
        saturation: Largest change of the factor by which colours differ from grey.
        gamma: Largest change of the exponent's logarithm.
        **kwargs: ``seed`` and ``probability`` of :class:`Augmentation`.

    Raises:
        ValueError: If a range is not in [0, 1), or there is no uint8 ``camera`` in the sample.

    >>> step = PhotometricAugmentation(brightness=0.2, seed=1)
    >>> image = np.full((3, 2, 2), 100, np.uint8)
    >>> bool((step({"token": "a", "camera": image})["camera"] != image).all()), int(image[0, 0, 0])
    (True, 100)
    """

    def __init__(
        self,
        brightness: float = 0.15,
        contrast: float = 0.2,
        saturation: float = 0.3,
        gamma: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.gamma = saturation, gamma
        for name in ("brightness", "contrast", "saturation", "gamma"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(
                    f"PhotometricAugmentation: {name} must be in [0, 1), got {getattr(self, name)}"
                )

    def change(self, results: Results, rng: np.random.Generator) -> Results:
        """Read and replace ``camera``."""
        image = results.get("camera")
        if image is None or image.dtype != np.uint8:
            raise ValueError(
                "PhotometricAugmentation: there is no uint8 camera image; take it out of the pipeline, or "
                "put LoadCameraStitch into the feature_pipeline"
            )
        gamma, contrast, brightness, saturation = rng.uniform(-1.0, 1.0, 4)
        values = np.arange(256) / 255.0
        values = 255.0 * values ** np.exp(self.gamma * gamma)
        values = (values - _MIDDLE) * (1.0 + self.contrast * contrast) + _MIDDLE
        values += 255.0 * self.brightness * brightness
        table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return {**results, "camera": _saturated(table[image], 1.0 + self.saturation * saturation)}


def _saturated(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Colours (3, H, W) RGB nearer to grey (factor below 1) or farther from it."""
    # (luma of ITU-R BT.601)
    grey = cv2.addWeighted(image[0], 0.299, image[1], 0.587, 0.0)
    grey = cv2.addWeighted(grey, 1.0, image[2], 0.114, 0.0)
    return np.stack([cv2.addWeighted(plane, factor, grey, 1.0 - factor, 0.0) for plane in image])
