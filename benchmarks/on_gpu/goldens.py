"""Every planner beside its original, on a GPU: outputs, losses and gradients of the golden files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch

import beyonddrive
from beyonddrive.benchmarks.on_gpu.rows import FAIL, PASS, Row, append
from beyonddrive.checkpoints.golden import TOLERANCE, GoldenFile, compare_planner

GOLDEN = Path(beyonddrive.__path__[0]) / "tests" / "data" / "golden" / "models"
ALLOWED = {"cpu": TOLERANCE, "cuda": 1e-4}
"""Largest difference relative to 1 + the largest golden magnitude. The goldens were recorded on a CPU."""


def planners() -> list[str]:
    """Stems of the golden files that have arrays."""
    return sorted(path.stem for path in GOLDEN.glob("*.npz") if not path.name.endswith(".data.npz"))


def compare(name: str, device: str) -> Row:
    """Compare one planner, in float32 without TF32."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    allowed = ALLOWED[device]
    golden = GoldenFile(GOLDEN, name, device=device)
    found = {result.name: result.difference for result in compare_planner(golden)}
    arrays = golden.wanted()
    missing = sorted(arrays - found.keys())
    # (the statistics of a probe sum up thousands of elements, each of which the probe may differ in)
    beyond = sorted(name for name in arrays & found.keys() if not found[name] <= allowed)
    worst = max(arrays & found.keys(), key=lambda name: found[name])
    text = f"{len(arrays)} arrays, worst {found[worst]:.1e} ({worst})"
    if missing:
        text += f"; not compared: {', '.join(missing[:3])}"
    if beyond:
        text += f"; {len(beyond)} beyond: {', '.join(f'{key} {found[key]:.1e}' for key in beyond[:3])}"
    verdict = FAIL if missing or beyond else PASS
    return Row(
        "golden",
        name,
        verdict,
        text,
        f"{allowed:g}",
        {key: found[key] for key in sorted(arrays & found.keys())},
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Compare all planners, several at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--planners", nargs="+", choices=planners(), default=planners())
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    failed = False
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(compare, name, args.device): name for name in args.planners}
        for job in as_completed(jobs):
            try:
                row = job.result()
            except Exception as error:  # one planner must not end the comparison of the others
                row = Row(
                    "golden", jobs[job], FAIL, f"{type(error).__name__}: {' '.join(str(error).split())}"
                )
            failed |= row.verdict == FAIL
            append(args.out, row)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
