"""Published planners by name, found in the ``checkpoint.py`` of each planner's folder."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

from beyonddrive.plugins.checkpoint import Release


class ConversionError(ValueError):
    """A checkpoint is of no known planner, or does not fit the one it is of; the message says what to do."""


@cache
def _packages() -> dict[str, tuple[str, Release]]:
    """Release name -> plugin's package and release."""
    package = import_module("beyonddrive.plugins")
    found: dict[str, tuple[str, Release]] = {}
    for module in iter_modules(package.__path__, prefix=f"{package.__name__}."):
        if module.ispkg and find_spec(f"{module.name}.checkpoint") is not None:
            listed = getattr(import_module(f"{module.name}.checkpoint"), "RELEASES", ())
            found.update({release.name: (module.name, release) for release in listed})
    return found


def releases() -> dict[str, Release]:
    """All published planners by name; found in the ``checkpoint.py`` of each planner's folder.

    >>> sorted(set(releases()) & {'ego_mlp', 'flow_policy', 'ltf', 'ltf-absolute', 'ltf-delta', 'transfuser'})
    ['ego_mlp', 'flow_policy', 'ltf', 'ltf-absolute', 'ltf-delta', 'transfuser']
    """
    return {name: release for name, (_, release) in _packages().items()}


def package_of(release: Release) -> str:
    """Package of the plugin that lists a release, e.g. ``'beyonddrive.plugins.transfuser'``."""
    return _packages()[release.name][0]


def release_of(name: str) -> Release:
    """The published planner of this name.

    Raises:
        ConversionError: If there is none.
    """
    if name not in releases():
        raise ConversionError(f"no published planner is called {name!r}: choose from {', '.join(releases())}")
    return releases()[name]
