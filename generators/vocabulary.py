"""Vocabularies: representative plans of a split, by k-means over its expert plans.

Planners that choose among fixed plans read them from such a file: the vocabulary planner (4096 plans), WoTE
(256 anchors), DiffusionDrive (20 anchors) and MeanFuser (8 clusters, whose steps give its Gaussian mixture).
The clustering itself is in :mod:`beyonddrive.structures.clustering`. Nothing here imports torch.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.clustering import assign_plans, build_vocabulary, describe_vocabulary
from beyonddrive.structures.vocabulary import Vocabulary

__all__ = ["assign_plans", "build_vocabulary", "describe_vocabulary", "write_vocabulary"]


def write_vocabulary(path: str | Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary as npz, all of it or nothing."""
    buffer = io.BytesIO()
    arrays = {key: value for key, value in vocabulary._asdict().items() if key != "meta"}
    np.savez_compressed(buffer, meta=np.array(json.dumps(vocabulary.meta, sort_keys=True)), **arrays)
    write_atomically(Path(path), buffer.getvalue())
