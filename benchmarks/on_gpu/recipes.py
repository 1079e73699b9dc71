"""The tiny recipes as they are trained on a machine with a GPU: which they are, and what is set anew."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import beyonddrive
from beyonddrive.engine.configs import load_config

BATCH = 4
CONFIGS = Path(beyonddrive.__path__[0]) / "configs"
SIZES = {
    "TruncatedDiffusionHead": {"num_anchors": 4},
    "MeanFlowHead": {"num_components": 4, "num_proposals": 4},
}
"""Heads that start from clusters of the experts, of whom there are twelve."""
WITHOUT_VALIDATION = {
    "val_dataloader": None,
    "val_evaluator": None,
    "val_cfg": None,
    "default_hooks.checkpoint.save_best": None,
}


def tiny_recipes(with_mmdet3d: bool | None = None) -> list[str]:
    """Config files that train on the generated world, one after the other.

    Those that mine negatives while they train are left out, for they need logs, maps and scores.

    Args:
        with_mmdet3d: Whether those with pillars, which need mmdet3d, are among them; by default if it is
            installed.
    """
    if with_mmdet3d is None:
        with_mmdet3d = find_spec("mmdet3d") is not None
    found = []
    for path in sorted(CONFIGS.glob("*/*synth*.py")):
        if "online" in path.stem or ("pillars" in path.stem and not with_mmdet3d):
            continue
        if load_config(path).get("train_dataloader"):
            found.append(str(path))
    return found


def options_of(recipe: str, root: Path) -> dict[str, Any]:
    """Options, by dotted key, of a training on the data of :mod:`make_cache`."""
    head = load_config(recipe).model.get("trajectory_head", {}).get("type")
    return {
        "data_root": str(root),
        "train_dataloader.batch_size": BATCH,
        "num_threads": 1,
        **WITHOUT_VALIDATION,
        **{f"model.trajectory_head.{key}": size for key, size in SIZES.get(head, {}).items()},
    }


def spelled(options: Mapping[str, Any]) -> list[str]:
    """Options as ``--cfg-options`` takes them.

    >>> spelled({"num_threads": 1, "val_cfg": None})
    ['num_threads=1', 'val_cfg=None']
    """
    return [f"{key}={value}" for key, value in options.items()]


def short_name(recipe: str) -> str:
    """Name of a recipe without its batch and data.

    >>> short_name("configs/ltf/ltf_tiny_1xb16-12e_synth.py")
    'ltf_tiny'
    """
    return Path(recipe).stem.partition("_1xb")[0]
