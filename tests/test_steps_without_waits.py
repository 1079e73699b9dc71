"""A training step never makes the host wait for a GPU, checked on the CPU by tensors without data.

Everything after the data preprocessor runs on the device ``meta``, whose tensors have shapes and no values:
whatever would read a value (``item``, ``nonzero``, an index that is a mask, a copy to the host) fails there,
as ``torch.cuda.set_sync_debug_mode("error")`` fails on a GPU. Copies to the device that do not say
``non_blocking``, and tensors of the host among those of the device, are found on the way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from beyonddrive.heads.plan_prior import plan_priors
from beyonddrive.heads.plan_vocabulary import PlanVocabulary
from beyonddrive.structures import host_work
from beyonddrive.tests.test_planner_contract import batch_of, fitted_planner, small_configs

COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
WITHOUT_WEIGHTS = {"ConstantVelocity", "HumanReplay", "PdmClosed"}


class WaitError(AssertionError):
    """The host would wait for the device."""


class NoHostTensors(TorchDispatchMode):
    """Refuses operations on tensors of host and device, and copies between them that wait."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        found = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        on_device = [value.is_meta for value in given + found]
        # (a scalar of the host is an argument of the kernel)
        on_host = [not value.is_meta and value.dim() > 0 for value in given]
        if any(on_device) and any(on_host):
            waits = func not in COPIES or not (
                (kwargs or {}).get("non_blocking") or any(a is True for a in args)
            )
            if waits:
                raise WaitError(f"{func} takes tensors of the host and of the device, and waits for them")
        if func in (torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default):
            indices = [index for index in args[1] if index is not None]
            if args[0].is_meta and any(index.dtype == torch.bool for index in indices):
                raise WaitError(f"{func} counts where its mask is true")
        return result


class NoHostNumbers(TorchFunctionMode):
    """Refuses tensors that are made of numbers of the host on the device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is Tensor.__getitem__ and result.is_meta:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list) for part in index):
                raise WaitError("an index that is a list is copied to the device, and waits")
        if func in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor) and result.is_meta:
            raise WaitError(f"{func.__name__} copies numbers to the device, and waits")
        return result


def one_config_each() -> dict[str, str]:
    """Names of configs by planner: with repulsion, if the planner can have one."""
    chosen: dict[str, str] = {}
    for name, model in small_configs().items():
        if model.type in WITHOUT_WEIGHTS or "pillars" in name:
            continue
        if model.type not in chosen or "repulsion" in model:
            chosen[model.type] = name
    return chosen


@pytest.mark.parametrize("name", one_config_each().values(), ids=one_config_each())
def test_a_step_does_not_wait(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planner = fitted_planner(copy.deepcopy(small_configs()[name])).train()
    batch = batch_of(planner, 2)
    for prior in plan_priors(planner):  # (checked and numbered once)
        prior.require()
        if isinstance(prior, PlanVocabulary):
            assert prior.identity
    # The one wait that there is: boxes are matched on the host (losses/agents.py).
    monkeypatch.setattr(host_work, "to_host", lambda costs: torch.zeros(costs.shape))
    # (torch's autocast knows no device without data)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    planner.to("meta")
    planner(**planner.data_preprocessor(copy.deepcopy(batch), True), mode="loss")  # tables move there once
    parameters = [p for p in planner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters)
    with NoHostNumbers(), NoHostTensors():
        data = planner.data_preprocessor(batch, True)
        assert all(value.is_meta for value in data["inputs"].values())
        total, figures = planner.parse_losses(planner(**data, mode="loss"))
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    assert total.is_meta
    assert all(value.is_meta for value in figures.values())


WAITS: dict[str, Callable[[Tensor], Any]] = {
    "a number": lambda x: x.sum().item(),
    "a truth": lambda x: bool(x.isfinite().all()),
    "a copy to the host": lambda x: x.cpu(),
    "a copy of an array": lambda x: torch.ones(3).to(x.device),
    "an index that is a mask": lambda x: x[x > 0],
    "writing by a mask": lambda x: x.clone().index_put_((x > 0,), x[0]),
    "an index on the host": lambda x: x[torch.tensor([0, 1])],
    "an index that is a list": lambda x: x[[0, 1]],
    "where": lambda x: (x > 0).nonzero(),
    "different values": lambda x: x.unique(),
    "numbers of the host": lambda x: torch.tensor([1.0, 2.0], device=x.device),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_what_waits_is_found(wait: Callable[[Tensor], Any]) -> None:
    values = torch.ones(3, device="meta")
    with pytest.raises((WaitError, RuntimeError)), NoHostNumbers(), NoHostTensors():
        wait(values)
