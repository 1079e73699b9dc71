"""Planners without dropout, whose draws no two devices or precisions share."""

from __future__ import annotations

from torch import nn


def switch_off_dropout(planner: nn.Module) -> None:
    """Set every probability of a dropout to 0, of layers and of attention.

    >>> layer = nn.TransformerEncoderLayer(8, 2, dropout=0.1)
    >>> switch_off_dropout(layer)
    >>> layer.dropout.p, layer.self_attn.dropout
    (0.0, 0.0)
    """
    for module in planner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
