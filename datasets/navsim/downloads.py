"""Which download of NAVSIM has what is missing; names of its scripts and archives, nothing is fetched."""

from __future__ import annotations

from typing import NamedTuple


class Download(NamedTuple):
    """Where logs and sensor files of a split come from."""

    logs: str
    sensors: str


SPLITS = {
    name: Download(
        f"download_{name} (openscene_metadata_{name}.tgz)",
        f"download_{name} (openscene_sensor_{name}_{{kind}}_*.tgz)",
    )
    for name in ("trainval", "test", "mini")
} | {
    "private_test_e2e": Download(
        "download_private_test_e2e (openscene_metadata_private_test_e2e.tgz)",
        "download_private_test_e2e (openscene_sensor_private_test_e2e.tgz)",
    ),
    "private_test_hard": Download(
        "download_private_test_hard_two_stage (navsim_v2.2_private_test_hard_openscene_metadata.tar.gz)",
        "download_private_test_hard_two_stage (navsim_v2.2_private_test_hard_two_stage.tar.gz)",
    ),
}
"""Splits of OpenScene, as NAVSIM's folder ``download`` has them."""
MAPS = "download_maps"
NAVTRAIN = {
    True: "download_navtrain (navtrain_current_*.tgz), or all of the split",
    False: "download_navtrain (navtrain_history_*.tgz), or all of the split",
}
"""Part of trainval that scenes of navtrain see: of the current frame, of those before it."""


def sensor_download(split: str, kind: str, seen: str) -> str:
    """What to do about missing sensor files.

    Args:
        split: Name of the split.
        kind: ``camera`` or ``lidar``.
        seen: ``current`` or ``history`` frames of scenes, or ``all`` frames.

    >>> sensor_download("test", "lidar", "all")
    "run NAVSIM's download_test (openscene_sensor_test_lidar_*.tgz)"
    >>> sensor_download("trainval", "camera", "history")
    "run NAVSIM's download_navtrain (navtrain_history_*.tgz), or all of the split"
    >>> sensor_download("town", "camera", "all")
    'town is no split of NAVSIM: copy its sensor_blobs, or make it by beyonddrive create-data'
    """
    if split == "trainval" and seen in ("current", "history"):
        return f"run NAVSIM's {NAVTRAIN[seen == 'current']}"
    if split not in SPLITS:
        return f"{split} is no split of NAVSIM: copy its sensor_blobs, or make it by beyonddrive create-data"
    return f"run NAVSIM's {SPLITS[split].sensors.format(kind=kind)}"


def log_download(split: str) -> str:
    """What to do about missing logs.

    >>> log_download("mini")
    "run NAVSIM's download_mini (openscene_metadata_mini.tgz)"
    """
    if split not in SPLITS:
        return f"{split} is no split of NAVSIM: copy its logs, or make it again by beyonddrive create-data"
    return f"run NAVSIM's {SPLITS[split].logs}"
