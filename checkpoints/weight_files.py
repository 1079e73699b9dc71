"""Files of weights: read without executing anything, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from beyonddrive.engine.checkpoint_files import CheckpointError, load_checkpoint_file, weights_of

SAFETENSORS = ".safetensors"
"""Ending of a file without pickle; any other is written by ``torch.save``."""


@dataclass(frozen=True)
class WeightFile:
    """Weights of a file, and what it says about them.

    Attributes:
        state: Weights by the name that the bare module gives them.
        meta: Contents of ``meta``; empty if the file has none.
    """

    state: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)


def read_weights(path: str | Path) -> WeightFile:
    """Read a checkpoint; :func:`beyonddrive.engine.checkpoint_files.weights_of` says where its weights are.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, holds more than weights and logs, or no weights at all.
    """
    loaded = load_checkpoint_file(path)
    meta = loaded.get("meta")
    return WeightFile(weights_of(loaded, path), dict(meta) if isinstance(meta, Mapping) else {})


def read_data(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read an npz file of plain arrays.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, or holds objects.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such data file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # a damaged archive fails in any way
        raise CheckpointError(f"{path}: is no npz file of plain arrays ({error})") from error


def write_weights(path: str | Path, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write ``{'state_dict': state, 'meta': meta}``, as safetensors if the name ends so.

    Args:
        path: The file; its folder is made.
        state: Weights by name; values and types are kept bit by bit.
        meta: Plain numbers, strings, lists and dictionaries.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.suffix == SAFETENSORS:
            # (safetensors refuses tensors that share memory, or are views)
            whole = {key: value.contiguous().clone() for key, value in state.items()}
            # (one entry: safetensors writes several in any order, and equal weights shall give equal files)
            partial.write_bytes(save(whole, metadata={"meta": json.dumps(meta)}))
        else:
            torch.save({"state_dict": dict(state), "meta": dict(meta)}, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
