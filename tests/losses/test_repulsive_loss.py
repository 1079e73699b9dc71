"""The repulsion by hand-computed cases, and what it must refuse."""

import pytest
import torch

from beyonddrive.losses.repulsive import RepulsiveDistanceLoss


def _plans(*values: float) -> torch.Tensor:
    return torch.stack([torch.full((8, 3), value) for value in values])


def test_mean_runs_over_samples_with_a_negative_only():
    loss = RepulsiveDistanceLoss(weight=2.0, attraction_weight=10.0)
    prediction = _plans(0.0, 0.0, 0.0)
    negatives = _plans(1.0, 3.0, 100.0)[:, None]
    valid = torch.tensor([[True], [True], [False]])
    assert loss(prediction, negatives, valid) == -2.0 * (1.0 + 3.0) / 2


def test_pull_and_push_make_an_error_towards_the_failure_cost_three_times_one_away_from_it():
    loss = RepulsiveDistanceLoss(weight=5.0, attraction_weight=10.0)
    expert, negative, valid = _plans(0.0), _plans(1.0)[:, None], torch.tensor([[True]])

    def total(offset: float) -> float:
        prediction = expert + offset
        return float(10.0 * (prediction - expert).abs().mean() + loss(prediction, negative, valid))

    at_expert = total(0.0)
    assert total(0.1) - at_expert == pytest.approx(1.5)
    assert total(-0.1) - at_expert == pytest.approx(0.5)


@pytest.mark.parametrize("reduction", ["nearest", "mean"])
def test_batch_without_negatives_is_exactly_zero_with_zero_gradient(reduction):
    loss = RepulsiveDistanceLoss(weight=5.0, attraction_weight=10.0, reduction=reduction)
    prediction = torch.randn(3, 8, 4, requires_grad=True)
    garbage = torch.full((3, 2, 8, 4), torch.nan)
    value = loss(prediction, garbage, torch.zeros(3, 2, dtype=torch.bool))
    assert value.item() == 0.0
    value.backward()
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_invalid_entries_do_not_touch_value_or_gradient():
    loss = RepulsiveDistanceLoss(weight=1.0, attraction_weight=2.0)
    prediction = torch.zeros(2, 8, 3, requires_grad=True)
    negatives = torch.full((2, 1, 8, 3), torch.nan)
    negatives[0] = 1.0
    value = loss(prediction, negatives, torch.tensor([[True], [False]]))
    value.backward()
    assert value.item() == -1.0
    # Going up brings the plan nearer to the negative, so the loss grows; 24 numbers share the mean.
    torch.testing.assert_close(prediction.grad[0], torch.full((8, 3), 1 / 24))
    assert torch.equal(prediction.grad[1], torch.zeros(8, 3))


def test_nearest_takes_the_first_valid_negative_and_mean_takes_all():
    prediction = _plans(0.0)
    negatives = torch.stack([_plans(9.0, 1.0, 3.0)])
    valid = torch.tensor([[False, True, True]])
    settings = {"weight": 1.0, "attraction_weight": 2.0}
    assert RepulsiveDistanceLoss(**settings)(prediction, negatives, valid) == -1.0
    assert RepulsiveDistanceLoss(**settings, reduction="mean")(prediction, negatives, valid) == -2.0


def test_sum_positive_rule_drops_what_turns_right_and_mask_keeps_it():
    right = torch.zeros(1, 1, 8, 3)
    right[..., 1] = -2.0
    valid = torch.tensor([[True]])
    assert RepulsiveDistanceLoss().counted(right, valid).item()
    rule = RepulsiveDistanceLoss(valid_rule="sum_positive")
    assert not rule.counted(right, valid).item()
    assert rule.counted(-right, valid).item()
    assert not rule.counted(-right, ~valid).item()


def test_clamp_stops_repelling_beyond_a_distance():
    loss = RepulsiveDistanceLoss(weight=2.0, attraction_weight=10.0, clamp=1.5)
    prediction = torch.zeros(1, 8, 3, requires_grad=True)
    value = loss(prediction, _plans(4.0)[:, None], torch.tensor([[True]]))
    assert value.item() == -3.0
    value.backward()
    assert not prediction.grad.any()


def test_weight_zero_switches_the_term_off():
    loss = RepulsiveDistanceLoss(weight=0.0, attraction_weight=10.0)
    assert loss(_plans(0.0), _plans(4.0)[:, None], torch.tensor([[True]])) == 0.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": 10.0, "attraction_weight": 10.0}, "no minimum"),
        ({"weight": 12.0, "attraction_weight": 10.0}, "no minimum"),
        ({"weight": float("nan")}, "must not be negative"),
        ({"weight": -1.0}, "must not be negative"),
        ({"valid_rule": "sum"}, "valid_rule must be one of"),
        ({"reduction": "all"}, "reduction must be one of"),
        ({"clamp": 0.0}, "clamp must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        RepulsiveDistanceLoss(**settings)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"prediction \(2, 8, 3\)"):
        RepulsiveDistanceLoss()(_plans(0.0, 0.0), _plans(1.0, 1.0), torch.ones(2, 1, dtype=torch.bool))
