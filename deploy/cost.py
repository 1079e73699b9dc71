"""What a planner costs: parameters, floating-point operations and activations of one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from beyonddrive.plugins.base.planner import Inputs, Planner

NUM_POINTS = 20_000
"""Points of a made-up sweep; about what is left of a LiDAR sweep of NAVSIM around the ego."""
SWEEP = (32.0, 32.0, 3.0, 1.0)
"""Its extent: x, y, z [m] to both sides, intensity."""


@dataclass(frozen=True)
class Part:
    """What a direct child of a planner costs.

    Attributes:
        name: Name of the attribute.
        parameters: Numbers in it that are trained or could be.
        flops: Floating-point operations; a multiplication with an addition counts as two.
    """

    name: str
    parameters: int
    flops: int


@dataclass(frozen=True)
class Cost:
    """What a planner costs.

    Attributes:
        parameters: Numbers that are trained or could be.
        trained: Those that are trained.
        flops: Floating-point operations of one forward pass of all heads.
        activations: Bytes that this pass keeps for the backward pass, weights aside.
        parts: Its direct children.
    """

    parameters: int
    trained: int
    flops: int
    activations: int
    parts: tuple[Part, ...]


def random_inputs(planner: Planner, batch: int, generator: torch.Generator) -> Inputs:
    """Inputs of the right sizes, in the order in which the planner requires them.

    Raises:
        ValueError: If the planner reads an input whose size is not known.
    """
    shapes = planner.input_shapes()
    made: Inputs = {}
    for name in planner.required_inputs:
        if name == "points":
            sweeps = torch.rand(batch, NUM_POINTS, 4, generator=generator)
            made[name] = list((sweeps * 2.0 - 1.0) * torch.tensor(SWEEP))  # type: ignore[assignment]
        elif name in shapes:
            made[name] = torch.rand(batch, *shapes[name], generator=generator)
        else:
            raise ValueError(
                f"{type(planner).__name__} reads {name!r}, whose size its method input_shapes does not give "
                f"(it gives {', '.join(shapes)}): add it there"
            )
    return made


def count_parameters(module: nn.Module, trained_only: bool = False) -> int:
    """Numbers in the parameters of a module.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained_only)


def measure_cost(planner: Planner, batch: int = 1) -> Cost:
    """Run a planner once on made-up inputs and count.

    Args:
        planner: The planner, on any device, in evaluation mode.
        batch: Scenes of the pass.

    Raises:
        ValueError: If it reads inputs whose size is not known.
    """
    made = random_inputs(planner, batch, torch.Generator().manual_seed(0))
    inputs = planner.data_preprocessor({"inputs": made}, False)["inputs"]
    # Plain attention, and gradients: torch counts neither its fused kernel for processors nor the fast path
    # of its encoder layers, which it takes without gradients.
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad(), counter:
        planner(inputs, mode="tensor")
    counts = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    parts = [
        Part(name, count_parameters(child), counts.get(f"{type(planner).__name__}.{name}", 0))
        for name, child in planner.named_children()
    ]
    return Cost(
        count_parameters(planner),
        count_parameters(planner, trained_only=True),
        counter.get_total_flops(),
        _kept_bytes(planner, inputs),
        tuple(part for part in parts if part.parameters or part.flops),
    )


def _kept_bytes(planner: Planner, inputs: Inputs) -> int:
    """Bytes of the storages that autograd keeps, each counted once, without weights and inputs."""
    own = [*planner.parameters(), *planner.buffers()]
    own += [value for given in inputs.values() for value in (given if isinstance(given, list) else [given])]
    with torch.enable_grad(), kept_storages(own) as kept:
        planner(inputs, mode="tensor")
        return sum(kept().values())


@contextmanager
def kept_storages(own: Iterable[Tensor]) -> Iterator[Callable[[], dict[int, int]]]:
    """Watch what autograd keeps for the backward pass.

    Args:
        own: Tensors that do not count: weights, inputs.

    Yields:
        Returns, for each storage that has been kept so far, its address and its bytes.

    >>> weight = torch.ones(3, requires_grad=True)
    >>> with kept_storages([weight]) as kept:
    ...     loss = (weight.exp() * weight).sum()
    ...     sum(kept().values())
    12
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            # (the tensor is held, so that its address is not given to another)
            kept[storage.data_ptr()] = (storage.nbytes(), tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: {address: size for address, (size, _) in kept.items()}
