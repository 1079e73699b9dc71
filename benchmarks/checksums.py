"""What the verification of checksums costs a reader of a feature cache: ``python benchmarks/checksums.py``.

Samples are as large as those of LTF: three cameras of 1024 x 256 in one strip, and a map of 256 x 128. They
lie in memory, so that a disk does not hide the cost.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.stores import shard_store
from beyonddrive.datasets.stores.manifests import StoreKind
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import ShardWriter

KIND = StoreKind("features", "python benchmarks/checksums.py")
REPEATS = 7


def sample(rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """The arrays of one scene."""
    return {
        "camera": rng.integers(0, 256, (3, 256, 1024), dtype=np.uint8),
        "bev_semantic_map": rng.integers(0, 7, (128, 256), dtype=np.uint8),
        "status": rng.normal(size=8).astype(np.float32),
        "trajectory": rng.normal(size=(8, 3)).astype(np.float32),
        "agent_states": rng.normal(size=(30, 5)).astype(np.float32),
        "agent_labels": rng.random(30) < 0.5,
    }


def samples_per_second(store: ShardStore) -> float:
    """The best of some passes in random order, by the time of the processor."""
    order = np.random.default_rng(1).permutation(len(store))
    tokens = [store.tokens[index] for index in order]
    best = 0.0
    for _ in range(REPEATS):
        started = time.process_time()
        for token in tokens:
            store[token]
        best = max(best, len(tokens) / (time.process_time() - started))
    return best


def main() -> None:
    """Print samples per second with and without verification."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=256)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        writer = ShardWriter(Path(folder), KIND, {}, "a benchmark")
        for start in range(0, args.samples, 32):
            numbers = range(start, min(start + 32, args.samples))
            writer.write(f"{start:08d}", {str(number): sample(rng) for number in numbers})
        store = ShardStore(folder, KIND)
        known = {
            token: checksum
            for index in store.indices.values()
            for token, checksum in zip(index.tokens, index.checksums, strict=True)
        }
        size = sum(array.nbytes for array in store[store.tokens[0]].values())
        verified = samples_per_second(store)
        with mock.patch.object(shard_store, "record_checksum", lambda token, _: known[token]):
            trusted = samples_per_second(store)
    print(f"samples of {size / 1e3:.0f} kB: {trusted:.0f}/s without verification, {verified:.0f}/s with it,")
    seconds = 1 / verified - 1 / trusted
    print(f"which takes {1e3 * seconds:.2f} ms a sample ({size / 1e9 / seconds:.1f} GB/s)")


if __name__ == "__main__":
    main()
