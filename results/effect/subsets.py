"""Parts of the test split by how near a failure is: ``python results/effect/subsets.py POOL OUT``.

``POOL`` holds scored proposals of the test split, which no planner sees. ``hard`` are the scenes in which one
of them fails (PDMS below 0.6) although it is within 1 m of the expert, on average over the plan: there the
score separates near plans. The bands are by the distance of the nearest failure; scenes without one are in
the last. ``subsets`` in this folder is what it gave.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml

from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.datasets.stores.selection import displacement, is_negative
from beyonddrive.engine.files import write_atomically

PARTS = {
    "hard": (0.0, 1.0),
    "failure_within_0.5m": (0.0, 0.5),
    "failure_at_0.5_to_1m": (0.5, 1.0),
    "failure_at_1_to_2m": (1.0, 2.0),
    "failure_beyond_2m": (2.0, np.inf),
}
"""Name of a part, and the distances [m] of the nearest failure in it, the upper one included."""


def main() -> None:
    """Write the scene filters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pool", type=Path, metavar="POOL")
    parser.add_argument("out", type=Path, metavar="DIR")
    args = parser.parse_args()
    pool = NegativePool(args.pool)
    nearest = {}
    for token in pool.tokens:
        record = pool[token]
        distances = displacement(record.plans, record.expert)[is_negative(record.scores)]
        nearest[token] = float(distances.min(initial=np.inf))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (low, high) in PARTS.items():
        tokens = sorted(token for token, at in nearest.items() if low < at <= high or at == low == 0.0)
        write_atomically(args.out / f"{name}.yaml", yaml.safe_dump({"tokens": tokens}).encode())
        print(f"{name}: {len(tokens)} of {len(nearest)} scenes")


if __name__ == "__main__":
    main()
