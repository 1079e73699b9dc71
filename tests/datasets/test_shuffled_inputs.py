"""The control of sight: some inputs are those of another scene, all else is the scene's own."""

import numpy as np
import pytest

from beyonddrive.datasets.navsim_dataset import DatasetError
from beyonddrive.registry import DATASETS

FEATURES = [
    {"type": "LoadCameraStitch", "size": (32, 128)},
    {"type": "EgoStatus"},
    {"type": "PlanTarget"},
]


def make(world, **changes):
    settings = {
        "type": "NavsimDataset",
        "data_root": str(world),
        "split": "mini",
        "scene_filter": {"frame_interval": 1},
        "feature_pipeline": FEATURES,
        "pipeline": [{"type": "PackPlanInputs"}],
        **changes,
    }
    return DATASETS.build(settings)


def test_the_camera_is_that_of_another_scene_and_all_else_its_own(world):
    plain = make(world)
    shuffled = make(world, type="ShuffledInputsDataset", shuffled=["camera"])
    assert shuffled.tokens == plain.tokens
    lenders = shuffled.lenders()
    assert sorted(lenders) == list(range(len(plain)))
    assert not np.any(lenders == np.arange(len(plain)))
    for index in range(len(plain)):
        own, lender, mixed = plain[index], plain[int(lenders[index])], shuffled[index]
        np.testing.assert_array_equal(mixed["inputs"]["camera"], lender["inputs"]["camera"])
        np.testing.assert_array_equal(mixed["inputs"]["status"], own["inputs"]["status"])
        np.testing.assert_array_equal(mixed["data_samples"].gt.trajectory, own["data_samples"].gt.trajectory)
        assert mixed["data_samples"].token == own["data_samples"].token


def test_the_seed_decides_who_lends_to_whom(world):
    def lenders(seed):
        return (
            make(world, type="ShuffledInputsDataset", shuffled=["camera"], shuffle_seed=seed)
            .lenders()
            .tolist()
        )

    assert lenders(3) == lenders(3)
    assert len({tuple(lenders(seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize("shuffled", ["camera", []])
def test_what_to_shuffle_must_be_said(world, shuffled):
    with pytest.raises(DatasetError, match="list of arrays"):
        make(world, type="ShuffledInputsDataset", shuffled=shuffled)


def test_an_array_that_is_not_there_is_named(world):
    dataset = make(world, type="ShuffledInputsDataset", shuffled=["lidar"])
    with pytest.raises(DatasetError, match="no array 'lidar'"):
        dataset[0]


def test_one_scene_cannot_borrow(world):
    dataset = make(world, type="ShuffledInputsDataset", shuffled=["camera"], indices=1)
    with pytest.raises(DatasetError, match="no other"):
        dataset[0]
