"""Sub-scores of a planner's fixed plans, read from a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from beyonddrive.datasets.stores.manifests import MANIFEST
from beyonddrive.datasets.stores.sources import CachedPlace, DataPlace
from beyonddrive.datasets.stores.vocabulary_scores import VocabularyScores
from beyonddrive.datasets.transforms.base import VIEW_POSE, BaseTransform, Results
from beyonddrive.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadVocabularyScores(BaseTransform):
    """Adds what our PDM scorer says of every plan of a vocabulary in this scene.

    Reads ``token``; adds ``vocabulary_scores`` (V, 6) float32 in the order NC, DAC, EP, TTC, C, DDC, and
    ``vocabulary_id`` () int64, which the head compares with its own plans. The store is opened at the first
    sample, so that a config can be built before its store exists. The scores are of plans in the frame of the
    scene: a sample whose view has been moved (``ViewAugmentation``) is refused.

    Args:
        store: Folder of the store, made by ``beyonddrive score-vocabulary``.
        vocabulary: File of the vocabulary that the store must be of: the one of the trajectory head.
        split: Split that the store must be of; None accepts any.

    Raises:
        StoreError: At the first sample: no store, one of another vocabulary or split, or a scene not in it.
        VocabularyError: If the vocabulary cannot be read.
        ValueError: If the view of a sample has been moved.
    """

    is_target = True

    def __init__(self, store: str | Path, vocabulary: str | Path, split: str | None = None) -> None:
        self.root, self.vocabulary, self.split = Path(store), Path(vocabulary), split
        self._scores: VocabularyScores | None = None

    def check_sources(self, place: DataPlace | CachedPlace) -> None:
        """Refuse a store that was made from other logs or maps than those of the data set."""
        if (self.root / MANIFEST).exists():
            self.scores.check_sources(place)

    @property
    def scores(self) -> VocabularyScores:
        """The store, opened and checked at first use."""
        if self._scores is None:
            self._scores = VocabularyScores(self.root, self.vocabulary, self.split)
        return self._scores

    def store_read(self) -> VocabularyScores:
        """The store."""
        return self.scores

    def transform(self, results: Results) -> Results:
        """Read ``token``; add the scores."""
        if VIEW_POSE in results:
            raise ValueError(
                f"LoadVocabularyScores: the view of scene {results['token']} has been moved, and scores are "
                "of plans in the frame of the scene; take ViewAugmentation out of the pipeline of a planner "
                "that learns from them"
            )
        results["vocabulary_scores"] = self.scores[results["token"]]
        results["vocabulary_id"] = np.array(self.scores.vocabulary_id, np.int64)
        return results

    def __repr__(self) -> str:
        return f"LoadVocabularyScores(store={str(self.root)!r}, vocabulary={str(self.vocabulary)!r})"
