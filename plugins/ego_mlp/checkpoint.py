"""Names of released ego-status MLP checkpoints (MODELS, section 9)."""

from beyonddrive.checkpoints.key_maps import KeyMap
from beyonddrive.checkpoints.releases import Release, register_releases

KEY_MAP = KeyMap(
    "_mlp.",
    (("6.", "trajectory_head.mlp.0."), ("0.", "encoder.0."), ("2.", "encoder.2."), ("4.", "encoder.4.")),
)
"""The published size: three hidden layers."""

register_releases(__package__, Release("ego_mlp", KEY_MAP, "ego_mlp.py"))
