"""Files of checkpoints: read without executing anything, their weights found and checked."""

from __future__ import annotations

import importlib
import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from beyonddrive.structures.errors import BeyondDriveError, shorten

_COMPILED = re.compile(r"(^|\.)_orig_mod\.")
"""What ``torch.compile`` puts before the names inside a module."""
_DISTRIBUTED = "module."
"""What wrappers for distributed training put before every name."""
_SUFFIXES = (".pth", ".ckpt", ".safetensors", ".pt", ".onnx", ".pt2")
"""Names of checkpoints, and of graph files, end like this."""
_SHOWN = 8
_IGNORED = "num_batches_tracked"
"""Counts batches for a running average with momentum=None, which no planner uses; mmengine ignores it too."""


class CheckpointError(BeyondDriveError, RuntimeError):
    """A checkpoint cannot be read, belongs to another model, or holds values that are not finite."""


def _statistic_of_history(owner: object, name: str) -> Callable[..., Any]:
    """Stand in for ``getattr`` while a checkpoint is read: statistics of a history, nothing else."""
    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise pickle.UnpicklingError(f"a checkpoint may not reach for {owner!r}.{name}")
    statistic: Callable[..., Any] = getattr(HistoryBuffer, name)
    return statistic


def _known_as(path: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function under the name by which a checkpoint asks for it."""

    def named(*args: Any) -> Any:
        return function(*args)

    # (torch before 2.6 takes no pairs of function and name)
    named.__module__, _, named.__qualname__ = path.rpartition(".")
    named.__name__ = named.__qualname__
    return named


def _safe_globals() -> list[Any]:
    """Return what an mmengine checkpoint holds beyond tensors: histories of logged numbers."""
    dtypes = [np.bool_, np.int32, np.int64, np.float32, np.float64]
    # (numpy 1.26 has a numpy._core too, which does not import its multiarray by itself)
    core = importlib.import_module(f"numpy.{'_core' if hasattr(np, '_core') else 'core'}.multiarray")
    functions = {"_reconstruct": core._reconstruct, "scalar": core.scalar}
    return [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(dtype)) for dtype in dtypes),
        _known_as("builtins.getattr", _statistic_of_history),
        # numpy 2 moved these two; a checkpoint may have been written by either version
        *(_known_as(f"numpy.core.multiarray.{name}", function) for name, function in functions.items()),
        *(_known_as(f"numpy._core.multiarray.{name}", function) for name, function in functions.items()),
    ]


def find_checkpoint(path: str | Path) -> Path:
    """The file of a checkpoint.

    Raises:
        FileNotFoundError: If there is none; with those of its folder, or that the folder is not there.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: no such checkpoint; there is no folder {folder.absolute()}")
    names = (file.name for file in folder.iterdir() if file.suffix in _SUFFIXES)
    beside = sorted(names, key=lambda name: (len(name), name))  # (epoch_9 before epoch_10)
    listed = ", ".join(beside[-_SHOWN:]) or "no checkpoint"
    raise FileNotFoundError(f"{path}: no such checkpoint; {folder.absolute()} has {listed}")


def load_checkpoint_file(path: str | Path, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint without executing anything that it holds.

    Args:
        path: A file that ``torch.save`` wrote, or a ``.safetensors`` file, whose tensors become the
            ``state_dict`` and whose metadata ``meta`` is read as JSON.
        map_location: As for ``torch.load``.
        mmap: Read no tensor before it is used: for who wants ``meta`` alone.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, holds objects other than tensors, numbers and mmengine's
            log history, or is not a dictionary.
    """
    path = find_checkpoint(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path, map_location)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        # torch's own text is long and recommends weights_only=False; one sentence in it is the reason.
        found = re.search(
            r"((?:Unsupported|Trying|Can only|a checkpoint) .*?)(?:\. Please use|\n|$)", str(error)
        )
        reason = found[1] if found else "it is not what torch.save writes"
        raise CheckpointError(
            f"{path}: refused, because it holds more than weights and logs ({reason}). Nothing was executed. "
            "If the file is damaged, use another checkpoint; if it comes from another program, save its "
            "state_dict alone as {'state_dict': ...}"
        ) from None
    except Exception as error:  # random bytes make the reader fail in any way
        raise CheckpointError(
            f"{path}: cannot be read, it is truncated or no checkpoint "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); use another checkpoint"
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint dictionary")
    return checkpoint


def _load_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt", device=str(map_location or "cpu")) as file:
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            return {"state_dict": {key: file.get_tensor(key) for key in list(file.keys())}, "meta": meta}
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read, it is truncated or no safetensors file ({error}); use another "
            "checkpoint"
        ) from error


def weights_of(checkpoint: Mapping[str, Any], file: str | Path) -> dict[str, Tensor]:
    """The weights that a checkpoint holds, under the names that the bare module gives them.

    They are under ``state_dict``; else the whole checkpoint is weights; else they are under the one key, such
    as ``model``, that has nothing but tensors. What ``torch.compile`` (``_orig_mod.``) and wrappers for
    distributed training (``module.``, where every name has it) put before names is taken off.

    Args:
        checkpoint: As :func:`load_checkpoint_file` returns it.
        file: Its name, for messages.

    Raises:
        CheckpointError: If there are no weights, several sets of them, or other things among them.

    >>> list(weights_of({'model': {'module._orig_mod.a': torch.ones(1)}, 'epoch': 3}, 'a.pth'))
    ['a']
    """
    wrapped = _state_dict(checkpoint, file)
    bare = {_COMPILED.sub(r"\1", key): value for key, value in wrapped.items()}
    while all(key.startswith(_DISTRIBUTED) for key in bare):
        bare = {key.removeprefix(_DISTRIBUTED): value for key, value in bare.items()}
    if len(bare) < len(wrapped):
        raise CheckpointError(
            f"{file}: holds weights twice, with and without '_orig_mod.' in their names: save those of one "
            "module alone"
        )
    return bare


def _state_dict(checkpoint: Mapping[str, Any], file: str | Path) -> Mapping[str, Tensor]:
    """Where in a checkpoint the weights are."""
    if "state_dict" in checkpoint:
        where, state = "'state_dict'", checkpoint["state_dict"]
    else:
        where, state = "its top, where there is no 'state_dict',", checkpoint
        sets = [key for key, value in checkpoint.items() if _are_weights(value)]
        if len(sets) > 1:
            raise CheckpointError(
                f"{file}: holds weights under each of {shorten(list(map(repr, sets)))}: save those that are "
                "meant as {'state_dict': ...}"
            )
        if sets:
            state = checkpoint[sets[0]]
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{file}: has no weights: give a file with a non-empty 'state_dict'")
    others = [key for key in state if not isinstance(key, str) or not isinstance(state[key], Tensor)]
    if others:
        raise CheckpointError(
            f"{file}: {where} holds {others[0]!r}, a {type(state[others[0]]).__name__}, among the weights: "
            f"save the weights alone as {{'state_dict': ...}}"
        )
    return state


def _are_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def nonfinite_keys(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity.

    >>> nonfinite_keys({'a': torch.ones(2), 'b': torch.tensor([1.0, float('nan')])})
    ['b']
    """
    return [
        key
        for key, value in state_dict.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]


def check_weights(
    planner: nn.Module,
    state: Mapping[str, Tensor],
    file: str | Path,
    origin: str | None = None,
    name: str | None = None,
) -> None:
    """Refuse weights that are not exactly those of this planner.

    Args:
        planner: The model that will take the weights.
        state: Weights by name.
        file: Name of their file, for messages.
        origin: Planner that they were saved from, if the file says so.
        name: Name of the planner; by default that of its class.

    Raises:
        CheckpointError: If a key is missing, unexpected or of another shape, or a weight is NaN or infinite.

    >>> check_weights(nn.Linear(2, 1), nn.Linear(2, 1).state_dict(), 'a.pth')
    """
    name = name or type(planner).__name__
    wanted = planner.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith(_IGNORED)]
    unexpected = [key for key in state if key not in wanted and not key.endswith(_IGNORED)]
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    faults = [
        f"{len(keys)} {what} ({shorten(keys)})"
        for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if keys
    ]
    if faults:
        saved = f"it is of planner {origin}" if origin else "it does not say which planner it is from"
        remedy = "Use the config that it was trained with (beyonddrive train leaves it beside the checkpoint)"
        if not origin and not wanted.keys() & state.keys():
            remedy += "; that of an original release becomes ours by beyonddrive convert"
        raise CheckpointError(
            f"{file}: does not fit planner {name}: {'; '.join(faults)}. Nothing was loaded; {saved}. {remedy}"
        )
    broken = nonfinite_keys(state)
    if broken:
        raise CheckpointError(
            f"{file}: {len(broken)} weights of planner {name} hold NaN or infinity ({shorten(broken)}): the "
            "training diverged; use an earlier checkpoint"
        )
