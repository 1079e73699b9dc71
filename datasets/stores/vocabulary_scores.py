"""Sub-scores of all plans of a vocabulary by scene token, on disk.

The teacher of planners that choose among fixed plans: a store of kind ``vocabulary_scores``, made by
``beyonddrive score-vocabulary``. Its manifest names the vocabulary by
:func:`~beyonddrive.structures.vocabulary.vocabulary_id`, so that scores are never read for other plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.stores.manifests import StoreError, StoreKind
from beyonddrive.datasets.stores.shard_store import ShardStore, StoreReader
from beyonddrive.datasets.stores.sources import CachedPlace, DataPlace
from beyonddrive.structures.plan import SCORE_COLUMNS, SCORER_VERSION
from beyonddrive.structures.vocabulary import read_vocabulary, vocabulary_id

KIND = StoreKind(
    "vocabulary_scores", "beyonddrive score-vocabulary CONFIG_OR_ROOT SPLIT VOCABULARY --out STORE"
)
COLUMNS = SCORE_COLUMNS[:6]
"""NC, DAC, EP, TTC, C, DDC."""
STEPS = 254
"""A score s is kept as round(254 s) in a byte: 0, 1/2 and 1 exactly, progress to 0.2 %."""


def pack_scores(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Scores in [0, 1] as bytes.

    >>> unpack_scores(pack_scores(np.array([0.0, 0.5, 1.0]))).tolist()
    [0.0, 0.5, 1.0]
    """
    values = np.asarray(values, np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()):
        raise StoreError("scores to be stored must be in [0, 1]")
    return np.rint(values * STEPS).astype(np.uint8)


def unpack_scores(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The inverse of :func:`pack_scores`."""
    return packed.astype(np.float32) / np.float32(STEPS)


def manifest_of(split: str, plans: NDArray[np.floating]) -> dict[str, Any]:
    """What a store of the scores of ``plans`` (V, 8, 3) says of itself."""
    return {
        "split": split,
        "vocabulary_id": vocabulary_id(plans),
        "size": len(plans),
        "columns": list(COLUMNS),
        "progress": "pair",
        "scorer_version": SCORER_VERSION,
    }


class VocabularyScores(StoreReader):
    """Reads a store by scene token; cheap to pickle.

    Args:
        root: Folder of the store.
        vocabulary: File of the vocabulary that it must be of; None accepts any.
        split: Split that it must be of; None accepts any.

    Raises:
        StoreError: If the store is missing, damaged, or of another vocabulary or split.
        VocabularyError: If the vocabulary cannot be read.
    """

    def __init__(
        self, root: str | Path, vocabulary: str | Path | None = None, split: str | None = None
    ) -> None:
        super().__init__(ShardStore(root, KIND))
        config: Mapping[str, Any] = self._store.manifest["config"]
        wanted: dict[str, Any] = {"columns": list(COLUMNS), "scorer_version": SCORER_VERSION}
        if split is not None:
            wanted["split"] = split
        if vocabulary is not None:
            plans = read_vocabulary(vocabulary).plans
            wanted |= {"size": len(plans), "vocabulary_id": vocabulary_id(plans)}
        wrong = [
            f"{key}: stored {config.get(key)!r}, wanted {value!r}"
            for key, value in wanted.items()
            if config.get(key) != value
        ]
        if wrong:
            raise StoreError(
                f"{self.root}: the scores are of something else than {vocabulary or 'asked'}: "
                f"{'; '.join(wrong)}. Name another store, or make one: {KIND.command}"
            )
        self.size: int = config["size"]
        self.vocabulary_id: int = config["vocabulary_id"]

    def check_sources(self, place: DataPlace | CachedPlace) -> None:
        """Refuse the store if logs or maps that it was made from are not those of the data.

        Raises:
            StoreError: With the files that differ.
        """
        if changed := place.changed(self._store.sources):
            raise StoreError(
                f"{self.root}: {len(changed)} log(s) or map(s) of the data have changed since the scores "
                f"were made, the first is {changed[0]}; bring them up to date: {KIND.command}"
            )

    def __getitem__(self, token: str) -> NDArray[np.float32]:
        """Scores (V, 6) of a scene in the order of :data:`COLUMNS`.

        Raises:
            StoreError: If the scene is not there, with the reason if its scoring failed, or is damaged.
        """
        packed = self._store[token].get("scores")
        if packed is None or packed.shape != (self.size, len(COLUMNS)) or packed.dtype != np.uint8:
            raise StoreError(
                f"{self.root}: scene {token}: no scores ({self.size}, {len(COLUMNS)}) of type uint8; delete "
                f"its shard and make it again: {KIND.command}"
            )
        return unpack_scores(packed)
