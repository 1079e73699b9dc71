"""Names of weights on both sides."""

import pytest
import torch

from beyonddrive.checkpoints.key_maps import KeyMap, KeyMapError
from beyonddrive.plugins.transfuser.checkpoint import DELTA_KEYS


def test_key_maps_go_both_ways():
    keys = KeyMap("net.", (("enc.{i}.", "stages.{i}.conv."), ("pos", "position")))
    state = {
        "net.enc.0.weight": torch.zeros(1),
        "net.enc.11.weight": torch.ones(1),
        "net.pos": torch.zeros(2),
    }
    native, unknown = keys.native_state({**state, "net.other": torch.zeros(1)})
    assert unknown == ["net.other"]
    assert set(native) == {"stages.0.conv.weight", "stages.11.conv.weight", "position"}
    assert set(keys.official_state(native)) == set(state)
    for unknown in ("net.position", "enc.0.weight", "net.enc.x.weight"):
        with pytest.raises(KeyMapError, match=unknown):
            keys.to_native(unknown)
    with pytest.raises(KeyMapError, match="no counterpart"):
        keys.to_official("stages.a.conv.weight")


def test_other_statistics_cannot_be_converted_back():
    state, _ = DELTA_KEYS.native_state({})
    assert set(state) == {"trajectory_head.delta.mean", "trajectory_head.delta.scale"}
    assert DELTA_KEYS.official_state(state) == {}
    state["trajectory_head.delta.mean"] += 0.1
    with pytest.raises(KeyMapError, match="other statistics"):
        DELTA_KEYS.official_state(state)
