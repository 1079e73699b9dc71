"""How many scenes per second are cached and scored by 1 and 2 processes, and whether memory stays flat.

``python benchmarks/throughput.py`` repeats the golden scenes of the tests to as many as asked for, each a
scene of its own with its own log, metric cache and plans, and prints

* scenes per second of metric caches (``evaluation.metric_caches.cache_metrics``) and of scores
  (``evaluation.split_scoring.SplitScoring``) with each number of workers, and their ratio, after a fifth of
  the scenes, so that starting processes and loading maps and kernels does not count. Where other programs
  use the cores too, "unhindered" is what the rate would be without them: workers that are running or waiting
  for a core, over CPU time per scene;
* the memory of ``tools/score.py`` and its workers, together, while it scores all scenes: what it needs for a
  fifth of them, and by how much it grows until the end.

Rates are by the wall clock: run it on a machine that does nothing else. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.logs import read_log
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.stores.fingerprints import Fingerprint
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.engine.executors import ProcessExecutor
from beyonddrive.evaluation.metric_caches import KIND
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.evaluation.pdm import build_metric_cache
from beyonddrive.evaluation.pdm.cache.metric_cache import CACHE_VERSION
from beyonddrive.evaluation.plan_files import PlanFile, write_arrays
from beyonddrive.evaluation.split_scoring import SplitScoring

REPOSITORY = Path(__file__).parents[1]
GOLDEN = REPOSITORY / "tests" / "data" / "golden" / "pdms" / "data"
SPLIT = "golden"
LOG_SCENES = 50
"""Scenes per log of the store of metric caches."""
LOG_WINDOWS = 10
"""Scenes per log whose metric caches are made."""
WARM_UP = 0.2
"""Share of the scenes before anything counts."""


# ------------------------------------------------------------------ many scenes from a few
def token_of(number: int) -> str:
    """Token of a repeated scene."""
    return f"{number:016x}"


def fans(scenes: Sequence[Scene], num_plans: int) -> list[NDArray[np.float64]]:
    """Plans (N, 8, 3) of each scene: the expert's, faster and slower, drifting to either side."""
    rng = np.random.default_rng(0)
    share = np.arange(1, 9) / 8.0
    plans = [np.repeat(scene.expert_plan[None], num_plans, axis=0) for scene in scenes]
    for fan in plans:
        fan[..., :2] *= rng.uniform(0.3, 1.4, (num_plans, 1, 1))
        fan[..., 1] += rng.normal(0.0, 1.5, (num_plans, 1)) * share**2
    return plans


def write_store(folder: Path, scenes: Sequence[Scene], root: NavsimRoot, count: int) -> None:
    """Metric caches of ``count`` scenes, in logs that are not here."""
    arrays = [build_metric_cache(scene, root.map(scene.map_location)).to_arrays() for scene in scenes]
    writer = ShardWriter(folder, KIND, {"cache_version": CACHE_VERSION, "split": SPLIT}, "a benchmark")
    for start in range(0, count, LOG_SCENES):
        numbers = range(start, min(start + LOG_SCENES, count))
        log = f"repeated-{start:08d}"
        records = {token_of(number): arrays[number % len(arrays)] for number in numbers}
        writer.write(log, records, sources={f"logs/{log}.pkl": Fingerprint(0, 0, "")})


def write_logs(folder: Path, root: NavsimRoot, count: int) -> None:
    """A data root with at least ``count`` scenes, in logs that repeat a window under other tokens."""
    logs = [read_log(path)[: SceneFilter().num_frames] for path in root.log_paths(SPLIT)]
    split = folder / "navsim_logs" / SPLIT
    split.mkdir(parents=True)
    (folder / "maps").symlink_to(root.maps_root.resolve())
    for number in range(-(-count // LOG_WINDOWS)):
        name = f"repeated-{number:08d}"
        renamed = [
            {
                **frame,
                "log_name": name,
                "token": f"{number:08x}{window:04x}{index:04x}",
                "timestamp": frame["timestamp"] + 1_000_000_000 * window,
            }
            for window in range(LOG_WINDOWS)
            for index, frame in enumerate(logs[number % len(logs)])
        ]
        (split / f"{name}.pkl").write_bytes(pickle.dumps(renamed))


# ------------------------------------------------------------------ speed
class Rate(NamedTuple):
    """Scenes per second, and what became of the workers' time.

    ``cpu_ms`` is the CPU time of the workers per scene [ms], ``parent_ms`` that of the process that feeds
    them, ``busy`` the number of workers that had work on average: running, or waiting for a core.
    """

    per_second: float
    cpu_ms: float
    parent_ms: float
    busy: float

    @property
    def unhindered(self) -> float:
        """Scenes per second if no other program took the cores from the workers."""
        return 1e3 * self.busy / self.cpu_ms


def children_of(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def seconds_of(pid: int) -> NDArray[np.float64]:
    """Seconds (2,) that the threads of a process have been running, and waiting for a core."""
    stats = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return 1e-9 * np.array([[float(value) for value in fields[:2]] for fields in stats]).sum(axis=0)


def steady_rate(results: Iterable[object], total: int) -> Rate:
    """Rate of results after the warm-up, of which there must be ``total``."""
    first = max(int(WARM_UP * total), 1)
    count, marks = 0, []
    for count, _ in enumerate(results, 1):
        if count in (first, total):
            workers = sum((seconds_of(child) for child in children_of(os.getpid())), np.zeros(2))
            marks.append([time.perf_counter(), time.process_time(), *workers])
    if count != total:
        raise RuntimeError(f"{total - count} of {total} scenes have no result")
    wall, parent, run, wait = np.subtract(marks[1], marks[0])
    scenes = total - first
    return Rate(scenes / wall, 1e3 * run / scenes, 1e3 * parent / scenes, (run + wait) / wall)


class TimedExecutor(ProcessExecutor):
    """Notes the rate of its results."""

    rate: Rate

    def map(self, function, items, *args, **kwargs):  # type: ignore[no-untyped-def]
        """As that of other executors."""
        results: list[object] = []

        def noted() -> Iterator[object]:
            for result in super(TimedExecutor, self).map(function, items, *args, **kwargs):
                results.append(result)
                yield result

        self.rate = steady_rate(noted(), len(items))
        yield from results


def caching_rate(data: Path, folder: Path, num_workers: int) -> Rate:
    """Rate at which metric caches are made."""
    executor = TimedExecutor(num_workers)
    report = cache_metrics(NavsimRoot(data), SPLIT, SceneFilter(), folder, executor)
    if not report.complete:
        raise RuntimeError(f"caching failed: {report}")
    logs = executor.rate
    return Rate(
        LOG_WINDOWS * logs.per_second, logs.cpu_ms / LOG_WINDOWS, logs.parent_ms / LOG_WINDOWS, logs.busy
    )


def scoring_rate(root: NavsimRoot, plans: Path, store: Path, num_workers: int) -> Rate:
    """Rate at which scenes are scored."""
    scoring = SplitScoring(root, SPLIT, PlanFile(plans), cache_dir=store)
    results = scoring.run(ProcessExecutor(num_workers), progress_bar=False)
    return steady_rate(results, len(scoring.plans))


def compare(
    name: str, workers: Sequence[int], repeat: int, measure: Callable[[int, int], Rate]
) -> dict[str, float]:
    """Print the best of some measurements of a rate with each number of workers."""
    figures: dict[str, float] = {}
    rates: dict[int, Rate] = {}
    for attempt in range(repeat):
        for count in workers:
            rate = measure(count, attempt)
            rates[count] = max(rates.get(count, rate), rate)
    one = rates[workers[0]]
    for count, rate in rates.items():
        ratio, unhindered = rate.per_second / one.per_second, rate.unhindered / one.unhindered
        print(
            f"{name:8}{count:3} worker(s) {rate.per_second:8.1f} scenes/s {ratio:6.2f}x   "
            f"{rate.cpu_ms:.2f} ms CPU per scene (+{rate.parent_ms:.2f}), {rate.busy:.2f} workers busy: "
            f"unhindered {rate.unhindered:.1f} scenes/s {unhindered:6.2f}x",
            flush=True,
        )
        figures[f"{name}_scenes_per_s_{count}"] = rate.per_second
        figures[f"{name}_cpu_ms_{count}"] = rate.cpu_ms + rate.parent_ms
        figures[f"{name}_ratio"], figures[f"{name}_ratio_unhindered"] = ratio, unhindered
    return figures


# ------------------------------------------------------------------ memory
def memory_of(pid: int) -> float:
    """Memory [MB] of a process and its children that could not be read again from a file."""
    total = 0.0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += float(line.split()[1]) / 1024
        return total + sum(memory_of(child) for child in children_of(pid))
    except (FileNotFoundError, ProcessLookupError):
        return total


def memory_growth(command: Sequence[str], parts: Path, num_scenes: int) -> tuple[float, float]:
    """Peak memory [MB] until the warm-up is over, and by how much a later peak is above it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    warm, peak = 0.0, 0.0
    while process.poll() is None:
        used = memory_of(process.pid)
        # (256 scenes a part; the last one may hold fewer)
        if 256 * len(list(parts.glob("*.safetensors"))) < WARM_UP * num_scenes and peak == 0.0:
            warm = max(warm, used)
        else:
            peak = max(peak, used)
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    return warm, max(peak - warm, 0.0)


# ------------------------------------------------------------------ all of it
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the throughput of caching and scoring.")
    parser.add_argument("--scenes", type=int, default=10_000, help="scenes of the memory test")
    parser.add_argument("--scored", type=int, default=5000, help="scenes of the rate of scores")
    parser.add_argument("--cached", type=int, default=2000, help="scenes of the rate of metric caches")
    parser.add_argument("--num-plans", type=int, default=64, help="plans per scene")
    parser.add_argument("--num-workers", type=int, default=2, help="compare so many processes with one")
    parser.add_argument("--repeat", type=int, default=3, help="measurements, of which the best counts")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of all figures")
    args = parser.parse_args(argv)
    root = NavsimRoot(GOLDEN)
    scenes = list(root.scenes(SPLIT))
    plans = fans(scenes, args.num_plans)
    workers = (1, args.num_workers)
    figures: dict[str, float] = {"cores": float(len(os.sched_getaffinity(0)))}
    print(
        f"{len(scenes)} scenes repeated, {args.num_plans} plans each, {figures['cores']:.0f} cores",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_logs(folder / "data", root, args.cached)
        figures |= compare(
            "caching", workers, args.repeat,
            lambda count, attempt: caching_rate(folder / "data", folder / f"caches{count}-{attempt}", count),
        )  # fmt: skip
        write_store(folder / "store", scenes, root, max(args.scored, args.scenes))
        for file, count in (("some.npz", args.scored), ("all.npz", args.scenes)):
            fan = ((token_of(number), plans[number % len(plans)]) for number in range(count))
            write_arrays(folder / file, fan)
        figures |= compare(
            "scoring", workers, args.repeat,
            lambda count, _: scoring_rate(root, folder / "some.npz", folder / "store", count),
        )  # fmt: skip
        command = [sys.executable, str(REPOSITORY / "tools" / "score.py"), "--data-root", str(GOLDEN)]
        command += ["--split", SPLIT, "--plans", str(folder / "all.npz"), "--out", str(folder / "scores.npz")]
        command += ["--cache-dir", str(folder / "store"), "--num-workers", str(args.num_workers)]
        warm, growth = memory_growth(command, folder / ".scores.npz.parts", args.scenes)
        written = len(PlanFile(folder / "scores.npz"))
    share = f"{WARM_UP:.0%} of {written} scenes"
    print(f"memory  {args.num_workers:3} worker(s) {warm:10.0f} MB for {share}, then {growth:.0f} MB more")
    figures |= {"memory_mb": warm, "memory_growth_mb": growth, "memory_scenes": float(written)}
    if args.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
