"""Whether a training can go on from a checkpoint, and as what."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor
from torch.optim import Optimizer

from beyonddrive.engine.checkpoint_files import CheckpointError, load_checkpoint_file
from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.recipe_changes import check_recipe

GRADIENTS = "accumulated_gradients"
"""Name under which a checkpoint keeps gradients that wait for more steps, by rank and parameter."""
COUNTS = "accumulated_steps"
"""Name under which it keeps, beside them, how many steps each of several optimizers has counted, by name."""
_STEPS = "steps"
"""Name under which ``meta`` keeps how the scenes were cut into steps."""
_DATA = "data"
"""Name under which ``meta`` keeps what tells the training data from others."""
_NUMBERED = re.compile(r"(epoch|iter)_(\d+)\.pth")


def describe_steps(runner: Runner) -> dict[str, int]:
    """How a training cuts its scenes into steps, and how many of these make an update."""
    loader = runner.train_dataloader
    counts = {
        ".".join(filter(None, ("accumulative_counts", name))): int(one._accumulative_counts)
        for name, one in named_wrappers(runner.optim_wrapper).items()
    }
    return {
        "processes": get_world_size(),
        "batch_size": int(loader.batch_size or 0),
        "steps_per_epoch": len(loader),
        "scenes": len(loader.dataset),
        **counts,
    }


def sign(runner: Runner, meta: dict[str, Any], data: Sequence[Mapping[str, Any]]) -> None:
    """Let a checkpoint say which scenes it was trained on, and how they were cut into steps.

    Args:
        runner: The run.
        meta: ``meta`` of the checkpoint.
        data: Fingerprints of the training data, as they were when the run began.
    """
    meta[_STEPS] = describe_steps(runner)
    meta[_DATA] = [dict(part) for part in data]


def seed_to_go_on_with(file: str, given: int | None) -> int | None:
    """The seed of the training that a checkpoint is of; None if the file does not say.

    Samplers get their seed when they are built, which is before a checkpoint is loaded.

    Args:
        file: The checkpoint; one that cannot be read says nothing here, and is refused when it is loaded.
        given: Seed that was asked for, if one was.

    Raises:
        ConfigError: If that is another one.
    """
    try:
        seed = load_checkpoint_file(file, mmap=True).get("meta", {}).get("seed")
    except (CheckpointError, FileNotFoundError):
        return given
    if given is not None and seed is not None and seed != given:
        raise ConfigError(
            f"--seed {given}: {file} is of a training with seed {seed}, which goes on with it; leave --seed "
            f"and randomness.seed out, or start anew from the weights with --cfg-options load_from={file} "
            "instead of --resume"
        )
    return given if seed is None else int(seed)


def check_data(
    runner: Runner, checkpoint: Mapping[str, Any], data: Sequence[Mapping[str, Any]], allow_other: bool
) -> None:
    """Refuse to go on with other scenes, logs or stores than those that a checkpoint was trained on.

    Args:
        runner: The run.
        checkpoint: One of before it was noted is not compared.
        data: Fingerprints of the training data of this run.
        allow_other: Warn instead.

    Raises:
        ConfigError: With what differs.
    """
    then = checkpoint.get("meta", {}).get(_DATA)
    differing = [] if then is None else differing_data(then, data)
    if not differing:
        return
    file = str(checkpoint.get("file", "the checkpoint"))
    text = f"{file}: was trained on other data than this run has: {'; '.join(differing)}"
    if not allow_other:
        raise ConfigError(
            f"{text}. Give it the data that it began with, or start anew from its weights with --cfg-options "
            f"load_from={file} instead of --resume; if these are to take the place of the others, set "
            "allow_other_data=True of the CheckpointGuardHook in custom_hooks"
        )
    runner.logger.warning(f"{text}. It goes on with these, as allow_other_data=True says")


def differing_data(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the fingerprints of data sets differ, by their place in ``train_dataloader.dataset``."""
    if len(then) != len(now):
        return [f"{len(then)} data sets before, {len(now)} now"]
    found = []
    for number, (old, new) in enumerate(zip(then, now, strict=True)):
        keys = {*old, *new}
        if old.get("by") != new.get("by"):  # read from a cache now, and from logs before: not to be compared
            keys -= {"by", "files", "digest"}
        elif old.get("digest") == new.get("digest"):
            keys -= {"files"}
        for key in sorted(keys):
            if old.get(key) != new.get(key):
                of = f" of data set {number}" if len(now) > 1 else ""
                found.append(f"{key}{of} {_brief(old.get(key))} before, {_brief(new.get(key))} now")
    return found


def _brief(value: Any) -> str:
    """A value of a fingerprint; of stores the transform that reads each, its records and its digest."""
    if not isinstance(value, (list, tuple)):
        return str(value)
    each = [f"{store.get('transform')} {store.get('records')} {store.get('digest')}" for store in value]
    return f"[{', '.join(each)}]"


def check_continuation(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint that cannot be gone on from; adapt the count of steps of others.

    A training by epochs goes on at the end of an epoch, with as many processes and scenes per batch as one
    likes; with others than before it says what differs from an unbroken run: little, if they have as many
    scenes per step together. A training by iterations goes on at any step, with the same ones.

    Raises:
        ConfigError: If the checkpoint holds weights alone, was written within an epoch, or its steps are not
            those of this run where steps are what counts; or if optimizer, schedules or scale of the
            learning rate differ from those that it restores.
    """
    file = str(checkpoint.get("file", "the checkpoint"))
    meta = checkpoint.get("meta", {})
    missing = [key for key in ("message_hub", "optimizer") if key not in checkpoint]
    missing += [f"meta.{key}" for key in ("epoch", "iter") if key not in meta]
    if missing:
        raise ConfigError(
            f"{file}: has weights, but no {', '.join(missing)}, so a training cannot go on from it; resume "
            "from an epoch_*.pth, or start from its weights with --cfg-options load_from=..."
        )
    now = describe_steps(runner)
    then = {**now, **meta.get(_STEPS, {})}
    check_recipe(runner, file, meta, (then["processes"], now["processes"]))
    differing = [f"{key} {then[key]} before, {now[key]} now" for key in now if then[key] != now[key]]
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    if by_epoch:
        _check_boundary(file, meta, then["steps_per_epoch"])
    if differing and _same_scenes_per_step(then, now):
        runner.logger.warning(
            f"going on in other parts: {'; '.join(differing)}. Every step keeps its scenes, noise and losses"
            "; statistics of batch norms, and dropout, are those of the new parts"
        )
    elif differing and by_epoch:
        _go_on_with_other_steps(runner, checkpoint, differing)
    elif differing:
        raise ConfigError(
            f"{file}: a training by iterations goes on only with the steps that it began with "
            f"({'; '.join(differing)}); restore them, or start from the weights with --cfg-options load_from="
        )
    waiting = checkpoint.get(GRADIENTS)
    if waiting is not None and len(waiting) != get_world_size():
        raise ConfigError(
            f"{file}: holds gradients of {len(waiting)} processes that wait for more steps "
            f"(optim_wrapper.accumulative_counts); resume with as many processes"
        )


def _check_boundary(file: str, meta: Mapping[str, Any], steps: int) -> None:
    done, within = divmod(meta["iter"], max(steps, 1))
    if within or done != meta["epoch"]:
        raise ConfigError(
            f"{file}: was written within epoch {meta['epoch'] + 1}, after step "
            f"{meta['iter'] - meta['epoch'] * steps} of {steps}, and a training by epochs goes on only from "
            "the end of one; resume from an epoch_*.pth (of default_hooks.checkpoint.by_epoch=True), "
            "or start from its weights with --cfg-options load_from=..."
        )


def _same_scenes_per_step(then: Mapping[str, int], now: Mapping[str, int]) -> bool:
    """Whether each step has the scenes that it would have had, however they are divided among the ranks."""
    if any(then[key] != now[key] for key in now.keys() - {"processes", "batch_size"}):
        return False
    return then["processes"] * then["batch_size"] == now["processes"] * now["batch_size"]


def _go_on_with_other_steps(runner: Runner, checkpoint: dict[str, Any], differing: Sequence[str]) -> None:
    file, meta = str(checkpoint.get("file", "the checkpoint")), checkpoint["meta"]
    schedules = runner.param_schedulers or []
    every = schedules.values() if isinstance(schedules, dict) else [schedules]
    if any(not schedule.by_epoch for some in every for schedule in some):
        raise ConfigError(
            f"{file}: a schedule counts steps (by_epoch=False or convert_to_iter_based), which are not those "
            f"that it began with ({'; '.join(differing)}); resume with these, or start from the weights with "
            "--cfg-options load_from=..."
        )
    meta["iter"] = meta["epoch"] * now_steps(runner)
    single = named_wrappers(runner.optim_wrapper).get("")  # (of several, each counts steps of its own)
    if GRADIENTS in checkpoint or (single is not None and meta["iter"] % single._accumulative_counts):
        raise ConfigError(
            f"{file}: lies within the steps whose gradients add up (optim_wrapper.accumulative_counts), "
            f"those that it was written in or those of this run ({'; '.join(differing)}), and the next "
            "update would have another size; resume with the steps that it began with, or from an epoch that "
            "is the end of an update for both, or start from the weights with --cfg-options "
            f"load_from={file}"
        )
    runner.logger.warning(
        f"going on after epoch {meta['epoch']} with other steps: {'; '.join(differing)}. Learning rates "
        "follow the epochs; the order of the scenes, noise and batch statistics are those of the new steps, "
        f"so the weights will not be those of an unbroken run. Steps are counted from {meta['iter']}"
    )


def now_steps(runner: Runner) -> int:
    """Steps in an epoch of this run."""
    return len(runner.train_dataloader)


def gather_gradients(runner: Runner) -> list[dict[str, torch.Tensor]] | None:
    """Gradients that wait for more steps, by rank and parameter; None if none wait. Called on all ranks."""
    if all(wrapper.should_update() for wrapper in single_wrappers(runner.optim_wrapper)):
        return None
    own = {
        name: parameter.grad.detach().cpu().clone()
        for name, parameter in runner.model.named_parameters()
        if parameter.grad is not None
    }
    gathered: list[dict[str, torch.Tensor]] = all_gather_object(own)
    return gathered


def counted_steps(runner: Runner) -> dict[str, int]:
    """Steps that each of several optimizers has counted, by name; a single one counts those of the run."""
    return {name: one.inner_count for name, one in named_wrappers(runner.optim_wrapper).items() if name}


def restore_gradients(
    runner: Runner, gathered: Sequence[Mapping[str, torch.Tensor]], counts: Mapping[str, int]
) -> None:
    """Put the gradients of this rank back where they waited, and have optimizers count on."""
    wrappers = named_wrappers(runner.optim_wrapper)
    for name in counts.keys() & wrappers.keys():
        wrappers[name]._inner_count = counts[name]
    own = gathered[get_rank()]
    for name, parameter in runner.model.named_parameters():
        parameter.grad = own[name].to(parameter.device) if name in own else None


def last_written(runner: Runner) -> str | None:
    """The newest checkpoint of a run: written by it, or what it goes on from; None if there is none."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and getattr(hook, "last_ckpt", None):
            return str(hook.last_ckpt)
    return str(runner._load_from) if getattr(runner, "is_resumed", False) else None


def how_to_go_on(runner: Runner) -> str:
    """From which checkpoint a run whose last steps are lost goes on, as the end of a message."""
    checkpoint = last_written(runner)
    if checkpoint is None:
        return "no checkpoint had been written"
    return f"the last good checkpoint is {checkpoint}, go on from it with --resume {checkpoint}"


def earlier_checkpoint(path: str | Path) -> Path | None:
    """The newest checkpoint before this one in its folder that is whole; None if there is none."""
    path = Path(path)
    number = _NUMBERED.fullmatch(path.name)
    if number is None:
        return None
    found = [(_NUMBERED.fullmatch(other.name), other) for other in path.parent.glob(f"{number[1]}_*.pth")]
    older = [(int(match[2]), other) for match, other in found if match and int(match[2]) < int(number[2])]
    for _, other in sorted(older, reverse=True):
        if zipfile.is_zipfile(other):  # the table of contents is at the end of the file
            return other
    return None


def steps_to_host(wrapper: Any) -> None:
    """Put the counts of steps of loaded optimizers where these want them.

    A checkpoint that is loaded straight to a GPU brings these single numbers there, and Adam would wait for
    each of them in every step. Only a fused or capturable update reads them from the GPU.
    """
    for one in single_wrappers(wrapper):
        _steps_to_host(one.optimizer)


def named_wrappers(wrapper: Any) -> dict[str, OptimWrapper]:
    """The wrappers of single optimizers that a run has, by name; the only one has none."""
    wrappers = wrapper.items() if isinstance(wrapper, OptimWrapperDict) else [("", wrapper)]
    return {name: one for name, one in wrappers if isinstance(one, OptimWrapper)}


def single_wrappers(wrapper: Any) -> list[OptimWrapper]:
    """The wrappers of single optimizers that a run has."""
    return list(named_wrappers(wrapper).values())


def _steps_to_host(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        if group.get("fused") or group.get("capturable"):
            continue
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if isinstance(step := state.get("step"), Tensor):
                state["step"] = step.cpu()
