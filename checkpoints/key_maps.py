"""Two-way translation between the parameter names of an original release and ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from beyonddrive.structures.delta import DeltaSpace
from beyonddrive.structures.errors import BeyondDriveError

Rule = tuple[str, str]
"""(official, ours): a name, or its start if it ends in a dot; ``{i}`` is the same number in both."""

BACKBONE_RULES: tuple[Rule, ...] = (
    ("_backbone.lidar_latent", "backbone.lidar_latent"),
    ("_backbone.image_encoder.", "backbone.image_encoder."),
    ("_backbone.lidar_encoder.", "backbone.bev_encoder."),
    ("_backbone.transformers.{i}.", "backbone.fusions.{i}.transformer."),
    ("_backbone.lidar_channel_to_img.{i}.", "backbone.fusions.{i}.bev_to_image."),
    ("_backbone.img_channel_to_lidar.{i}.", "backbone.fusions.{i}.image_to_bev."),
    ("_backbone.c5_conv.", "backbone.top_down.c5_conv."),
    ("_backbone.up_conv5.", "backbone.top_down.up_conv5."),
    ("_backbone.up_conv4.", "backbone.top_down.up_conv4."),
)
"""The TransFuser backbone, which all published camera planners share."""

DECODER_RULES: tuple[Rule, ...] = (
    ("_bev_downscale.", "decoder.bev_proj."),
    ("_status_encoding.", "decoder.status_proj."),
    ("_keyval_embedding.", "decoder.memory_embedding."),
    ("_query_embedding.", "decoder.query_embedding."),
    ("_tf_decoder.layers.", "decoder.layers."),
)
"""The query decoder."""


class KeyMapError(BeyondDriveError, ValueError):
    """A parameter name or value has no counterpart on the other side."""


@dataclass(frozen=True)
class KeyMap:
    """Names of one planner on both sides.

    Attributes:
        prefix: Start of every official name, after Lightning's ``agent.``.
        rules: Pairs of names behind that prefix.
        constants: Makes the values that our checkpoint carries and the official one leaves in the code.
        data: (name in a data file, our name) of values that our checkpoint carries and the official code
            reads from a file of its own.
        known_data: Recognises such values from the other weights (our names), as far as they are known.

    >>> keys = KeyMap('net.', (('a.{i}.', 'b.{i}.c.'),))
    >>> keys.to_native('net.a.3.weight'), keys.to_official('b.3.c.weight')
    ('b.3.c.weight', 'net.a.3.weight')
    """

    prefix: str
    rules: tuple[Rule, ...]
    constants: Callable[[], dict[str, Tensor]] | None = None
    data: tuple[Rule, ...] = ()
    known_data: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = lambda state: {}

    def to_native(self, key: str) -> str:
        """Official name -> ours.

        Raises:
            KeyMapError: If no rule fits.
        """
        if key.startswith(self.prefix):
            for official, native in self.rules:
                renamed = _rename(key[len(self.prefix) :], official, native)
                if renamed is not None:
                    return renamed
        raise KeyMapError(
            f"{key!r} is not a parameter of this planner (its names start with {self.prefix!r})"
        )

    def to_official(self, key: str) -> str:
        """Our name -> official.

        Raises:
            KeyMapError: If no rule fits.
        """
        for official, native in self.rules:
            renamed = _rename(key, native, official)
            if renamed is not None:
                return self.prefix + renamed
        raise KeyMapError(f"{key!r} has no counterpart in the official checkpoint")

    def native_state(
        self, state: Mapping[str, Tensor], data: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Official state dict -> ours, and the official names that have no counterpart.

        Args:
            state: Weights under official names.
            data: Arrays of a data file by name; what it lacks is added as far as it is known.
        """
        native, unknown = {}, []
        for key, value in state.items():
            try:
                native[self.to_native(key)] = value
            except KeyMapError:
                unknown.append(key)
        native |= self.constants() if self.constants is not None else {}
        given = data or {}
        found = {key: torch.as_tensor(given[name]) for name, key in self.data if name in given}
        return {**self.known_data(native), **native, **found}, unknown

    def missing_data(self, native: Mapping[str, Tensor]) -> list[str]:
        """Names, in the data file, of values that our state dict lacks."""
        return [name for name, key in self.data if key not in native]

    def official_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our state dict -> official, constants checked and dropped, values of a data file dropped.

        Raises:
            KeyMapError: If a constant differs from the one in the official code, which could not load it.
        """
        constants = self.constants() if self.constants is not None else {}
        for key, value in constants.items():
            if key in state and not torch.allclose(state[key].to(value), value, rtol=1e-6, atol=0):
                raise KeyMapError(
                    f"{key!r} is {state[key].tolist()}, the official code has {value.tolist()} built in: "
                    f"this checkpoint was trained with other statistics and cannot be converted back"
                )
        dropped = {*constants, *(native for _, native in self.data)}
        return {self.to_official(key): value for key, value in state.items() if key not in dropped}


def backbone_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of a TransFuser backbone that its weights (our names) tell: latent, LiDAR channels.

    >>> backbone_settings({'backbone.bev_encoder.conv1.weight': torch.zeros(64, 4, 7, 7)})
    {'backbone.latent': False, 'backbone.lidar_channels': 4}
    """
    settings: dict[str, Any] = {}
    if any(key.startswith("backbone.") for key in state):
        settings["backbone.latent"] = "backbone.lidar_latent" in state
    stem = state.get("backbone.bev_encoder.conv1.weight")
    if stem is not None and stem.dim() == 4:
        settings["backbone.lidar_channels"] = stem.shape[1]
    return settings


def delta_statistics() -> dict[str, Tensor]:
    """Statistics of a delta-space head, which the released codes hold as constants (those of navtrain)."""
    return DeltaSpace().state_dict(prefix="trajectory_head.delta.")


def _rename(key: str, source: str, target: str) -> str | None:
    pattern = re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)") + ("" if source.endswith(".") else "$")
    match = re.match(pattern, key)
    if match is None:
        return None
    number = match.groupdict().get("i")
    return (target if number is None else target.replace("{i}", number)) + key[match.end() :]
