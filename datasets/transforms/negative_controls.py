"""Controls: what takes the place of hard negatives to see whether it is they that help."""

from __future__ import annotations

import zlib

import numpy as np

from beyonddrive.datasets.stores.selection import Distance, check_distance, squared_distance
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.perturbation import perturbed


@TRANSFORMS.register_module()
class PerturbedNegatives(BaseTransform):
    """Puts random plans at the distances of the hard negatives: a control, as nobody asked whether they fail.

    Stands behind :class:`LoadNegatives`. Every negative of a sample becomes the expert, moved smoothly in a
    random direction (:func:`~beyonddrive.structures.perturbation.perturbed`) until it is as far from the
    expert as the negative was. So the same samples are repelled, from the same distance. The direction
    belongs to the scene and stays the same in every epoch, as that of a negative does.

    Reads ``token``, ``trajectory`` (8, 3), ``negative_plans`` (K, 8, 3) and ``negative_valid`` (K,); changes
    ``negative_plans``, and sets ``negative_scores`` to 0 and ``negative_times`` to inf, which nobody knows.

    Args:
        seed: Of the directions.
        distance: ``wrapped`` or ``reference``, as for the selection.

    Raises:
        KeyError: If there are no negatives to replace.
    """

    is_target = True

    def __init__(self, seed: int = 0, distance: Distance = "wrapped") -> None:
        check_distance(distance)
        self.seed, self.distance = seed, distance

    def transform(self, results: Results) -> Results:
        """Replace the plans."""
        if "negative_plans" not in results:
            raise KeyError(
                f"PerturbedNegatives: scene {results['token']} has no negatives to replace; give the data "
                "set the field negatives"
            )
        expert = np.asarray(results["trajectory"], np.float64)
        plans, valid = np.array(results["negative_plans"]), results["negative_valid"]
        random = np.random.default_rng([self.seed, zlib.crc32(results["token"].encode())])
        directions = random.normal(size=(len(plans), 2))
        for slot in np.flatnonzero(valid):
            size = float(squared_distance(plans[slot], expert, self.distance))
            plans[slot] = perturbed(expert, size, directions[slot])
        results["negative_plans"] = plans
        results["negative_scores"] = np.zeros_like(results["negative_scores"])
        results["negative_times"] = np.full_like(results["negative_times"], np.inf)
        return results
