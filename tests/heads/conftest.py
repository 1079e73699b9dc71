"""Small batches for heads."""

import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import SceneTokens


def _tokens(batch=2, queries=31, dim=16, bev=True):
    return SceneTokens(
        queries=torch.randn(batch, queries, dim),
        status=torch.zeros(batch, 8),
        bev=torch.randn(batch, 4, 8, 8) if bev else None,
    )


def _samples(batch=2, valid=(True, False)):
    samples = []
    for row in range(batch):
        sample = PlanSample(metainfo={"token": f"scene{row}"})
        sample.gt = BaseDataElement(trajectory=torch.randn(8, 3).cumsum(0))
        sample.negatives = BaseDataElement(plans=torch.randn(1, 8, 3), valid=torch.tensor([valid[row]]))
        samples.append(sample)
    return samples


@pytest.fixture
def make_tokens():
    """Makes random tokens: ``make_tokens(batch, queries, dim, bev)``."""
    return _tokens


@pytest.fixture
def make_samples():
    """Makes random targets and negatives: ``make_samples(batch, valid)``."""
    return _samples
