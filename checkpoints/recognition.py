"""What a checkpoint is: of this suite or of an original release, and of which one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from beyonddrive.checkpoints.key_maps import backbone_settings
from beyonddrive.checkpoints.published_planners import published_model, weight_shapes
from beyonddrive.checkpoints.releases import ConversionError, Release, release_of, releases
from beyonddrive.structures.errors import shorten

AGENT = "agent."
"""What Lightning puts before every official name."""


def is_official(state: Mapping[str, Tensor]) -> bool:
    """Whether names are those of an original release, with or without the leading ``agent.``."""
    prefixes = tuple({release.keys.prefix for release in releases().values()})
    return any(key.removeprefix(AGENT).startswith(prefixes) for key in state)


def strip_agent(state: Mapping[str, Tensor], source: str = "checkpoint") -> dict[str, Tensor]:
    """Official names without Lightning's leading ``agent.``; nothing else of a name is touched.

    Raises:
        ConversionError: If two names become one.

    >>> import torch
    >>> list(strip_agent({'agent.a.agent.b': torch.zeros(1), 'c_agent.d': torch.zeros(1)}))
    ['a.agent.b', 'c_agent.d']
    """
    stripped: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix(AGENT)
        if name in stripped:
            raise ConversionError(f"{source}: holds {name!r} twice, with and without {AGENT!r}: drop one")
        stripped[name] = value
    return stripped


def recognise(
    official: Mapping[str, Tensor], planner: str | None = None, source: str = "checkpoint"
) -> Release:
    """The release that official names, without ``agent.``, are of; or the nearest one, if they are damaged.

    Args:
        official: Weights under official names.
        planner: Name of the release, if it is known.
        source: File name, for messages.

    Raises:
        ConversionError: If they are of no release, of several, or of another one than ``planner``.
    """
    near = [release for release in releases().values() if _of_prefix(release, official)]
    found = [release for release in near if release.fits(official)]
    if planner is not None:
        release = release_of(planner)
        if found and release not in found:
            raise ConversionError(
                f"{source}: is a checkpoint of {found[0].name}, not of {planner}: drop --planner, or give "
                f"the file of {planner}"
            )
        return release
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        names = ", ".join(release.name for release in found)
        raise ConversionError(f"{source}: could be any of {names}: say which with --planner")
    if near:
        return min(near, key=lambda release: _distance(release, official))
    ours = any(key.startswith("trajectory_head.") for key in official)
    hint = "; it has our names already, and every tool reads it as it is" if ours else ""
    raise ConversionError(
        f"{source}: is a checkpoint of no known planner ({', '.join(releases())}){hint}; its names: "
        f"{shorten(list(official))}"
    )


def _of_prefix(release: Release, official: Mapping[str, Tensor]) -> bool:
    return any(key.startswith(release.keys.prefix) for key in official)


def _distance(release: Release, official: Mapping[str, Tensor]) -> int:
    """Number of names on which a release and a checkpoint that is recognised as none disagree."""
    native, unknown = release.keys.native_state(official)
    wanted = weight_shapes(published_model(release, backbone_settings(native)))
    return len(unknown) + len(wanted.keys() ^ native.keys())
