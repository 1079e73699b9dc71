"""A driver from a config and a checkpoint, for the tools that drive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beyonddrive.apis import init_planner, load_config
from beyonddrive.checkpoints.loading import has_weights
from beyonddrive.deploy import ExportedPlanner
from beyonddrive.deploy.drivers import (
    DriverError,
    DriverSettings,
    FrameInputs,
    GraphEngine,
    ModuleEngine,
    PlannerDriver,
)
from beyonddrive.deploy.graph import other_settings
from beyonddrive.engine.build_errors import build_planner
from beyonddrive.tools._agent_folder import without_downloads
from beyonddrive.tools._command_line import tell
from beyonddrive.version import __version__

GRAPHS = (".onnx", ".pt2")
_SHOWN = 3


def open_driver(
    config: str | Path,
    checkpoint: str | Path | None,
    device: str = "cpu",
    exported: bool = False,
    rig: str = "auto",
    as_released: bool = False,
    settings: DriverSettings | None = None,
    options: Mapping[str, Any] | None = None,
) -> PlannerDriver:
    """A driver that plans by a planner.

    Args:
        config: Config of the planner.
        checkpoint: Its weights, or a graph file of it; None for a planner that has none.
        device: Where it runs; graph files run on the CPU.
        exported: Drive the fast copy of the planner.
        rig: Rig of the images that it was trained on: ``navsim``, ``synth`` or ``auto``.
        as_released: Take images as the published LTF client for HUGSIM does.
        settings: How it drives.
        options: Values by dotted key that replace those of the config file.

    Raises:
        DriverError: If the planner cannot drive, or a graph file is to be another copy or to run elsewhere.
        CheckpointError: If the checkpoint does not fit.
    """
    is_graph = checkpoint is not None and Path(checkpoint).suffix in GRAPHS
    if is_graph and (exported or device != "cpu"):
        given = "--exported" if exported else f"--device {device}"
        raise DriverError(f"{checkpoint}: is a graph file, which runs as it is on the CPU; leave {given} out")
    loaded = load_config(config, options)
    inputs = FrameInputs.from_config(loaded, rig, as_released)
    engine: ModuleEngine | GraphEngine
    if is_graph:
        assert checkpoint is not None
        model = loaded.model.to_dict()
        engine = GraphEngine(Path(checkpoint), build_planner(without_downloads(model)))
        if problem := _otherwise_exported(engine.told, model, options or {}):
            tell("drive", f"{checkpoint}: {problem}")
    else:
        planner: Any = init_planner(loaded, checkpoint, device)
        if checkpoint is None and has_weights(planner):
            raise DriverError(f"{type(planner).__name__} has weights: give its checkpoint")
        engine = ModuleEngine(ExportedPlanner(planner) if exported else planner)
    return PlannerDriver(engine, inputs, settings)


def _otherwise_exported(told: Any, model: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """What of a config and its options a graph file does not follow, in words; empty if it follows all."""
    if told is None:
        idle = ", ".join(key for key in options if key.split(".")[0] == "model")
        return f"plans as it was exported, whatever {idle} says, and does not tell how" if idle else ""
    others = [f"{key}={there} (not {here})" for key, (there, here) in other_settings(told, model).items()]
    if not others:
        return ""
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    shown = ", ".join(others[:_SHOWN]) + more
    return f"plans as it was exported, by a model with {shown}; export it anew to change that"


def describe_driver(
    driver: PlannerDriver, config: str | Path, checkpoint: str | Path | None
) -> dict[str, Any]:
    """What drives, for a report."""
    rig = driver.inputs.rig
    return {
        "planner": driver.engine.name,
        "config": str(config),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "rig": "as released" if rig.as_released else rig.name,
        "seed": driver.settings.seed,
        "max_cached_age": driver.settings.max_cached_age,
        "beyonddrive_version": __version__,
    }
