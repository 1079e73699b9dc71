"""Latency of single scenes: ``python benchmarks/latency.py [CONFIG ...] [--json FILE]``.

Each planner of the published size, with random weights, plans one scene at a time on two threads: exported
(:class:`~beyonddrive.deploy.ExportedPlanner`) and, alternating with it so that other load hits both, as plain
modules with unfused attention. The medians of both are printed with their ratio, which a busy machine
distorts least, and beside the median of the official code, which was measured once on a quiet machine of this
kind.

On a busy machine, ``--cpu-time --threads 1`` counts what the processor did instead of what the clock
did; that compares with the unfused run only, and stands beside no figure of the official code.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import beyonddrive
from beyonddrive.deploy import ExportedPlanner
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.runner import load_config
from beyonddrive.plugins.base.planner import Planner
from beyonddrive.registry import MODELS

MODEL_CONFIGS = Path(beyonddrive.__path__[0]) / "configs" / "_base_" / "models"
OFFICIAL_MS = {
    "transfuser_r34": 310.0,
    "ltf_r34": 323.0,
    "ltf-delta_r34": 255.0,
    "flow_policy_r34": 264.0,
    "diffusiondrive_r34": 350.0,
    "meanfuser_r34": 275.0,
    "wote_r34": 813.0,
}
"""Official code, median [ms], two threads, one scene; FlowPolicy with one proposal. Not measured here."""
OFFICIAL_THREADS = 2


@dataclass(frozen=True)
class Latency:
    """Figures of one planner [ms]; ``worst`` is the largest relative difference of its outputs."""

    name: str
    exported: float
    unfused: float
    official: float | None
    worst: float

    @property
    def row(self) -> str:
        """One line of the table."""
        official = f"{self.official:8.0f} {self.exported / self.official:6.2f}" if self.official else ""
        ratio = self.exported / self.unfused
        figures = f"{self.exported:9.0f} {self.unfused:8.0f} {ratio:6.2f}"
        return f"{self.name:<22}{figures} {official:<15} {self.worst:.0e}"


HEADER = (
    f"{'planner':<22}{'exported':>9} {'unfused':>8} {'ratio':>6} {'official':>8} {'ratio':>6}  difference"
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Latency of planners on single scenes.")
    parser.add_argument("configs", nargs="*", type=Path, help="default: those with an official figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time of this process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9, help="calls of each, after two that do not count")
    return parser.parse_args(argv)


def measure(
    name: str,
    planner: Planner,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    official: float | None = None,
) -> Latency:
    """Time a planner by a clock in seconds, beside what the official code took [ms], if that compares."""
    inputs = example(planner)
    exported = ExportedPlanner(planner)

    def unfused() -> dict[str, Tensor]:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            return planner(inputs)

    def fused() -> dict[str, Tensor]:
        return exported(inputs)

    times: dict[Callable[[], Any], list[float]] = {unfused: [], fused: []}
    for number in range(repeats + 2):
        for call, taken in times.items():
            start = clock()
            call()
            if number >= 2:
                taken.append(1e3 * (clock() - start))
    worst = largest_difference(unfused(), fused())
    return Latency(name, median(times[fused]), median(times[unfused]), official, worst)


def official_ms(name: str, threads: int, cpu_time: bool) -> float | None:
    """What the official code took [ms]; None if it was not measured, or not so.

    >>> official_ms("wote_r34", 2, False), official_ms("wote_r34", 1, True)
    (813.0, None)
    """
    return OFFICIAL_MS.get(name) if threads == OFFICIAL_THREADS and not cpu_time else None


def example(planner: Planner) -> dict[str, Tensor]:
    """One scene of random inputs."""
    generator = torch.Generator().manual_seed(0)
    inputs = {"status": torch.rand(1, 8, generator=generator)}
    backbone = getattr(planner, "backbone", None)
    if backbone is not None:
        inputs["camera"] = torch.rand(1, 3, *backbone.image_size, generator=generator)
        inputs["lidar"] = torch.rand(1, backbone.lidar_channels, *backbone.bev_size, generator=generator)
    return {key: value for key, value in inputs.items() if key in planner.required_inputs}


def largest_difference(plain: Mapping[str, Tensor], exported: Mapping[str, Tensor]) -> float:
    """Largest difference of the outputs, relative to 1 + the largest magnitude of each; NaN if one is NaN."""
    apart = [(exported[name] - value).abs().max() / (1 + value.abs().max()) for name, value in plain.items()]
    return float(torch.stack(apart).max())


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    paths = args.configs or [MODEL_CONFIGS / f"{name}.py" for name in OFFICIAL_MS]
    clock = time.process_time if args.cpu_time else time.perf_counter
    kind = "ms of processor time" if args.cpu_time else "ms"
    print(f"{kind} per scene, median of {args.repeats}, {args.threads} threads\n{HEADER}")
    results = []
    for path in paths:
        torch.manual_seed(0)
        planner = MODELS.build(load_config(path).model).eval()
        for buffer in planner.buffers():  # anchors and mixtures, which are made from data
            if not bool(torch.isfinite(buffer).all()):
                buffer.copy_(torch.rand_like(buffer))
        official = official_ms(path.stem, args.threads, args.cpu_time)
        results.append(measure(path.stem, planner, args.repeats, clock, official))
        print(results[-1].row, flush=True)
    if args.json is not None:
        figures = {"threads": args.threads, "planners": [asdict(result) for result in results]}
        write_atomically(args.json, json.dumps(figures, indent=2).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
