"""Whether a planner is trained on targets of the lengths that it takes for granted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.wrapped_datasets import unwrapped


class MadeLength(NamedTuple):
    """A length of what a transform makes: its name, its value [m], and the transform's class."""

    name: str
    value: float
    transform: str


def check_geometry(planner: nn.Module, dataset: Any) -> None:
    """Compare what transforms make with what the planner, and transforms behind them, take for granted.

    A map of other cells, or agents out of reach, would be learned without a word. Looked at are ``geometry``
    and ``geometry_taken``, see :mod:`beyonddrive.structures.geometry`; who has neither says nothing.

    Raises:
        ConfigError: Names the length, who makes it and who takes it, with the values.
    """
    for leaf in unwrapped(dataset):
        steps = _steps(leaf)
        check_lengths((*steps, *planner.modules()), _made_by(steps))


def made_lengths(dataset: Any) -> tuple[MadeLength, ...]:
    """Lengths that the transforms of a data set make, each once."""
    return tuple(dict.fromkeys(made for leaf in unwrapped(dataset) for made in _made_by(_steps(leaf))))


def check_lengths(users: Iterable[Any], lengths: Iterable[MadeLength]) -> None:
    """Compare lengths with what transforms and parts of planners take for granted.

    Raises:
        ConfigError: As :func:`check_geometry`.
    """
    lengths = list(lengths)
    for user in users:
        for name, (least, most) in getattr(user, "geometry_taken", {}).items():
            for made in lengths:
                if made.name != name or least <= made.value <= most:
                    continue
                wanted = f"{least:g}" if least == most else f"from {least:g} to {most:g}"
                raise ConfigError(
                    f"{name}: {made.transform} of train_dataloader.dataset has {made.value:g}, and "
                    f"{type(user).__name__} takes {wanted}; make the settings of the two agree"
                )


def _steps(leaf: Any) -> list[Any]:
    return [*getattr(leaf, "feature_transforms", ()), *getattr(leaf, "transforms", ())]


def _made_by(steps: Iterable[Any]) -> list[MadeLength]:
    return [
        MadeLength(name, float(value), type(step).__name__)
        for step in steps
        for name, value in getattr(step, "geometry", {}).items()
    ]
