"""What turns a planner's inputs into a plan: the planner itself, its fast copy, or a graph file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from beyonddrive.deploy.exported import ExportedPlanner
from beyonddrive.deploy.graph import MODEL_KEY, model_of_program
from beyonddrive.plugins.base.planner import Planner
from beyonddrive.plugins.base.sampling import NOISE, SamplingPlanner
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.sample import PlanSample


class DriverError(BeyondDriveError, ValueError):
    """A planner cannot drive as asked, or a session is used in a wrong way; the message says what to do."""


class Engine(Protocol):
    """Plans for one frame at a time; may be called from several threads."""

    @property
    def name(self) -> str:
        """For reports."""

    @property
    def required_inputs(self) -> tuple[str, ...]:
        """Inputs that must be there."""

    def __call__(self, packed: Mapping[str, Any]) -> NDArray[np.float64]:
        """A packed sample, ``inputs`` and ``data_samples``, as a data set gives it -> (8, 3)."""


class ModuleEngine:
    """A planner, or its exported copy, in this process.

    One frame runs at a time: a network uses all threads that torch has, and batches of one give every session
    the numbers that it would have alone.

    Args:
        planner: In evaluation mode.

    Raises:
        DriverError: If it is no planner but looks into the future.
    """

    def __init__(self, planner: Planner | ExportedPlanner) -> None:
        self.planner = planner
        self._bare: Planner = planner.planner if isinstance(planner, ExportedPlanner) else planner
        _refuse_oracle(self._bare)
        self.name = type(self._bare).__name__
        self.required_inputs = tuple(self._bare.required_inputs)
        self._lock = threading.Lock()

    def __call__(self, packed: Mapping[str, Any]) -> NDArray[np.float64]:
        """Plan (8, 3)."""
        batch = {
            "inputs": {key: [value] for key, value in packed["inputs"].items()},
            "data_samples": [packed["data_samples"]],
        }
        with self._lock, torch.inference_mode():
            batch = self._bare.data_preprocessor(batch)
            samples: Any = self.planner(batch["inputs"], batch["data_samples"], mode="predict")
            plan: NDArray[np.float64] = samples[0].pred.trajectory.double().cpu().numpy()
        return plan


class GraphEngine:
    """A graph file that ``beyonddrive export`` wrote, ``.onnx`` or ``.pt2``, for one scene per call.

    Args:
        path: The file.
        planner: The planner of its config; its weights are not used, but its preprocessor is, and the seed of
            its noise.

    Attributes:
        told: What the file tells of the model that it was made from; None if it tells nothing.

    Raises:
        DriverError: If there is no such file, it is none of the two, or it takes other inputs.
        ImportError: If onnxruntime is not installed.
    """

    def __init__(self, path: Path, planner: Planner) -> None:
        _refuse_oracle(planner)
        if not path.is_file():
            raise DriverError(f"{path}: there is no such file; make it by beyonddrive export")
        self.planner = planner.eval()
        self.name = f"{type(planner).__name__} ({path.suffix[1:]})"
        self.required_inputs = tuple(planner.required_inputs)
        self._order = [*self.required_inputs, *([NOISE] if isinstance(planner, SamplingPlanner) else [])]
        self._run, told = _onnx(path, self._order) if path.suffix == ".onnx" else _program(path)
        self.told: Any = json.loads(told) if told else None

    def __call__(self, packed: Mapping[str, Any]) -> NDArray[np.float64]:
        """Plan (8, 3)."""
        sample: PlanSample = packed["data_samples"]
        batch = self.planner.data_preprocessor(
            {"inputs": {key: [value] for key, value in packed["inputs"].items()}, "data_samples": None}
        )
        named = dict(batch["inputs"])
        if isinstance(self.planner, SamplingPlanner):
            named[NOISE] = self.planner.noise_of([sample.metainfo.get("token", "")])
        return self._run([named[name].float().cpu() for name in self._order]).astype(np.float64)[0]


_Run = Callable[[list[Any]], NDArray[Any]]


def _onnx(path: Path, order: list[str]) -> tuple[_Run, str]:
    """What runs a file, and what that tells of its model."""
    try:
        from onnxruntime import InferenceSession, SessionOptions
    except ImportError as error:
        raise ImportError("an ONNX file needs onnxruntime: pip install 'beyonddrive[export]'") from error
    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # (onnxruntime has its own classes for what is no graph)
        raise DriverError(f"{path}: onnxruntime cannot read it ({error})") from error
    names = [put.name for put in session.get_inputs()]
    if sorted(names) != sorted(order) or "trajectory" not in [put.name for put in session.get_outputs()]:
        raise DriverError(f"{path}: takes {names}, the planner of the config {order}: export it anew")

    def run(values: list[Any]) -> NDArray[Any]:
        feed = {name: value.numpy() for name, value in zip(order, values, strict=True)}
        plan: NDArray[Any] = session.run(["trajectory"], feed)[0]
        return plan

    return run, session.get_modelmeta().custom_metadata_map.get(MODEL_KEY, "")


def _program(path: Path) -> tuple[_Run, str]:
    """As for ONNX."""
    if path.suffix != ".pt2":
        raise DriverError(f"{path}: is no graph file; those end in .onnx or .pt2")
    try:
        module, told = torch.export.load(path).module(), model_of_program(path)
    except Exception as error:  # (torch raises what its parts raise)
        raise DriverError(f"{path}: torch cannot read it ({error})") from error
    lock = threading.Lock()

    def run(values: list[Any]) -> NDArray[Any]:
        with lock, torch.inference_mode():
            outputs: Any = module(*values)
        plan: NDArray[Any] = outputs[0].numpy()
        return plan

    return run, told


def _refuse_oracle(planner: Any) -> None:
    if getattr(planner, "oracle", False):
        raise DriverError(
            f"{type(planner).__name__} reads the future from a log, which no simulator has: drive a planner"
        )
