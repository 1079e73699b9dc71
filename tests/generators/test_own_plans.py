"""A planner's own plans as proposals, by hand-computed cases."""

import math

import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.generators.own_plans import OwnPlans, own_plans, perturb, predict
from beyonddrive.generators.strategies import StrategyError, build_strategy


def ahead(speed=2.0, rows=1):
    plans = torch.zeros(rows, 8, 3)
    plans[..., 0] = speed * torch.arange(1.0, 9.0)
    return plans


class Planner:
    """Drives at the speed of its input; ``modes`` are multiples of it, with scores."""

    def __init__(self, modes=(), scored=True):
        self.modes, self.scored = modes, scored

    def __call__(self, inputs, samples, mode):
        assert mode == "predict"
        for speed, sample in zip(inputs["status"], samples, strict=True):
            plan = ahead(float(speed))[0]
            sample.pred = BaseDataElement(trajectory=plan)
            if self.modes:
                sample.pred.proposals = torch.stack([plan * factor for factor in self.modes])
                if self.scored:
                    sample.pred.scores = torch.tensor(self.modes)
        return samples


INPUTS = {"status": torch.tensor([2.0, 3.0])}


def test_the_plan_comes_first_then_the_best_modes():
    plans = OwnPlans(num_proposals=3, stretch=0, lateral=0)(Planner((0.5, 3.0, 2.0)), INPUTS, ["a", "b"])
    assert plans[:, :, 0, 0].tolist() == [[2.0, 6.0, 4.0], [3.0, 9.0, 6.0]]
    unscored = predict(Planner((0.5, 3.0, 2.0), scored=False), INPUTS, ["a", "b"])
    assert own_plans(unscored[0], limit=10)[:, 0, 0].tolist() == [2.0, 1.0, 6.0, 4.0]
    for sample in predict(Planner((0.5,)), INPUTS, ["a", "b"]):
        assert own_plans(sample, limit=1).shape == (1, 8, 3)


def test_a_mode_that_is_the_plan_is_not_judged_twice():
    inputs = {"status": torch.tensor([2.0, 0.0])}  # all modes of the second are the plan: it stands
    plans = OwnPlans(num_proposals=4, stretch=0, lateral=0)(Planner((0.5, 1.0, 3.0)), inputs, ["a", "b"])
    assert plans[:, :, 0, 0].tolist() == [[2.0, 6.0, 1.0, 2.0], [0.0] * 4]


@pytest.mark.parametrize("num", [1, 3, 4, 16])
def test_modes_leave_a_quarter_to_perturbed_plans(num):
    modes = tuple(float(factor) for factor in range(1, 21))
    own = {2.0 * factor for factor in modes}
    for settings in ({}, {"stretch": 0.0}, {"lateral": 0.0}):
        strategy = OwnPlans(num_proposals=num, **settings)
        plans = strategy(Planner(modes), INPUTS, ["a", "b"])
        kept = num - num // 4
        assert plans[0, :kept, 0, 0].tolist() == [2.0, *(2.0 * factor for factor in modes[:0:-1])][:kept]
        near = plans[0, kept:]
        assert len(near) == num // 4
        assert all(plan[-1, 1] != 0 or float(plan[0, 0]) not in own for plan in near)
        alone = strategy(Planner(modes), {"status": INPUTS["status"][1:]}, ["b"])
        assert torch.equal(alone, plans[1:])
    plain = OwnPlans(num_proposals=num, stretch=0.0, lateral=0.0)(Planner(modes), INPUTS, ["a", "b"])
    assert len(set(plain[0, :, 0, 0].tolist())) == num


def test_the_rest_are_plans_nearby_that_depend_on_scene_and_seed_only():
    strategy = build_strategy({"type": "OwnPlans", "num_proposals": 5})
    both = strategy(Planner(), INPUTS, ["a", "b"], seed=1)
    alone = strategy(Planner(), {"status": torch.tensor([3.0])}, ["b"], seed=1)
    assert both.shape == (2, 5, 8, 3)
    torch.testing.assert_close(both[1:], alone)
    assert torch.equal(both[0, 0], ahead(2.0)[0])
    assert len({float(value) for value in both[0, :, -1, 1]}) == 5
    other = strategy(Planner(), INPUTS, ["a", "b"], seed=2)
    assert not torch.equal(both[:, 1:], other[:, 1:])
    assert build_strategy(strategy.config).config == strategy.config


def test_a_plan_is_stretched_and_bent_to_its_left():
    moved = perturb(ahead(), torch.tensor([math.log(0.5)]), torch.tensor([-1.0]))[0]
    # The way shrinks from 16 to 8 metres, so the shift is 8 / 10 of what was asked for.
    assert moved[:, 0].tolist() == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8])
    assert moved[:, 1].tolist() == pytest.approx([-0.8 * (k / 8) ** 2 for k in range(1, 9)])
    rise = [-0.8 * (2 * k - 1) / 64 for k in range(1, 9)]
    assert moved[:, 2].tolist() == pytest.approx([math.atan2(step, 1.0) for step in rise])
    turned = ahead().clone()
    turned[..., :2] = turned[..., [1, 0]]  # drives to its left
    turned[..., 2] = math.pi / 2
    moved = perturb(turned, torch.zeros(1), torch.ones(1))[0]
    assert moved[-1, :2].tolist() == pytest.approx([-1.0, 16.0], abs=1e-5)


def test_a_plan_that_stands_stays():
    still = torch.zeros(1, 8, 3)
    assert torch.equal(perturb(still, torch.tensor([0.3]), torch.tensor([2.0])), still)


def test_settings_and_planners_that_make_no_sense_are_refused():
    for bad in ({"num_proposals": 0}, {"stretch": -0.1}, {"lateral": math.inf}, {"lateral": math.nan}):
        with pytest.raises(StrategyError, match="OwnPlans: num_proposals must be"):
            OwnPlans(**bad)
    with pytest.raises(StrategyError, match="object is no planner"):
        OwnPlans()(object(), INPUTS, ["a", "b"])
