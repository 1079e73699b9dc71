"""Names of released WoTE checkpoints (MODELS, section 8)."""

from __future__ import annotations

from beyonddrive.checkpoints.key_maps import BACKBONE_RULES, KeyMap, Rule
from beyonddrive.checkpoints.releases import Release, register_releases

RULES: tuple[Rule, ...] = (
    *BACKBONE_RULES,
    ("_bev_downscale.", "decoder.bev_proj."),
    ("_status_encoding.", "decoder.status_proj."),
    ("_keyval_embedding.", "decoder.memory_embedding."),
    ("_bev_upscale.", "decoder.map_proj."),
    ("bev_upsample_head.", "decoder.top_down."),
    ("bev_semantic_head.", "bev_head.layers."),
    ("new_scene_bev_feature_pos_embed.", "future_embedding."),
    ("agent_query_embedding.", "agent_head.query_embedding."),
    ("agent_tf_decoder.layers.", "agent_head.layers."),
    ("agent_head._mlp_states.", "agent_head.states."),
    ("agent_head._mlp_label.0.", "agent_head.label."),
    ("trajectory_anchors", "trajectory_head.anchors.plans"),
    ("mlp_planning_vb.", "trajectory_head.encoder.embed."),
    ("cluster_encoder.layers.", "trajectory_head.encoder.layers."),
    ("encode_ego_feat_mlp.", "trajectory_head.encoder.fuse."),
    ("offset_tf_decoder.layers.", "trajectory_head.offset_decoder."),
    ("offset_head._mlp.", "trajectory_head.offset."),
    ("offset_score_head.", "trajectory_head.offset_score."),
    ("scene_position_embedding.", "trajectory_head.world_model.position_embedding."),
    ("latent_world_model.layers.", "trajectory_head.world_model.layers."),
    ("reward_cat_head.", "trajectory_head.reward.fuse."),
    ("reward_head.", "trajectory_head.reward.imitation."),
    ("sim_reward_heads.", "trajectory_head.reward.metrics."),
    # after the names that start like it
    ("reward_conv_net.", "trajectory_head.reward."),
)

KEY_MAP = KeyMap("WoTE_model.", RULES)
"""WoTE with LiDAR."""

register_releases(__package__, Release("wote", KEY_MAP, "wote_r34.py"))
