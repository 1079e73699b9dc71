"""The runner: mmengine's, with errors that name settings, a quiet console, and exact continuation."""

from __future__ import annotations

import copy
import inspect
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import LoggerHook
from mmengine.logging import MMLogger
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from beyonddrive.engine.build_errors import building
from beyonddrive.engine.checkpoint_files import CheckpointError
from beyonddrive.engine.compilation import compile_parts
from beyonddrive.engine.config_values import ConfigError, nearest
from beyonddrive.engine.geometry import check_geometry
from beyonddrive.engine.hooks.closing import ClosingHook
from beyonddrive.engine.hooks.rank_agreement import agree
from beyonddrive.engine.loops import SceneLoop, SceneTestLoop, SceneValLoop
from beyonddrive.engine.lost_workers import naming_lost_workers
from beyonddrive.engine.resuming import earlier_checkpoint, single_wrappers, steps_to_host
from beyonddrive.engine.runner.failures import explaining_failures
from beyonddrive.engine.runner.loop_checks import (
    check_checkpoints_are_due,
    check_epochs_are_told,
    check_figures,
    check_schedules_move,
    check_steps,
    check_tells_all,
)
from beyonddrive.engine.runner.work_folder import alone_in, folders_of
from beyonddrive.engine.scenes_per_update import scenes_per_update
from beyonddrive.engine.wrapped_datasets import check_nothing_lost
from beyonddrive.structures.transfers import finish_checks

_CONSOLE_LINES = 4
"""Messages with more lines are for the log file: the config, the machine, the order of the hooks."""
_MMENGINE_NOISE = (
    '"FileClient" will be deprecated',  # mmengine says so of its own insides at every checkpoint
    '"HardDiskBackend" is the alias',
    "Resumed iteration number is not divisible by",  # the gradients that wait are in the checkpoint
)


class PlannerRunner(Runner):
    """mmengine's runner for planners.

    What a constructor refuses becomes one line that names the setting. The console shows progress; config,
    machine and hooks go to the log file. The config that it keeps and leaves in the work folder is the
    recipe: which checkpoint this run goes on from is no part of it.
    """

    @classmethod
    def from_cfg(cls, cfg: Any, start: str | None = None) -> PlannerRunner:
        """Build a runner.

        Args:
            cfg: The recipe.
            start: Checkpoint to go on from.
        """
        given = {key: cfg[key] for key in inspect.signature(Runner.__init__).parameters if key in cfg}
        given = copy.deepcopy({**given, "resume": start is not None})
        if start is not None:
            given["load_from"] = start
        if given.get("load_from"):
            _skip_pretrained(given["model"])
        return cls(**{**given, "cfg": cfg})

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Prepare the processes, and take a folder for the log that no other start has.

        mmengine names it by the second of the start; a second start within it gets ``_2`` after that.
        """
        super().setup_env(env_cfg)
        chosen = [_claim_folder(Path(self.work_dir), self.timestamp) if is_main_process() else ""]
        broadcast_object_list(chosen)
        self._timestamp: str = chosen[0]

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """As mmengine's, with long messages kept off the console."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(_is_for_people)
        return logger

    def build_model(self, model: Any) -> nn.Module:
        """Build the planner; with ``channels_last`` convolutions keep the channels of a pixel together."""
        with building("model", model):
            built = super().build_model(model)
        return built.to(memory_format=torch.channels_last) if self.cfg.get("channels_last") else built

    def _maybe_compile(self, target: str) -> None:
        """Compile parts of the planner for its training, see :func:`compile_parts`."""
        if target == "train_step" and (parts := compile_parts(self.model, self.cfg.get("compile"))):
            self.logger.info(f"compiled on first use, which takes a while: {', '.join(parts)}")

    def register_hooks(self, default_hooks: Any = None, custom_hooks: Any = None) -> None:
        """Build the hooks."""
        with building("default_hooks or custom_hooks", {**(default_hooks or {}), "custom": custom_hooks}):
            super().register_hooks(default_hooks, custom_hooks)

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Build what writes the figures."""
        with building("visualizer", visualizer):
            return super().build_visualizer(visualizer)

    def build_train_loop(self, loop: Any) -> Any:
        """Build the training loop and its data.

        Raises:
            ConfigError: Also if it has not a single step to do, its transforms make something of other
                lengths than the planner takes for granted, or it counts steps and its checkpoints epochs.
            LostScenesError: If scenes of the split are lost, unless the data set allows that.
        """
        with building("train_dataloader or train_cfg", {"d": self._train_dataloader, "c": loop}):
            built = super().build_train_loop(loop)
        check_nothing_lost(built.dataloader.dataset)
        check_geometry(self.model, built.dataloader.dataset)
        check_steps(built)
        check_epochs_are_told(built)
        if isinstance(built, IterBasedTrainLoop):
            check_checkpoints_are_due(self.hooks)
            # (the log counts what the training does)
            self.log_processor.by_epoch = False
            for hook in self.hooks:
                if isinstance(hook, LoggerHook):
                    hook.log_metric_by_epoch = False
        return built

    def build_val_loop(self, loop: Any) -> Any:
        """Build the validation; without a ``type`` it is a :class:`SceneValLoop`.

        Raises:
            ConfigError: If a best checkpoint is to be kept, or the training ended, by a figure that no metric
                gives, or metrics that count all scenes would not hear of them.
        """
        with building("val_dataloader, val_evaluator or val_cfg", loop):
            built = super().build_val_loop(_with_type(loop, SceneValLoop))
        check_tells_all("val_cfg", built)
        check_figures(self.hooks, built)
        return built

    def build_test_loop(self, loop: Any) -> Any:
        """Build the test and its data, as :meth:`build_val_loop`."""
        with building("test_dataloader, test_evaluator or test_cfg", loop):
            built = super().build_test_loop(_with_type(loop, SceneTestLoop))
        check_tells_all("test_cfg", built)
        return built

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimizer; refuse ``custom_keys`` that name no parameter."""
        if isinstance(optim_wrapper, dict):
            names = [name for name, _ in self.model.named_parameters()]
            for key in (optim_wrapper.get("paramwise_cfg") or {}).get("custom_keys") or {}:
                if not any(key in name for name in names):
                    tops = {name.removeprefix("module.").partition(".")[0] for name in names}
                    raise ConfigError(
                        f"optim_wrapper.paramwise_cfg.custom_keys.{key}: no parameter of the planner has "
                        f"this in its name; {nearest(key, tops)}"
                    )
        with building("optim_wrapper", optim_wrapper):
            return super().build_optim_wrapper(optim_wrapper)

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: Any = None) -> None:
        """Scale learning rates by the scenes of an update: also those of steps whose gradients add up.

        mmengine's counts a batch on each rank, and not ``accumulative_counts``.
        """
        if not (auto_scale_lr or {}).get("enable"):
            return
        wanted = auto_scale_lr["base_batch_size"]
        for wrapper in single_wrappers(optim_wrapper):
            batch, accumulated = self.cfg.train_dataloader.batch_size, wrapper._accumulative_counts
            scenes = scenes_per_update(batch, self.world_size, accumulated)
            scale = scenes / wanted
            self.logger.info(f"learning rates times {scale:g}: {scenes} scenes per step, not {wanted}")
            for group in wrapper.optimizer.param_groups:
                group["lr"] *= scale

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedules.

        Raises:
            ConfigError: Also if one counts epochs and the training steps.
        """
        with building("param_scheduler", scheduler):
            built = super().build_param_scheduler(scheduler)
        if isinstance(self._train_loop, IterBasedTrainLoop):
            check_schedules_move(scheduler, built)
        return built

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """As mmengine's.

        Raises:
            ConfigError: If ``sync_bn`` is set where it cannot act.
        """
        if self.distributed and self.cfg.get("sync_bn") and not torch.cuda.is_available():
            raise ConfigError(
                f"sync_bn={self.cfg.sync_bn!r}: torch has batch norms over ranks on GPUs only, and there is "
                f"none here; set sync_bn=None"
            )
        with building("model_wrapper_cfg", model_wrapper_cfg):
            wrapped: nn.Module = super().wrap_model(model_wrapper_cfg, model)
        return wrapped

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """As mmengine's, of running statistics that ranks agree on; every rank calls it, rank 0 writes.

        Not of steps with an input that a check refuses: what GPUs still owe is waited for.
        """
        finish_checks(self.model)
        agree(self)
        super().save_checkpoint(*args, **kwargs)

    @property
    def is_resumed(self) -> bool:
        """Whether this run goes on from a checkpoint."""
        return bool(self._resume)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: If it cannot be read, with the one before it that can.
            ConfigError: If a training cannot go on from it.
        """
        self._resume = True
        try:
            super().resume(filename, *args, **kwargs)
        except CheckpointError as error:
            earlier = earlier_checkpoint(filename) if "cannot be read" in str(error) else None
            if earlier is None:
                raise
            raise CheckpointError(f"{error}. The one before it is whole: --resume {earlier}") from error
        steps_to_host(self.optim_wrapper)

    def train(self) -> nn.Module:
        """Train.

        Raises:
            ConfigError: If another training is at work in the work folder.
            NonFiniteLossError: If a loss is not finite, also if that made the next step fail.
            LostRankError: If another rank has died or does not answer.
            LostGpuError: If a GPU has failed.
            WorkerLostError: If a worker of a data loader was killed, with the remedy.
            OSError: A full or read-only disk names the work folder or the file.
        """
        try:
            with (
                alone_in(folders_of(self.work_dir, self.cfg)),
                explaining_failures(self),
                naming_lost_workers(
                    self._workers_of("train", "val"),
                    "; what was trained is kept up to the last checkpoint, go on with --resume",
                ),
            ):
                trained = super().train()
                finish_checks(trained)
                return trained
        except BaseException:
            self._close_what_hooks_hold()
            raise

    def val(self) -> dict[str, float]:
        """Validate.

        Raises:
            LostRankError, LostGpuError, WorkerLostError: As :meth:`train`.
        """
        with explaining_failures(self, is_training=False), naming_lost_workers(self._workers_of("val")):
            metrics: dict[str, float] = super().val()
        return metrics

    def test(self) -> dict[str, float]:
        """Test.

        Raises:
            LostRankError, LostGpuError, WorkerLostError: As :meth:`train`.
        """
        with explaining_failures(self, is_training=False), naming_lost_workers(self._workers_of("test")):
            metrics: dict[str, float] = super().test()
        return metrics

    def _close_what_hooks_hold(self) -> None:
        """End what hooks have started for a training that has failed; its error is what counts."""
        with suppress(OSError):
            self.visualizer.close()  # figures that wait to be written tell how it came to this
        for hook in self.hooks:
            if isinstance(hook, ClosingHook):
                try:
                    hook.close()
                except Exception as error:
                    self.logger.warning(f"{type(hook).__name__}: could not be closed: {error}")

    def _workers_of(self, *phases: str) -> str:
        """Settings of the loaders that have workers, as a message names them."""
        loaders = {f"{phase}_dataloader": self.cfg.get(f"{phase}_dataloader") or {} for phase in phases}
        counts = {key: loader.get("num_workers", 0) for key, loader in loaders.items()}
        return " or ".join(f"{key}.num_workers={count}" for key, count in counts.items() if count)


def _claim_folder(parent: Path, name: str) -> str:
    """Make a new folder by this name, or by the first of ``<name>_2``, ``_3``, ... that is free."""
    claimed, number = name, 1
    while True:
        try:
            (parent / claimed).mkdir(parents=True)
        except FileExistsError:
            number += 1
            claimed = f"{name}_{number}"
        else:
            return claimed


def _is_for_people(record: logging.LogRecord) -> bool:
    """Whether the console should show a message."""
    message = record.getMessage()
    if message.startswith(_MMENGINE_NOISE):
        return False
    return record.levelno > logging.INFO or message.count("\n") < _CONSOLE_LINES


def _with_type(loop: Any, kind: type[SceneLoop]) -> Any:
    """The config of a loop, of this kind if it names none."""
    return {"type": kind, **loop} if isinstance(loop, dict) and "type" not in loop else loop


def _skip_pretrained(node: Any) -> None:
    """Switch off downloads of weights that a checkpoint replaces anyway (MODELS, quirk 15)."""
    if isinstance(node, dict):
        if node.get("pretrained"):
            node["pretrained"] = False
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            _skip_pretrained(value)
