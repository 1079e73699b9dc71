"""Names of released TransFuser, LTF and LTF* checkpoints (MODELS, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from beyonddrive.checkpoints.key_maps import BACKBONE_RULES, DECODER_RULES, KeyMap, Rule, delta_statistics
from beyonddrive.checkpoints.releases import Release, register_releases
from beyonddrive.structures.plan import NUM_POSES

AUXILIARY_RULES: tuple[Rule, ...] = (
    ("_bev_semantic_head.", "bev_head.layers."),
    ("_agent_head._mlp_states.", "agent_head.states."),
    ("_agent_head._mlp_label.0.", "agent_head.label."),
)
RULES: tuple[Rule, ...] = (
    *BACKBONE_RULES,
    *DECODER_RULES,
    *AUXILIARY_RULES,
    ("_trajectory_head._mlp.", "trajectory_head.mlp."),
)

ABSOLUTE_KEYS = KeyMap("_transfuser_model.", RULES)
"""TransFuser, LTF, and LTF* without delta space."""

DELTA_KEYS = KeyMap("_transfuser_model.", RULES, constants=delta_statistics)
"""LTF* and LTFv7."""

HEAD = "_transfuser_model._trajectory_head._mlp."
"""Start of the official names of the trajectory head."""
FFN_DIM = 1024
"""Hidden width of the head of TransFuser and LTF; LTF* has 256."""


def _head_fits(pose_dim: int, published: bool, latent: bool | None) -> Callable[[Mapping[str, Tensor]], bool]:
    """Recognise a head by its sizes: numbers per pose, and hidden width as in TransFuser and LTF or not."""

    def fits(state: Mapping[str, Tensor]) -> bool:
        first, last = state.get(f"{HEAD}0.weight"), state.get(f"{HEAD}2.weight")
        if first is None or last is None:
            return False
        sizes = len(last) == NUM_POSES * pose_dim and (len(first) == FFN_DIM) == published
        return sizes and latent in (None, "_transfuser_model._backbone.lidar_latent" in state)

    return fits


register_releases(
    __package__,
    Release("transfuser", ABSOLUTE_KEYS, "transfuser_r34.py", _head_fits(3, published=True, latent=False)),
    Release("ltf", ABSOLUTE_KEYS, "ltf_r34.py", _head_fits(3, published=True, latent=True)),
    Release("ltf-delta", DELTA_KEYS, "ltf-delta_r34.py", _head_fits(4, published=False, latent=None)),
    Release(
        "ltf-absolute", ABSOLUTE_KEYS, "ltf-absolute_r34.py", _head_fits(3, published=False, latent=None)
    ),
)
"""TransFuser, LTF, LTF* and LTFv7 (same names), LTF* in absolute poses."""
