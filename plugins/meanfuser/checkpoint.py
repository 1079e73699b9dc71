"""Names of released MeanFuser checkpoints (MODELS, section 7)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from beyonddrive.checkpoints.key_maps import BACKBONE_RULES, DECODER_RULES, KeyMap, Rule, delta_statistics
from beyonddrive.checkpoints.releases import Release, register_releases

_FLOW = "_meanflow_head.model."
_DENOISER = "trajectory_head.denoiser."
_ARM = "_arm_model_head."
_RECONSTRUCTION = "trajectory_head.reconstruction."

RULES: tuple[Rule, ...] = (
    *BACKBONE_RULES,
    *DECODER_RULES,
    ("_semantic_map_head._bev_semantic_head.", "bev_head.layers."),
    ("bev_proj.0.", "trajectory_head.scene_map.proj."),
    ("bev_proj.2.", "trajectory_head.scene_map.norm."),
    ("_meanflow_head.cluster_trajs", "trajectory_head.mixture.plans"),
    ("_meanflow_head.gaussian_std", "trajectory_head.mixture.std"),
    (f"{_FLOW}cond_pos_emb", f"{_DENOISER}cond_pos_emb"),
    (f"{_FLOW}pos_emb", f"{_DENOISER}pos_emb"),
    (f"{_FLOW}input_emb.", f"{_DENOISER}input_proj."),
    (f"{_FLOW}blocks.0.layers.", f"{_DENOISER}layers."),
    (f"{_FLOW}ln_f.", f"{_DENOISER}norm."),
    (f"{_FLOW}output_emb.", f"{_DENOISER}output_proj."),
    (f"{_ARM}traj_encoder.", f"{_RECONSTRUCTION}encoder."),
    (f"{_ARM}bev_cross_attn.layers.", f"{_RECONSTRUCTION}layers."),
    (f"{_ARM}norm1.", f"{_RECONSTRUCTION}norm."),
    (f"{_ARM}trajectory_recon.", f"{_RECONSTRUCTION}output."),
)

PUBLISHED_ENDS = (
    (17.2244, -2.1206, -0.1955),
    (4.9992, 0.0427, 0.0148),
    (33.9511, 0.6655, 0.0281),
    (24.622, -0.5972, -0.0405),
    (15.7678, 6.2851, 0.7113),
    (11.1327, 0.1404, 0.0298),
    (26.897, 13.0805, 0.7625),
    (45.3814, 0.9164, 0.0315),
)
"""Last poses of the published clusters of plans: x [m], y [m], heading [rad]."""
PUBLISHED_CENTERS = (
    (-0.17615706, -0.06422591, -0.11620905, 0.96165526),
    (-0.51384532, -0.01092043, 0.01168447, 0.99268818),
    (0.28587216, 0.00442774, 0.02102157, 0.99590421),
    (0.02818071, -0.02668675, -0.02491085, 0.99022645),
    (-0.21639346, 0.14290045, 0.38811797, 0.87924409),
    (-0.34442335, -0.00851077, 0.0208664, 0.97100306),
    (0.09102158, 0.31034705, 0.45557216, 0.84981751),
    (0.60160148, 0.01061077, 0.02220209, 0.99755794),
)
"""Means of the published mixture in delta space, before they are halved (MODELS, section 7)."""

DATA: tuple[Rule, ...] = (("center_points", "trajectory_head.mixture.center"),)
"""Means of the mixture, before they are halved: not in the checkpoint (MODELS, section 11, quirk 11)."""


def published_centers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Means of the mixture, if the clusters of a checkpoint (our names) are the published ones."""
    plans = state.get("trajectory_head.mixture.plans")
    ends = torch.tensor(PUBLISHED_ENDS)
    if plans is None or plans.dim() != 3 or plans.shape[::2] != ends.shape:
        return {}
    if not torch.allclose(plans[:, -1].float(), ends, rtol=0, atol=1e-3):
        return {}
    return {"trajectory_head.mixture.center": torch.tensor(PUBLISHED_CENTERS)}


KEY_MAP = KeyMap(
    "meanfuser_model.", RULES, constants=delta_statistics, data=DATA, known_data=published_centers
)
"""MeanFuser, with or without BeyondDrive."""

register_releases(__package__, Release("meanfuser", KEY_MAP, "meanfuser_r34.py"))
