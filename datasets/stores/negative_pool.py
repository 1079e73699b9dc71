"""The negative pool: scored proposals of a generator by scene token, on disk (METHOD, section 3).

A pool is a store of kind ``negatives``. A record holds every proposal of a scene, not only the negatives, so
that column, threshold and number of negatives stay choices of the training config; what a proposal's score
depends on (generator, strategy, progress mode) is fixed in the manifest and can be demanded by a reader.

Since format 2 a record also says when each plan fails. A pool of format 1 is readable if its manifest states
``"format": 1``; whatever needs the times then says that they are missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.stores.shards import MANIFEST, ShardStore, ShardWriter, StoreError
from beyonddrive.structures.plan import NUM_POSES, SCORE_COLUMNS

KIND = "negatives"
PROGRESS_MODES = ("pair", "pooled")
FORMAT = 2
"""Version of the records: 1 had no failure times."""


class PoolError(StoreError):
    """A pool does not fit what a reader or writer states, or a record of it is damaged."""


class NegativeRecord(NamedTuple):
    """All proposals of one scene.

    Attributes:
        plans: (P, 8, 3) float32 proposals: x [m], y [m], heading [rad], ego frame at t = 0.
        scores: (P, 7) float32 in the order of ``SCORE_COLUMNS``.
        expert: (8, 3) float32 expert plan of the scene.
        times: (P, 7) float32 seconds until the first infraction behind each score, inf where there is none
            (:func:`failure_times.failure_times`); None in a pool of format 1.
    """

    plans: NDArray[np.float32]
    scores: NDArray[np.float32]
    expert: NDArray[np.float32]
    times: NDArray[np.float32] | None


@dataclass(frozen=True)
class PoolDescription:
    """Everything the records of a pool depend on; kept in its manifest.

    Attributes:
        split: Split that the scenes belong to.
        generator: ``name`` of the config, ``config_hash`` of its model, ``checkpoint_hash`` of its weights.
        strategy: Config of the sampling strategy.
        seed: Seed of the noise.
        progress: How ego progress was normalised: ``pair`` (against the PDM reference alone, as the benchmark
            does) or ``pooled`` (over all proposals of the scene).
        num_scenes: Scenes the job was given.
        tokens_hash: Hash of their tokens, in order.
        shard_size: Scenes per shard.
        columns: Names of the score columns.
        format: Version of the records.
    """

    split: str
    generator: Mapping[str, str]
    strategy: Mapping[str, Any]
    seed: int
    progress: str
    num_scenes: int
    tokens_hash: str
    shard_size: int
    columns: tuple[str, ...] = field(default=SCORE_COLUMNS)
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.progress not in PROGRESS_MODES:
            raise PoolError(f"progress: {self.progress!r} is unknown, choose one of {list(PROGRESS_MODES)}")

    def to_config(self) -> dict[str, Any]:
        """As JSON values, for the manifest."""
        return {
            **asdict(self),
            "generator": dict(self.generator),
            "strategy": dict(self.strategy),
            "columns": list(self.columns),
        }


def hash_tokens(tokens: Iterable[str]) -> str:
    """Hash of scene tokens in their order.

    >>> hash_tokens(["a", "b"]) == hash_tokens(["a", "b"]) != hash_tokens(["b", "a"])
    True
    """
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()[:16]


def open_writer(root: str | Path, description: PoolDescription, source: str) -> ShardWriter:
    """Start or continue a pool.

    Args:
        root: Folder of the pool.
        description: What is written; a folder that holds a pool of something else is refused.
        source: Where the scenes came from, for people.

    Raises:
        StoreError: With every key in which the pool already in the folder differs.
    """
    return ShardWriter(root, KIND, description.to_config(), source)


class NegativePool:
    """Reads a pool by scene token; cheap to pickle.

    Args:
        root: Folder of the pool.
        expected: What it must have been made with: any of ``split``, ``generator`` (the name of its config,
            or a mapping with ``name``, ``config_hash``, ``checkpoint_hash``), ``progress``, ``strategy``,
            ``seed``. Mappings need to agree only in the keys that they state.
        allow_partial: Accept a pool whose job has not been through all its scenes yet.

    Raises:
        StoreError: If there is no pool, it is damaged or its job is unfinished.
        PoolError: If it differs from what is expected; the message names every difference.
    """

    def __init__(
        self, root: str | Path, expected: Mapping[str, Any] | None = None, allow_partial: bool = False
    ) -> None:
        self._store = ShardStore(root, KIND)
        self.root = self._store.root
        config = self._store.manifest["config"]
        _check_format(self.root, config.get("format"))
        try:
            self.description = PoolDescription(**{**config, "columns": tuple(config["columns"])})
        except (TypeError, KeyError) as error:
            raise PoolError(
                f"{self.root}: the manifest does not describe a pool ({error}); mine it again"
            ) from error
        if self.description.columns != SCORE_COLUMNS:
            raise PoolError(
                f"{self.root}: score columns are {list(self.description.columns)}, this version reads "
                f"{list(SCORE_COLUMNS)}; mine the pool again"
            )
        differences = _unmet(config, dict(expected or {}))
        if differences:
            raise PoolError(
                f"{self.root}: the pool was made for something else: {'; '.join(differences)}. Name another "
                "pool, correct what the config expects, or mine one with tools/mine_negatives.py"
            )
        if not self.is_complete and not allow_partial:
            raise PoolError(
                f"{self.root}: mining is unfinished, {self._num_visited} of {self.description.num_scenes} "
                "scenes are done; run the same tools/mine_negatives.py command again to resume"
            )

    @property
    def has_times(self) -> bool:
        """Whether its records say when plans fail."""
        return self.description.format >= FORMAT

    @property
    def is_complete(self) -> bool:
        """Whether mining has been through all scenes, failed ones included."""
        return self._num_visited == self.description.num_scenes

    @property
    def _num_visited(self) -> int:
        return len(self._store) + len(self._store.failures)

    @property
    def tokens(self) -> list[str]:
        """Tokens of all records, in the order of the shards."""
        return self._store.tokens

    @property
    def failures(self) -> dict[str, str]:
        """Scenes that could not be mined, with the reason."""
        return self._store.failures

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, token: object) -> bool:
        return token in self._store

    def __iter__(self) -> Iterator[str]:
        return iter(self._store)

    def __getitem__(self, token: str) -> NegativeRecord:
        """Return the proposals of a scene.

        Raises:
            StoreError: If the scene is not in the pool, with the reason if its mining failed.
            PoolError: If the record lacks an array or holds one of the wrong shape.
        """
        return read_record(self._store[token], f"{self.root}: scene {token}", self.has_times)


def read_record(arrays: Mapping[str, NDArray[Any]], name: str, has_times: bool = True) -> NegativeRecord:
    """Check the arrays of one record.

    Args:
        arrays: Arrays by name.
        name: Where they are from, for an error.
        has_times: Whether failure times must be among them.

    Raises:
        PoolError: If an array is missing or has the wrong shape.
    """
    wanted_keys = NegativeRecord._fields if has_times else NegativeRecord._fields[:-1]
    missing = [key for key in wanted_keys if key not in arrays]
    if missing:
        raise PoolError(f"{name}: the record has no {', '.join(missing)}; mine the pool again")
    count = len(arrays["plans"])
    row = (count, len(SCORE_COLUMNS))
    shapes = {"plans": (count, NUM_POSES, 3), "scores": row, "expert": (NUM_POSES, 3), "times": row}
    for key in wanted_keys:
        if arrays[key].shape != shapes[key]:
            raise PoolError(
                f"{name}: {key} has shape {arrays[key].shape}, wanted {shapes[key]}; mine the pool again"
            )
    times = arrays["times"] if has_times else None
    return NegativeRecord(arrays["plans"], arrays["scores"], arrays["expert"], times)


def _check_format(root: Path, version: object) -> None:
    """Refuse pools of another format than this version reads."""
    if version is None:
        raise PoolError(
            f"{root}: the manifest states no format, so the pool is older than format {FORMAT} and does not "
            f"say when plans fail. Mine it again with tools/mine_negatives.py, or, to read it without these "
            f'times, state "format": 1 under "config" in {root / MANIFEST}'
        )
    if version not in (1, FORMAT):
        raise PoolError(f"{root}: the pool has format {version!r}, this version reads 1 and {FORMAT}")


def _unmet(stored: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List expectations that a manifest does not meet; keys that are not stated are free."""
    lines: list[str] = []
    for key, wanted in expected.items():
        if wanted is None:
            continue
        name = f"{prefix}{key}"
        if key not in stored:
            lines.append(f"{name}: not recorded (known: {', '.join(sorted(stored))}), wanted {wanted!r}")
            continue
        value = stored[key]
        if key == "generator" and isinstance(wanted, str):
            wanted = {"name": wanted}
        if isinstance(value, Mapping) and isinstance(wanted, Mapping):
            lines += _unmet(value, wanted, f"{name}.")
        elif value != (list(wanted) if isinstance(wanted, tuple) else wanted):
            lines.append(f"{name}: stored {value!r}, wanted {wanted!r}")
    return lines
