"""Parts of the test split by the nearest failure: ``python results/effect/subsets.py POOL OUT``.

``POOL`` holds scored proposals of the test split, which no planner sees. ``hard`` are the scenes in which one
of them fails (PDMS below 0.6) although it is within 1 m of the expert, on average over the plan: there the
score separates near plans. The bands are by the distance of the nearest failure; scenes without one are in
the last. The parts ``nearest_...`` say what the nearest failure does: whether it leaves the drivable area,
collides by its own fault, does both, or neither, when it is too close to others or too slow. ``subsets`` in
this folder is what it gave.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.datasets.stores.selection import displacement, is_negative
from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.plan import SCORE_COLUMNS

PARTS = {
    "hard": (0.0, 1.0),
    "failure_within_0.5m": (0.0, 0.5),
    "failure_at_0.5_to_1m": (0.5, 1.0),
    "failure_at_1_to_2m": (1.0, 2.0),
    "failure_beyond_2m": (2.0, np.inf),
}
"""Name of a part, and the distances [m] of the nearest failure in it, the upper one included."""
FAULTS = {
    (False, True): "nearest_off_road",
    (True, False): "nearest_collides",
    (True, True): "nearest_off_road_and_collides",
    (False, False): "nearest_neither",
}
"""Whether NC and DAC of the nearest failure are below 1, and the name of the part."""
WITHOUT = "no_failure"
"""Scenes none of whose proposals fails."""


def main() -> None:
    """Write the scene filters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pool", type=Path, metavar="POOL")
    parser.add_argument("out", type=Path, metavar="DIR")
    args = parser.parse_args()
    pool = NegativePool(args.pool)
    parts: dict[str, list[str]] = {name: [] for name in (*PARTS, *FAULTS.values(), WITHOUT)}
    for token in sorted(pool.tokens):
        record = pool[token]
        distances = np.where(
            is_negative(record.scores), displacement(record.plans, record.expert), np.float64(np.inf)
        )
        nearest = distances.min()
        for name, (low, high) in PARTS.items():
            if low < nearest <= high or nearest == low == 0.0:
                parts[name].append(token)
        parts[_fault(record.scores[distances.argmin()]) if np.isfinite(nearest) else WITHOUT].append(token)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, tokens in parts.items():
        write_atomically(args.out / f"{name}.yaml", yaml.safe_dump({"tokens": tokens}).encode())
        print(f"{name}: {len(tokens)} of {len(pool.tokens)} scenes")


def _fault(scores: NDArray[np.float32]) -> str:
    """The part that a failure with these scores (7,) puts its scene into."""
    collides, leaves = (bool(scores[SCORE_COLUMNS.index(name)] < 1) for name in ("NC", "DAC"))
    return FAULTS[collides, leaves]


if __name__ == "__main__":
    main()
