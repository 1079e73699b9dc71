"""Names of released ego-status MLP checkpoints (MODELS, section 9)."""

from beyonddrive.plugins.checkpoint import KeyMap, Release

KEY_MAP = KeyMap(
    "_mlp.",
    (("6.", "trajectory_head.mlp.0."), ("0.", "encoder.0."), ("2.", "encoder.2."), ("4.", "encoder.4.")),
)
"""The published size: three hidden layers."""

RELEASES = (Release("ego_mlp", KEY_MAP, "ego_mlp.py"),)
