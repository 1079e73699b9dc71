"""The planners of releases in their published sizes: settings, shapes of weights, the planners."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor
from torch.overrides import TorchFunctionMode

import beyonddrive
from beyonddrive.checkpoints.releases import Release
from beyonddrive.registry import MODELS

_MODEL_CONFIGS = Path(beyonddrive.__path__[0]) / "configs" / "_base_" / "models"


def published_model(release: Release, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The model config of a release, changed by ``settings`` (values by dotted key).

    >>> from beyonddrive.checkpoints.releases import release_of
    >>> published_model(release_of('ego_mlp'), {'hidden': 256})['hidden']
    256
    """
    config = Config.fromfile(_MODEL_CONFIGS / release.model)
    config.merge_from_dict({f"model.{key}": value for key, value in settings.items()})
    model: dict[str, Any] = config.model.to_dict()
    return model


def weight_shapes(model: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of a planner by name."""
    return {key: tuple(value.shape) for key, value in build_unfilled(model).state_dict().items()}


def build_unfilled(model: dict[str, Any]) -> BaseModel:
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
