"""Planners built only to be filled with weights, or to be asked for the sizes of theirs."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModel
from torch import Tensor
from torch.overrides import TorchFunctionMode

from beyonddrive.registry import MODELS


def weight_shapes(model: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of a planner by name."""
    return {key: tuple(value.shape) for key, value in build_blank(model).state_dict().items()}


def build_blank(model: dict[str, Any]) -> BaseModel:
    """Build a planner without making initial weights, which are replaced at once or never read."""
    MODELS.import_from_location()
    with _WithoutInitialWeights():
        planner = MODELS.build(model)
    assert isinstance(planner, BaseModel)
    return planner


class _WithoutInitialWeights(TorchFunctionMode):
    """Leaves out the random initialisation of modules, the costliest part of building them."""

    _RANDOM = (Tensor.normal_, Tensor.uniform_)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in self._RANDOM:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
