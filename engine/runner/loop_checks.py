"""What a runner asks of its loops, schedules and hooks once they are built: refused before any work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook

from beyonddrive.engine.config_values import ConfigError, nearest
from beyonddrive.engine.loops import SceneLoop, SceneTestLoop, SceneValLoop
from beyonddrive.engine.samplers import RoundDownSampler
from beyonddrive.engine.wrapped_datasets import drawing_transforms


def check_steps(loop: Any) -> None:
    """Refuse a training of no step."""
    loader = loop.dataloader
    if len(loader) == 0:
        scenes = len(loader.sampler)
        raise ConfigError(
            f"train_dataloader.batch_size={loader.batch_size}: each process has {scenes} of "
            f"{len(loader.dataset)} scenes, so that with drop_last=True there is no batch and nothing would "
            f"be trained; set train_dataloader.batch_size to at most {scenes}, or "
            "train_dataloader.drop_last=False"
        )
    if loop.max_iters < 1:
        raise ConfigError(
            f"train_cfg: {loop.max_epochs} epochs of {len(loader)} steps are none; nothing would be trained"
        )


def check_epochs_are_told(loop: Any) -> None:
    """Refuse augmentations that would draw the same in every epoch."""
    sampler = loop.dataloader.sampler
    if (steps := drawing_transforms(loop.dataloader.dataset)) and not isinstance(sampler, RoundDownSampler):
        raise ConfigError(
            f"train_dataloader.sampler.type={type(sampler).__name__}: it does not tell "
            f"{type(steps[0]).__name__} which epoch it is, so that a scene would be changed the same way in "
            f"all of them; use RoundDownSampler"
        )


def check_checkpoints_are_due(hooks: Iterable[Hook]) -> None:
    """Refuse checkpoints at the end of epochs, in a training that knows none."""
    for hook in hooks:
        if isinstance(hook, CheckpointHook) and hook.by_epoch:
            raise ConfigError(
                "train_cfg.by_epoch=False: the training counts steps, and default_hooks.checkpoint writes "
                "after an epoch (by_epoch=True), so that none would be due before the end, and a kill would "
                "lose everything; set default_hooks.checkpoint.by_epoch=False, and its interval to steps"
            )


def check_schedules_move(settings: Any, built: Any) -> None:
    """Refuse schedules that count epochs, in a training that is one single epoch to them.

    Those that follow a figure of the validation step after each validation.
    """
    schedules = built.values() if isinstance(built, dict) else [built]
    for schedule in (schedule for some in schedules for schedule in some or ()):
        if schedule.by_epoch and not getattr(schedule, "need_val_args", False):
            raise ConfigError(
                f"param_scheduler.type={type(schedule).__name__}: counts epochs, and the training steps "
                "(train_cfg.by_epoch=False), so that the learning rate would stay what it is in the first "
                "epoch; set by_epoch=False of the schedule, and its lengths to steps"
            )
    for one in settings if isinstance(settings, (list, tuple)) else [settings]:
        if isinstance(one, dict) and one.get("convert_to_iter_based") and one.get("end") is None:
            raise ConfigError(
                f"param_scheduler.type={one.get('type')}: convert_to_iter_based=True without end, and the "
                "training has no epochs (train_cfg.by_epoch=False), so that the schedule would end after one "
                "pass through the data; set by_epoch=False instead, and its lengths to steps"
            )


def check_tells_all(key: str, loop: Any) -> None:
    """Refuse a loop that does not tell of lost scenes if a metric counts them."""
    counting = [type(m).__name__ for m in loop.evaluator.metrics if getattr(m, "counts_all_scenes", False)]
    if counting and not isinstance(loop, SceneLoop):
        own = SceneValLoop if key == "val_cfg" else SceneTestLoop
        raise ConfigError(
            f"{key}.type={type(loop).__name__}: it does not tell {counting[0]} of lost scenes, so that its "
            f"figures would pass for those of the whole split; use {own.__name__}, or leave {key}.type out"
        )


def check_figures(hooks: Iterable[Hook], loop: Any) -> None:
    """Refuse a best checkpoint, or an early end, by a figure that no metric of the validation gives."""
    metrics = loop.evaluator.metrics
    figures = {name for metric in metrics for name in getattr(metric, "figures", ())}
    if not all(hasattr(metric, "figures") for metric in metrics):
        return  # mmengine's own metrics do not say what they will give
    for setting, name in _figures_wanted(hooks):
        if name not in figures:
            raise ConfigError(
                f"{setting}={name!r}: val_evaluator gives no such figure; {nearest(name, figures)}"
            )


def _figures_wanted(hooks: Iterable[Hook]) -> Iterator[tuple[str, str]]:
    """Settings that name figures of the validation, and which; mmengine passes over those that it lacks."""
    for hook in hooks:
        if isinstance(hook, CheckpointHook):
            names = [name for name in hook.save_best or () if name != "auto"]
            yield from (("default_hooks.checkpoint.save_best", name) for name in names)
        elif isinstance(hook, EarlyStoppingHook):
            yield "custom_hooks: EarlyStoppingHook.monitor", hook.monitor
