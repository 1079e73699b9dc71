"""Remedies that mmengine 0.10 needs on current torch and on machines without a GPU.

:func:`apply` installs them, once; the tools and :mod:`beyonddrive.apis` call it first. Each one stands for
a failure of the stock library, and each has a test that shows the failure without it:

1. *Checkpoints*: torch 2.6 made ``weights_only=True`` the default of ``torch.load``, which refuses the log
   history in every mmengine checkpoint; older versions unpickled anything. Files are read by
   :mod:`beyonddrive.engine.checkpoint_files`, which allows exactly what mmengine writes on every version.
2. *Processes without GPUs*: ``launcher='pytorch'`` selects a CUDA device even for gloo, and the wrapper for
   distributed training is given CUDA device numbers for a model on the CPU.
3. *Mixed precision without a GPU*: ``AmpOptimWrapper`` insists on one; :class:`AutocastOptimWrapper` runs
   bfloat16 autocast, which needs no gradient scaling, on any device.
4. *Package look-ups*: configs of the form ``_base_ = 'package::file.py'`` import ``pkg_resources``, which
   setuptools 82 removed, and know mmlab's packages only; ``'beyonddrive::ltf/ltf_tiny_...py'`` is a config of
   this suite, wherever it is installed, and so with any package that has configs.
5. *Figures of a step*: each loss and the gradient norm are turned into numbers at once, which waits for the
   GPU; :mod:`beyonddrive.engine.late_figures` reads them when the log is written.
6. *Activation checkpointing*: mmengine's gives a part whose inputs need no gradient, such as a backbone, no
   gradients at all, takes no keyword arguments and counts batches twice in batch norms;
   :func:`~beyonddrive.engine.activation_checkpointing.checkpoint_activations` does neither.
7. *Text of configs*: every checkpoint has the config in it, whose text yapf formats anew each time, for
   longer than a small checkpoint takes. Text that was formatted is remembered.
8. *Named instances*: ``get_instance`` and ``get_current_instance`` of loggers, message hubs and the like keep
   the lock that they share when they raise, as before the first instance; every other thread of the process
   then waits for ever. Who came without the lock leaves without it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine.config.config
import mmengine.dist.utils
import mmengine.runner.runner
import mmengine.utils
import mmengine.utils.manager
import mmengine.utils.package_utils
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from beyonddrive.engine import late_figures
from beyonddrive.engine.activation_checkpointing import checkpoint_activations
from beyonddrive.engine.checkpoint_files import load_checkpoint_file, weights_of
from beyonddrive.engine.config_files import find_config
from beyonddrive.engine.devices import Inventory, choose_backend, meeting_all_ranks, processes_here
from beyonddrive.engine.precision import bfloat16_autocast, has_bfloat16
from beyonddrive.registry import OPTIM_WRAPPERS

_MARK = "_beyonddrive_remedy"


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load a checkpoint for mmengine's ``CheckpointLoader``; its key ``file`` names it in later messages.

    Raises:
        CheckpointError: If it cannot be read, or holds no weights.
    """
    checkpoint = load_checkpoint_file(filename, map_location)
    weights = weights_of(checkpoint, filename)
    rest = {key: value for key, value in checkpoint.items() if not isinstance(value, torch.Tensor)}
    return {**rest, "state_dict": weights, "file": filename}


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Mixed precision by :func:`~beyonddrive.engine.precision.bfloat16_autocast`, on any device.

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
        self._is_checked = False

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in mixed precision."""
        device = next(model.parameters()).device.type
        if not self._is_checked and not has_bfloat16(device):
            print_log(
                f"This {device} device has no instructions for bfloat16 and emulates it, which is slower "
                "than float32: optim_wrapper.type='OptimWrapper'",
                "current",
                logging.WARNING,
            )
        self._is_checked = True
        with super().optim_context(model), bfloat16_autocast(device):
            yield


def _init_without_cuda(init: Callable[..., None], launcher: str) -> Callable[..., None]:
    """Let mmengine start its process group on machines without CUDA, with gloo; say what is missing."""

    @functools.wraps(init)
    def start(backend: str, **kwargs: Any) -> None:
        chosen = choose_backend(Inventory.here(), backend, processes_here(launcher))
        if torch.cuda.is_available():
            with meeting_all_ranks():
                init(chosen, **kwargs)
            return
        if backend != chosen:
            print_log(f"no CUDA device here: process group uses {chosen} instead of {backend}", "current")
        set_device = torch.cuda.set_device
        torch.cuda.set_device = lambda device: None
        try:
            with meeting_all_ranks():
                init(chosen, **kwargs)
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


def _remember_text(format_code: Callable[..., Any]) -> Callable[..., Any]:
    """Format a text once; of a run there are few, for its config hardly changes."""

    @functools.lru_cache(maxsize=8)
    def by_settings(text: str, style: tuple[tuple[str, Any], ...], verify: bool) -> Any:
        return format_code(text, style_config=dict(style), **({"verify": True} if verify else {}))

    @functools.wraps(format_code)
    def format_once(text: str, *more: Any, **settings: Any) -> Any:
        style = settings.get("style_config")
        if more or not isinstance(style, dict) or settings.keys() - {"style_config", "verify"}:
            return format_code(text, *more, **settings)  # (not asked by a config)
        return by_settings(text, tuple(style.items()), bool(settings.get("verify", False)))

    setattr(format_once, _MARK, True)
    return format_once


def formatting_module() -> Any:
    """Where configs find yapf's ``FormatCode``; mmengine's fork takes it from yapf itself at every call."""
    own = mmengine.config.config
    return own if hasattr(own, "FormatCode") else importlib.import_module("yapf.yapflib.yapf_api")


def _leave_without_lock(method: classmethod[Any, ..., Any]) -> classmethod[Any, ..., Any]:
    """Give back the lock of the named instances however a method of theirs ends."""
    find = method.__func__

    @functools.wraps(find)
    def find_instance(cls: type, *args: Any, **kwargs: Any) -> Any:
        lock = mmengine.utils.manager._lock
        is_held = lock._is_owned()
        try:
            return find(cls, *args, **kwargs)
        finally:
            while not is_held and lock._is_owned():
                lock.release()

    setattr(find_instance, _MARK, True)
    return classmethod(find_instance)


def apply() -> None:
    """Install all remedies; calling it again changes nothing."""
    CheckpointLoader.register_scheme(prefixes="", loader=load_from_local, force=True)
    for launcher in ("pytorch", "slurm", "mpi"):
        init = getattr(mmengine.dist.utils, f"_init_dist_{launcher}")
        if not hasattr(init, _MARK):
            setattr(mmengine.dist.utils, f"_init_dist_{launcher}", _init_without_cuda(init, launcher))
    if not hasattr(MMDistributedDataParallel.__init__, _MARK):
        MMDistributedDataParallel.__init__ = _wrap_without_cuda(MMDistributedDataParallel.__init__)
    config = mmengine.config.Config
    if not hasattr(config._get_cfg_path, _MARK):
        config._get_cfg_path = staticmethod(_own_cfg_path(config._get_cfg_path))
    late_figures.apply()
    mmengine.runner.runner.turn_on_activation_checkpointing = checkpoint_activations
    for module in (mmengine.utils.package_utils, mmengine.utils, mmengine.config.config):
        module.is_installed = _is_installed
        module.get_installed_path = _get_installed_path
    named = mmengine.utils.manager.ManagerMixin
    for name in ("get_instance", "get_current_instance"):
        method = vars(named)[name]
        if not hasattr(method.__func__, _MARK):
            setattr(named, name, _leave_without_lock(method))
    formatting = formatting_module()
    if not hasattr(formatting.FormatCode, _MARK):
        formatting.FormatCode = _remember_text(formatting.FormatCode)
