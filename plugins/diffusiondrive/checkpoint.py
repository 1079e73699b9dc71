"""Names of released DiffusionDrive checkpoints (MODELS, section 6)."""

from __future__ import annotations

from beyonddrive.checkpoints.key_maps import BACKBONE_RULES, DECODER_RULES, KeyMap, Rule
from beyonddrive.checkpoints.releases import Release, register_releases

_HEAD = "_trajectory_head."
_LAYER = f"{_HEAD}diff_decoder.layers.{{i}}."
_OURS = "trajectory_head.denoiser.layers.{i}."

RULES: tuple[Rule, ...] = (
    *BACKBONE_RULES,
    *DECODER_RULES,
    ("_bev_semantic_head.", "bev_head.layers."),
    ("_agent_head._mlp_states.", "agent_head.states."),
    ("_agent_head._mlp_label.0.", "agent_head.label."),
    ("bev_proj.0.", "trajectory_head.scene_map.proj."),
    ("bev_proj.2.", "trajectory_head.scene_map.norm."),
    (f"{_HEAD}plan_anchor", "trajectory_head.anchors.points"),
    (f"{_HEAD}plan_anchor_encoder.", "trajectory_head.denoiser.point_encoder."),
    (f"{_HEAD}time_mlp.1.", "trajectory_head.denoiser.time_mlp.0."),
    (f"{_HEAD}time_mlp.3.", "trajectory_head.denoiser.time_mlp.2."),
    (f"{_LAYER}cross_bev_attention.attention_weights.", f"{_OURS}point_weights."),
    (f"{_LAYER}cross_bev_attention.value_proj.0.", f"{_OURS}map_value.conv."),
    (f"{_LAYER}cross_bev_attention.output_proj.", f"{_OURS}map_out."),
    (f"{_LAYER}cross_agent_attention.", f"{_OURS}agent_attention."),
    (f"{_LAYER}cross_ego_attention.", f"{_OURS}ego_attention."),
    (f"{_LAYER}ffn.", f"{_OURS}ffn."),
    (f"{_LAYER}norm1.", f"{_OURS}norms.0."),
    (f"{_LAYER}norm2.", f"{_OURS}norms.1."),
    (f"{_LAYER}norm3.", f"{_OURS}norms.2."),
    (f"{_LAYER}time_modulation.scale_shift_mlp.1.", f"{_OURS}modulation."),
    (f"{_LAYER}task_decoder.plan_cls_branch.", f"{_OURS}score."),
    (f"{_LAYER}task_decoder.plan_reg_branch.", f"{_OURS}refine."),
)

KEY_MAP = KeyMap("_transfuser_model.", RULES)
"""DiffusionDrive, with or without BeyondDrive."""

register_releases(
    __package__,
    Release(
        "diffusiondrive",
        KEY_MAP,
        "diffusiondrive_r34.py",
        lambda state: any(key.startswith(f"{KEY_MAP.prefix}{_HEAD}diff_decoder.") for key in state),
    ),
)
