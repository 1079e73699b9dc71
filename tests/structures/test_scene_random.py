"""Random numbers by scene and step."""

import pytest
import torch

from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.scene_random import SEED_KEY, SceneRandom, step_seed

CPU = torch.device("cpu")


def samples(*tokens, step=0):
    return [PlanSample(metainfo={"token": token, SEED_KEY: step_seed(7, step, token)}) for token in tokens]


def draw(batch):
    random = SceneRandom(batch, len(batch), CPU)
    return [random.normal(8, 4), random.uniform(), random.integers(1000), random.normal()]


def test_a_scene_has_its_numbers_in_any_batch_and_other_ones_in_the_next_step():
    together, alone, later = draw(samples("a", "b", "c")), draw(samples("b")), draw(samples("b", step=1))
    for numbers, own, next_ones in zip(together, alone, later, strict=True):
        assert torch.equal(numbers[1], own[0])
        assert not torch.equal(numbers[1], next_ones[0])
        assert not torch.equal(numbers[0], numbers[1])


def test_numbers_are_of_their_distributions():
    random = SceneRandom(samples(*map(str, range(4000))), 4000, CPU)
    normal, uniform, integers = random.normal(), random.uniform(), random.integers(3)
    assert abs(normal.mean()) < 0.06 and abs(normal.std() - 1) < 0.06
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.03
    assert integers.dtype == torch.int64
    assert all(abs(count - 4000 / 3) < 150 for count in integers.bincount(minlength=3))


def test_without_seeds_numbers_come_from_the_global_generator():
    torch.manual_seed(0)
    drawn = SceneRandom([PlanSample(metainfo={"token": "a"})], 1, CPU).normal(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.randn(1, 3))


def test_a_batch_with_a_seed_here_and_there_is_refused():
    with pytest.raises(ValueError, match="1 of 2 samples have 'step_seed'"):
        SceneRandom([*samples("a"), PlanSample(metainfo={"token": "b"})], 2, CPU)
