"""Batches from a loader's workers: the same values, in few pieces."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from torch.utils.data import DataLoader

from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.engine.collation import SampleBatch, collate_samples
from beyonddrive.structures.sample import PlanSample


class Samples(torch.utils.data.Dataset):
    """Packed samples, with points in a number of their own; every third without negatives if ``uneven``."""

    def __init__(self, uneven):
        self.uneven = uneven

    def __len__(self):
        return 6

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        results = {
            "token": f"{index:016x}",
            "log_name": "log",
            "camera": rng.integers(0, 255, (3, 4, 8), np.uint8),
            "status": rng.random(8, np.float32),
            "points": rng.random((3 + index, 4), np.float32),
            "trajectory": rng.random((8, 3), np.float32),
            "agent_labels": rng.random(30) < 0.5,
            "bev_semantic_map": rng.integers(0, 7, (4, 8), np.uint8),
        }
        if not (self.uneven and index % 3 == 0):
            results |= {"negative_plans": rng.random((2, 8, 3)), "negative_valid": rng.random(2) < 0.5}
        return PackPlanInputs()(results)


def assert_same(left, right):
    assert len(left) == len(right) and all(type(sample) is PlanSample for sample in left)
    for one, other in zip(left, right, strict=True):
        assert one.metainfo == other.metainfo and set(one.keys()) == set(other.keys())
        for name, part in one.items():
            # (mmengine keeps names in a set, whose order is another in every process)
            assert type(part) is BaseDataElement and set(part.keys()) == set(other.get(name).keys())
            for key, value in part.items():
                assert value.dtype == other.get(name).get(key).dtype
                assert torch.equal(value, other.get(name).get(key))


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_those_of_mmengine(num_workers, uneven):
    data = Samples(uneven)
    batches = list(DataLoader(data, 3, num_workers=num_workers, collate_fn=collate_samples))
    plain = list(DataLoader(data, 3, collate_fn=pseudo_collate))
    assert len(batches) == len(plain) == 2
    for batch, other in zip(batches, plain, strict=True):
        assert_same(batch["data_samples"], other["data_samples"])
        for key in ("camera", "status"):
            assert torch.equal(batch["inputs"][key], torch.stack(other["inputs"][key]))
        for left, right in zip(batch["inputs"]["points"], other["inputs"]["points"], strict=True):
            assert torch.equal(left, right)


def test_a_batch_is_sent_with_one_tensor_per_field():
    samples = SampleBatch([Samples(False)[index]["data_samples"] for index in range(6)])
    assert_same(pickle.loads(pickle.dumps(samples)), samples)
    [_, (_, stacked)] = samples.__reduce__()
    assert {key: len(value) for key, value in stacked.items()} == {
        ("gt", "trajectory"): 6,
        ("gt", "agent_labels"): 6,
        ("gt", "bev_semantic_map"): 6,
        ("negatives", "plans"): 6,
        ("negatives", "valid"): 6,
    }


def test_samples_with_more_than_tensors_are_sent_as_they_are():
    sample = PlanSample(metainfo={"token": "a"}, gt=BaseDataElement(trajectory=torch.ones(8, 3), note="fast"))
    [back] = pickle.loads(pickle.dumps(SampleBatch([sample])))
    assert back.gt.note == "fast" and torch.equal(back.gt.trajectory, torch.ones(8, 3))
    assert pickle.loads(pickle.dumps(SampleBatch())) == []
