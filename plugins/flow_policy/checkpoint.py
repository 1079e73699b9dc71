"""Names of released FlowPolicy checkpoints (MODELS, section 5)."""

from __future__ import annotations

from beyonddrive.checkpoints.key_maps import BACKBONE_RULES, DECODER_RULES, KeyMap, Rule, delta_statistics
from beyonddrive.checkpoints.releases import Release, register_releases

RULES: tuple[Rule, ...] = (
    *BACKBONE_RULES,
    *DECODER_RULES,
    ("_semantic_map_head._bev_semantic_head.", "bev_head.layers."),
    ("_trajectory_head.dit_model.cond_pos_emb", "trajectory_head.denoiser.cond_pos_emb"),
    ("_trajectory_head.dit_model.pos_emb", "trajectory_head.denoiser.pos_emb"),
    ("_trajectory_head.dit_model.input_emb.", "trajectory_head.denoiser.input_proj."),
    ("_trajectory_head.dit_model.blocks.0.layers.", "trajectory_head.denoiser.layers."),
    ("_trajectory_head.dit_model.layer_norm.", "trajectory_head.denoiser.norm."),
    ("_trajectory_head.dit_model.output_emb.", "trajectory_head.denoiser.output_proj."),
)

KEY_MAP = KeyMap("_flowpolicy_model.", RULES, constants=delta_statistics)
"""FlowPolicy, with LiDAR or latent."""

register_releases(__package__, Release("flow_policy", KEY_MAP, "flow_policy_r34.py"))
