"""A planner as a folder that NAVSIM's devkit runs it from (SUBMISSION, section 5)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from beyonddrive.apis import init_planner
from beyonddrive.datasets.transforms.camera import LoadCameraStitch
from beyonddrive.datasets.transforms.encoding import EncodeCamera
from beyonddrive.datasets.transforms.lidar import LoadLidarHistogram
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.datasets.transforms.status import PARTS, HideStatus
from beyonddrive.datasets.transforms.targets import AgentTargets, EgoStatus
from beyonddrive.deploy import ExportError, PlannerGraph, largest_difference, navsim_agent, write_graph
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.runner.result_paths import check_results
from beyonddrive.engine.wrapped_datasets import unwrapped_settings
from beyonddrive.plugins.base.sampling import NOISE, SamplingPlanner
from beyonddrive.registry import TRANSFORMS
from beyonddrive.tools import _agent_worker
from beyonddrive.version import __version__

_LIDAR = ("extent", "size", "split_height", "max_height", "max_count", "use_ground_plane")
_YAML = """# PYTHONPATH=FOLDER, agent=beyonddrive and
# hydra.searchpath=[pkg://navsim.planning.script.config.common,file://FOLDER/{version}]
_target_: navsim_agent.BeyondDriveAgent
_convert_: 'all'
folder: null          # what the export wrote; null: the folder of navsim_agent.py
run: {run:<14}   # onnx, worker or process
interpreter: null     # run: worker: the Python in which beyonddrive is installed
"""
_SAMPLING = """trajectory_sampling:
  _target_: nuplan.planning.simulation.trajectory.trajectory_sampling.TrajectorySampling
  _convert_: 'all'
  time_horizon: 4
  interval_length: 0.5
"""
_VERSIONS = {"v1.1": "", "v2": _SAMPLING}
"""What the file for hydra has besides, by version of the devkit."""
_HYDRA = {version: Path(version, "agent/beyonddrive.yaml") for version in _VERSIONS}
_FILES = (
    *map(Path, ("navsim_agent.py", "planner.onnx", "weights.pth", "config.py", "agent.json")),
    *_HYDRA.values(),
)


def check_agent_folder(folder: Path, inputs: Iterable[str | Path]) -> None:
    """Refuse a folder that holds what the export reads, or a planner that no export has put there.

    Args:
        folder: Where an agent shall go.
        inputs: Files that the export reads.

    Raises:
        ConfigError: If one of the agent's files is read, or cannot be written.
        ExportError: If there are a config or weights of something else.
    """
    others = [name for name in ("config.py", "weights.pth") if (folder / name).exists()]
    # An export that was killed has left its module, which it writes first.
    if others and not any((folder / name).exists() for name in ("agent.json", "navsim_agent.py")):
        raise ExportError(f"{folder}: has {' and '.join(others)} of no exported agent; give another folder")
    check_results({f"{folder.name}'s {name}": folder / name for name in _FILES}, inputs)


def write_agent(config: Config, checkpoint: str | Path, folder: Path, with_onnx: bool, largest: float) -> str:
    """Write the folder, and return one line about it.

    Args:
        config: Of the planner; its ``test_dataloader`` says which features it reads, its
            ``train_dataloader`` which vehicles it has learned of.
        checkpoint: Its weights.
        folder: Where to write; files of an earlier export are replaced one by one.
        with_onnx: Whether to write ``planner.onnx``.
        largest: Difference of the ONNX file from the planner that is refused.

    Raises:
        ExportError: If a feature cannot be made from an input of the devkit, or the ONNX file differs.
    """
    planner = init_planner(config, checkpoint)
    order = [*planner.required_inputs, *([NOISE] if isinstance(planner, SamplingPlanner) else [])]
    settings: dict[str, Any] = {
        "format": navsim_agent.FORMAT,
        "planner": type(planner).__name__,
        "beyonddrive_version": __version__,
        "checkpoint": Path(checkpoint).name,
        "inputs": inputs_of(config, planner.required_inputs),
        "targets": targets_of(config),
        "order": order,
        "noise": None,
        "loader": f"{_agent_worker.__name__}:{_agent_worker.load.__name__}",
    }
    if isinstance(planner, SamplingPlanner):
        head = planner.sampling_head
        shape = head.draw(1, head.num_proposals, torch.Generator()).shape[1:]
        settings["noise"] = {"seed": head.seed, "shape": list(shape)}
    folder.mkdir(parents=True, exist_ok=True)
    partial, said = folder / ".partial-planner.onnx", "without planner.onnx"
    try:
        if with_onnx:
            difference = _write_onnx(planner, partial, largest)
            said = f"planner.onnx differs from the planner by {difference:.1e}"
        # From here on files of two exports may lie side by side: without this one no agent can be made.
        (folder / "agent.json").unlink(missing_ok=True)
        write_atomically(folder / "navsim_agent.py", Path(navsim_agent.__file__).read_bytes())
        if with_onnx:
            partial.replace(folder / "planner.onnx")
        else:
            (folder / "planner.onnx").unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)
    weights = io.BytesIO()
    torch.save({"state_dict": planner.state_dict(), "meta": {}}, weights)
    write_atomically(folder / "weights.pth", weights.getvalue())
    model = without_downloads(config.model.to_dict())
    alone = Config({"model": model, "default_scope": config.get("default_scope", "beyonddrive")})
    write_atomically(folder / "config.py", alone.pretty_text.encode())
    for version, sampling in _VERSIONS.items():
        text = _YAML.format(version=version, run="onnx" if with_onnx else "worker") + sampling
        write_atomically(folder / _HYDRA[version], text.encode())
    # (last: with it the folder is whole)
    write_atomically(folder / "agent.json", (json.dumps(settings, indent=1) + "\n").encode())
    return f"{folder}: {settings['planner']} as an agent of the devkit, {said}"


def inputs_of(config: Config, required: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What the devkit's side has to know to make the inputs of a planner.

    Raises:
        ExportError: If the config has no test data set, or makes or changes an input in a way that is not
            known there.
    """
    loader = config.get("test_dataloader")
    if not loader:
        raise ExportError("test_dataloader: the config has none, so nobody knows the planner's features")
    made: dict[str, dict[str, Any]] = {}
    dataset = unwrapped_settings(loader["dataset"])[0]
    for stage in ("feature_pipeline", "pipeline"):
        for place, settings in enumerate(dataset.get(stage) or ()):
            transform = TRANSFORMS.build(dict(settings))
            if getattr(transform, "is_target", False) or type(transform) is PackPlanInputs:
                continue
            if not _note(transform, stage, made):
                raise ExportError(
                    f"test_dataloader.dataset.{stage}[{place}]: the agent cannot do there what "
                    f"{type(transform).__name__} does; it knows LoadCameraStitch, LoadLidarHistogram, "
                    f"EgoStatus, HideStatus behind a status, and EncodeCamera behind a camera in the "
                    f"feature_pipeline"
                )
    if lacking := [name for name in required if name not in made]:
        raise ExportError(
            f"test_dataloader.dataset.feature_pipeline: makes {', '.join(lacking)} in a way that the agent "
            f"does not know; it knows LoadCameraStitch, LoadLidarHistogram and EgoStatus"
        )
    return {name: made[name] for name in made if name in required}


def targets_of(config: Config) -> dict[str, Any]:
    """Which vehicles are targets of the training, or of the test of a config without one.

    Those of ``AgentTargets`` as it is by default if no data set has any.
    """
    for loader in filter(None, (config.get("train_dataloader"), config.get("test_dataloader"))):
        for dataset in unwrapped_settings(loader["dataset"]):
            for settings in dataset.get("feature_pipeline") or ():
                kind = settings["type"]
                kind = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
                if isinstance(kind, type) and issubclass(kind, AgentTargets):
                    return _vehicles(TRANSFORMS.build(dict(settings)))
    return _vehicles(AgentTargets())


def _vehicles(made: AgentTargets) -> dict[str, Any]:
    return {"num_agents": made.num_agents, "extent": made.extent}


def _note(transform: Any, stage: str, made: dict[str, dict[str, Any]]) -> bool:
    """Enter what a transform does to the inputs; False if the agent cannot do it."""
    kind = type(transform)
    if kind is HideStatus and "status" in made:
        hidden = {index for part in transform.parts for index in range(8)[PARTS[part]]}
        made["status"]["hidden"] = sorted(hidden.union(made["status"].get("hidden", ())))
        return True
    if stage != "feature_pipeline":
        return False
    if kind is LoadCameraStitch:
        made["camera"] = {"size": list(transform.size)}
    elif kind is LoadLidarHistogram:
        made["lidar"] = {name: getattr(transform, name) for name in _LIDAR}
    elif kind is EgoStatus:
        made["status"] = {}
    elif kind is EncodeCamera and "camera" in made:
        if transform.quality is not None:  # (others change nothing)
            made["camera"]["encoding"] = {"format": transform.format, "quality": transform.quality}
    else:
        return False
    return True


def _write_onnx(planner: Any, path: Path, largest: float) -> float:
    """Write the ONNX file, and return how much it differs from the planner."""
    graph = PlannerGraph(planner)
    write_graph(graph, path, 1)
    difference = largest_difference(graph, path, 1)
    if not difference <= largest:
        raise ExportError(
            f"{path.parent}: planner.onnx differs from the planner by {difference:.1e}: give --without-onnx, "
            f"and run it by a worker"
        )
    return difference


def without_downloads(node: Any) -> Any:
    """A model config whose weights come from the folder alone."""
    if isinstance(node, Mapping):
        return {key: False if key == "pretrained" else without_downloads(item) for key, item in node.items()}
    if isinstance(node, (list, tuple)):
        return [without_downloads(item) for item in node]
    return node
