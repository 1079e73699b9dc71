"""Published planners by name, as the plugins list them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from beyonddrive.checkpoints.key_maps import KeyMap
from beyonddrive.registry import MODELS
from beyonddrive.structures.errors import BeyondDriveError


class ConversionError(BeyondDriveError, ValueError):
    """A checkpoint is of no known planner, or does not fit the one it is of; the message says what to do."""


@dataclass(frozen=True)
class Release:
    """A published planner, and how its checkpoints are recognised.

    A plugin lists its releases in its ``checkpoint.py`` by :func:`register_releases`.

    Attributes:
        name: Name on command lines, e.g. ``'ltf-delta'``.
        keys: Names on both sides.
        model: File in ``configs/_base_/models`` with the published size.
        fits: Whether official names and values, without ``agent.``, are of this release; asked only if the
            names start with ``keys.prefix``. By default the prefix is enough.
    """

    name: str
    keys: KeyMap
    model: str
    fits: Callable[[Mapping[str, Tensor]], bool] = lambda state: True


_RELEASES: dict[str, tuple[str, Release]] = {}


def register_releases(package: str, *listed: Release) -> None:
    """Make published planners known; the ``checkpoint.py`` of a plugin calls this when it is imported.

    Args:
        package: The plugin's package, whose ``golden.py`` compares them with recorded arrays.
        listed: The planners.

    Raises:
        ValueError: If another plugin has a planner of the same name.
    """
    for release in listed:
        if _RELEASES.setdefault(release.name, (package, release))[0] != package:
            raise ValueError(f"two plugins list a release {release.name!r}: rename that of {package}")


def releases() -> dict[str, Release]:
    """All published planners by name.

    >>> sorted(set(releases()) & {'ego_mlp', 'flow_policy', 'ltf', 'ltf-absolute', 'ltf-delta', 'transfuser'})
    ['ego_mlp', 'flow_policy', 'ltf', 'ltf-absolute', 'ltf-delta', 'transfuser']
    """
    MODELS.import_from_location()
    return {name: release for name, (_, release) in _RELEASES.items()}


def package_of(release: Release) -> str:
    """Package of the plugin that lists a release, e.g. ``'beyonddrive.plugins.transfuser'``."""
    return _RELEASES[release.name][0]


def release_of(name: str) -> Release:
    """The published planner of this name.

    Raises:
        ConversionError: If there is none.
    """
    if name not in releases():
        raise ConversionError(f"no published planner is called {name!r}: choose from {', '.join(releases())}")
    return releases()[name]
