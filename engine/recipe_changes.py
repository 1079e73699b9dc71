"""What a training that goes on would do otherwise than the recipe in its checkpoint: refused, or told."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.runner import Runner

from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.scenes_per_update import scenes_per_update

_RESTORED = ("optim_wrapper.optimizer", "optim_wrapper.paramwise_cfg", "param_scheduler")
"""Settings of what a checkpoint restores: state of the optimizer and the schedules."""
_HORIZONS = ("end", "T_max")
"""Arguments of a schedule that follow the length of the training."""
_LENGTHS = ("train_cfg.max_epochs", "train_cfg.max_iters")
_NONE = "none"


def check_recipe(
    runner: Runner, file: str, meta: Mapping[str, Any], processes: tuple[int, int] = (1, 1)
) -> None:
    """Compare the recipe of a run that goes on with the one in its checkpoint.

    The state of optimizer and schedules comes from the checkpoint, learning rates and weight decay included.
    A longer training, whose schedule was made for a shorter one, is a warning.

    Args:
        runner: The run.
        file: The checkpoint, for messages.
        meta: Its ``meta``; without a recipe nothing is compared.
        processes: Of the training that wrote it, and of this one.

    Raises:
        ConfigError: If optimizer, schedules or the scale of the learning rate (``auto_scale_lr``) differ,
            which the checkpoint would undo, wholly or in part.
    """
    if not meta.get("cfg"):
        return
    try:
        then = settings_of(str(meta["cfg"]))
    except SyntaxError:
        runner.logger.warning(f"{file}: its recipe cannot be read, so it is not compared with this one")
        return
    now = settings_of(runner.cfg.pretty_text)
    changed = {
        key: f"{key}={now.get(key, _NONE)} ({then.get(key, _NONE)} before)"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key)
    }
    restored = [key for key in changed if any(f"{key}.".startswith(f"{part}.") for part in _RESTORED)]
    horizons = [key for key in restored if key.rpartition(".")[2] in _HORIZONS]
    undone = [changed[key] for key in restored if key not in horizons]
    before, scale = (_scale_of_rates(*of) for of in zip((then, now), processes, strict=True))
    if scale != before:
        enabled, was = (settings.get("auto_scale_lr.enable", _NONE) for settings in (now, then))
        undone.append(
            f"auto_scale_lr.enable={enabled}: learning rates times {scale:g} ({before:g} with {was} before)"
        )
    if undone:
        raise ConfigError(
            f"{'; '.join(undone)}: {file} restores its own optimizer and schedule, so this would be ignored "
            "or mixed with them; leave it out to go on, or start anew from the weights with --cfg-options "
            f"load_from={file} instead of --resume"
        )
    if any(key.partition(".")[0] == "param_scheduler" and now[key] != "None" for key in now):
        longer = [changed[key] for key in (*_LENGTHS, *horizons) if key in changed]
        if longer:
            runner.logger.warning(
                f"{'; '.join(longer)}: the schedule of {file} was made for another length, and goes on from "
                "its position there; learning rates will not be those of an unbroken run of this length"
            )


def _scale_of_rates(settings: Mapping[str, str], processes: int) -> float:
    """By what ``auto_scale_lr`` multiplies the learning rates of a recipe."""
    if settings.get("auto_scale_lr.enable") != "True":
        return 1.0
    batch = int(settings["train_dataloader.batch_size"])
    accumulated = int(settings.get("optim_wrapper.accumulative_counts", 1))
    return scenes_per_update(batch, processes, accumulated) / int(settings["auto_scale_lr.base_batch_size"])


def settings_of(recipe: str) -> dict[str, str]:
    """The values of a config's text by dotted key, as they are written; nothing is executed.

    Raises:
        SyntaxError: If it is no Python.

    >>> settings_of('a = dict(b=[1, dict(c=0.10)])')
    {'a.b.0': '1', 'a.b.1.c': '0.1'}
    """
    settings: dict[str, str] = {}
    for node in ast.parse(recipe).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            settings.update(_leaves(node.targets[0].id, node.value))
    return settings


def _leaves(path: str, node: ast.expr) -> Iterator[tuple[str, str]]:
    parts: list[tuple[Any, ast.expr]] = []
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict":
        parts = [(word.arg, word.value) for word in node.keywords]
    elif isinstance(node, ast.Dict):
        parts = [
            (getattr(key, "value", key), value) for key, value in zip(node.keys, node.values, strict=True)
        ]
    elif isinstance(node, (ast.List, ast.Tuple)):
        parts = list(enumerate(node.elts))
    if not parts:
        yield path, ast.unparse(node)
    for name, value in parts:
        yield from _leaves(f"{path}.{name}", value)
