"""Golden files of planners: what an original computed, and the comparison of ours with it.

A directory of golden files holds, for each planner, ``<name>.keys.json`` (names and shapes of the official
checkpoint), ``<name>.npz`` (outputs, losses, gradients), ``<name>.meta.json`` (settings), perhaps
``<name>.data.npz`` (weights that are data), and one ``recipe.py`` that makes weights, inputs, targets and
noise from names. Each planner compares itself in ``plugins/<folder>/golden.py``: ``compare(golden)`` yields
one :class:`Comparison` per array; the tests and ``beyonddrive check-golden`` run the same ones.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor

from beyonddrive.checkpoints.conversion import Conversion, to_native
from beyonddrive.checkpoints.loading import build_planner
from beyonddrive.checkpoints.releases import package_of
from beyonddrive.checkpoints.weight_files import read_data
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.sample import PlanSample

TOLERANCE = 2e-5
"""Largest difference allowed, relative to 1 + the largest golden magnitude."""
KINDS = ("out/", "probe/", "loss/", "grad/")
"""Groups of arrays to compare: whole outputs, evenly spaced elements of large ones, losses, gradients."""
STATISTICS_TOLERANCE = 1e-4
"""For the mean, deviation and sum of magnitudes that accompany a probe."""


class GoldenError(BeyondDriveError, ValueError):
    """A golden directory lacks something, or holds something that cannot be compared."""


@dataclass(frozen=True)
class Comparison:
    """One golden array and ours.

    Attributes:
        name: Key of the array in the npz file, with its group, e.g. ``'out/trajectory'``.
        ours: Our value.
        golden: The original's.
        tolerance: Largest difference allowed.

    >>> round(Comparison('out/a', np.array([1.0, 2.0]), np.array([1.0, 2.3])).difference, 3)
    0.091
    """

    name: str
    ours: NDArray[Any]
    golden: NDArray[Any]
    tolerance: float = TOLERANCE

    @property
    def difference(self) -> float:
        """``max|ours - golden| / (1 + max|golden|)``; infinite if shapes differ or only one is NaN."""
        ours, golden = np.asarray(self.ours, np.float64), np.asarray(self.golden, np.float64)
        if ours.shape != golden.shape or not np.array_equal(np.isfinite(ours), np.isfinite(golden)):
            return float("inf")
        finite = np.isfinite(golden)
        if not finite.any():
            return 0.0
        largest = np.abs(ours[finite] - golden[finite]).max()
        return float(largest / (1.0 + np.abs(golden[finite]).max()))

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference <= self.tolerance


class GoldenFile:
    """The golden data of one planner.

    Creating it runs ``recipe.py`` of the directory, which is code: name only directories that you trust.

    Args:
        directory: Where the golden files are.
        name: Their stem, e.g. ``'navsim_ltf'``.
        recipe: The directory's recipe if it has been loaded before.
        device: Where the planner and its inputs are.

    Attributes:
        arrays: Contents of ``<name>.npz``; empty if there is only a list of keys.
        meta: Contents of ``<name>.meta.json``; empty if there is none.
        keys: Official parameter name -> (shape, dtype).
        data: Weights that are data, by official name, and other numbers of ``<name>.data.npz``.
        recipe: The directory's recipe, as a module.

    Raises:
        GoldenError: If a file is missing or is not what it should be.
    """

    def __init__(
        self,
        directory: str | Path,
        name: str,
        recipe: ModuleType | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.directory, self.name = Path(directory), name
        self.device = torch.device(device)
        self.recipe = recipe or load_recipe(self.directory)
        listed = _read_json(self.directory / f"{name}.keys.json")
        if not isinstance(listed, dict) or not isinstance(listed.get("keys"), dict):
            raise GoldenError(f"{self.directory / name}.keys.json: has no dictionary 'keys'")
        self.keys: dict[str, tuple[tuple[int, ...], str]] = {
            key: (tuple(shape), dtype) for key, (shape, dtype) in listed["keys"].items()
        }
        self.data_keys: frozenset[str] = frozenset(listed.get("data_keys", ()))
        meta = self.directory / f"{name}.meta.json"
        self.meta: dict[str, Any] = _read_json(meta) if meta.is_file() else {}
        self.arrays = _read_npz(self.directory / f"{name}.npz")
        self.data = _read_npz(self._data_file())

    def _data_file(self) -> Path:
        """The data file; for a variant without one, such as ``wote_lidar``, that of ``wote``."""
        stems = (path.name.removesuffix(".data.npz") for path in self.directory.glob("*.data.npz"))
        stem = max((stem for stem in stems if self.name.startswith(stem)), key=len, default=self.name)
        return self.directory / f"{stem}.data.npz"

    def weights(self, keys: Mapping[str, tuple[tuple[int, ...], str]] | None = None) -> dict[str, Tensor]:
        """Weights under official names, made by the recipe or read from the data file.

        Args:
            keys: Name -> (shape, dtype); those of the golden file by default.

        Raises:
            GoldenError: If a weight that is data is not in the data file.
        """
        made = {}
        for key, (shape, dtype) in (self.keys if keys is None else keys).items():
            if key not in self.data_keys:
                value = self.recipe.weight(key, shape, dtype)
            elif key in self.data:
                value = self.data[key]
            else:
                raise GoldenError(
                    f"{self.directory / self.name}.data.npz: lacks {key!r}, which the recipe does not make"
                )
            made[key] = torch.from_numpy(np.array(value))
        return made

    @cached_property
    def conversion(self) -> Conversion:
        """The weights as our checkpoint, made by the conversion that ``beyonddrive convert`` runs."""
        return to_native(self.weights(), source=f"{self.name}.keys.json", data=self.data)

    def build(self, changes: Mapping[str, Any] | None = None) -> Any:
        """The planner of the published size with these weights, in evaluation mode.

        Args:
            changes: Settings by dotted key that replace those of its config, e.g.
                ``{'trajectory_head.flow_weight': 10.0}``.
        """
        planner = build_planner(self.conversion, changes)
        params = sum(parameter.numel() for parameter in planner.parameters())
        wanted = self.meta.get("params", params)
        # The originals hold fixed plans as parameters without gradient, some of our planners as buffers.
        fixed = sum(int(np.prod(shape)) for key, (shape, _) in self.keys.items() if key in self.data_keys)
        if wanted not in (params, params + fixed):
            raise GoldenError(f"{self.name}: our planner has {params} parameters, the original {wanted}")
        return planner.to(self.device)

    def tensor(self, value: Any, dtype: torch.dtype | None = None) -> Tensor:
        """An array, a number or numbers on the device."""
        return torch.as_tensor(value, dtype=dtype).to(self.device)

    def inputs(self, lidar: bool = False, batch: int = 2) -> dict[str, Tensor]:
        """``camera``, ``status`` and, if asked for, ``lidar`` of a batch."""
        made = {"camera": self.recipe.camera(batch), "status": self.recipe.status(batch)}
        if lidar:
            made["lidar"] = self.recipe.lidar(batch)
        return {key: self.tensor(value) for key, value in made.items()}

    def samples(
        self, negatives: str | None = None, empty: bool = False, batch: int = 2, classes: int = 7
    ) -> list[PlanSample]:
        """Targets of a batch.

        Args:
            negatives: A case of the recipe (``'all'``, ``'none'``, ...); None for samples without negatives.
            empty: Without agents.
            batch: Samples.
            classes: Classes of the bird's-eye-view map.
        """
        name = "target/trajectory" if batch <= 2 else f"target/trajectory{batch}"
        plans = self.tensor(self.recipe.trajectory(name, batch))
        states, labels = map(self.tensor, self.recipe.agents(batch, empty=empty))
        bev = self.tensor(self.recipe.bev_map(batch, classes=classes))
        made = []
        for row in range(batch):
            sample = PlanSample(metainfo={"token": f"scene{row}"})
            sample.gt = BaseDataElement(
                trajectory=plans[row],
                agent_states=states[row],
                agent_labels=labels[row],
                bev_semantic_map=bev[row],
            )
            if negatives is not None:
                plan = self.tensor(self.recipe.negatives(negatives, batch))[row : row + 1]
                sample.negatives = BaseDataElement(plans=plan, valid=plan.abs().sum((1, 2)) > 0)
            made.append(sample)
        return made

    def normal(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The recipe's standard-normal numbers of this name, float32."""
        return self.tensor(self.recipe.normal(name, shape)).float()

    def draws(self, index: int, *shape: int, kind: str = "normal", high: int | None = None) -> Tensor:
        """The ``index``-th random draw of a stochastic call: ``kind`` is normal, uniform or int."""
        return self.tensor(self.recipe.noise(self.name, index, shape, kind, high))

    def compare(self, values: Mapping[str, Any], prefix: str = "") -> Iterator[Comparison]:
        """Compare named values with the golden arrays of the same names; names without one are passed over.

        Args:
            values: Name without its group -> tensor, array or number.
            prefix: Start of every name.
        """
        for name, value in values.items():
            key = self.find(prefix + name)
            if key is not None:
                yield from self.compare_one(key, value)

    def compare_one(self, key: str, value: Any) -> Iterator[Comparison]:
        """Compare one value with the array ``key`` (with its group): the array, and a probe's statistics."""
        ours = _array(value)
        golden = self.arrays[key]
        if not key.startswith("probe/"):
            yield Comparison(key, ours, golden)
            return
        name = key.removeprefix("probe/")
        if ours.shape != tuple(self.arrays[f"shape/{name}"]):
            yield Comparison(key, ours, golden)
            return
        ours, statistics = self.recipe.probe(ours, golden.size)
        yield Comparison(key, ours, golden)
        yield from (
            Comparison(f"stat/{name}[{i}]", ours, theirs, STATISTICS_TOLERANCE)
            for i, (ours, theirs) in enumerate(zip(statistics, self.arrays[f"stat/{name}"], strict=True))
        )

    def compare_absent(self, name: str, value: Any, expected: Any) -> Iterator[Comparison]:
        """Compare a term for which there is no data, where the original's mean over nothing gives NaN.

        Ours must be ``expected`` instead (MODELS, section 11, quirk 2). If the golden value is a number after
        all, it is compared as usual.
        """
        key = self.find(name)
        if key is None:
            return
        if np.isnan(self.arrays[key]).all():
            yield Comparison(key, _array(value), _array(expected))
        else:
            yield from self.compare_one(key, value)

    def find(self, name: str) -> str | None:
        """Key of the array of this name, with its group; None if there is none."""
        return next((kind + name for kind in KINDS if kind + name in self.arrays), None)

    def wanted(self) -> set[str]:
        """Keys of all arrays that a comparison should cover."""
        return {key for key in self.arrays if key.startswith(KINDS)}


def _array(value: Any) -> NDArray[Any]:
    """A value, on whatever device it is, as an array."""
    return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)


def compare_planner(golden: GoldenFile) -> Iterator[Comparison]:
    """Run the comparison of the planner that the golden file's keys are recognised as.

    Raises:
        GoldenError: If its plugin has no ``golden.py``.
    """
    name = f"{package_of(golden.conversion.release)}.golden"
    if importlib.util.find_spec(name) is None:
        raise GoldenError(
            f"{golden.name}: is a {golden.conversion.release.name}, whose plugin has no golden.py with "
            f"compare(golden)"
        )
    yield from importlib.import_module(name).compare(golden)


def load_recipe(directory: str | Path) -> ModuleType:
    """Run ``recipe.py`` of a golden directory and return it as a module.

    Raises:
        GoldenError: If there is none.
    """
    path = Path(directory) / "recipe.py"
    spec = importlib.util.spec_from_file_location("golden_recipe", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise GoldenError(f"{path}: no such file: give a directory with recipe.py and <planner>.keys.json")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise GoldenError(f"{path}: no such file")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise GoldenError(f"{path}: is no JSON ({error})") from error


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    return read_data(path) if path.is_file() else {}
