"""Where plans and failures lie, seen from the expert: ``python results/effect/offsets.py POOL --plans ...``.

``POOL`` holds scored proposals of the split that the plans (``beyonddrive test --plans``) are of, and its
experts. ``offsets.csv`` gets mean offsets from the expert [m], along and across its direction at 1, 2 and 4 s
(forward and to the left are positive), and the share of plans [%] that end to the right of it. A failure is
the nearest one of a scene, as a planner is repelled from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.results.effect.pool_failures import FAILURE, pool_failures
from beyonddrive.results.row_files import add_rows, named_files

POSES = {"1 s": 1, "2 s": 3, "4 s": 7}
OUT = Path(__file__).parent / "offsets.csv"


def offsets(plans: NDArray[np.float64], experts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets (N, 8, 2) of plans (N, 8, 3) from experts (N, 8, 3): along and across the expert's heading."""
    apart = plans[..., :2] - experts[..., :2]
    cos, sin = np.cos(experts[..., 2]), np.sin(experts[..., 2])
    along = apart[..., 0] * cos + apart[..., 1] * sin
    across = apart[..., 1] * cos - apart[..., 0] * sin
    return np.stack([along, across], axis=-1)


def main() -> None:
    """Measure, and add the rows to ``offsets.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pool", type=Path, metavar="POOL")
    parser.add_argument("--plans", nargs="*", default=[], metavar="ROW/SEED=FILE")
    args = parser.parse_args()
    pool = pool_failures(args.pool)
    known = pool.has_failure
    found = {FAILURE: offsets(pool.failures[known], pool.experts[known])}
    for name, file in named_files(args.plans).items():
        found[name] = offsets(pool.plans(file), pool.experts)
    keys = [f"{way} {time}" for way in ("along", "across") for time in POSES] + ["right"]
    rows = {}
    for name, values in found.items():
        means = values.mean(axis=0)
        figures = [f"{means[pose, axis]:+.3f}" for axis in (0, 1) for pose in POSES.values()]
        figures.append(f"{100.0 * (values[:, -1, 1] < 0.0).mean():.1f}")
        rows[name] = dict(zip(keys, figures, strict=True))
    print(add_rows(OUT, rows, FAILURE))


if __name__ == "__main__":
    main()
