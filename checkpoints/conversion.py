"""Checkpoints of original releases <-> ours: recognise the planner, rename, leave nothing over.

``tools/convert_checkpoint.py`` is the command line; :func:`beyonddrive.apis.init_planner` converts by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn

import beyonddrive
from beyonddrive.checkpoints.key_maps import KeyMapError, backbone_settings
from beyonddrive.checkpoints.releases import ConversionError, Release, release_of, releases
from beyonddrive.checkpoints.uninitialized import build_blank, weight_shapes
from beyonddrive.checkpoints.weight_files import read_weights
from beyonddrive.engine.weights import check_weights, nonfinite_keys

AGENT = "agent."
"""What Lightning puts before every official name."""
_SHOWN = 5
_MODEL_CONFIGS = Path(beyonddrive.__path__[0]) / "configs" / "_base_" / "models"


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
        f"the original checkpoint by tools/convert_checkpoint.py with that data file (npz with these names) "
        f"as --data"
    )


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
    found = _recognised(official)
    release = _chosen(found, planner, official, source)
    renamed, unexpected = _renamed(release, official)
    native = release.keys.with_data(renamed, data)
    absent = release.keys.missing_data(native)
    settings = backbone_settings(native)
    model = _model(release, settings)
    data_keys = {key for _, key in release.keys.data}
    wanted = {
        key: size for key, size in weight_shapes(model).items() if key in native or key not in data_keys
    }
    faults = _faults(wanted, native, lambda key: _official_name(release, key), unexpected)
    if faults:
        raise ConversionError(_misfit(source, release, faults, planner))
    _check_finite({_official_name(release, key): value for key, value in native.items()}, source)
    return Conversion(release, native, settings, model, tuple(absent))


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
        data = {name: state[key] for name, key in release.keys.data if key in state}
        back = to_native(official, release.name, source, data)
        return Conversion(release, official, back.settings, back.model, back.absent)
    raise ConversionError(
        f"{source}: its weights are those of no published planner ({', '.join(releases())}), so no official "
        f"code could load them; the first: {_shorten(list(state))}"
    )


def load_weights(planner: nn.Module, checkpoint: str | Path) -> None:
    """Load a checkpoint, of this suite or of an original release, into a planner: all of it, or an error.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, of another planner or size, or holds NaN; the planner is unchanged.
        ConversionError: If it is an original's, and incomplete or of no known planner.
    """
    file = read_weights(checkpoint)
    state, origin = file.state, file.meta.get("planner")
    if file.meta.get("absent"):
        raise ConversionError(lacks_data(str(checkpoint), str(file.meta.get("release")), file.meta["absent"]))
    if is_official(state):
        conversion = to_native(state, source=str(checkpoint))
        conversion.require_data(str(checkpoint))
        state = conversion.state
        origin = f"{conversion.model['type']} (official {conversion.release.name}{_in_words(conversion)})"
    check_weights(planner, {"state_dict": state, "meta": {"planner": origin}}, str(checkpoint))
    # Not strict, because mmengine's counters of batches may be absent; all else has been checked.
    planner.load_state_dict(state, strict=False)


def _in_words(conversion: Conversion) -> str:
    return "".join(f", model.{key}={value}" for key, value in conversion.settings.items())


def build_planner(conversion: Conversion, changes: Mapping[str, Any] | None = None) -> BaseModel:
    """The planner of a conversion to our names, in evaluation mode.

    Args:
        conversion: Made by :func:`to_native`.
        changes: Settings by dotted key on top of its own.

    Raises:
        ConversionError: If values of the release's data file are missing.
    """
    conversion.require_data("checkpoint")
    planner = build_blank(_model(conversion.release, {**conversion.settings, **(changes or {})}))
    planner.load_state_dict(conversion.state, strict=True, assign=False)
    return planner.eval()


def _recognised(official: Mapping[str, Tensor]) -> list[Release]:
    return [
        release
        for release in releases().values()
        if any(key.startswith(release.keys.prefix) for key in official) and release.fits(official)
    ]


def _chosen(
    found: list[Release], planner: str | None, official: Mapping[str, Tensor], source: str
) -> Release:
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
    near = [r for r in releases().values() if any(key.startswith(r.keys.prefix) for key in official)]
    if not near:
        hint = "; it has our names already" if any(k.startswith("trajectory_head.") for k in official) else ""
        raise ConversionError(
            f"{source}: is a checkpoint of no known planner ({', '.join(releases())}){hint}; its names: "
            f"{_shorten(list(official))}"
        )
    return min(near, key=lambda release: _distance(release, official))


def _distance(release: Release, official: Mapping[str, Tensor]) -> int:
    """Number of names on which a release and a checkpoint that is recognised as none disagree."""
    native, unexpected = _renamed(release, official)
    wanted = weight_shapes(_model(release, backbone_settings(native)))
    return len(unexpected) + len(wanted.keys() ^ native.keys())


def _renamed(release: Release, official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under our names, constants included, and the official names that have none."""
    native: dict[str, Tensor] = {}
    unexpected = []
    for key, value in official.items():
        try:
            native[release.keys.to_native(key)] = value
        except KeyMapError:
            unexpected.append(key)
    constants = release.keys.constants() if release.keys.constants is not None else {}
    return native | constants, unexpected


def _official_name(release: Release, key: str) -> str:
    try:
        return release.keys.to_official(key)
    except KeyMapError:
        return key


def _faults(
    wanted: Mapping[str, tuple[int, ...]],
    native: Mapping[str, Tensor],
    name: Callable[[str], str],
    unexpected: list[str],
) -> list[str]:
    """What does not fit, in words, under official names."""
    groups = {
        "missing": [name(key) for key in wanted if key not in native],
        "unexpected": unexpected + [name(key) for key in native if key not in wanted],
        "of another size": [
            f"{name(key)} {tuple(native[key].shape)} for {shape}"
            for key, shape in wanted.items()
            if key in native and tuple(native[key].shape) != shape
        ],
    }
    return [f"{len(keys)} {what} ({_shorten(keys)})" for what, keys in groups.items() if keys]


def _misfit(source: str, release: Release, faults: list[str], planner: str | None) -> str:
    seen = "as asked" if planner is not None else "the nearest published planner"
    return (
        f"{source}: does not fit {release.name} ({seen}) of the published size: {'; '.join(faults)}. Nothing "
        f"was converted; give a whole checkpoint of {release.name}, or name its planner with --planner"
    )


def _check_finite(official: Mapping[str, Tensor], source: str) -> None:
    broken = nonfinite_keys(official)
    if broken:
        raise ConversionError(
            f"{source}: {len(broken)} weights hold NaN or infinity ({_shorten(broken)}): the training "
            f"diverged or the file is damaged; use another checkpoint"
        )


def _model(release: Release, settings: Mapping[str, Any]) -> dict[str, Any]:
    config = Config.fromfile(_MODEL_CONFIGS / release.model)
    config.merge_from_dict({f"model.{key}": value for key, value in settings.items()})
    model: dict[str, Any] = config.model.to_dict()
    return model


def _shorten(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
