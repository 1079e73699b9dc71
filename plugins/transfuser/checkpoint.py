"""Names of released TransFuser, LTF and LTF* checkpoints (MODELS, sections 3 and 4)."""

from __future__ import annotations

from beyonddrive.plugins.checkpoint import BACKBONE_RULES, DECODER_RULES, KeyMap, Rule, delta_statistics

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
