"""Whether a planner is trained on targets of the lengths that it takes for granted."""

from __future__ import annotations

from typing import Any

from torch import nn

from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.wrapped_datasets import unwrapped


def check_geometry(planner: nn.Module, dataset: Any) -> None:
    """Compare what transforms make with what the planner, and transforms behind them, take for granted.

    A map of other cells, or agents out of reach, would be learned without a word. Looked at are ``geometry``
    and ``geometry_taken``, see :mod:`beyonddrive.structures.geometry`; who has neither says nothing.

    Raises:
        ConfigError: Names the length, who makes it and who takes it, with the values.
    """
    for leaf in unwrapped(dataset):
        steps = [*getattr(leaf, "feature_transforms", ()), *getattr(leaf, "transforms", ())]
        for user in (*steps, *planner.modules()):
            for name, (least, most) in getattr(user, "geometry_taken", {}).items():
                for step in steps:
                    made = getattr(step, "geometry", {}).get(name)
                    if made is None or least <= made <= most:
                        continue
                    wanted = f"{least:g}" if least == most else f"from {least:g} to {most:g}"
                    raise ConfigError(
                        f"{name}: {type(step).__name__} of train_dataloader.dataset has {made:g}, and "
                        f"{type(user).__name__} takes {wanted}; make the settings of the two agree"
                    )
