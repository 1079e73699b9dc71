"""What a feature pipeline leaves: arrays, which can be cached and packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

NAMES = ("token", "log_name")
"""Strings that say which scene it is."""
_GIVEN = ("scene", "root")
"""What a pipeline starts from, which is not kept."""


def feature_arrays(results: Mapping[str, Any]) -> dict[str, Any]:
    """The features of a scene as arrays, beside its names.

    Numbers, tensors, and lists of numbers become arrays of the same values.

    Raises:
        ValueError: If a transform has left something else, which would be lost without a word.

    >>> feature_arrays({"scene": object(), "token": "a1", "speed": 2.5, "gaps": [[1, 2], [3, 4]]})
    {'token': 'a1', 'speed': array(2.5), 'gaps': array([[1, 2],
           [3, 4]])}
    """
    kept = {key: value for key, value in results.items() if key not in _GIVEN}
    return {key: value if key in NAMES else _array(key, value) for key, value in kept.items()}


def _array(key: str, value: Any) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError:  # (rows of different lengths)
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"a feature transform has left {key!r}, a {type(value).__name__} that is no array of numbers; "
            f"give it as one (rows of different lengths padded, or each under a key of its own), or remove "
            f"it from the results"
        )
    return array
