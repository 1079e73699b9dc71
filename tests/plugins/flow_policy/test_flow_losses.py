"""Paths from noise to plans, their velocities, and the draws of training."""

import math

import torch

from beyonddrive.plugins.flow_policy.losses import FlowDraws, interpolate, logit_normal_time, velocity_to
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.scene_random import SEED_KEY, SceneRandom


def test_a_path_starts_at_noise_ends_at_data_and_its_velocity_leads_there():
    data, noise = torch.randn(3, 8, 4), torch.randn(3, 8, 4)
    assert torch.equal(interpolate(data, noise, torch.zeros(3)), noise)
    assert torch.equal(interpolate(data, noise, torch.ones(3)), data)
    time = torch.tensor([0.0, 0.4, 0.9])
    point = interpolate(data, noise, time)
    torch.testing.assert_close(velocity_to(data, point, time), data - noise)


def test_velocity_is_bounded_near_the_end():
    ones, time = torch.ones(1, 8, 4), torch.tensor([0.99])
    torch.testing.assert_close(velocity_to(ones, 0 * ones, time), 20 * ones)


def test_times_and_draws():
    torch.testing.assert_close(logit_normal_time(torch.zeros(1)), torch.tensor([1 / (1 + math.exp(0.8))]))
    cpu = torch.device("cpu")
    samples = [PlanSample(metainfo={SEED_KEY: seed}) for seed in (5, 6)]
    first, second = (FlowDraws.sample(SceneRandom(samples, 2, cpu), (8, 4), True) for _ in range(2))
    assert torch.equal(first.time, second.time)
    assert torch.equal(first.noise, second.noise)
    assert torch.equal(first.drop, second.drop)
    assert FlowDraws.sample(SceneRandom(samples, 2, cpu), (8, 4), False).drop is None
