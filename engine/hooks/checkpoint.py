"""The hook that writes checkpoints: at once, best and newest, whenever the run is killed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.resuming import COUNTS, GRADIENTS, counted_steps, gather_gradients
from beyonddrive.registry import HOOKS

_PARTIAL = ".partial"
"""Ending of a checkpoint that is being written."""
_VALIDATED = "last_validated"
"""Name under which a checkpoint keeps the step of the last validation; mmengine prints names with ``val``."""

_COUNTS = ("num_scenes", "num_failed")
"""Names under which a metric says how many scenes have a score, and how many have none."""
_OUTDATED = "outdated_ckpt_ids"
"""Name under which a checkpoint keeps the steps of those that are removed after it."""


@HOOKS.register_module()
class PlannerCheckpointHook(CheckpointHook):
    """mmengine's checkpoint hook, safe against being killed at any moment.

    A checkpoint is written beside its final name and renamed when complete; ``last_checkpoint`` is written
    the same way, after it; older files are removed last. So the file that ``last_checkpoint`` names is always
    there and whole, and so is the best one. (The stock hook writes in place and removes first.)

    A checkpoint says whether its planner has been validated. A run that was killed before that is
    validated when it is resumed; else the best checkpoint would not be that of an unbroken run, or missing.

    What is best is told by a figure that greater is better of as if scenes without a score had 0 (of metrics
    that give ``num_scenes`` and ``num_failed``): a mean over the scenes that a planner could be scored in
    would prefer the one that fails in the hard ones.

    Args:
        save_best: Metric, or list of metrics, for each of which the best checkpoint is kept.
        rule: ``greater`` or ``less`` is better: one for all metrics, or a list with one for each.
        **kwargs: As for ``CheckpointHook``, but for ``published_keys`` and ``file_client_args``.

    Raises:
        ValueError: If ``save_best`` or ``rule`` is not understood, ``out_dir`` is not on a local disk, or a
            setting would do nothing.
    """

    out_dir: str
    keep_ckpt_ids: deque[int]
    refuses_other_keys: ClassVar[bool] = True
    """The stock hook keeps arguments that it does not know for the first checkpoint, which then fails."""

    def __init__(
        self,
        save_best: str | Sequence[str] | None = None,
        rule: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        keys = [save_best] if isinstance(save_best, str) else list(save_best or [])
        rules = list(rule) if isinstance(rule, (list, tuple)) else [rule]
        rules = rules * len(keys) if len(rules) == 1 else rules
        if "auto" in keys or len(set(keys)) < len(keys) or not all(isinstance(key, str) for key in keys):
            raise ValueError(
                f"PlannerCheckpointHook: save_best must name metrics, each once, such as 'pdms/PDMS'; got "
                f"{save_best!r}"
            )
        if len(rules) != len(keys) or not {*rules} <= {"greater", "less", None}:
            raise ValueError(
                f"PlannerCheckpointHook: rule must be 'greater' or 'less', one for all of save_best or one "
                f"for each of its {len(keys)} metrics; got {rule!r}"
            )
        super().__init__(save_best=keys or None, rule=rules or None, **kwargs)
        if self.args:
            raise ValueError(f"PlannerCheckpointHook: has no settings {', '.join(self.args)}")
        self.best_files: dict[str, str] = {}
        self._former_files: list[str] = []
        self._waiting: list[dict[str, Tensor]] | None = None
        for key in ("published_keys", "file_client_args"):
            if getattr(self, key) is not None:
                raise ValueError(f"PlannerCheckpointHook: {key} does nothing here; leave it out")
        if "://" in str(self.out_dir or ""):
            raise ValueError(f"PlannerCheckpointHook: out_dir must be a local folder, got {self.out_dir}")

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and what a resumed run knows of earlier checkpoints; validate if that is due."""
        work_dir = Path(runner.work_dir)
        self.out_dir = str(Path(self.out_dir) / work_dir.name if self.out_dir else work_dir)
        if is_main_process():
            for partial in Path(self.out_dir).glob(f".*{_PARTIAL}"):
                partial.unlink()  # of a run that was killed
        known = runner.message_hub.runtime_info
        self.best_files = {
            key: known[f"best_ckpt_{key}"] for key in self._keys if f"best_ckpt_{key}" in known
        }
        self.keep_ckpt_ids = deque(known.get("keep_ckpt_ids", ()))
        for old in known.get(_OUTDATED, ()):  # a kill between writing a checkpoint and removing these
            self._remove(self.filename_tmpl.format(old))
        step = self._step(runner)
        if self._validation_is_due(runner, step) and known.get(_VALIDATED) != step:
            self.last_ckpt = str(Path(self.out_dir) / self.filename_tmpl.format(step))
            runner.logger.info(f"The run ended before the validation after {step}: validating now")
            runner.val_loop.run()

    def after_train(self, runner: Runner) -> None:
        """Write the last step's weights if they are in no file, as after an early end."""
        step = self._step(runner)
        name = self.filename_tmpl.format(step)
        if self.save_last and (self.last_ckpt is None or Path(self.last_ckpt).name != name):
            self._save_checkpoint_with_step(runner, step, {"epoch": runner.epoch, "iter": runner.iter})

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Keep the best checkpoint, and note in that of this step that it has been validated."""
        super().after_val_epoch(runner, metrics)
        step = self._step(runner)
        runner.message_hub.update_info(_VALIDATED, step)
        if self.last_ckpt is not None and Path(self.last_ckpt).name == self.filename_tmpl.format(step):
            # It was written before validation; a resumed run must know figures and best checkpoint.
            self._save_checkpoint_with_step(runner, step, {"epoch": runner.epoch, "iter": runner.iter})
        formers, self._former_files = self._former_files, []
        for name in {Path(path).name for path in formers} - {Path(p).name for p in self.best_files.values()}:
            self._remove(name)

    @property
    def _keys(self) -> list[str]:
        """Metrics whose best checkpoints are kept."""
        return list(self.save_best or [])

    def _step(self, runner: Runner) -> int:
        return runner.epoch if self.by_epoch else runner.iter

    def _validation_is_due(self, runner: Runner, step: int) -> bool:
        """Whether the training loop validates when it has done so many epochs (or iterations)."""
        loop, end = runner.train_loop, runner.max_epochs if self.by_epoch else runner.max_iters
        if isinstance(loop, EpochBasedTrainLoop) != self.by_epoch:
            return False  # a checkpoint from within an epoch, where no validation is due
        if runner.val_loop is None or step < max(loop.val_begin, 1):
            return False
        loop._decide_current_val_interval()  # (by ``dynamic_intervals``; a loop that goes on has not yet)
        return step % loop.val_interval == 0 or step == end

    def _write(self, runner: Runner, filename: str, **kwargs: Any) -> None:
        """Write a checkpoint so that the file is either the old one or the whole new one."""
        partial = Path(self.out_dir) / f".{filename}{_PARTIAL}"
        path = partial.with_name(filename)
        self._waiting = gather_gradients(runner) if kwargs["save_optimizer"] else None
        try:
            runner.save_checkpoint(self.out_dir, partial.name, backend_args=self.backend_args, **kwargs)
            if is_main_process():
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
                partial.replace(path)
        except OSError as error:
            reason = (
                f"the checkpoint cannot be written ({error.strerror}); the one before it is kept: make room, "
                "and go on with --resume"
            )
            raise OSError(error.errno, reason, str(path)) from error
        finally:
            self._waiting = None
            if is_main_process():
                partial.unlink(missing_ok=True)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the gradients that wait for more steps, with which a resumed run goes on."""
        if self._waiting is not None:
            checkpoint[GRADIENTS], checkpoint[COUNTS] = self._waiting, counted_steps(runner)

    def _remove(self, filename: str) -> None:
        if is_main_process():
            (Path(self.out_dir) / filename).unlink(missing_ok=True)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated: list[int] = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            self.keep_ckpt_ids.append(step)
            while len(self.keep_ckpt_ids) > self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            # The checkpoint carries this list, so that a resumed run goes on removing.
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
            runner.message_hub.update_info(_OUTDATED, outdated)
        filename = self.filename_tmpl.format(step)
        path = str(Path(self.out_dir) / filename)
        runner.message_hub.update_info("last_ckpt", path)
        self._write(
            runner,
            filename,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            **self.args,
        )
        self.last_ckpt = path  # now: until it is written, messages name the one before it
        if is_main_process():
            write_atomically(Path(runner.work_dir) / "last_checkpoint", self.last_ckpt.encode())
        for old in outdated:
            self._remove(self.filename_tmpl.format(old))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        missing = [key for key in self._keys if key not in metrics]
        if missing:
            raise KeyError(
                f"PlannerCheckpointHook: save_best='{missing[0]}' is not among the validation metrics "
                f"({', '.join(sorted(metrics))}); set default_hooks.checkpoint.save_best"
            )
        for key, rule in zip(self._keys, self.rules if self._keys else (), strict=True):
            share = scored_share(key, metrics) if rule == "greater" else 1.0
            self._keep_if_best(runner, key, float(metrics[key]), share, self.init_value_map[rule])

    def _keep_if_best(self, runner: Runner, key: str, score: float, share: float, worst: float) -> None:
        """Write the checkpoint that is the best so far by one metric, a mean over a share of the scenes."""
        best, compared = runner.message_hub.runtime_info.get(f"best_score_{key}", worst), score * share
        if share < 1.0:
            runner.logger.warning(
                f"{key} {score:.4f} is of {100.0 * share:.1f} % of the scenes; it counts as {compared:.4f} "
                "where the best checkpoint is chosen, as if the others had 0"
            )
        if not self.is_better_than[key](compared, best):
            return
        step = self._step(runner)
        filename = f"best_{key}_{self.filename_tmpl.format(step)}".replace("/", "_")
        if key in self.best_files:
            self._former_files.append(self.best_files[key])
        self.best_files[key] = str(Path(self.out_dir) / filename)
        runner.message_hub.update_info(f"best_score_{key}", compared)
        runner.message_hub.update_info(f"best_ckpt_{key}", self.best_files[key])
        meta = {"epoch": runner.epoch, "iter": runner.iter, "best_score": score}
        self._write(
            runner,
            filename,
            save_optimizer=False,
            save_param_scheduler=False,
            meta=meta,
            by_epoch=False,
        )
        runner.logger.info(f"The best checkpoint so far, {key} {score:.4f} after {step}, is {filename}")


def scored_share(key: str, metrics: Mapping[str, Any]) -> float:
    """Share of the scenes that a figure is a mean over; 1 if its metric does not say.

    >>> scored_share("pdms/PDMS", {"pdms/PDMS": 90.0, "pdms/num_scenes": 6.0, "pdms/num_failed": 2.0})
    0.75
    """
    prefix, _, name = key.rpartition("/")
    scored, failed = (metrics.get(f"{prefix}/{count}") for count in _COUNTS)
    if name in _COUNTS or scored is None or failed is None or not scored + failed:
        return 1.0
    return float(scored / (scored + failed))
