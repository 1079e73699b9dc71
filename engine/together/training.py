"""Trainings side by side: each recipe's step recorded once, then trained with one seed after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import PARAM_SCHEDULERS as ROOT_SCHEDULERS
from mmengine.registry import DefaultScope
from mmengine.runner import set_random_seed
from torch import Tensor, nn

from beyonddrive.engine import mmengine_compat
from beyonddrive.engine.checkpoint_files import nonfinite_keys
from beyonddrive.engine.geometry import check_lengths
from beyonddrive.engine.samplers import RoundDownSampler
from beyonddrive.engine.together.scenes import SceneTensors, TogetherError
from beyonddrive.engine.together.step import RecordedStep
from beyonddrive.structures.scene_random import step_seed

_WRAPPER_KEYS = {"type", "optimizer", "clip_grad", "paramwise_cfg", "constructor"}
_DEFAULT_HOOKS = {
    "runtime_info",
    "timer",
    "sampler_seed",
    "logger",
    "param_scheduler",
    "checkpoint",
    "pictures",
}
_LEFT_OUT = (
    *("load_from", "resume", "activation_checkpointing", "compile", "efficient_conv_bn_eval"),
    "data_preprocessor",
)
"""Settings of the top that only the runner heeds."""
_SEEDING = {"EpochSeedHook", "CheckpointGuardHook"}
"""Hooks whose work is done here, or that have none: planners with dropout are refused."""
_ACTING = ("before_train_epoch", "before_train_iter", "after_train_iter", "after_train_epoch")


@dataclass
class Training:
    """A recipe that is trained with several seeds.

    Attributes:
        name: For messages.
        config: The recipe, as :func:`load_config` returns it.
        scenes: Its training split, on the device.
        seeds: To train with, one after the other.
        start: Weights to start from by seed, where :func:`new_planner` has made them before.
        weights: The last epoch's weights by seed, on the CPU, as they come.
        losses: Loss after each epoch by seed.
        error: What ended it early.
    """

    name: str
    config: Config
    scenes: SceneTensors
    seeds: Sequence[int]
    start: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    weights: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    losses: dict[int, list[float]] = field(default_factory=dict)
    error: Exception | None = None


Finished = Callable[[Training, int, Any], None]
"""Called with a training, a seed and the planner as it is after the last epoch."""


def train_together(
    trainings: Sequence[Training],
    device: torch.device,
    finished: Finished | None = None,
    until: float = float("inf"),
    width: int = 16,
    order: Sequence[tuple[Training, int]] | None = None,
) -> int:
    """Train all; fills their ``weights`` and ``losses``. One that fails gets its ``error``, the rest goes on.

    Args:
        trainings: What to train, the most wanted first.
        device: Where their scenes are.
        finished: Called for every seed that is trained to the end; the planner goes on with the next seed.
        until: ``time.monotonic()`` at which to stop; seeds that are not done by then leave nothing.
        width: Trainings at a time.
        order: Training and seed of every run, as they are begun; by default the first seeds of all trainings
            before the second ones.

    Returns:
        Steps of all trainings.
    """
    mmengine_compat.apply()
    waiting = list(order if order is not None else seed_by_seed(trainings))
    recorded: dict[int, _Recorded] = {}
    running: dict[int, Iterator[int]] = {}
    by_id = {id(training): training for training in trainings}
    count = 0
    while (waiting or running) and time.monotonic() < until:
        for job in list(waiting):
            if len(running) >= width:
                break
            if id(job[0]) not in running:  # (one recorded step serves all seeds, one at a time)
                waiting.remove(job)
                if job[0].error is None:
                    running[id(job[0])] = _train(recorded, *job, device, finished)
        for key, steps in list(running.items()):
            try:
                count += next(steps)
            except StopIteration:
                del running[key]
            except Exception as error:
                by_id[key].error = error
                del running[key]
                recorded.pop(key, None)
    return count


def seed_by_seed(trainings: Sequence[Training]) -> list[tuple[Training, int]]:
    """Every training with its first seed, then every one with its second seed, and so on."""
    longest = max((len(training.seeds) for training in trainings), default=0)
    return [(t, t.seeds[place]) for place in range(longest) for t in trainings if place < len(t.seeds)]


@dataclass
class _Recorded:
    """What all seeds of a recipe share."""

    planner: Any
    wrapper: OptimWrapper
    step: RecordedStep


def _record(training: Training, seed: int, device: torch.device) -> _Recorded:
    config, scenes = training.config, training.scenes
    check_recipe(config)
    _check_scenes(scenes, config.train_dataloader.batch_size, device)
    planner = new_planner(config, seed, scenes).to(device)
    check_lengths(planner.modules(), scenes.lengths)
    _check_dropout(planner)
    if config.get("channels_last"):
        planner.to(memory_format=torch.channels_last)
    wrapper = _optimizer(planner, config, device)
    batch = config.train_dataloader.batch_size
    step = RecordedStep(lambda index: _step(planner, wrapper, scenes, index), batch, device)
    planner.train()
    before = _copy(planner)
    step.record(lambda: _reset(planner, wrapper, before))
    return _Recorded(planner, wrapper, step)


def _train(
    recorded: dict[int, _Recorded],
    training: Training,
    seed: int,
    device: torch.device,
    finished: Finished | None,
) -> Iterator[int]:
    """Train with a seed; hands over when a step is on its way: 1 for a new one, 0 for one that goes on."""
    config, scenes = training.config, training.scenes
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "beyonddrive")):
        if id(training) not in recorded:
            recorded[id(training)] = _record(training, seed, device)
        own = recorded[id(training)]
        planner, wrapper, step = own.planner, own.wrapper, own.step
        start = training.start.get(seed)
        _reset(
            planner, wrapper, _copy(new_planner(config, seed, scenes, planner)) if start is None else start
        )
        rates = _schedulers(wrapper, config)
    batch = config.train_dataloader.batch_size
    of_epoch = torch.zeros(len(scenes) // batch, device=device)  # losses, one for each step
    _settle(device)
    sampler = RoundDownSampler(range(len(scenes)), shuffle=True, seed=seed)
    losses: list[float] = []
    number = 0
    for epoch in range(config.train_cfg.max_epochs):
        sampler.set_epoch(epoch)
        order = list(sampler)
        batches = [order[first : first + batch] for first in range(0, len(order) - batch + 1, batch)]
        for place, chosen in enumerate(batches):
            seeds = [step_seed(seed, number, scenes.tokens[index]) for index in chosen]
            step.start(chosen, seeds, of_epoch[place])
            number += 1
            yield 1
            while not step.advance():
                yield 0
        values = of_epoch.cpu()
        if len(broken := (~values.isfinite()).nonzero()):
            place = int(broken[0])
            tokens = [[scenes.tokens[index] for index in chosen] for chosen in batches]
            raise TogetherError(
                f"{training.name}, seed {seed}: {_told(float(values[place]), place, epoch, tokens)}"
            )
        losses.append(float(values[-1]))
        for rate in rates:
            rate.step()
        _share_rates(wrapper)
        _settle(device)
    weights = {key: value.cpu() for key, value in _copy(planner).items()}
    if broken_keys := nonfinite_keys(weights):
        raise TogetherError(
            f"{training.name}, seed {seed}: {len(broken_keys)} weights hold NaN or infinity after the last "
            f"step, first {broken_keys[0]}: lower optim_wrapper.optimizer.lr or clip_grad"
        )
    training.losses[seed], training.weights[seed] = losses, weights
    if finished is not None:
        finished(training, seed, planner.eval())
        planner.train()


def _told(loss: float, place: int, epoch: int, tokens: Sequence[Sequence[str]]) -> str:
    """What is known of the first step of an epoch whose loss is not finite."""
    told = f"loss is {loss:g} in step {place + 1} of epoch {epoch + 1}, scenes {', '.join(tokens[place])}"
    if place:
        told += f"; the weights are those after the scenes {', '.join(tokens[place - 1])}"
    return (
        f"{told}. Look at their inputs and targets (beyonddrive browse), lower optim_wrapper.optimizer.lr, "
        "or set optim_wrapper.clip_grad"
    )


def _check_scenes(scenes: SceneTensors, batch: int, device: torch.device) -> None:
    """Refuse scenes that no step can be made of.

    Raises:
        TogetherError: Names what is wrong, and the remedy.
    """
    for key, value in scenes.fields.items():
        if value.device.type != device.type:
            raise TogetherError(
                f"{key} lies on {value.device}, and the training on {device}: give scenes.to(device)"
            )
    if len(scenes) < batch:
        raise TogetherError(
            f"train_dataloader.batch_size={batch}: of {len(scenes)} scenes there is no batch, and nothing "
            f"would be trained; set it to at most {len(scenes)}"
        )
    scenes.check_finite()


def _check_dropout(planner: nn.Module) -> None:
    """Refuse a planner that drops units: what it drops would depend on who is trained beside it.

    Raises:
        TogetherError: Names the first part that does.
    """
    for name, part in planner.named_modules():
        for key in ("dropout", "p", "drop_prob"):
            share = getattr(part, key, None)
            if isinstance(share, float) and share > 0:
                raise TogetherError(
                    f"{name} drops units at random ({key}={share:g}), and trainings side by side share a "
                    f"generator: set its dropout to 0, or train it by beyonddrive train"
                )


def check_recipe(config: Config) -> None:
    """Refuse what a recorded step would leave out.

    Raises:
        TogetherError: Names the setting; such a recipe is trained by ``beyonddrive train``.
    """
    wrapper, loader, loop = config.optim_wrapper, config.train_dataloader, config.train_cfg
    found = [name for name in _LEFT_OUT if config.get(name)]
    if config.get("tf32") is not None:
        found.append("tf32")
    if (config.get("auto_scale_lr") or {}).get("enable"):
        found.append("auto_scale_lr.enable")
    if loader.get("num_batch_per_epoch") is not None:
        found.append("train_dataloader.num_batch_per_epoch")
    if wrapper.get("type", "OptimWrapper") != "OptimWrapper" or set(wrapper) - _WRAPPER_KEYS:
        found.append("optim_wrapper")
    if wrapper.optimizer.type not in ("Adam", "AdamW"):
        found.append("optim_wrapper.optimizer.type")
    if (wrapper.get("clip_grad") or {}).get("type", "norm") != "norm":
        found.append("optim_wrapper.clip_grad.type")
    if not loader.get("drop_last") or loader.sampler.get("type") != "RoundDownSampler":
        found.append("train_dataloader.sampler, which must be RoundDownSampler with drop_last=True")
    elif not loader.sampler.get("shuffle", True) or set(loader.sampler) - {"type", "shuffle"}:
        found.append("train_dataloader.sampler, which must shuffle by the seed of the training")
    if loader.get("batch_sampler"):
        found.append("train_dataloader.batch_sampler")
    if not loop.get("by_epoch") or set(loop) - {
        "by_epoch",
        "max_epochs",
        "val_interval",
        "val_begin",
        "type",
    }:
        found.append("train_cfg")
    extra = [name for name in config.default_hooks if name not in _DEFAULT_HOOKS]
    extra += [hook["type"] for hook in config.get("custom_hooks") or () if _acts(hook["type"])]
    found += [f"hook {name}" for name in extra]
    if found:
        raise TogetherError(
            f"{', '.join(found)}: not known to trainings side by side; train it by beyonddrive train"
        )


def _acts(name: str) -> bool:
    """Whether a hook of this type does something in steps or between epochs, and not only before training."""
    if name in _SEEDING:
        return False
    with ROOT_HOOKS.switch_scope_and_registry(None) as registry:
        kind = registry.get(name)
    return kind is None or any(getattr(kind, do) is not getattr(Hook, do) for do in _ACTING)


def new_planner(config: Config, seed: int, scenes: SceneTensors, other: nn.Module | None = None) -> Any:
    """A planner with the weights that a training with ``seed`` starts from, on the CPU.

    Args:
        config: The recipe.
        seed: Of the weights.
        scenes: Its training split, from whose experts it gets its typical plans if it needs some.
        other: A planner of the same recipe, whose typical plans are taken instead.
    """
    set_random_seed(seed)
    planner = ROOT_MODELS.build(config.model)
    planner.init_weights()
    known = {} if other is None else dict(other.named_modules())
    for name, part in planner.named_modules():
        if not (hasattr(part, "fit") and hasattr(part, "missing") and hasattr(part, "require")):
            continue
        if name in known:
            part.load_state_dict(known[name].state_dict())
            part.forget()
        elif part.missing and part.path is None:
            part.fit(scenes.fields["gt.trajectory"].double().cpu().numpy(), 0)
        part.require()
    return planner


@torch.no_grad()
def plans_of(planner: Any, scenes: SceneTensors, batch: int = 500) -> Tensor:
    """Plans (N, 8, 3) of all scenes, on the CPU: x, y [m], heading [rad], ego frame."""
    found = []
    device = next(planner.parameters()).device
    inputs = scenes.select([key for key in scenes.fields if key.startswith("inputs.")])
    for start in range(0, len(scenes), batch):
        index = torch.arange(start, min(start + batch, len(scenes)), device=device)
        data = inputs.batch(index, scenes.tokens[start : start + batch])
        found.append(planner.plan(_inputs(planner, data), data["data_samples"]).trajectory)
    plans = torch.cat(found).cpu()
    if not bool(plans.isfinite().all()):
        raise TogetherError(f"{type(planner).__name__} plans NaN or infinity")
    return plans


def _inputs(planner: Any, data: dict[str, Any]) -> dict[str, Tensor]:
    """Inputs of a batch as the planner's data preprocessor hands them over."""
    keys = planner.data_preprocessor.keys
    return {
        key: value.float() / 255 if key == "camera" and value.dtype == torch.uint8 else value
        for key, value in data["inputs"].items()
        if keys is None or key in keys
    }


def _step(planner: Any, wrapper: OptimWrapper, scenes: SceneTensors, index: Tensor) -> Tensor:
    """One update of the planner, as mmengine's optimizer wrapper does it."""
    data = scenes.batch(index)
    losses = planner(_inputs(planner, data), data["data_samples"], mode="loss")
    total, _ = planner.parse_losses(losses)
    wrapper.optimizer.zero_grad(set_to_none=True)
    total.backward()
    if wrapper.clip_grad_kwargs:
        nn.utils.clip_grad_norm_(
            [p for group in wrapper.param_groups for p in group["params"] if p.grad is not None],
            **wrapper.clip_grad_kwargs,
        )
    wrapper.optimizer.step()
    return total


def _optimizer(planner: nn.Module, config: Config, device: torch.device) -> OptimWrapper:
    settings = config.optim_wrapper.copy()
    if device.type == "cuda":
        # (the fused update reads step and learning rate from the GPU, as a recorded step has to)
        settings.optimizer = {**settings.optimizer, "capturable": True, "fused": True}
    wrapper = build_optim_wrapper(planner, settings)
    for group in wrapper.param_groups:
        group["base_lr"] = group["initial_lr"] = float(group["lr"])
        group["shared_lr"] = torch.tensor(float(group["lr"]), device=device)
    _share_rates(wrapper)
    return wrapper


def _share_rates(wrapper: OptimWrapper) -> None:
    """Put the learning rates where a recorded step reads them."""
    for group in wrapper.param_groups:
        if group["shared_lr"].device.type == "cuda":
            group["shared_lr"].fill_(float(group["lr"]))
            group["lr"] = group["shared_lr"]


def _schedulers(wrapper: OptimWrapper, config: Config) -> list[Any]:
    """The schedules of the recipe from their beginning."""
    for group in wrapper.param_groups:
        group["lr"] = group["base_lr"]
    settings = config.get("param_scheduler") or []
    built = []
    for one in settings if isinstance(settings, list) else [settings]:
        if not one.get("by_epoch", True) or one.get("convert_to_iter_based"):
            raise TogetherError(
                "param_scheduler: only schedules by epoch are known to trainings side by side"
            )
        one = {"end": config.train_cfg.max_epochs, **one}
        built.append(ROOT_SCHEDULERS.build(one, default_args={"optimizer": wrapper}))
    _share_rates(wrapper)
    return built


def _settle(device: torch.device) -> None:
    """Wait for what was written beside the recorded step, whose stream would not."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _copy(planner: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in planner.state_dict().items()}


@torch.no_grad()
def _reset(planner: nn.Module, wrapper: OptimWrapper, weights: Mapping[str, Tensor]) -> None:
    """Weights, running statistics and optimizer as at the start of a training, in the memory they have."""
    for key, value in planner.state_dict().items():
        value.copy_(weights[key])
    for state in wrapper.optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()
