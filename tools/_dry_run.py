"""``beyonddrive train --dry-run``: one step of a training, taken apart and thrown away."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from beyonddrive.deploy.cost import count_parameters, kept_storages
from beyonddrive.engine.activation_checkpointing import checkpoint_activations
from beyonddrive.generators.online_hook import OnlineNegativesHook
from beyonddrive.structures.sample import PlanSample

MIB = 2**20


def dry_run(runner: Runner, say: Callable[[str], None] = print) -> None:
    """Make one step with the first batch, and print shapes, parameters, operations and memory of it.

    Attention is computed as written, for torch does not count its fused kernels; so activations are those of
    plain attention, too, and on a GPU the peak is an upper bound. Inputs of parts that compute their
    activations again are not counted. The optimizer makes its update also where a recipe accumulates
    gradients over more batches. No negatives are mined. The runner is of no use afterwards.

    Args:
        runner: A runner that is ready to train, in a single process.
        say: Takes the lines.
    """
    for hook in runner.hooks:
        if isinstance(hook, OnlineNegativesHook):
            hook.rest()
    loop = runner.train_loop
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    averaging = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for hook in averaging:
        hook.before_run(runner)
    runner.call_hook("before_train")
    runner.call_hook("before_train_epoch")
    wrapper, planner = runner.optim_wrapper, runner.model.train()
    # (the runner does so when it trains)
    if modules := runner.cfg.get("activation_checkpointing"):
        checkpoint_activations(planner, modules)
    batch = next(iter(loop.dataloader))
    runner.call_hook("before_train_iter", batch_idx=0, data_batch=batch)
    say(
        f"{len(loop.dataloader)} steps an epoch, {loop.max_epochs} epochs; a step has {_scenes(batch)} scenes"
    )
    data = planner.data_preprocessor(copy.deepcopy(batch), True)
    lines = [("input", name, _shape(value)) for name, value in data["inputs"].items()]
    lines += [("target", name, text) for name, text in _fields(data["data_samples"], ("gt", "negatives"))]
    own = [*planner.parameters(), *planner.buffers(), *_tensors(data)]
    counter = FlopCounterMode(display=False)
    if next(planner.parameters()).is_cuda:
        torch.cuda.reset_peak_memory_stats()
    with sdpa_kernel(SDPBackend.MATH), counter, kept_storages(own) as kept:
        with wrapper.optim_context(planner):
            total, terms = planner.parse_losses(planner(**data, mode="loss"))
        forward = counter.get_total_flops()
        activations = sum(kept().values())
        wrapper.backward(wrapper.scale_loss(total))
        _update(wrapper)
    lines += [("loss", name, f"{float(value.detach()):.5g}") for name, value in terms.items()]
    with torch.no_grad():
        plans = planner.eval()(**data, mode="predict")
    lines += [("output", name, text) for name, text in _fields(plans, ("pred",))]
    _table(lines, say)
    _parts(planner, counter, say)
    optimizer = sum(v.nbytes for state in wrapper.optimizer.state.values() for v in state.values()
                    if isinstance(v, Tensor))  # fmt: skip
    gradients = sum(p.nbytes for p in planner.parameters() if p.requires_grad)
    sizes = {"weights": _nbytes(planner), "gradients": gradients, "optimizer": optimizer}
    if averaging:
        sizes["averaged weights"] = sum(_nbytes(hook.ema_model) for hook in averaging)
    sizes["activations"] = activations
    shown = ", ".join(f"{name} {size / MIB:.1f}" for name, size in sizes.items())
    peak = ""
    if next(planner.parameters()).is_cuda:
        peak = f"; at most {torch.cuda.max_memory_allocated() / MIB:.1f} were allocated on the GPU"
    say(f"MiB: {shown}, together {sum(sizes.values()) / MIB:.1f}{peak}")
    gflops = counter.get_total_flops() / 1e9
    say(f"a step is {gflops:.4g} GFLOPs, of which {forward / 1e9:.4g} in the forward pass")


def _update(wrapper: OptimWrapper) -> None:
    """Make the optimizer's update, also where it would wait for more batches or be passed over."""
    wrapper.step()
    if not wrapper.optimizer.state:  # a gradient scaler passes over steps until its scale fits
        for group in wrapper.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.zero_()
        wrapper.optimizer.step()
    wrapper.zero_grad()


def _nbytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def _parts(planner: nn.Module, counter: FlopCounterMode, say: Callable[[str], None]) -> None:
    counts = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    rows: list[Sequence[str]] = [("part", "parameters", "trained", "GFLOPs of a step")]
    for name, child in planner.named_children():
        flops = counts.get(f"{type(planner).__name__}.{name}", 0)
        if count_parameters(child) or flops:
            trained = count_parameters(child, trained_only=True)
            rows.append((name, f"{count_parameters(child):,}", f"{trained:,}", f"{flops / 1e9:.4g}"))
    trained = count_parameters(planner, trained_only=True)
    total = counter.get_total_flops() / 1e9
    rows.append((type(planner).__name__, f"{count_parameters(planner):,}", f"{trained:,}", f"{total:.4g}"))
    _table(rows, say)


def _table(rows: Sequence[Sequence[str]], say: Callable[[str], None]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        say("  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip())


def _scenes(batch: Mapping[str, Any]) -> int:
    return len(batch["data_samples"])


def _shape(value: Any) -> str:
    """Shape and type of a batch, or of as many tensors as there are scenes.

    >>> _shape(torch.zeros(2, 3)), _shape([torch.zeros(5), torch.zeros(4)])
    ('(2, 3) float32', '2 x (5,) float32, others differ')
    """
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    shapes = {_shape(single) for single in value}
    return f"{len(value)} x {_shape(value[0])}" + (", others differ" if len(shapes) > 1 else "")


def _fields(samples: Sequence[PlanSample], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        parts = [part for sample in samples if isinstance(part := sample.get(f"_{name}"), BaseDataElement)]
        for key in dict.fromkeys(key for part in parts for key, _ in part.items()):
            values = [part.get(key) for part in parts if isinstance(part.get(key), Tensor)]
            if values:
                yield f"{name}.{key}", _shape(values)


def _tensors(data: Mapping[str, Any]) -> Iterator[Tensor]:
    for value in data["inputs"].values():
        yield from value if isinstance(value, list) else [value]
    for sample in data["data_samples"]:
        for name in ("gt", "negatives"):
            part = sample.get(f"_{name}")
            if part is not None:
                yield from (value for value in part.values() if isinstance(value, Tensor))
