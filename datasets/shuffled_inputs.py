"""A control of whether a planner uses what it sees: scenes with an input of another scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim_dataset import DatasetError, NavsimDataset
from beyonddrive.datasets.transforms.base import Results
from beyonddrive.registry import DATASETS


@DATASETS.register_module()
class ShuffledInputsDataset(NavsimDataset):
    """Scenes of a split, each with some arrays of another scene of the same split; targets are its own.

    Which scene lends to which is drawn once: one cycle through all scenes, so that none keeps its own, the
    same in every epoch and every process. A planner that is trained and tested on these scenes can be no
    better than one without these inputs, but for what it overfits.

    Args:
        *args: As for :class:`NavsimDataset`.
        shuffled: Names of arrays of ``feature_pipeline`` that come from another scene, such as ``camera``.
        shuffle_seed: Seed of the cycle.
        **kwargs: As for :class:`NavsimDataset`.

    Raises:
        DatasetError: If nothing is to be shuffled; on access, if the scenes have no such array or there is
            only one scene.
    """

    def __init__(self, *args: Any, shuffled: Sequence[str], shuffle_seed: int = 0, **kwargs: Any) -> None:
        if isinstance(shuffled, str) or not shuffled:
            raise DatasetError(
                f"ShuffledInputsDataset: shuffled={shuffled!r} must be a list of arrays, such as ['camera']"
            )
        self.shuffled = tuple(shuffled)
        self.shuffle_seed = shuffle_seed
        super().__init__(*args, **kwargs)

    def features(self, index: int) -> Results:
        """Arrays of one scene, those of ``shuffled`` from another.

        Raises:
            DatasetError: If the scene has no such array, there is no other scene, or a scene cannot be read.
        """
        results = dict(super().features(index))
        lender = super().features(int(self.lenders()[index]))
        for key in self.shuffled:
            if key not in results:
                raise DatasetError(
                    f"ShuffledInputsDataset: scene {results['token']} has no array '{key}' to shuffle; "
                    f"it has {', '.join(sorted(results))}"
                )
            results[key] = lender[key]
        return results

    def lenders(self) -> NDArray[np.int64]:
        """Number (N,) of the scene that each scene borrows from.

        Raises:
            DatasetError: If there is only one scene.
        """
        count = len(self)
        if count < 2:
            raise DatasetError(f"{self._where}: one scene has no other to borrow from")
        order = np.random.default_rng((self.shuffle_seed, count)).permutation(count)
        lender = np.empty(count, np.int64)
        lender[order] = np.roll(order, 1)
        return lender
