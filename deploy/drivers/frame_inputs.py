"""From a simulator's frame to a planner's inputs, by the transforms of its config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from beyonddrive.datasets.transforms.camera import LoadCameraStitch
from beyonddrive.datasets.transforms.strip_rig import RIGS, StripRig
from beyonddrive.deploy.drivers.engines import DriverError
from beyonddrive.engine.wrapped_datasets import unwrapped_settings
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.frame import Frame

_FILES = re.compile(r"^(/.*\.py)$", re.MULTILINE)
"""Whole paths alone: a comment may name another config."""
_DATA = {
    rig: re.compile(rf"(?:^|_){data}[a-z]*(?:_|$)") for rig, data in (("synth", "synth"), ("navsim", "nav"))
}
"""Names of configs by the rig of their data: ``ltf_tiny_1xb16-12e_synth``, ``navsim_boxes``."""


class FrameError(DriverError):
    """A frame holds nothing that can be driven by; the message names the key."""


class FrameInputs:
    """The transforms that made a planner's inputs from scenes, at work on frames.

    Args:
        features: Transforms of the feature pipeline; targets are left out.
        steps: Transforms behind it, which find arrays; the last one packs.
        rig: The rig of the images that the planner was trained on.
    """

    def __init__(self, features: Sequence[Any], steps: Sequence[Any], rig: StripRig) -> None:
        self.features = [step for step in features if not getattr(step, "is_target", False)]
        self.steps = [step for step in steps if not getattr(step, "is_target", False)]
        self.rig = rig
        self.strip_widths = [step.size[1] for step in self.features if isinstance(step, LoadCameraStitch)]
        """Widths of the strips that are made of cameras [px]."""
        self.num_history_frames = max((getattr(f, "num_history_frames", 0) for f in self.features), default=0)

    @classmethod
    def from_config(cls, config: Config, rig: str = "auto", as_released: bool = False) -> FrameInputs:
        """The inputs that a config's ``test_dataloader`` makes.

        Args:
            config: Of a planner.
            rig: A key of :data:`~beyonddrive.datasets.transforms.strip_rig.RIGS`; ``auto``: that of the data
                which the config, or one that it builds on, has in its name.
            as_released: Take images as the published LTF client does, whatever their calibration.

        Raises:
            DriverError: If the config has no test data set, there is no such rig, or no name tells it.
        """
        loader = config.get("test_dataloader")
        if not loader:
            raise DriverError(
                f"{config.filename}: has no test_dataloader, so nobody knows the planner's inputs"
            )
        if rig == "auto":
            rig = _rig_of(config)
        if rig not in RIGS:
            raise DriverError(f"there is no rig {rig!r}; there are {', '.join(RIGS)} and auto")
        settings = unwrapped_settings(loader["dataset"])[0]
        features, steps = (
            [TRANSFORMS.build(dict(step)) for step in settings.get(key, ())]
            for key in ("feature_pipeline", "pipeline")
        )
        return cls(features, steps, RIGS[rig](as_released))

    def __call__(self, frame: Frame, token: str) -> Mapping[str, Any]:
        """``inputs`` and ``data_samples`` of a frame, as a data set gives them.

        Args:
            frame: With its history.
            token: What the planner shall take the frame's name for.
        """
        results: dict[str, Any] = {"token": token, "log_name": frame.session, "strip_rig": self.rig}
        for feature in self.features:
            results = feature.observe(frame, results)
        for step in self.steps:
            results = step(results)
        return results


def _rig_of(config: Config) -> str:
    """Rig of the data in the name of a config, or else in those of the files that it builds on."""
    # (mmengine writes the name of every file before what stands in it, that of the last one last)
    files = [str(config.filename or ""), *reversed(_FILES.findall(config.text or ""))]
    for stem in (Path(file).stem for file in files):
        for rig, names in _DATA.items():
            if names.search(stem):
                return rig
    raise DriverError(
        f"{config.filename}: neither its name nor that of a config that it builds on says which data it was "
        f"trained on; say whose rig it has by --rig {' or '.join(RIGS)}"
    )


def check_frame(frame: Frame) -> None:
    """Refuse a frame whose numbers or images cannot be.

    Raises:
        FrameError: With the name of the field.
    """
    fields = {
        "time": ((), frame.time),
        "pose": ((3,), frame.pose),
        "velocity": ((2,), frame.velocity),
        "acceleration": ((2,), frame.acceleration),
    }
    for name, (shape, value) in fields.items():
        array = np.asarray(value)
        if array.shape != shape or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise FrameError(f"{name}: must be finite numbers {shape}, got {value!r}")
    for name, view in frame.cameras.items():
        image = view.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise FrameError(f"cameras.{name}: must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        mount = np.concatenate([view.rotation.ravel(), view.translation.ravel()])
        if mount.shape != (12,) or not np.isfinite(mount).all():
            raise FrameError(f"cameras.{name}: its place in the ego frame is not finite")
    lidar = frame.lidar
    if lidar is not None and (lidar.ndim != 2 or lidar.shape[0] != 4):
        raise FrameError(f"lidar: must be (4, N), got {lidar.shape}")
