"""A whole config, held against what will read it: a misspelt key ends before any work, in one line."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from mmengine.dist import init_dist
from mmengine.evaluator import Evaluator
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import EVALUATOR, FUNCTIONS, LOG_PROCESSORS, MODEL_WRAPPERS, Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch import distributed
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from beyonddrive import registry as own
from beyonddrive.engine.config_readers import (
    FALLBACKS,
    Reader,
    argument_is_ours,
    find,
    names_in,
    reader_of,
)
from beyonddrive.engine.config_values import ConfigError, misfit, nearest
from beyonddrive.engine.loops import SceneTestLoop, SceneValLoop

READ_BESIDES_RUNNER: Mapping[str, Any] = {
    "activation_checkpointing": None,
    "channels_last": bool,
    "compile": None,
    "custom_imports": None,
    "efficient_conv_bn_eval": None,
    "env_cfg": None,
    "find_unused_parameters": bool,
    "model_wrapper_cfg": None,
    "negative_mining": Mapping[str, Any] | None,
    "negative_selection": Mapping[str, Any] | None,
    "num_threads": int | None,
    "sync_bn": str | None,
    "tf32": bool | None,
}
"""Settings that a config may have besides those that mmengine's runner names, and their types."""
_DIRECTIVES = ("type", "_scope_", "_delete_")
_MISSPELT = 0.85
"""Likeness from which a name at the top is a misspelt setting, not a variable of the config's author."""
_GIVEN = {"runner", "dataloader", "evaluator"}
"""Arguments that mmengine gives, not a config."""
_ENVIRONMENT = ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit")
_LOADER = ("dataset", "sampler", "batch_sampler", "collate_fn", "worker_init_fn", "num_batch_per_epoch")
_PARAMWISE = (
    *("custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "dwconv_decay_mult"),
    *("flat_decay_mult", "bypass_duplicate", "dcn_offset_lr_mult"),
)
_DEFAULT_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")

Check = Callable[[str, Any], None]


def top_reader() -> Reader:
    """What reads the top of a config: the runner, and the tools of this suite."""
    keys = {**reader_of(Runner).keys, **READ_BESIDES_RUNNER}
    return Reader("the top of a config", {key: keys[key] for key in keys if key != "cfg"})


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse keys and values that their readers do not take, at any depth.

    Names at the top may be variables of the config's author, unless they look like a misspelt setting. Below
    the top, a node with a ``type`` is read by that class, others by what mmengine gives them to. A mapping
    without a ``type`` inside the arguments of a class is the matter of that class, which checks it when it is
    built; it may name the keys beforehand in ``config_parts``.

    Raises:
        ConfigError: Names the key, its value, and what there is instead.
    """
    top = top_reader()
    for key, value in config.items():
        if key not in top.keys:
            close = difflib.get_close_matches(key, top.keys, 1, _MISSPELT)
            if close:
                raise ConfigError(f"{key}: there is no such setting; did you mean {close[0]}?")
            continue
        _check_value(key, value, top.keys[key])
        if value is not None and key in _CHECKS:
            _CHECKS[key](key, value)


def _refuse(key: str, value: Any, reason: str) -> ConfigError:
    shown = repr(value)
    return ConfigError(f"{key}={shown if len(shown) < 80 else shown[:76] + ' ...'}: {reason}")


def _check_value(key: str, value: Any, annotation: Any) -> None:
    if reason := misfit(value, annotation):
        raise _refuse(key, value, reason)


def _check_range(path: str, node: Any, key: str, fits: Callable[[Any], bool], reason: str) -> None:
    """Refuse a number of a mapping that its reader would take and that would ruin the work."""
    value = node.get(key) if isinstance(node, Mapping) else None
    if isinstance(value, (int, float)) and not fits(value):
        raise _refuse(f"{path}.{key}", value, reason)


def _is_positive(value: float) -> bool:
    return value > 0


def check_keys(path: str, node: Mapping[str, Any], reader: Reader) -> None:
    """Refuse keys and values of a node that its reader does not take."""
    for key, value in node.items():
        if key in _DIRECTIVES:
            continue
        if key not in reader.keys and not reader.takes_any:
            known = set(reader.keys) - _GIVEN
            hint = nearest(str(key), known)
            if "type" in node and not hint.startswith("did you mean"):
                hint += "; if it was for the type of a base, write _delete_=True beside the new type"
            raise _refuse(f"{path}.{key}", value, f"{reader.name} has no such setting; {hint}")
        _check_value(f"{path}.{key}", value, reader.keys.get(key))


def _plain(path: str, node: Any, keys: Collection[str], name: str) -> None:
    """A mapping without a type, which may have these keys."""
    if isinstance(node, Mapping):
        check_keys(path, node, Reader(name, dict.fromkeys(keys)))


def _each(check: Check) -> Check:
    """Check one node, or each of a list."""

    def check_each(path: str, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                check(f"{path}.{index}", item)
        else:
            check(path, value)

    return check_each


def _typed(
    path: str, node: Any, registry: Registry, default: Any = None, extra: Collection[str] = ()
) -> None:
    """A node that a registry builds.

    Args:
        path: Its key.
        node: What the config has; objects that are built already are passed over.
        registry: Where its type is looked for.
        default: What reads it without a type.
        extra: Keys that whoever builds it takes away before.
    """
    if not isinstance(node, Mapping):
        return
    target = find(node["type"], registry) if "type" in node else default
    if target is None and "type" in node:
        hint = nearest(str(node["type"]), names_in(registry))
        raise _refuse(f"{path}.type", node["type"], f"no {registry.name} has this name; {hint}")
    if target is None:
        raise ConfigError(f"{path}: has no type, so nothing reads it; give {path}.type")
    reader = reader_of(target)
    check_keys(
        path, node, reader._replace(keys={**reader.keys, **{k: None for k in extra if k not in reader.keys}})
    )
    for key, value in node.items():
        if key in extra:
            continue
        if key in reader.parts and isinstance(value, Mapping) and "type" not in value:
            part = reader.parts[key]
            if isinstance(part, type):
                _typed(f"{path}.{key}", value, registry, part)
                continue
            known = {k: v for k, v in value.items() if not str(k).startswith("_")}
            _plain(f"{path}.{key}", known, part, f"{reader.name}.{key}")
        else:
            if isinstance(value, Mapping) and (taken := reader.taken.get(key)):
                value = {name: item for name, item in value.items() if name not in taken}
            _nested(f"{path}.{key}", value, registry, argument_is_ours(target, key))


def _nested(path: str, value: Any, registry: Registry, in_own_class: bool) -> None:
    """Nodes with a type anywhere inside the arguments of a class."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _nested(f"{path}.{index}", item, registry, in_own_class)
    elif isinstance(value, Mapping):
        name = value.get("type")
        if name is None:
            for key, item in value.items():
                _nested(f"{path}.{key}", item, registry, in_own_class)
        elif find(name, registry) is not None:
            _typed(path, value, registry)
        elif (home := _home_of(name)) is not None:
            _typed(path, value, home)
        elif in_own_class:  # others may have types of their own, such as norm_cfg=dict(type='BN')
            raise _refuse(
                f"{path}.type", name, f"nothing has this name; {nearest(str(name), names_in(None))}"
            )


def _home_of(name: Any) -> Registry | None:
    return next((registry for registry in FALLBACKS if find(name, registry) is not None), None)


def _check_train_loop(path: str, node: Any) -> None:
    loop = EpochBasedTrainLoop if node.get("by_epoch", True) else IterBasedTrainLoop
    _typed(path, node, own.LOOPS, loop, ("by_epoch",) if "type" not in node else ())
    _check_range(
        path,
        node,
        "val_interval",
        _is_positive,
        "it must be positive; with more than the epochs only the last one is validated",
    )


def _check_loader(path: str, node: Any) -> None:
    if not isinstance(node, Mapping):
        return
    keys = {**reader_of(DataLoader).keys, **dict.fromkeys(_LOADER), "disable_subprocess_warning": bool}
    check_keys(path, node, Reader("a data loader", keys))
    for key, registry in (
        ("dataset", own.DATASETS),
        ("sampler", own.DATA_SAMPLERS),
        ("batch_sampler", own.DATA_SAMPLERS),
        ("collate_fn", FUNCTIONS),
        ("worker_init_fn", FUNCTIONS),
    ):
        _typed(f"{path}.{key}", node.get(key), registry)


def _check_evaluator(path: str, node: Any) -> None:
    if isinstance(node, Mapping) and "metrics" in node:
        _typed(path, node, EVALUATOR, Evaluator)
        _each(_check_metric)(f"{path}.metrics", node["metrics"])
    else:
        _each(_check_metric)(path, node)


def _check_metric(path: str, node: Any) -> None:
    _typed(path, node, own.METRICS)
    reason = "it must not be negative; 0 scores in this process"
    _check_range(path, node, "num_workers", lambda value: value >= 0, reason)


def _check_optim_wrapper(path: str, node: Any) -> None:
    if not isinstance(node, Mapping):
        return
    constructor = find(node.get("constructor"), own.OPTIM_WRAPPER_CONSTRUCTORS)
    if node.get("constructor") is not None and constructor is None:
        known = names_in(own.OPTIM_WRAPPER_CONSTRUCTORS)
        raise _refuse(f"{path}.constructor", node["constructor"], nearest(str(node["constructor"]), known))
    if constructor not in (None, DefaultOptimWrapperConstructor):
        return  # it reads the node as it likes
    wrapper = find("OptimWrapper", own.OPTIM_WRAPPERS)
    _typed(
        path, node, own.OPTIM_WRAPPERS, wrapper, ("optimizer", "clip_grad", "paramwise_cfg", "constructor")
    )
    _typed(f"{path}.optimizer", node.get("optimizer"), own.OPTIMIZERS)
    clip = node.get("clip_grad")
    if isinstance(clip, Mapping):
        function = clip_grad_value_ if clip.get("type") == "value" else clip_grad_norm_
        if clip.get("type", "norm") not in ("norm", "value"):
            raise _refuse(f"{path}.clip_grad.type", clip["type"], "it is 'norm' or 'value'")
        check_keys(f"{path}.clip_grad", clip, reader_of(function))
        for key in ("max_norm", "clip_value"):
            reason = f"it must be positive; clip nothing with {path}.clip_grad=None"
            _check_range(f"{path}.clip_grad", clip, key, _is_positive, reason)
    paramwise = node.get("paramwise_cfg")
    if isinstance(paramwise, Mapping):
        _plain(f"{path}.paramwise_cfg", paramwise, _PARAMWISE, "DefaultOptimWrapperConstructor")
        for key, value in (paramwise.get("custom_keys") or {}).items():
            _plain(
                f"{path}.paramwise_cfg.custom_keys.{key}", value, ("lr_mult", "decay_mult"), "a custom key"
            )


def _check_scheduler(path: str, node: Any) -> None:
    if isinstance(node, Mapping) and "type" not in node:  # by optimizer
        for key, value in node.items():
            _check_scheduler(f"{path}.{key}", value)
        return
    one = partial(_typed, registry=own.PARAM_SCHEDULERS, extra=("convert_to_iter_based", "epoch_length"))
    _each(one)(path, node)


def _check_default_hooks(path: str, node: Any) -> None:
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key not in _DEFAULT_HOOKS and isinstance(value, Mapping) and "type" not in value:
            raise _refuse(f"{path}.{key}", value, f"has no type; {nearest(key, _DEFAULT_HOOKS)}")
        _typed(f"{path}.{key}", value, own.HOOKS)


def _check_environment(path: str, node: Any) -> None:
    if not isinstance(node, Mapping):
        return
    _plain(path, node, _ENVIRONMENT, "the environment")
    if isinstance(part := node.get("mp_cfg"), Mapping):
        check_keys(f"{path}.mp_cfg", part, reader_of(set_multi_processing))
    if isinstance(part := node.get("dist_cfg"), Mapping):
        keys = {**reader_of(distributed.init_process_group).keys, **reader_of(init_dist).keys}
        check_keys(f"{path}.dist_cfg", part, Reader("dist_cfg", {**keys, "timeout": None}))  # seconds here


def _check_log_level(path: str, value: Any) -> None:
    levels = list(logging._nameToLevel)
    if isinstance(value, str) and value not in levels:
        raise _refuse(path, value, nearest(value, levels))


def _check_auto_scale_lr(path: str, node: Any) -> None:
    _plain(path, node, ("base_batch_size", "enable"), "auto_scale_lr")
    reason = "it must be positive: the scenes per step that optim_wrapper.optimizer.lr is for"
    _check_range(path, node, "base_batch_size", _is_positive, reason)


def _check_compile(path: str, node: Any) -> None:
    if isinstance(node, Mapping):
        reader = reader_of(torch.compile)
        check_keys(path, node, reader._replace(keys={**reader.keys, "parts": None}))


def _check_visualizer(path: str, node: Any) -> None:
    _typed(path, node, own.VISUALIZERS)


def _check_custom_hooks(path: str, node: Any) -> None:
    if node is not None and not isinstance(node, (list, tuple)):
        raise ConfigError(f"{path}={node!r}: it is a list of hooks")
    _each(partial(_typed, registry=own.HOOKS))(path, node or [])


def _check_randomness(path: str, node: Any) -> None:
    if isinstance(node, Mapping):
        check_keys(path, node, reader_of(Runner.set_randomness))


_CHECKS: Mapping[str, Check] = {
    "model": partial(_typed, registry=own.MODELS),
    "data_preprocessor": partial(_typed, registry=own.MODELS),
    "train_dataloader": _check_loader,
    "val_dataloader": _check_loader,
    "test_dataloader": _check_loader,
    "train_cfg": _check_train_loop,
    "val_cfg": partial(_typed, registry=own.LOOPS, default=SceneValLoop),
    "test_cfg": partial(_typed, registry=own.LOOPS, default=SceneTestLoop),
    "val_evaluator": _check_evaluator,
    "test_evaluator": _check_evaluator,
    "optim_wrapper": _check_optim_wrapper,
    "param_scheduler": _check_scheduler,
    "default_hooks": _check_default_hooks,
    "custom_hooks": _check_custom_hooks,
    "env_cfg": _check_environment,
    "randomness": _check_randomness,
    "log_processor": partial(_typed, registry=LOG_PROCESSORS, default=LogProcessor),
    "log_level": _check_log_level,
    "visualizer": _check_visualizer,
    "auto_scale_lr": _check_auto_scale_lr,
    "compile": _check_compile,
    "model_wrapper_cfg": partial(_typed, registry=MODEL_WRAPPERS, default=MMDistributedDataParallel),
}
