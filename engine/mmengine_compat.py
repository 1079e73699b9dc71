"""Remedies that mmengine 0.10 needs on current torch and on machines without a GPU.

:func:`apply` installs them, once; the tools and :mod:`beyonddrive.apis` call it first. Each one stands for
a failure of the stock library, and each has a test that shows the failure without it:

1. *Checkpoints*: torch 2.6 made ``weights_only=True`` the default of ``torch.load``, which refuses the log
   history in every mmengine checkpoint; older versions unpickled anything. :func:`load_checkpoint_file`
   reads with ``weights_only=True`` on every version and allows exactly what mmengine writes.
2. *Processes without GPUs*: ``launcher='pytorch'`` selects a CUDA device even for gloo, and the wrapper for
   distributed training is given CUDA device numbers for a model on the CPU.
3. *Mixed precision without a GPU*: ``AmpOptimWrapper`` insists on one; :class:`AutocastOptimWrapper` runs
   bfloat16 autocast, which needs no gradient scaling, on any device.
4. *Package look-ups*: configs of the form ``_base_ = 'package::file.py'`` import ``pkg_resources``, which
   setuptools 82 removed, and know mmlab's packages only; ``'beyonddrive::ltf/ltf_tiny_...py'`` is a config of
   this suite, wherever it is installed, and so with any package that has configs.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import json
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine.config.config
import mmengine.dist.utils
import mmengine.utils
import mmengine.utils.package_utils
import numpy as np
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import print_log
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import SafetensorError, safe_open
from torch import nn

from beyonddrive.engine.config_files import find_config
from beyonddrive.registry import OPTIM_WRAPPERS
from beyonddrive.structures.errors import BeyondDriveError

_MARK = "_beyonddrive_remedy"


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


def load_checkpoint_file(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing anything that it holds.

    Args:
        path: A file that ``torch.save`` wrote, or a ``.safetensors`` file, whose tensors become the
            ``state_dict`` and whose metadata ``meta`` is read as JSON.
        map_location: As for ``torch.load``.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, holds objects other than tensors, numbers and mmengine's
            log history, or is not a dictionary.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if path.suffix == ".safetensors":
        return _load_safetensors(path, map_location)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
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


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load a checkpoint for mmengine's ``CheckpointLoader``; its key ``file`` names it in later messages."""
    return {**load_checkpoint_file(filename, map_location), "file": filename}


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Mixed precision by ``torch.autocast`` alone, on any device; bfloat16 needs no gradient scaling.

    Args:
        dtype: ``'bfloat16'``; float16 would need the gradient scaling of ``AmpOptimWrapper``.
        **kwargs: As for ``OptimWrapper``.

    Raises:
        ValueError: If ``dtype`` is something else.
    """

    def __init__(self, dtype: str = "bfloat16", **kwargs: Any) -> None:
        if dtype != "bfloat16":
            raise ValueError(
                f"AutocastOptimWrapper: dtype must be 'bfloat16', got {dtype!r}; float16 on a GPU is "
                "optim_wrapper.type='AmpOptimWrapper'"
            )
        super().__init__(**kwargs)
        self.dtype = getattr(torch, dtype)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in mixed precision."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=self.dtype):
            yield


def _init_without_cuda(init: Callable[..., None]) -> Callable[..., None]:
    """Let mmengine start its process group on machines without CUDA, with gloo."""

    @functools.wraps(init)
    def start(backend: str, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            init(backend, **kwargs)
            return
        if backend != "gloo":
            print_log(f"no CUDA device here: process group uses gloo instead of {backend}", "current")
        set_device = torch.cuda.set_device
        torch.cuda.set_device = lambda device: None
        try:
            init("gloo", **kwargs)
        finally:
            torch.cuda.set_device = set_device

    setattr(start, _MARK, True)
    return start


def _wrap_without_cuda(init: Callable[..., None]) -> Callable[..., None]:
    """Drop the CUDA device numbers that mmengine gives for a model on the CPU."""

    @functools.wraps(init)
    def wrap(self: MMDistributedDataParallel, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            kwargs["device_ids"] = None
        init(self, module, *args, **kwargs)

    setattr(wrap, _MARK, True)
    return wrap


def _is_installed(package: str) -> bool:
    """Whether a distribution or a module of this name is installed."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(package)
        return spec is not None and spec.origin is not None
    return True


def _get_installed_path(package: str) -> str:
    """Folder of an installed package.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed, or is not a regular package")
    return str(Path(spec.origin).parent)


def _own_cfg_path(find: Callable[[str, str], tuple[str, str | None]]) -> Callable[..., Any]:
    """Let configs build on those of this suite and of any other package that has some."""

    @functools.wraps(find)
    def path_of(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, separator, _ = cfg_path.partition("::")
        if separator and package not in MODULE2PACKAGE:
            return str(find_config(cfg_path)), None
        return find(cfg_path, filename)

    setattr(path_of, _MARK, True)
    return path_of


def apply() -> None:
    """Install all remedies; calling it again changes nothing."""
    CheckpointLoader.register_scheme(prefixes="", loader=load_from_local, force=True)
    for name in ("_init_dist_pytorch", "_init_dist_slurm"):
        init = getattr(mmengine.dist.utils, name)
        if not hasattr(init, _MARK):
            setattr(mmengine.dist.utils, name, _init_without_cuda(init))
    if not hasattr(MMDistributedDataParallel.__init__, _MARK):
        MMDistributedDataParallel.__init__ = _wrap_without_cuda(MMDistributedDataParallel.__init__)
    config = mmengine.config.Config
    if not hasattr(config._get_cfg_path, _MARK):
        config._get_cfg_path = staticmethod(_own_cfg_path(config._get_cfg_path))
    for module in (mmengine.utils.package_utils, mmengine.utils, mmengine.config.config):
        module.is_installed = _is_installed
        module.get_installed_path = _get_installed_path
