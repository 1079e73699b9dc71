"""How fast training samples are read: our feature store against a gzip pickle per scene and builder.

``python benchmarks/data_loading.py`` writes the features of some scenes in both layouts and reads them
through a ``DataLoader`` with one worker, in random order. The alternative is the layout of the NAVSIM devkit:
float32 tensors, one gzip file (level 1) per scene and builder with a pickled dict, all features of a planner
and all its targets being one builder each, collated by torch. Both give the same samples, the images of ours
as uint8, which the planner divides by 255 on its device.

Images come from a data root (``--data-root``, ``--split``: a split with camera files). Without one, a
generated world is written first (needs the extra ``synth``). ``--noise`` adds to each value of an image what
a sensor would, normal with this standard deviation, because painted pictures are easier to compress than
photographs.

The page cache is warm. A disk must give the samples/s times the bytes of a sample.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import pickle
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, default_collate

from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.stores.feature_cache import KIND
from beyonddrive.datasets.stores.pictures import decoded
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.datasets.transforms.encoding import EncodeCamera
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.engine.collation import collate_samples

FEATURES = [
    {"type": "LoadCameraStitch", "size": (256, 1024)},
    {"type": "EgoStatus"},
    {"type": "PlanTarget"},
    {"type": "AgentTargets"},
    {"type": "BEVMapTarget", "walkways": False},
]
"""Those of LTF at the published size."""
INPUTS = ("camera", "status")
ENCODINGS: dict[str, dict[str, Any] | None] = {
    "raw": None,
    "png": {"format": "png"},
    "webp-lossless": {"format": "webp"},
    "webp-90": {"format": "webp", "quality": 90},
    "jpeg-95": {"format": "jpeg", "quality": 95},
    "jpeg-90": {"format": "jpeg", "quality": 90},
    "jpeg-75": {"format": "jpeg", "quality": 75},
}
NAVTRAIN = 103_000
"""Scenes of navtrain."""
SHARD = 60
"""Scenes per shard: about those of a NAVSIM log."""

Arrays = Mapping[str, NDArray[Any]]


# ------------------------------------------------------------------ content
def scenes_of(data_root: Path, split: str, count: int) -> tuple[list[dict[str, Any]], float]:
    """Features of up to ``count`` scenes, and how many a process makes per second."""
    dataset = NavsimDataset(data_root, split, feature_pipeline=FEATURES)
    started = time.perf_counter()
    made = [dict(dataset.features(index)) for index in range(min(count, len(dataset)))]
    return made, len(made) / (time.perf_counter() - started)


def repeated(scenes: Sequence[dict[str, Any]], count: int, noise: float) -> dict[str, dict[str, Any]]:
    """As many scenes as asked for, by token, each with its own noise in the image."""
    rng = np.random.default_rng(0)
    found = {}
    for number in range(count):
        arrays = dict(scenes[number % len(scenes)])
        del arrays["token"], arrays["log_name"]
        if noise > 0:
            image = arrays["camera"] + rng.normal(0.0, noise, arrays["camera"].shape)
            arrays["camera"] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        found[f"{number:016x}"] = arrays
    return found


# ------------------------------------------------------------------ a gzip pickle per scene and builder
def write_pickles(root: Path, scenes: Mapping[str, Arrays]) -> None:
    """Write the alternative."""
    for token, arrays in scenes.items():
        folder = root / f"log-{int(token, 16) // SHARD:04d}" / token
        folder.mkdir(parents=True)
        tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}
        tensors["camera"] = tensors["camera"].float() / 255
        tensors["bev_semantic_map"] = tensors["bev_semantic_map"].long()
        parts = {
            "transfuser_feature": {key: tensors[key] for key in INPUTS},
            "transfuser_target": {key: tensors[key] for key in tensors.keys() - set(INPUTS)},
        }
        for name, part in parts.items():
            with gzip.open(folder / f"{name}.gz", "wb", compresslevel=1) as file:
                pickle.dump(part, file)


class Pickles(Dataset[Any]):
    """Reads the alternative."""

    def __init__(self, root: Path, tokens: Sequence[str]) -> None:
        self.folders = [root / f"log-{int(token, 16) // SHARD:04d}" / token for token in tokens]

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> Any:
        parts = []
        for name in ("transfuser_feature", "transfuser_target"):
            with gzip.open(self.folders[index] / f"{name}.gz", "rb") as file:
                parts.append(pickle.load(file))  # noqa: S301 - written by this script
        return {"inputs": parts[0], "targets": parts[1], "token": self.folders[index].name}


# ------------------------------------------------------------------ ours
def write_store(root: Path, scenes: Mapping[str, Arrays], encoding: Mapping[str, Any] | None) -> float:
    """Write a store; return how many scenes a process encodes and writes per second."""
    step = None if encoding is None else EncodeCamera(**encoding)
    writer = ShardWriter(root, KIND, {"image": dict(encoding or {})}, "a benchmark")
    tokens, started = list(scenes), time.perf_counter()
    for start in range(0, len(tokens), SHARD):
        records = {}
        for token in tokens[start : start + SHARD]:
            records[token] = dict(scenes[token]) if step is None else step(dict(scenes[token]))
        writer.write(f"log-{start // SHARD:04d}", records)
    return len(tokens) / (time.perf_counter() - started)


class Stored(Dataset[Any]):
    """Reads a store as a data set does: decoded, and packed for a planner."""

    def __init__(self, root: Path) -> None:
        self.store = ShardStore(root, KIND)
        self.tokens = self.store.tokens
        self.pack = PackPlanInputs()

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Any:
        token = self.tokens[index]
        return self.pack({**decoded(self.store[token]), "token": token})


# ------------------------------------------------------------------ measuring
def check_equal(pickles: Pickles, stored: Stored, tolerance: float) -> None:
    """Both layouts give the same samples."""
    if sorted(folder.name for folder in pickles.folders) != sorted(stored.tokens):
        raise RuntimeError("the scenes differ")
    places = {token: place for place, token in enumerate(stored.tokens)}
    for left in map(pickles.__getitem__, range(len(pickles))):
        _check_sample(left, stored[places[left["token"]]], tolerance)


def _check_sample(left: Any, right: Any, tolerance: float) -> None:
    image = right["inputs"]["camera"].float() / 255
    worst = float((image - left["inputs"]["camera"]).abs().mean())
    if worst > tolerance or not torch.equal(right["inputs"]["status"], left["inputs"]["status"]):
        raise RuntimeError(f"the inputs differ, images by {worst:.4f} on average")
    targets = right["data_samples"].gt
    for key, value in left["targets"].items():
        if not torch.equal(targets.get(key).to(value.dtype), value):
            raise RuntimeError(f"target {key} differs")


def rate_of(dataset: Dataset[Any], batch_size: int, seconds: float, collate: Callable[..., Any]) -> float:
    """Samples per second through a loader with one worker, after a first pass; whole passes, at least one."""
    generator = torch.Generator().manual_seed(0)
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size, shuffle=True, num_workers=1, generator=generator, drop_last=True,
        collate_fn=collate, persistent_workers=True,
    )  # fmt: skip
    for _ in loader:  # starts the worker, maps the shards
        pass
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < seconds:
        for batch in loader:
            count += batch_size
            del batch
    return count / (time.perf_counter() - started)


def size_of(folder: Path) -> tuple[int, int]:
    """Bytes and files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files), len(files)


def files_of_store(scenes: int) -> int:
    """Files of a store of so many scenes: its shards and its manifest."""
    return math.ceil(scenes / SHARD) + 1


def measure(
    scenes: Mapping[str, Arrays], encodings: Sequence[str], batch_size: int, seconds: float
) -> list[dict[str, Any]]:
    """One row per layout: samples/s, bytes of a scene, files of navtrain, and scenes/s that are written.

    Raises:
        RuntimeError: If a layout gives other samples than the first.
    """
    count = len(scenes)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pickles"
        started = time.perf_counter()
        write_pickles(folder, scenes)
        written = count / (time.perf_counter() - started)
        pickles = Pickles(folder, list(scenes))
        rate = rate_of(pickles, batch_size, seconds, default_collate)
        size, files = size_of(folder)
        rows.append(
            {
                "layout": "gzip pickles",
                "rate": rate,
                "bytes": size / count,
                "files": NAVTRAIN * files // count,
            }
            | {"write": written, "faster": 1.0, "smaller": 1.0}
        )
        for encoding in encodings:
            folder = Path(name) / encoding
            written = write_store(folder, scenes, ENCODINGS[encoding])
            check_equal(pickles, Stored(folder), 0.03 if "quality" in (ENCODINGS[encoding] or {}) else 1e-6)
            rate = rate_of(Stored(folder), batch_size, seconds, collate_samples)
            size, files = size_of(folder)
            assert files == files_of_store(count), files
            row = {"layout": encoding, "rate": rate, "bytes": size / count, "files": files_of_store(NAVTRAIN)}
            row |= {"write": written, "faster": rate / rows[0]["rate"]}
            rows.append(row | {"smaller": rows[0]["bytes"] / row["bytes"]})
    return rows


def show(rows: Sequence[Mapping[str, Any]], making: float, cores: int) -> None:
    """Print the rows, and what they come to for all of navtrain."""
    print("layout          samples/s  faster   kB/sample  smaller    write/s")
    for row in rows:
        print(
            f"{row['layout']:14} {row['rate']:10.0f} {row['faster']:7.1f}x {row['bytes'] / 1e3:10.0f} "
            f"{row['smaller']:7.1f}x {row['write']:10.0f}"
        )
    print(f"\n{NAVTRAIN} scenes; making them takes {1e3 / making:.0f} ms of a core each before writing")
    print(
        "layout          GB      files    make, hours: 1 / 16 machines   an epoch's reading, minutes a worker"
    )
    for row in rows:
        hours = NAVTRAIN * (1 / making + 1 / row["write"]) / 3600 / cores
        print(
            f"{row['layout']:14} {NAVTRAIN * row['bytes'] / 1e9:6.1f} {row['files']:9} {hours:18.2f} / "
            f"{hours / 16:.3f} {NAVTRAIN / row['rate'] / 60:24.1f}"
        )
    print(f"({cores} processes a machine)")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Compare the feature store with a gzip pickle per scene.")
    parser.add_argument(
        "--data-root", type=Path, help="data root with camera files; default: a generated one"
    )
    parser.add_argument("--split", default="bench")
    parser.add_argument("--scenes", type=int, default=240, help="scenes in each layout")
    parser.add_argument("--distinct", type=int, default=48, help="scenes that they repeat")
    parser.add_argument("--batch", type=int, default=16, help="scenes of a batch")
    parser.add_argument("--noise", type=float, default=2.0, help="standard deviation [of 255]")
    parser.add_argument("--seconds", type=float, default=5.0, help="reading time per layout")
    parser.add_argument("--encodings", nargs="+", choices=list(ENCODINGS), default=list(ENCODINGS))
    parser.add_argument("--processes", type=int, default=16, help="processes of a machine that makes a cache")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of all figures")
    args = parser.parse_args(argv)
    if args.batch > args.scenes:
        parser.error(f"--scenes {args.scenes} are less than a batch of {args.batch}")
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        root = args.data_root
        if root is None:
            from beyonddrive.tools import create_data

            root = Path(name)
            size = ["--image-size", "1920x1080", "--cameras", "front", "--no-lidar"]
            splits = f"{args.split}:{args.distinct}"
            if create_data.main(["synth", "--out", name, "--splits", splits, *size]):
                return 1
        scenes, making = scenes_of(root, args.split, args.distinct)
    content = repeated(scenes, args.scenes, args.noise)
    print(
        f"{args.scenes} scenes of {len(scenes)}, images 1024 x 256, noise {args.noise:g}, one worker, "
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, OpenCV {cv2.__version__}, torch "
        f"{torch.__version__}",
        flush=True,
    )
    rows = measure(content, args.encodings, args.batch, args.seconds)
    show(rows, making, args.processes)
    if args.json:
        print(json.dumps({"noise": args.noise, "making": making, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
