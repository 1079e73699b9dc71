"""From the names of an original release to ours and back: every weight, in its published size, or an error.

``beyonddrive convert`` is the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from beyonddrive.checkpoints.key_maps import KeyMapError, backbone_settings
from beyonddrive.checkpoints.published_planners import published_model, weight_shapes
from beyonddrive.checkpoints.recognition import is_official, recognise, strip_agent
from beyonddrive.checkpoints.releases import ConversionError, Release, release_of, releases
from beyonddrive.engine.checkpoint_files import nonfinite_keys
from beyonddrive.structures.errors import shorten


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint.

    Attributes:
        release: What it was recognised as.
        state: The converted weights, in the order of the source.
        settings: What the weights told about the variant, by dotted key of the model config.
        model: Effective settings of the planner: the published config with ``settings`` applied.
        absent: Names, in the release's data file, of values that the planner needs and the weights lack.
    """

    release: Release
    state: dict[str, Tensor]
    settings: dict[str, Any]
    model: dict[str, Any]
    absent: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The release and its variant in words."""
        return self.release.name + "".join(f", model.{key}={value}" for key, value in self.settings.items())

    def require_data(self, source: str) -> None:
        """Refuse weights that lack values of the release's data file; ``source`` is their file.

        Raises:
            ConversionError: Naming the values and the remedy.
        """
        if self.absent:
            raise ConversionError(lacks_data(source, self.release.name, self.absent))


def lacks_data(source: str, release: str, absent: Sequence[str]) -> str:
    """What to do about values of a release's data file that weights lack."""
    return (
        f"{source}: lacks {', '.join(map(repr, absent))}, which checkpoints of {release} do not hold: the "
        f"original reads it from a file of its own, and these weights are not the published ones. Convert "
        f"the original checkpoint by beyonddrive convert with that data file (npz with these names) "
        f"as --data"
    )


def to_native(
    state: Mapping[str, Tensor],
    planner: str | None = None,
    source: str = "checkpoint",
    data: Mapping[str, Any] | None = None,
) -> Conversion:
    """Official weights -> ours.

    Args:
        state: Official names, with or without the leading ``agent.``.
        planner: Name of the release; recognised by default.
        source: File name, for messages.
        data: Arrays of the release's data file by name, for a planner whose checkpoint lacks them
            (``KeyMap.data``); what is still missing is ``absent`` in the result.

    Raises:
        ConversionError: If the planner is not recognised or is another one, a weight is missing, unexpected
            or of another shape, or one holds NaN or infinity.
    """
    official = strip_agent(state, source)
    release = recognise(official, planner, source)
    native, unknown = release.keys.native_state(official, data)
    settings = backbone_settings(native)
    model = published_model(release, settings)
    faults = _faults(release, weight_shapes(model), native, unknown)
    if faults:
        seen = "as asked" if planner is not None else "the nearest published planner"
        raise ConversionError(
            f"{source}: does not fit {release.name} ({seen}) of the published size: {'; '.join(faults)}. "
            f"Nothing was converted; give a whole checkpoint of {release.name}, or name its planner with "
            f"--planner"
        )
    broken = [_official_name(release, key) for key in nonfinite_keys(native)]
    if broken:
        raise ConversionError(
            f"{source}: {len(broken)} weights hold NaN or infinity ({shorten(broken)}): the training "
            f"diverged or the file is damaged; use another checkpoint"
        )
    return Conversion(release, native, settings, model, tuple(release.keys.missing_data(native)))


def to_official(
    state: Mapping[str, Tensor], planner: str | None = None, source: str = "checkpoint"
) -> Conversion:
    """Our weights -> official names, without ``agent.``; everything else as in :func:`to_native`.

    Raises:
        ConversionError: Also if weights which the official code has built in (statistics) differ from those.
    """
    if is_official(state):
        raise ConversionError(f"{source}: has official names already: convert it without --reverse")
    for release in [release_of(planner)] if planner is not None else releases().values():
        try:
            official = release.keys.official_state(state)
        except KeyMapError as error:
            if planner is not None or "other statistics" in str(error):
                raise ConversionError(f"{source}: {error}") from error
            continue
        if planner is None and not release.fits(official):
            continue
        # Forth and back: the other way checks that nothing is missing, left over or of another size.
        data = {name: state[key] for name, key in release.keys.data if key in state}
        back = to_native(official, release.name, source, data)
        return Conversion(release, official, back.settings, back.model, back.absent)
    raise ConversionError(
        f"{source}: its weights are those of no published planner ({', '.join(releases())}), so no official "
        f"code could load them; the first: {shorten(list(state))}"
    )


def _faults(
    release: Release, shapes: Mapping[str, tuple[int, ...]], native: Mapping[str, Tensor], unknown: list[str]
) -> list[str]:
    """What does not fit the planner, in words, under official names."""
    data = {key for _, key in release.keys.data}  # may be absent; the result says so
    wanted = {key: shape for key, shape in shapes.items() if key in native or key not in data}
    groups = {
        "missing": [_official_name(release, key) for key in wanted if key not in native],
        "unexpected": unknown + [_official_name(release, key) for key in native if key not in wanted],
        "of another size": [
            f"{_official_name(release, key)} {tuple(native[key].shape)} for {shape}"
            for key, shape in wanted.items()
            if key in native and tuple(native[key].shape) != shape
        ],
    }
    return [f"{len(keys)} {what} ({shorten(keys)})" for what, keys in groups.items() if keys]


def _official_name(release: Release, key: str) -> str:
    """The official name of a weight, or ours if the release's files do not hold it."""
    try:
        return release.keys.to_official(key)
    except KeyMapError:
        return key
