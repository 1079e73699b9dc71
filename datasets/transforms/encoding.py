"""Camera images of a cache as compressed pictures: fewer bytes on disk, some time to decode in a worker."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np

from beyonddrive.datasets.stores.pictures import ENCODED, EncodingError, decoded
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.frame import Frame

_LOSSLESS = {"png": ".png", "webp": ".webp"}
_LOSSY = {"jpeg": ".jpg", "webp": ".webp"}
_LOSSLESS_WEBP = 101
"""A quality above 100 is OpenCV's word for lossless."""


@TRANSFORMS.register_module()
class EncodeCamera(BaseTransform):
    """Replaces ``camera`` by ``camera_encoded``, the bytes of a picture: the last step of a feature pipeline.

    A data set decodes it before its ``pipeline``, in the process that reads the sample, so that everything
    behind the cache finds ``camera`` as it would without this step; with a lossy encoding the same holds of
    samples made on the fly. Without this step a cache holds raw uint8 values.

    Args:
        format: ``png``, ``webp`` or ``jpeg``.
        quality: 1 to 100 for a lossy picture (``webp``, ``jpeg``); None for a lossless one (``png``,
            ``webp``).

    Raises:
        EncodingError: If the two do not go together.

    >>> from beyonddrive.datasets.stores.pictures import decoded
    >>> step = EncodeCamera(format="png")
    >>> image = np.arange(3 * 4 * 8, dtype=np.uint8).reshape(3, 4, 8)
    >>> np.array_equal(decoded(step({"camera": image}))["camera"], image)
    True
    """

    version: ClassVar[int] = 1

    def __init__(self, format: str, quality: int | None = None) -> None:
        known = _LOSSLESS if quality is None else _LOSSY
        if format not in known:
            kind = "without quality (lossless)" if quality is None else f"with quality={quality} (lossy)"
            raise EncodingError(
                f"EncodeCamera: format={format!r} {kind} is not possible; choose png or webp without "
                f"quality, or webp or jpeg with quality=1..100"
            )
        if quality is not None and (isinstance(quality, bool) or not 1 <= quality <= 100):
            raise EncodingError(f"EncodeCamera: quality must be from 1 to 100, got {quality}")
        self.format, self.quality = format, quality
        self._suffix = known[format]
        if format == "png":
            # Level 1 is 2 to 3 times as fast to write as the default and a few percent larger.
            self._options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        elif format == "webp":
            self._options = [cv2.IMWRITE_WEBP_QUALITY, _LOSSLESS_WEBP if quality is None else int(quality)]
        else:
            self._options = [cv2.IMWRITE_JPEG_QUALITY, int(quality or 0)]

    def transform(self, results: Results) -> Results:
        """Read and take out ``camera``; add ``camera_encoded``."""
        if "camera" not in results:
            raise EncodingError("EncodeCamera: there is no camera; put it behind LoadCameraStitch")
        image = np.asarray(results["camera"])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise EncodingError(
                f"EncodeCamera: camera must be uint8 (3, H, W), got {image.dtype} {image.shape}"
            )
        pixels = np.ascontiguousarray(np.moveaxis(image, 0, -1)[..., ::-1])
        done, data = cv2.imencode(self._suffix, pixels, self._options)
        if not done:
            raise EncodingError(f"EncodeCamera: this OpenCV cannot write {self.format}")
        rest = {key: value for key, value in results.items() if key != "camera"}
        return {**rest, ENCODED: data.reshape(-1)}

    def observe(self, frame: Frame, results: Results) -> Results:
        """Leave ``camera`` as a reader of the cache gets it: what a lossy picture keeps of it."""
        return results if self.quality is None else decoded(self.transform(results))
