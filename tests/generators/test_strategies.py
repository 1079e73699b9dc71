import pytest
import torch

from beyonddrive.apis import load_config
from beyonddrive.generators.strategies import (
    FarthestPointSampling,
    MixtureSampling,
    PlainSampling,
    SamplingStrategy,
    StrategyError,
    build_strategy,
    farthest_points,
    idle_guidance,
    scene_seed,
)
from beyonddrive.registry import MODELS

TOKENS = ["a", "b", "c", "d", "e"]


class NoisyLine:
    """Plans are noise around a line of the scene; keeps what it was asked for."""

    def __init__(self):
        self.asked = []

    def propose(self, inputs, num_proposals, strategy, generator):
        self.asked.append((num_proposals, strategy.guidance, strategy.noise, strategy.steps))
        noise = torch.stack([torch.randn(num_proposals, 8, 3, generator=scene) for scene in generator])
        return inputs["x"][:, None, None, None] + strategy.noise * noise


def inputs_of(tokens):
    return {"x": torch.tensor([float(ord(token)) for token in tokens])}


STRATEGIES = {
    "published": {"num_proposals": 6},
    "plain": {"type": "PlainSampling", "num_proposals": 6},
    "mixture": {
        "type": "MixtureSampling",
        "parts": [{"num_proposals": 2}, {"num_proposals": 4, "noise": 0.8, "guidance": 0.0}],
    },
    "farthest": {"type": "FarthestPointSampling", "base": {"num_proposals": 12}, "num_proposals": 6},
    "nested": {
        "type": "MixtureSampling",
        "parts": [
            {"type": "MixtureSampling", "parts": [{"num_proposals": 2}, {"num_proposals": 2}]},
            {"num_proposals": 2},
        ],
    },
}


def test_published_settings_are_the_default():
    planner = NoisyLine()
    plans = SamplingStrategy()(planner, inputs_of("a"), ["a"])
    assert planner.asked == [(64, 0.5, 0.4, 5)]
    assert plans.shape == (1, 64, 8, 3)
    PlainSampling()(planner, inputs_of("a"), ["a"])
    assert planner.asked[1] == (64, 1.0, 0.2, 5)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_scene_gets_the_same_plans_whatever_it_is_batched_with(name):
    strategy = build_strategy(STRATEGIES[name])
    planner = NoisyLine()
    whole = strategy(planner, inputs_of(TOKENS), TOKENS, seed=1)
    assert whole.shape == (5, 6, 8, 3)
    backwards = strategy(planner, inputs_of(TOKENS[::-1]), TOKENS[::-1], seed=1)
    assert torch.equal(backwards.flip(0), whole)
    for index, token in enumerate(TOKENS):
        assert torch.equal(strategy(planner, inputs_of(token), [token], seed=1)[0], whole[index])
    assert not torch.equal(strategy(planner, inputs_of(TOKENS), TOKENS, seed=2), whole)


def test_scenes_and_parts_have_their_own_noise():
    planner = NoisyLine()
    plans = SamplingStrategy(4)(planner, {"x": torch.zeros(2)}, ["a", "b"])
    assert not torch.equal(plans[0], plans[1])
    nested = build_strategy(STRATEGIES["nested"])(planner, inputs_of("a"), ["a"])[0]
    assert len({tuple(plan.flatten().tolist()) for plan in nested}) == 6


def test_seed_depends_on_every_part():
    seeds = {scene_seed(*key) for key in ((0, "a"), (1, "a"), (0, "b"), (0, "a", (0,)), (0, "a", (0, 0)))}
    assert len(seeds) == 5
    assert scene_seed(1, "1") != scene_seed(11, "")


def test_mixture_keeps_the_order_and_settings_of_its_parts():
    planner = NoisyLine()
    strategy = build_strategy(STRATEGIES["mixture"])
    strategy(planner, inputs_of("a"), ["a"])
    assert planner.asked == [(2, 0.5, 0.4, 5), (4, 0.0, 0.8, 5)]


def test_farthest_points_widen_the_spread():
    planner = NoisyLine()
    base = SamplingStrategy(num_proposals=64)
    thinned = FarthestPointSampling({"num_proposals": 64}, num_proposals=8)
    drawn = base(planner, inputs_of(TOKENS), TOKENS)
    kept = thinned(planner, inputs_of(TOKENS), TOKENS)

    def nearest_gap(plans):
        gaps = torch.cdist(plans.flatten(2), plans.flatten(2))
        return gaps.masked_fill(torch.eye(plans.shape[1], dtype=torch.bool), float("inf")).amin((1, 2))

    assert (nearest_gap(kept) > nearest_gap(drawn[:, :8])).all()
    for scene in range(5):  # what is kept was drawn, and no plan twice
        same = (kept[scene][:, None] == drawn[scene][None]).flatten(2).all(-1)
        assert same.any(1).all()
        assert same.sum() == 8


def test_farthest_points_never_repeat_an_index_even_among_equal_plans():
    chosen = farthest_points(torch.zeros(2, 5, 8, 3), 5)
    assert [sorted(row) for row in chosen.tolist()] == [[0, 1, 2, 3, 4]] * 2


def test_farthest_points_see_a_heading_across_pi_as_near():
    plans = torch.zeros(1, 3, 8, 3)
    plans[0, :, :, 2] = torch.tensor([[3.1], [-3.1], [1.5]])
    assert farthest_points(plans, 2).tolist()[0][1] == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_proposals": 0}, "num_proposals"),
        ({"steps": 0}, "steps"),
        ({"noise": 0.0}, "noise"),
        ({"guidance": float("nan")}, "guidance"),
        ({"type": "MixtureSampling", "parts": []}, "parts"),
        ({"type": "FarthestPointSampling", "base": {"num_proposals": 4}, "num_proposals": 5}, "1 .. 4"),
        ({"type": "FarthestPointSampling", "base": {}, "heading_scale": float("nan")}, "heading_scale"),
    ],
)
def test_bad_settings_are_refused(config, message):
    with pytest.raises(StrategyError, match=message):
        build_strategy(config)


def test_a_planner_that_cannot_propose_is_named():
    with pytest.raises(StrategyError, match="Linear is not a generator"):
        SamplingStrategy()(torch.nn.Linear(1, 1), inputs_of("a"), ["a"])


def test_a_wrong_number_of_plans_is_refused():
    class Stubborn(NoisyLine):
        def propose(self, inputs, num_proposals, strategy, generator):
            return torch.zeros(len(inputs["x"]), 1, 8, 3)

    with pytest.raises(StrategyError, match=r"wanted \(1, 64, 8, 3\), got \(1, 1, 8, 3\)"):
        SamplingStrategy()(Stubborn(), inputs_of("a"), ["a"])


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_can_be_built_again_from_what_it_states(name):
    strategy = build_strategy(STRATEGIES[name])
    again = build_strategy(strategy.config)
    assert again.config == strategy.config
    planner = NoisyLine()
    first = strategy(planner, inputs_of(TOKENS), TOKENS)
    assert torch.equal(again(planner, inputs_of(TOKENS), TOKENS), first)


def test_mixture_needs_a_known_type():
    with pytest.raises(StrategyError, match="NoSuchStrategy"):
        MixtureSampling([{"type": "NoSuchStrategy"}])
    with pytest.raises(StrategyError, match="temperature"):
        build_strategy({"temperature": 2.0})


def test_guidance_that_does_nothing_is_told():
    class Unguided:
        knows_guidance = False

    parts = [{"type": "SamplingStrategy", "guidance": 0.5}, {"type": "PlainSampling"}]
    mixture = build_strategy({"type": "MixtureSampling", "parts": parts})
    told = "Unguided knows no guidance: guidance={} does nothing"
    assert idle_guidance(Unguided(), mixture) == told.format("0.5, 1")
    farthest = build_strategy({"type": "FarthestPointSampling", "base": parts[0], "num_proposals": 8})
    assert idle_guidance(Unguided(), farthest) == told.format("0.5")
    assert idle_guidance(object(), mixture) is None
    config = load_config("meanfuser_tiny_1xb16-12e_synth")
    assert not MODELS.build(config.model).knows_guidance
    assert MODELS.build(load_config("flow_policy_tiny_1xb16-12e_synth").model).knows_guidance
