"""From a config to a training or an evaluation: what the tools, notebooks and tests call."""

from __future__ import annotations

import copy
import gc
import itertools
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_distributed
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from beyonddrive.engine import mmengine_compat
from beyonddrive.engine.config_check import check_config
from beyonddrive.engine.configs import ConfigError, check_selection, load_config
from beyonddrive.engine.evaluators import check_roots, component_class, set_result_files
from beyonddrive.engine.hooks.checkpoint_guard import CheckpointGuardHook
from beyonddrive.engine.hooks.finite_losses import FiniteLossesHook
from beyonddrive.engine.hooks.rank_agreement import RankAgreementHook
from beyonddrive.engine.hooks.run_record import RunRecordHook
from beyonddrive.engine.hooks.scene_random import SceneRandomHook
from beyonddrive.engine.hooks.seed import EpochSeedHook
from beyonddrive.engine.resuming import seed_to_go_on_with
from beyonddrive.engine.runner.planner_runner import PlannerRunner
from beyonddrive.engine.runner.result_paths import check_folder, check_results, files_read
from beyonddrive.engine.runner.work_folder import check_unused, checkpoint_folder, folders_of
from beyonddrive.engine.scenes_per_update import scenes_per_update
from beyonddrive.registry import SCOPE

__all__ = [
    "ConfigError",
    "Evaluation",
    "PlannerRunner",
    "build_test_runner",
    "build_train_runner",
    "default_work_dir",
    "ending_processes",
    "evaluate",
    "find_last_checkpoint",
    "load_config",
]

LAST_CHECKPOINT = "last_checkpoint"
"""File in a work folder that names the newest checkpoint."""
_ALWAYS = (
    *(CheckpointGuardHook, EpochSeedHook, FiniteLossesHook, RankAgreementHook, RunRecordHook),
    SceneRandomHook,
)
"""Hooks that every run has, also one whose config lists others only."""
_TRAINING = ("train_dataloader", "train_cfg", "optim_wrapper")
"""What a config has for a training."""
_TF32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
"""What torch does by itself, in matrix products and convolutions, before a recipe says otherwise."""
_runs = itertools.count()


class Evaluation(NamedTuple):
    """Figures of a test by name.

    Attributes:
        metrics: The figures.
        failures: Scenes without a score, and logs that are lost, with the reasons.
        shares: Prefix of figures that are of a part of the split only -> of which, as ``4 of 30 scenes``.
        unwritten: Why files of results could not be written.
        labels: Prefix of figures -> what they are of, of metrics that say so.
    """

    metrics: dict[str, float]
    failures: dict[str, str]
    shares: dict[str, str]
    unwritten: list[str]
    labels: dict[str, str]


def default_work_dir(config: Config) -> str:
    """Return ``config.work_dir``, or ``work_dirs/<name of the config file>``."""
    name = Path(config.filename).stem if config.filename else "unnamed"
    return str(config.get("work_dir") or Path("work_dirs") / name)


def find_last_checkpoint(work_dir: str | Path, folder: Path | None = None) -> Path | None:
    """Newest checkpoint of a work folder, also if the folder was moved since; None if there is none.

    Args:
        work_dir: The folder.
        folder: Where its recipe puts checkpoints, if not into it: one of that name in the work folder may be
            of an earlier training.

    Raises:
        ConfigError: If ``last_checkpoint`` names a file that is gone.
    """
    pointer = Path(work_dir) / LAST_CHECKPOINT
    if not pointer.is_file():
        return None
    named = Path(pointer.read_text().strip())
    for path in (*([folder / named.name] if folder else []), Path(work_dir) / named.name, named):
        if path.is_file():
            return path
    raise ConfigError(
        f"{pointer}: names {named}, which is gone; give the checkpoint to resume from, or delete {pointer}"
    )


def build_train_runner(
    config: Config,
    work_dir: str | None = None,
    resume: str | bool = False,
    amp: bool = False,
    launcher: str = "none",
    seed: int | None = None,
    auto_scale_lr: bool = False,
    is_dry_run: bool = False,
) -> Runner:
    """Make a runner that is ready to ``train()``.

    Args:
        config: As :func:`load_config` returns it; not changed.
        work_dir: Where logs and checkpoints go; see :func:`default_work_dir`.
        resume: A checkpoint; True or ``'auto'`` for the newest in the work folder, from the start if there is
            none.
        amp: Mixed precision, also if the config has none: float16 with scaling on a GPU, bfloat16 elsewhere.
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.
        seed: Seed of everything; by default that of the checkpoint to resume, or else of the config.
        auto_scale_lr: Scale the learning rate by the scenes per step, all processes and the steps whose
            gradients add up together, over ``auto_scale_lr.base_batch_size`` of the config.
        is_dry_run: It will make a single step in a single process, however many the recipe is for.

    Raises:
        ConfigError: If the planner has nothing to train, the learning rate cannot be scaled, checkpoints
            would be selected on the test split, the checkpoint to resume is of another seed, the work folder
            cannot be written or another training is at work in it, or the config has a setting that nothing
            reads.
    """
    mmengine_compat.apply()
    config = copy.deepcopy(config)  # (its own ``copy`` shares what is below the top)
    config.work_dir = work_dir or default_work_dir(config)
    config.launcher = launcher
    check_selection(config)
    for key in _TRAINING:
        if not config.get(key):
            raise ConfigError(
                f"{key}: the config has none, so there is nothing to train by; give one, as those of "
                "configs/_base_ do, or evaluate the planner by beyonddrive test"
            )
    if amp or config.optim_wrapper.get("type") == "AmpOptimWrapper":
        config.optim_wrapper.type = "AmpOptimWrapper" if torch.cuda.is_available() else "AutocastOptimWrapper"
    if auto_scale_lr or (config.get("auto_scale_lr") or {}).get("enable"):
        if not (config.get("auto_scale_lr") or {}).get("base_batch_size"):
            raise ConfigError(
                f"{config.filename or 'config'}: does not say for how many scenes per step its learning rate "
                "is, so it cannot be scaled; set auto_scale_lr.base_batch_size, or leave --auto-scale-lr out"
            )
        config.auto_scale_lr.enable = True
    start = _take_start(config, resume)
    if start is not None:
        seed = seed_to_go_on_with(start, seed)
    if seed is not None:
        config.randomness = ConfigDict(config.get("randomness") or {}, seed=seed)
    check_unused(folders_of(config.work_dir, config))
    folder = checkpoint_folder(config.work_dir, config)
    if folder != Path(config.work_dir).absolute():
        check_folder(folder, "default_hooks.checkpoint.out_dir")
    earlier = sorted(path.name for path in folder.glob("*.pth")) if start is None else []
    runner = _build(config, start)
    if not any(parameter.requires_grad for parameter in runner.model.parameters()):
        raise ConfigError(
            f"planner {runner.model_name} has no weights to train; evaluate it by beyonddrive test"
        )
    if not is_dry_run:
        _advise_on_scenes_per_step(runner)
    if earlier:
        runner.logger.warning(
            f"{folder} holds checkpoints of another run, which this one may write over: "
            f"{', '.join(earlier)}; to keep them apart give another --work-dir, to go on from them --resume"
        )
    return runner


def _advise_on_scenes_per_step(runner: Runner) -> None:
    """Say so if a step has more or fewer scenes than the learning rate of the recipe is for."""
    config = runner.cfg
    scaling = config.get("auto_scale_lr") or {}
    wanted, batch = scaling.get("base_batch_size"), config.train_dataloader.get("batch_size")
    if not wanted or not batch or scaling.get("enable"):
        return
    accumulated = config.optim_wrapper.get("accumulative_counts", 1)
    scenes = scenes_per_update(batch, runner.world_size, accumulated)
    if scenes != wanted:
        runner.logger.warning(
            f"{scenes} scenes per step (batch_size={batch}, {runner.world_size} processes, "
            f"accumulative_counts={accumulated}), and the learning rate of this recipe is for {wanted}: "
            "start more processes (tools/dist_train.sh), set train_dataloader.batch_size, or give "
            "--auto-scale-lr"
        )


def build_test_runner(
    config: Config,
    *,
    work_dir: str | None = None,
    out_file: str | Path | None = None,
    plans_file: str | Path | None = None,
    launcher: str = "none",
    inputs: Sequence[str | Path] = (),
) -> Runner:
    """Make a runner that is ready to ``test()`` once its planner has been given its weights.

    Args:
        config: As :func:`load_config` returns it; not changed. Its ``load_from`` is not read.
        work_dir: Where logs go; by default the folder ``test`` in that of the training.
        out_file: csv file with one row per scene; with several metrics one file each, see
            :func:`~beyonddrive.engine.evaluators.set_result_files`.
        plans_file: npz file with the plan of each scene.
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.
        inputs: Files that the evaluation reads besides those that the config names, such as the checkpoint.

    Raises:
        ConfigError: If nothing writes the files, they cannot be written, or are read.
    """
    mmengine_compat.apply()
    config = copy.deepcopy(config)
    config.work_dir = work_dir or str(Path(default_work_dir(config)) / "test")
    config.launcher = launcher
    config.resume = False
    config.load_from = None
    check_results({"--out": out_file, "--plans": plans_file}, [*files_read(config), *inputs])
    set_result_files(config, out_file, plans_file)
    return _build(config)


def evaluate(runner: Runner) -> Evaluation:
    """Evaluate and return the figures, which scenes have no score, and what could not be written."""
    metrics = runner.test()
    failures: dict[str, str] = {}
    shares: dict[str, str] = {}
    unwritten: list[str] = []
    labels: dict[str, str] = {}
    for metric in runner.test_evaluator.metrics:
        if getattr(metric, "failures", None):
            failures |= metric.failures
            if hasattr(metric, "share"):
                shares[metric.prefix] = metric.share
        unwritten += getattr(metric, "unwritten", [])
        if getattr(metric, "label", None) is not None:
            labels[metric.prefix] = str(metric.label)
    return Evaluation(metrics, failures, shares, unwritten, labels)


@contextmanager
def ending_processes() -> Iterator[None]:
    """Leave the process group and end the workers of data loaders on the way out, also on an error.

    A thread of the group that is still at work when the interpreter shuts down aborts the process. The
    threads end with the last object that refers to the group, such as the wrapper of the model; so what is
    run inside is a function that builds its runner and does not return it.
    """
    try:
        yield
    except BaseException as error:
        if is_distributed():
            _forget_frames(error)
        raise
    finally:
        if is_distributed():
            torch.distributed.destroy_process_group()
        gc.collect()  # runners are full of cycles


def _forget_frames(error: BaseException | None) -> None:
    """Empty the frames that an error and its causes keep alive, such as that of the runner."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _take_start(config: Config, resume: str | bool) -> str | None:
    """The checkpoint that a run goes on from, None if it starts; the config keeps what is of the recipe."""
    wanted = resume or config.get("resume", False)
    config.resume = False
    if wanted not in (True, "auto"):
        return str(wanted) if wanted else None
    if not resume and config.get("load_from"):  # mmengine's way to name what to go on from
        named, config.load_from = str(config.load_from), None
        return named
    last = find_last_checkpoint(config.work_dir, checkpoint_folder(config.work_dir, config))
    if last is None:
        print_log(f"nothing to resume in {config.work_dir}: starting from the beginning", "current")
    return None if last is None else str(last)


def _build(config: Config, start: str | None = None) -> PlannerRunner:
    """Make a runner; ``start`` is the checkpoint that it goes on from."""
    check_config(config)
    check_folder(config.work_dir, "work_dir")
    # mmengine keeps state by this name and the second: two runners of one notebook must not share it.
    name = Path(config.filename).stem if config.filename else "run"
    number = next(_runs)
    config.experiment_name = config.get("experiment_name") or (f"{name}-{number}" if number else name)
    if config.get("num_threads"):
        torch.set_num_threads(config.num_threads)
    tf32 = config.get("tf32")  # (None takes back what another recipe of this process has set)
    products, convolutions = _TF32 if tf32 is None else (tf32, tf32)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions
    for part in ("train", "val", "test"):
        loader = config.get(f"{part}_dataloader")
        if loader is not None and not loader.get("num_workers"):
            loader.persistent_workers = False  # torch refuses it without workers
    check_roots(config)
    hooks = list(config.get("custom_hooks") or [])
    scope = config.get("default_scope", "beyonddrive")
    kinds = [component_class(hook, HOOKS, scope, f"custom_hooks.{i}") for i, hook in enumerate(hooks)]
    for needed in _ALWAYS:
        if not any(isinstance(kind, type) and issubclass(kind, needed) for kind in kinds):
            hooks.append({"type": f"{SCOPE}.{needed.__name__}"})
    config.custom_hooks = hooks
    return PlannerRunner.from_cfg(config, start)
