"""Vocabularies: fixed plans that a planner chooses among, and the file they are kept in (no torch)."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import PlanError, check_plans

FloatArray = NDArray[np.float64]

COMMAND = "beyonddrive build-vocabulary CONFIG_OR_ROOT SPLIT --size N --out FILE"


class VocabularyError(BeyondDriveError, ValueError):
    """A vocabulary cannot be built or read; the message says what to change."""


class Vocabulary(NamedTuple):
    """A vocabulary as it is kept in a file.

    Attributes:
        plans: (V, 8, 3) float32 cluster centres: x [m], y [m], heading [rad], ego frame at t = 0; the ones
            that most expert plans belong to first.
        counts: (V,) int64 expert plans per cluster.
        step_means: (V, 4) float64 mean over the plans and poses of a cluster of dx [m], dy [m], sin(heading),
            cos(heading), where dx, dy lead from one pose to the next (METHOD, "Delta representation", before
            normalisation).
        step_stds: (V, 4) float64 standard deviations of the same.
        meta: What it was made from.
    """

    plans: NDArray[np.float32]
    counts: NDArray[np.int64]
    step_means: FloatArray
    step_stds: FloatArray
    meta: dict[str, Any]


def vocabulary_id(plans: NDArray[np.floating]) -> int:
    """A number that tells vocabularies (V, 8, 3) apart, the same for equal float32 plans in equal order.

    >>> vocabulary_id(np.zeros((2, 8, 3))) == vocabulary_id(np.zeros((2, 8, 3), np.float32))
    True
    >>> vocabulary_id(np.zeros((2, 8, 3))) == vocabulary_id(np.ones((2, 8, 3)))
    False
    """
    # Adding 0 turns -0.0 into 0.0: equal plans must have equal bytes.
    data = np.ascontiguousarray(plans, "<f4") + np.float32(0)
    digest = hashlib.sha256(str(data.shape).encode() + data.tobytes()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # fits int64


def read_vocabulary(path: str | Path, size: int | None = None) -> Vocabulary:
    """Read a vocabulary.

    Args:
        path: File made by ``beyonddrive build-vocabulary``. A plain ``.npy`` file with the plans alone, or an
            ``.npz`` file with them as ``plans``, is fine too; what it lacks is empty then.
        size: Number of plans it must have; None accepts any.

    Raises:
        VocabularyError: If it is missing, damaged, or of another size.
    """
    path = Path(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays: dict[str, NDArray[Any]] = {"plans": loaded}
        else:
            with loaded:
                arrays = {key: loaded[key] for key in loaded.files}
        plans = check_plans(arrays["plans"], f"{path}: plans").astype(np.float32)
        meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
    except FileNotFoundError:
        raise VocabularyError(f"{path}: there is no vocabulary here; make it with: {COMMAND}") from None
    except KeyError as error:
        raise VocabularyError(f"{path}: holds no array {error}; make it with: {COMMAND}") from error
    except PlanError as error:
        raise VocabularyError(f"{error}; make it with: {COMMAND}") from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise VocabularyError(f"{path}: is no vocabulary ({error}); make it with: {COMMAND}") from error
    if size is not None and len(plans) != size:
        raise VocabularyError(
            f"{path}: holds {len(plans)} plans, {size} are wanted: name another file, change the size in the "
            f"config, or make one with: {COMMAND}"
        )
    empty = np.zeros((0, 4))
    counts = arrays.get("counts", np.zeros(0, np.int64))
    return Vocabulary(
        plans, counts, arrays.get("step_means", empty), arrays.get("step_stds", empty), dict(meta)
    )
