"""Scenes whose score separates near plans: ``python results/effect/hard_subset.py POOL test_hard.yaml``.

``POOL`` holds scored proposals of the test split, which no planner sees. A scene is hard if one of them fails
(PDMS below 0.6) although it is within ``--within`` metres of the expert, on average over the plan.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml

from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.datasets.stores.selection import displacement, is_negative
from beyonddrive.engine.files import write_atomically


def main() -> None:
    """Write the scene filter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pool", type=Path, metavar="POOL")
    parser.add_argument("out", type=Path, metavar="OUT.yaml")
    parser.add_argument("--within", type=float, default=1.0, metavar="M")
    args = parser.parse_args()
    pool = NegativePool(args.pool)
    hard = []
    for token in pool.tokens:
        record = pool[token]
        distances = displacement(record.plans, record.expert)
        if np.any(is_negative(record.scores) & (distances <= args.within)):
            hard.append(token)
    write_atomically(args.out, yaml.safe_dump({"tokens": sorted(hard)}).encode())
    print(f"{len(hard)} of {len(pool.tokens)} scenes are hard")


if __name__ == "__main__":
    main()
