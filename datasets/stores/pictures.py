"""Camera images that a store holds as compressed pictures, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.errors import BeyondDriveError

ENCODED = "camera_encoded"
"""Field of a record that holds ``camera`` as the bytes of a picture, uint8 (N,)."""


class EncodingError(BeyondDriveError, ValueError):
    """A camera image cannot be encoded, or its picture cannot be decoded."""


def decoded(features: Mapping[str, Any]) -> dict[str, Any]:
    """Features with ``camera`` for ``camera_encoded``; others as they are.

    Raises:
        EncodingError: If the picture is damaged; the caller says of what it is.
    """
    if ENCODED not in features:
        return dict(features)
    rest = {key: value for key, value in features.items() if key != ENCODED}
    return {**rest, "camera": _decode(features[ENCODED])}


def _decode(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture as uint8 (3, H, W) RGB."""
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    if image is None:
        raise EncodingError(f"its camera image ({data.size} bytes) cannot be decoded")
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, [planes[2], planes[1], planes[0]])  # (faster than a copy of a transposed view)
    return planes
