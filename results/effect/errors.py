"""How far plans and failures are from the expert: ``python results/effect/errors.py POOL --plans ...``.

``POOL`` holds scored proposals of the split that the plans (``beyonddrive test --plans``) are of, and its
experts. ``errors.csv`` gets the mean distance of positions from the expert [m] of the nearest failure of a
scene, as a planner is repelled from it, and of the plans; their ratio; and the share of scenes [%] in which
the plan is nearer to the expert than the failure is. Scenes without a failure are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.stores.selection import displacement
from beyonddrive.results.effect.pool_failures import FAILURE, pool_failures
from beyonddrive.results.row_files import add_rows, named_files

OUT = Path(__file__).parent / "errors.csv"


def cells_of(errors: NDArray[np.float64], failures: NDArray[np.float64]) -> dict[str, str]:
    """Figures of a row from distances (N,) of its plans and of the failures."""
    return {
        "scenes": str(len(errors)),
        "distance": f"{errors.mean():.2f}",
        "ratio": f"{errors.mean() / failures.mean():.2f}",
        "nearer than the failure": f"{100.0 * (errors < failures).mean():.1f}",
    }


def main() -> None:
    """Measure, and add the rows to ``errors.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pool", type=Path, metavar="POOL")
    parser.add_argument("--plans", nargs="+", action="extend", required=True, metavar="ROW=FILE")
    args = parser.parse_args()
    pool = pool_failures(args.pool)
    known = pool.has_failure
    failures = displacement(pool.failures[known], pool.experts[known])
    # (no plans of its own: what the others are compared with)
    rows = {FAILURE: cells_of(failures, failures) | {"ratio": "", "nearer than the failure": ""}}
    for name, file in named_files(args.plans).items():
        rows[name] = cells_of(displacement(pool.plans(file)[known], pool.experts[known]), failures)
    print(add_rows(OUT, rows, FAILURE))


if __name__ == "__main__":
    main()
