"""The negative pool: scored proposals of a generator by scene token, on disk (METHOD, section 3).

A pool is a store of kind ``negatives``. A record holds every proposal of a scene, not only the negatives, so
that column, threshold and number of negatives stay choices of the training config; what a proposal's score
depends on (generator, strategy, progress mode) is fixed in the manifest and can be demanded by a reader. The
version of the scorer, and logs and maps where they are at hand, must be those that the pool was made with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.stores.fingerprints import Sources
from beyonddrive.datasets.stores.manifests import StoreError, StoreKind, read_sources
from beyonddrive.datasets.stores.shard_store import ShardStore, StoreReader
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.datasets.stores.sources import CachedPlace, DataPlace
from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.plan import NUM_POSES, SCORE_COLUMNS, SCORER_VERSION

KIND = StoreKind("negatives", "beyonddrive mine CONFIG CHECKPOINT --out POOL")
PROGRESS_MODES = ("pair", "pooled")
LOST_FILE = "lost.json"
"""What the split lacked when the pool was mined: scene token, or name of a log -> why."""


class PoolError(StoreError):
    """A pool does not fit what a reader or writer states, or a record of it is damaged."""


class NegativeRecord(NamedTuple):
    """All proposals of one scene.

    Attributes:
        plans: (P, 8, 3) float32 proposals: x [m], y [m], heading [rad], ego frame at t = 0.
        scores: (P, 7) float32 in the order of ``SCORE_COLUMNS``.
        expert: (8, 3) float32 expert plan of the scene.
        times: (P, 7) float32 seconds until the first infraction behind each score, inf where there is none
            (:func:`failure_times.failure_times`).
    """

    plans: NDArray[np.float32]
    scores: NDArray[np.float32]
    expert: NDArray[np.float32]
    times: NDArray[np.float32]


@dataclass(frozen=True)
class PoolDescription:
    """Everything the records of a pool depend on; kept in its manifest.

    Attributes:
        split: Split that the scenes belong to.
        generator: ``name`` of the config, ``config_hash`` of its model, ``checkpoint_hash`` of its weights,
            and ``inputs_hash`` of what it was shown, which a round of a training lacks.
        strategy: Config of the sampling strategy.
        seed: Seed of the noise.
        progress: How ego progress was normalised: ``pair`` (against the PDM reference alone, as the benchmark
            does) or ``pooled`` (over all proposals of the scene).
        num_scenes: Scenes the job was given.
        tokens_hash: Hash of their tokens, in order.
        shard_size: Scenes per shard.
        columns: Names of the score columns.
        scorer_version: Version of the scorer.
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
    scorer_version: int = SCORER_VERSION

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


def open_writer(
    root: str | Path,
    description: PoolDescription,
    source: str,
    sources: Sources | None = None,
    lost: Mapping[str, str] | None = None,
) -> ShardWriter:
    """Start or continue a pool.

    Args:
        root: Folder of the pool.
        description: What is written; a folder that holds a pool of something else is refused.
        source: Where the scenes came from, for people.
        sources: Logs and maps that they are of; a pool of others is refused.
        lost: Scenes, or logs, that the split should have and has not, with the reason.

    Raises:
        StoreError: With the keys in which the pool already in the folder differs.
    """
    writer = ShardWriter(root, KIND, description.to_config(), source, sources)
    if lost:
        write_atomically(writer.root / LOST_FILE, json.dumps(dict(lost), indent=1).encode())
    else:
        (writer.root / LOST_FILE).unlink(missing_ok=True)
    return writer


class NegativePool(StoreReader):
    """Reads a pool by scene token; cheap to pickle.

    Args:
        root: Folder of the pool.
        expected: What it must have been made with: any of ``split``, ``generator`` (the name of its config,
            or a mapping with ``name``, ``config_hash``, ``checkpoint_hash``), ``progress``, ``strategy``,
            ``seed``. Mappings need to agree only in the keys that they state.
        allow_partial: Accept a pool whose job has not been through all its scenes yet, or was given only a
            part of those that its split should have.
        place: Where logs and maps are, if they are here: then it is noticed that they have changed.

    Attributes:
        lost: Scenes, or logs, that the split should have had when the pool was mined -> why it had not.

    Raises:
        StoreError: If there is no pool, or a damaged one.
        PoolError: If it is not complete, was made by another version of the scorer or from other logs or
            maps, or differs from what is expected; the message names every difference.
    """

    def __init__(
        self,
        root: str | Path,
        expected: Mapping[str, Any] | None = None,
        allow_partial: bool = False,
        place: DataPlace | None = None,
    ) -> None:
        super().__init__(ShardStore(root, KIND))
        config = self._store.manifest["config"]
        try:
            self.description = PoolDescription(**{**config, "columns": tuple(config["columns"])})
        except (TypeError, KeyError) as error:
            raise PoolError(
                f"{self.root}: the manifest does not describe a pool ({error}); mine it again: {KIND.command}"
            ) from error
        if self.description.columns != SCORE_COLUMNS:
            raise PoolError(
                f"{self.root}: score columns are {list(self.description.columns)}, this version reads "
                f"{list(SCORE_COLUMNS)}; mine the pool again: {KIND.command}"
            )
        differences = _unmet(config, {**(expected or {}), "scorer_version": SCORER_VERSION})
        if differences:
            raise PoolError(
                f"{self.root}: the pool was made for something else: {'; '.join(differences)}. Name another "
                f"pool, correct what the config expects, or mine one: {KIND.command}"
            )
        if place is not None:
            self.check_sources(place)
        self.lost = _read_lost(self.root)
        if self.is_complete or allow_partial:
            return
        if not self.is_finished:
            raise PoolError(
                f"{self.root}: mining is unfinished, {self._num_visited} of {self.description.num_scenes} "
                f"scenes are done; run the same command again to resume: {KIND.command}"
            )
        name, why = next(iter(self.lost.items()))
        raise PoolError(
            f"{self.root}: the pool is of a part of its split: {len(self.lost)} scene(s) or log(s) were "
            f"missing when it was mined, the first is {name}: {why}. Mend the split and mine it into another "
            f"folder ({KIND.command}), or accept it by allow_partial=True"
        )

    def check_sources(self, place: DataPlace | CachedPlace) -> None:
        """Refuse the pool if logs or maps that it was made from are not those of the data.

        Raises:
            PoolError: With the files that differ.
        """
        if changed := place.changed(read_sources(self.root, self._store.manifest)):
            raise PoolError(
                f"{self.root}: {len(changed)} log(s) or map(s) of the data are not those that the pool was "
                f"mined from, the first is {changed[0]}; mine it again: {KIND.command}"
            )

    @property
    def is_finished(self) -> bool:
        """Whether mining has been through all scenes that it was given, failed ones included."""
        return self._num_visited == self.description.num_scenes

    @property
    def is_complete(self) -> bool:
        """Whether mining has been through all scenes that the split should have, failed ones included."""
        return self.is_finished and not self.lost

    @property
    def _num_visited(self) -> int:
        return len(self._store) + len(self._store.failures)

    def __getitem__(self, token: str) -> NegativeRecord:
        """Return the proposals of a scene.

        Raises:
            StoreError: If the scene is not in the pool, with the reason if its mining failed.
            PoolError: If the record lacks an array or holds one of the wrong shape.
        """
        return read_record(self._store[token], f"{self.root}: scene {token}")


def read_record(arrays: Mapping[str, NDArray[Any]], name: str) -> NegativeRecord:
    """Check the arrays of one record.

    Args:
        arrays: Arrays by name.
        name: Where they are from, for an error.

    Raises:
        PoolError: If an array is missing or has the wrong shape.
    """
    missing = [key for key in NegativeRecord._fields if key not in arrays]
    if missing:
        raise PoolError(f"{name}: the record has no {', '.join(missing)}; mine the pool again")
    count = len(arrays["plans"])
    row = (count, len(SCORE_COLUMNS))
    shapes = {"plans": (count, NUM_POSES, 3), "scores": row, "expert": (NUM_POSES, 3), "times": row}
    for key in NegativeRecord._fields:
        if arrays[key].shape != shapes[key]:
            raise PoolError(
                f"{name}: {key} has shape {arrays[key].shape}, wanted {shapes[key]}; mine the pool again"
            )
    return NegativeRecord(*(arrays[key] for key in NegativeRecord._fields))


def _read_lost(root: Path) -> dict[str, str]:
    path = root / LOST_FILE
    try:
        return {str(name): str(why) for name, why in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete it and run: {KIND.command}") from error


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
