"""Planners as functions of tensors, for other runtimes: ``torch.export`` programs and ONNX files."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from beyonddrive.deploy.cost import random_inputs
from beyonddrive.deploy.exported import ExportError, freeze, hold_constants
from beyonddrive.plugins.base.head_planner import HeadPlanner
from beyonddrive.plugins.base.planner import Planner
from beyonddrive.plugins.base.sampling import NOISE, SamplingPlanner

MODEL_KEY = "beyonddrive.model"
"""Where an ONNX file tells what its planner was built from."""
_MODEL_FILE = "model.json"
"""The same of a program of ``torch.export``."""
_NOT_IN_THE_GRAPH = ("seed", "pretrained", "init_cfg")
"""Last parts of keys that say where noise and first weights come from, of which a graph has nothing."""


class PlannerGraph(nn.Module):
    """A planner as a function of tensors, for ``torch.export`` and ONNX.

    Args:
        planner: The planner; it is copied.
        model: What it was built from, which files of the graph tell.

    Attributes:
        input_names: Order of the inputs: those that the planner requires, then :data:`NOISE` if it samples.
        output_names: Order of the outputs.
    """

    def __init__(self, planner: Planner, model: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.told = "" if model is None else json.dumps(model, default=str)
        if not isinstance(planner, HeadPlanner) or "points" in planner.required_inputs:
            raise ExportError(
                f"{type(planner).__name__} cannot become a graph: export planners that have a trajectory "
                f"head and read a camera, a LiDAR raster or the ego status"
            )
        # (in a tuple, for it is no part of the graph)
        self._original: tuple[HeadPlanner] = (planner,)
        self.planner: HeadPlanner = freeze(planner)
        hold_constants(self.planner)
        self.input_names = [
            *planner.required_inputs,
            *([NOISE] if isinstance(planner, SamplingPlanner) else []),
        ]
        with torch.no_grad():
            self.output_names = list(self._named(*self.example_inputs()))
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs in the order of ``input_names`` -> outputs in the order of ``output_names``."""
        named = self._named(*inputs)
        return tuple(named[name] for name in self.output_names)

    def expected(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the planner itself, before anything was folded."""
        planner = copy.deepcopy(self._original[0]).eval()
        with torch.no_grad():
            named = planner.tensors(dict(zip(self.input_names, inputs, strict=True)))
        return tuple(named[name] for name in self.output_names)

    def example_inputs(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Inputs of the right sizes."""
        generator = torch.Generator().manual_seed(0)
        made = random_inputs(self.planner, batch, generator)
        if isinstance(self.planner, SamplingPlanner):
            head: Any = self.planner.trajectory_head.bare
            made[NOISE] = head.draw(batch, head.num_proposals, generator)
        return tuple(made[name] for name in self.input_names)

    def _named(self, *inputs: Tensor) -> dict[str, Tensor]:
        return self.planner.tensors(dict(zip(self.input_names, inputs, strict=True)))


def write_graph(graph: PlannerGraph, path: Path, batch: int | None = None) -> None:
    """Write a graph as ``.onnx`` or ``.pt2``.

    Args:
        graph: The planner's graph.
        path: The file; its ending chooses the format.
        batch: Size of the batch; None leaves it free.

    Raises:
        ImportError: If the ONNX exporter is not installed.
        ExportError: If it fails.
    """
    # Two scenes, for torch takes a dimension of size 1 for a constant.
    examples = graph.example_inputs(2 if batch is None else batch)
    free = torch.export.Dim("batch", min=1, max=4096)
    shapes = (tuple({0: free} for _ in examples),) if batch is None else None
    try:
        with torch.no_grad():
            program = torch.export.export(graph, examples, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of many kinds, with the whole graph behind the first line
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ExportError(
            f"{path}: torch.export cannot follow {type(graph.planner).__name__}: {reason} A graph knows no "
            "number of a tensor: what a planner loops over, branches on or takes for an index has to be "
            "Python's, such as scheduler.timesteps.tolist() kept from when it was built"
        ) from error
    if path.suffix == ".pt2":
        torch.export.save(program, path, extra_files={_MODEL_FILE: graph.told} if graph.told else None)
        return
    try:
        import onnxscript
    except ImportError as error:
        raise ImportError(
            "ONNX export needs onnx and onnxscript: pip install 'beyonddrive[export]'"
        ) from error
    names = {"input_names": graph.input_names, "output_names": graph.output_names}
    try:
        exported = torch.onnx.export(program, dynamo=True, verbose=False, **names)  # type: ignore[arg-type]
        assert exported is not None
        if graph.told:
            exported.model.metadata_props[MODEL_KEY] = graph.told
        exported.save(path)
    except Exception as error:  # whatever onnxscript, onnx and protobuf raise when they do not fit
        raise ExportError(
            f"{path}: the ONNX exporter of torch {torch.__version__} failed with onnxscript "
            f"{onnxscript.__version__}: {error}. The two have to be of about the same age: update torch, or "
            f"install the onnxscript, onnx and protobuf of its time"
        ) from error


def model_of_program(path: Path) -> str:
    """What a ``.pt2`` file tells of the config of its planner, as JSON; empty if it tells nothing."""
    with zipfile.ZipFile(path) as file:
        told = next((name for name in file.namelist() if name.endswith(f"/extra/{_MODEL_FILE}")), None)
        return "" if told is None else file.read(told).decode()


def other_settings(told: Any, model: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings in which the config of a graph and that of a planner differ, as far as the graph has them.

    Args:
        told: What a file tells.
        model: Of the planner.

    Returns:
        Dotted key -> what it is there and here; None where it is not.

    >>> other_settings({"type": "LTF", "calibration": {"turn": 0.1}}, {"type": "LTF"})
    {'calibration.turn': (0.1, None)}
    """
    there, here = (dict(_flat(json.loads(json.dumps(one, default=str)))) for one in (told, model))
    return {
        key: (there.get(key), here.get(key))
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    }


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    first, last = key.partition(".")[0], key.rpartition(".")[2]
    if first == "data_preprocessor" or last in _NOT_IN_THE_GRAPH:
        return
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def largest_difference(graph: PlannerGraph, path: Path, batch: int = 1) -> float:
    """Run a written file beside its planner: the largest difference, relative to 1 + the largest magnitude.

    NaN if any number is NaN.

    Raises:
        ImportError: If onnxruntime is not installed.
        ExportError: If the file takes no such batch.
    """
    given = graph.example_inputs(batch)
    expected = graph.expected(*given)
    try:
        found = run_graph(path, graph, given)
    except ImportError:
        raise
    except Exception as error:  # whatever torch and onnxruntime raise about a shape
        raise ExportError(f"{path.name}: does not run with a batch of {batch}: {error}") from error
    pairs = zip(found, expected, strict=True)
    # (Python's max would pass over a NaN that is not the first)
    return float(np.max([np.abs(a - b.numpy()).max() / (1 + float(b.abs().max())) for a, b in pairs]))


def run_graph(path: Path, graph: PlannerGraph, inputs: tuple[Tensor, ...]) -> list[Any]:
    """Outputs of a written file as arrays, in the order of ``output_names``.

    Raises:
        ImportError: If onnxruntime is not installed.
    """
    if path.suffix == ".pt2":
        with torch.no_grad():
            return [value.numpy() for value in torch.export.load(path).module()(*inputs)]
    try:
        from onnxruntime import InferenceSession, SessionOptions
    except ImportError as error:
        raise ImportError(
            "checking an ONNX file needs onnxruntime: pip install 'beyonddrive[export]'"
        ) from error
    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(graph.input_names, inputs, strict=True)}
    outputs: list[Any] = session.run(graph.output_names, feed)
    return outputs
