"""The repulsion by hand-computed cases, and what it must refuse."""

import math

import pytest
import torch

from beyonddrive.losses import repulsive
from beyonddrive.losses.failure_window import FailureWindow
from beyonddrive.losses.repulsive import Negatives, RepulsiveDistanceLoss


def _plans(*values: float) -> torch.Tensor:
    return torch.stack([torch.full((8, 3), value) for value in values])


def test_mean_runs_over_samples_with_a_negative_only():
    loss = RepulsiveDistanceLoss(weight=2.0, attraction_weight=10.0)
    prediction = _plans(0.0, 0.0, 0.0)
    negatives = _plans(1.0, 3.0, 100.0)[:, None]
    valid = torch.tensor([[True], [True], [False]])
    assert loss(prediction, Negatives(negatives, valid)) == -2.0 * (1.0 + 3.0) / 2


def test_pull_and_push_make_an_error_towards_the_failure_cost_three_times_one_away_from_it():
    loss = RepulsiveDistanceLoss(weight=5.0, attraction_weight=10.0)
    expert, negative, valid = _plans(0.0), _plans(1.0)[:, None], torch.tensor([[True]])

    def total(offset: float) -> float:
        prediction = expert + offset
        return float(10.0 * (prediction - expert).abs().mean() + loss(prediction, Negatives(negative, valid)))

    at_expert = total(0.0)
    assert total(0.1) - at_expert == pytest.approx(1.5)
    assert total(-0.1) - at_expert == pytest.approx(0.5)


@pytest.mark.parametrize("reduction", ["nearest", "mean"])
def test_batch_without_negatives_is_exactly_zero_with_zero_gradient(reduction):
    loss = RepulsiveDistanceLoss(weight=5.0, attraction_weight=10.0, reduction=reduction)
    prediction = torch.randn(3, 8, 4, requires_grad=True)
    garbage = torch.full((3, 2, 8, 4), torch.nan)
    value = loss(prediction, Negatives(garbage, torch.zeros(3, 2, dtype=torch.bool)))
    assert value.item() == 0.0
    value.backward()
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_invalid_entries_do_not_touch_value_or_gradient():
    loss = RepulsiveDistanceLoss(weight=1.0, attraction_weight=2.0)
    prediction = torch.zeros(2, 8, 3, requires_grad=True)
    negatives = torch.full((2, 1, 8, 3), torch.nan)
    negatives[0] = 1.0
    value = loss(prediction, Negatives(negatives, torch.tensor([[True], [False]])))
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
    two = Negatives(negatives, valid)
    assert RepulsiveDistanceLoss(**settings)(prediction, two) == -1.0
    assert RepulsiveDistanceLoss(**settings, reduction="mean")(prediction, two) == -2.0


def test_sum_positive_rule_drops_what_turns_right_and_mask_keeps_it():
    right = torch.zeros(1, 1, 8, 3)
    right[..., 1] = -2.0
    valid = torch.tensor([[True]])
    assert RepulsiveDistanceLoss().counted(right, valid).item()
    rule = RepulsiveDistanceLoss(valid_rule="sum_positive")
    assert not rule.counted(right, valid).item()
    assert rule.counted(-right, valid).item()
    assert not rule.counted(-right, ~valid).item()


def test_weight_zero_switches_the_term_off():
    loss = RepulsiveDistanceLoss(weight=0.0, attraction_weight=10.0)
    assert loss(_plans(0.0), Negatives(_plans(4.0)[:, None], torch.tensor([[True]]))) == 0.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": 10.0, "attraction_weight": 10.0}, "no minimum"),
        ({"weight": 12.0, "attraction_weight": 10.0}, "no minimum"),
        ({"weight": float("nan")}, "must not be negative"),
        ({"weight": -1.0}, "must not be negative"),
        ({"valid_rule": "sum"}, "valid_rule must be one of"),
        ({"reduction": "all"}, "reduction must be one of"),
        ({"average": "samples"}, "average must be one of"),
        ({"count_over": "rank"}, "count_over must be one of"),
        ({"margin_unit": "metres"}, "margin_unit must be one of"),
        ({"margin": 0.0}, "margin must be positive"),
        ({"margin": float("nan")}, "margin must be positive"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"reach": 0.5}, "reach must be at least 1"),
        ({"reach": 2.0, "margin": 1.0}, "and 1 with a margin"),
        ({"column_weights": {"NO": 1.0}}, "factors >= 0 by sub-score"),
        ({"column_weights": {"NC": -1.0}}, "factors >= 0 by sub-score"),
        ({"column_weights": {"NC": 1.0, "DAC": 1.0}}, r"weight times the sum of column_weights 10\.0 must"),
        ({"window": {"before": 0.0}}, "before and after must be positive"),
        ({"window": {"floor": 1.0}}, r"floor in \[0, 1\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        RepulsiveDistanceLoss(**settings)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"prediction \(2, 8, 3\)"):
        RepulsiveDistanceLoss()(
            _plans(0.0, 0.0), Negatives(_plans(1.0, 1.0), torch.ones(2, 1, dtype=torch.bool))
        )


# ------------------------------------------------------------------ beyond the paper
def _one(*values: float, valid: tuple[bool, ...] | None = None, **more: torch.Tensor) -> Negatives:
    """Negatives of one sample, each the same number everywhere."""
    mask = torch.tensor([valid or (True,) * len(values)])
    return Negatives(_plans(*values)[None], mask, **more)


def _slope(loss: RepulsiveDistanceLoss, at: float, negatives: Negatives) -> torch.Tensor:
    """Derivative by each pose of a plan that is ``at`` everywhere, times 8."""
    prediction = _plans(at).requires_grad_()
    loss(prediction, negatives).backward()
    return 8 * prediction.grad[0].sum(dim=-1)


def test_softmin_weights_negatives_by_their_distance_from_the_plan():
    loss = RepulsiveDistanceLoss(1.0, 10.0, reduction="softmin", temperature=0.5)
    # Distances 1 and 3, mean 2: weights exp(-1) and exp(-3), normalised.
    first = math.exp(-1.0) / (math.exp(-1.0) + math.exp(-3.0))
    wanted = -(first * 1.0 + (1 - first) * 3.0)
    invalid = (True, False, True)
    assert loss(_plans(0.0), _one(1.0, 0.1, -3.0, valid=invalid)).item() == pytest.approx(wanted)
    # The weights carry no gradient: towards +1 with `first`, towards -3 with the rest.
    slope = _slope(loss, 0.0, _one(1.0, 0.1, -3.0, valid=invalid))
    torch.testing.assert_close(slope, torch.full((8,), first - (1 - first)))


def test_softmin_goes_from_the_nearest_to_the_mean():
    negatives = _one(3.0, -1.0)
    cold = RepulsiveDistanceLoss(1.0, 10.0, reduction="softmin", temperature=1e-3)
    hot = RepulsiveDistanceLoss(1.0, 10.0, reduction="softmin", temperature=1e6)
    assert cold(_plans(0.0), negatives).item() == pytest.approx(-1.0)
    assert hot(_plans(0.0), negatives).item() == pytest.approx(-2.0)
    assert cold(_plans(2.5), negatives).item() == pytest.approx(-0.5)
    assert cold(_plans(3.0), _one(3.0, 3.0)).item() == 0.0


def test_margin_repels_within_it_only_and_is_bounded_below():
    loss = RepulsiveDistanceLoss(2.0, 10.0, margin=1.5)
    assert loss(_plans(0.0), _one(0.5)).item() == 2.0 * (1.5 - 0.5)
    assert loss(_plans(0.0), _one(4.0)).item() == 0.0
    assert torch.equal(_slope(loss, 0.0, _one(0.5)), torch.full((8,), 2.0))
    assert not _slope(loss, 0.0, _one(4.0)).any()


def test_a_margin_holds_what_no_attraction_holds():
    """With a margin any weight is allowed: a plan is driven to the margin, not to infinity."""
    loss = RepulsiveDistanceLoss(50.0, 10.0, margin=1.0)
    plan = _plans(0.9).requires_grad_()
    optimizer = torch.optim.SGD([plan], lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        loss(plan, _one(0.5)).backward()
        optimizer.step()
    assert (plan - 0.5).abs().mean().item() == pytest.approx(1.0, abs=0.05)


def test_margin_in_units_of_the_expert_repels_while_the_plan_is_nearer_to_the_failure_than_the_expert():
    loss = RepulsiveDistanceLoss(2.0, 10.0, margin=1.0, margin_unit="expert")
    negatives = _one(1.0, expert=_plans(0.2))  # the expert is 0.8 from the failure
    assert loss(_plans(0.5), negatives).item() == pytest.approx(2.0 * (0.8 - 0.5))
    assert loss(_plans(0.2), negatives).item() == pytest.approx(0.0)
    assert loss(_plans(-3.0), negatives).item() == 0.0
    assert not _slope(loss, -3.0, negatives).any()
    half = RepulsiveDistanceLoss(2.0, 10.0, margin=0.5, margin_unit="expert")
    assert half(_plans(0.5), negatives).item() == 0.0
    assert half(_plans(0.7), negatives).item() == pytest.approx(2.0 * (0.4 - 0.3))


def test_reach_pushes_back_also_what_errs_beyond_the_failure():
    """Expert at 0, failure at 1: up to 3 an error towards the failure costs 15 per metre, away from it 5."""
    negatives = _one(1.0, expert=_plans(0.0))

    def cost(loss: RepulsiveDistanceLoss, at: float) -> float:
        attraction = 10.0 * torch.sign(torch.tensor(at))
        return float(attraction + _slope(loss, at, negatives)[0])

    near, far = RepulsiveDistanceLoss(5.0, 10.0), RepulsiveDistanceLoss(5.0, 10.0, reach=3.0)
    assert [cost(near, at) for at in (-2.0, -0.5, 0.5, 2.0, 4.0)] == [-5, -5, 15, 5, 5]
    assert [cost(far, at) for at in (-2.0, -0.5, 0.5, 2.0, 4.0)] == [-5, -5, 15, 15, 5]
    assert far(_plans(0.5), negatives).item() == -5.0 * (3.0 - 0.5)


def test_softmin_looks_at_the_failures_themselves_however_far_they_reach():
    loss = RepulsiveDistanceLoss(1.0, 10.0, reduction="softmin", temperature=1e-3, reach=10.0)
    assert loss(_plans(1.9), _one(1.0, -0.5, expert=_plans(0.0))).item() == pytest.approx(-(10.0 - 1.9))


def test_margin_counts_for_each_negative_apart():
    loss = RepulsiveDistanceLoss(1.0, 10.0, margin=2.0, reduction="mean")
    assert loss(_plans(0.0), _one(1.0, -5.0)).item() == pytest.approx(((2.0 - 1.0) + 0.0) / 2)


def test_sub_scores_have_their_own_weights_and_their_own_averages():
    loss = RepulsiveDistanceLoss(4.0, 10.0, column_weights={"NC": 1.0, "DAC": 0.5})
    negatives = Negatives(
        torch.stack([_plans(1.0, 2.0), _plans(3.0, 100.0)]),
        torch.tensor([[True, True], [True, False]]),
        columns=torch.tensor([[0, 1], [0, 1]]),
    )
    # Collisions: mean of 1 and 3, weight 4. Off-road: 2 in the only sample that has one, weight 2.
    assert loss(_plans(0.0, 0.0), negatives).item() == -(4.0 * 2.0 + 2.0 * 2.0)
    none = negatives._replace(valid=torch.zeros(2, 2, dtype=torch.bool))
    assert loss(_plans(0.0, 0.0), none).item() == 0.0


def test_negatives_for_other_sub_scores_are_refused():
    loss = RepulsiveDistanceLoss(4.0, 10.0, column_weights={"NC": 1.0, "DAC": 0.5})
    loss.check_columns(torch.tensor([[0, 1]]))
    for columns in ([[6]], [[0]], [[0, 1, 3]]):
        with pytest.raises(ValueError, match=r"column_weights are for .*type='NearestNegativesPerColumn'"):
            loss.check_columns(torch.tensor(columns))
    with pytest.raises(ValueError, match=r"need negatives\.columns"):
        loss(_plans(0.0), _one(1.0))


def test_window_acts_around_the_moment_of_failure():
    loss = RepulsiveDistanceLoss(2.0, 10.0, window={"before": 1.0, "after": 0.5})
    weights = FailureWindow(1.0, 0.5)(torch.tensor([[2.0]]))[0, 0]
    assert weights.tolist() == pytest.approx([math.exp(-0.5 * x * x) for x in (1.5, 1, 0.5, 0, 1, 2, 3, 4)])
    at_two = _one(1.0, times=torch.tensor([[2.0]]))
    torch.testing.assert_close(_slope(loss, 0.0, at_two), 2.0 * weights)
    assert loss(_plans(0.0), at_two).item() == pytest.approx(-2.0 * weights.mean().item())


def test_a_failure_without_a_moment_repels_all_poses():
    loss = RepulsiveDistanceLoss(2.0, 10.0, window={})
    assert loss(_plans(0.0), _one(1.0, times=torch.tensor([[torch.inf]]))).item() == -2.0
    with pytest.raises(ValueError, match=r"need negatives\.times"):
        loss(_plans(0.0), _one(1.0))


@pytest.mark.parametrize("time", [0.0, 0.1, 0.5, 3.9, 4.0])
def test_a_window_has_one_full_pose_and_never_more(time):
    weights = FailureWindow(0.2, 0.1, floor=0.25)(torch.tensor([time]))[0]
    assert weights.max() == 1.0
    assert weights.min() == 0.25


@pytest.mark.parametrize(("time", "nearest"), [(0.0, 0), (8.0, 7)])
def test_a_narrow_window_keeps_its_nearest_pose(time, nearest):
    """Its Gaussian is 0 in float32 at every pose."""
    weights = FailureWindow(0.03, 0.03)(torch.tensor([time]))[0]
    assert weights[nearest] == 1.0 and weights.sum() == 1.0


def test_average_over_the_batch_keeps_the_weight_that_each_sample_sees():
    negatives = Negatives(_plans(1.0, 1.0, 1.0, 1.0)[:, None], torch.tensor([[True]] + [[False]] * 3))
    plans = _plans(0.0, 0.0, 0.0, 0.0)
    assert RepulsiveDistanceLoss(5.0, 10.0)(plans, negatives).item() == -5.0
    assert RepulsiveDistanceLoss(5.0, 10.0, average="batch")(plans, negatives).item() == -5.0 / 4


@pytest.mark.parametrize(
    "settings",
    [
        {"reduction": "softmin"},
        {"margin": 1.0},
        {"margin": 1.0, "margin_unit": "expert", "reduction": "softmin"},
        {"column_weights": {"NC": 0.5, "DAC": 0.5}, "average": "batch"},
        {"window": {}, "reduction": "mean"},
        {"reach": 3.0, "reduction": "softmin"},
    ],
)
def test_no_variant_lets_garbage_or_an_empty_batch_through(settings):
    loss = RepulsiveDistanceLoss(5.0, 10.0, **settings)
    plans = torch.full((2, 2, 8, 4), torch.nan)
    plans[0, 0] = 0.5
    more = {
        "columns": torch.tensor([[0, 1]] * 2),
        "times": torch.full((2, 2), torch.inf),
        "expert": torch.zeros(2, 8, 4),
    }
    some = torch.tensor([[True, False], [False, False]])
    for valid in (some, torch.zeros_like(some)):
        prediction = torch.full((2, 8, 4), 0.2, requires_grad=True)
        value = loss(prediction, Negatives(plans, valid, **more))
        value.backward()
        assert prediction.grad.isfinite().all()
        assert not prediction.grad[1].any()
        assert bool(prediction.grad[0].any()) == bool(valid.any())
        assert value.isfinite()
        assert bool(value == 0) == (not valid.any())


def _gradient(loss: RepulsiveDistanceLoss, prediction: torch.Tensor, negatives: Negatives) -> torch.Tensor:
    leaf = prediction.clone().requires_grad_()
    loss(leaf, negatives).backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("settings", [{}, {"reduction": "softmin"}, {"margin": 1.5}, {"average": "batch"}])
def test_a_centred_repulsion_moves_plans_against_each_other_and_their_mean_not_at_all(settings):
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(5, 8, 4, generator=generator)
    plans = prediction[:, None] + torch.rand(5, 2, 8, 4, generator=generator) - 0.2
    plans[0, 1] = torch.nan
    valid = torch.tensor([[True, False], [True, True], [True, True], [False, True], [False, False]])
    plain, centred = (
        RepulsiveDistanceLoss(weight=5.0, attraction_weight=10.0, centred=flag, **settings)
        for flag in (False, True)
    )
    negatives = Negatives(plans, valid)
    assert centred(prediction, negatives) == plain(prediction, negatives)
    free, held = (_gradient(loss, prediction, negatives) for loss in (plain, centred))
    repelled = valid.any(dim=1)
    torch.testing.assert_close(held[repelled], free[repelled] - free[repelled].mean(dim=0))
    torch.testing.assert_close(held.sum(dim=0), torch.zeros(8, 4), atol=1e-6, rtol=0.0)
    assert (held[~repelled] == 0).all() and held.abs().max() > 0


def test_a_centred_repulsion_of_a_batch_without_negatives_moves_nothing():
    loss = RepulsiveDistanceLoss(centred=True)
    negatives = Negatives(torch.full((3, 1, 8, 4), torch.nan), torch.zeros(3, 1, dtype=torch.bool))
    assert torch.equal(_gradient(loss, torch.ones(3, 8, 4), negatives), torch.zeros(3, 8, 4))


def _mixed_batch() -> tuple[torch.Tensor, Negatives]:
    """Plans at 0: two near a failure on the same side, one far from its own, one without; two sub-scores."""
    plans = _plans(0.2, 0.4, 9.0, 0.3, 0.1)[:, None]
    valid = torch.tensor([[True], [True], [True], [True], [False]])
    columns, times = (
        torch.tensor([[0], [0], [0], [1], [0]]),
        torch.tensor([[0.5], [4.0], [4.0], [0.5], [1.0]]),
    )
    return torch.zeros(5, 8, 3), Negatives(plans, valid, columns, times)


@pytest.mark.parametrize(
    ("settings", "repelled"),
    [
        ({"margin": 1.0}, [0, 1, 3]),
        ({"column_weights": {"NC": 1.0, "DAC": 0.0}}, [0, 1, 2]),
        ({"margin": 1.0, "column_weights": {"NC": 1.0, "DAC": 0.0}}, [0, 1]),
    ],
)
def test_the_mean_push_is_that_of_those_that_are_repelled_and_moves_no_others(settings, repelled):
    prediction, negatives = _mixed_batch()
    free, held = (
        _gradient(RepulsiveDistanceLoss(5.0, 10.0, centred=flag, **settings), prediction, negatives)
        for flag in (False, True)
    )
    assert free.abs().sum(dim=(1, 2)).nonzero().flatten().tolist() == repelled
    torch.testing.assert_close(held[repelled], free[repelled] - free[repelled].mean(dim=0))
    assert not held[[row for row in range(5) if row not in repelled]].any()


def test_a_centred_window_leaves_poses_alone_that_are_far_from_the_moment():
    prediction, negatives = _mixed_batch()
    free, held = (
        _gradient(RepulsiveDistanceLoss(5.0, 10.0, centred=flag, window={}), prediction, negatives)
        for flag in (False, True)
    )
    # All failures lie on one side: a push that all have in common is nobody's, at any pose.
    assert free.abs().max() > 0.01 and held.abs().max() < 1e-7
    prediction[1] = 0.8  # now beyond its failure, and so pushed to the other side
    free, held = (
        _gradient(RepulsiveDistanceLoss(5.0, 10.0, centred=flag, window={}), prediction, negatives)
        for flag in (False, True)
    )
    torch.testing.assert_close(held.sum(dim=0), torch.zeros(8, 3), atol=1e-7, rtol=0.0)
    early, late = [0, 3], [1, 2]  # rows that fail in the first pose, and in the last
    assert held[late, 7].abs().min() > 1e-3
    assert (held[early, 7].abs() <= 2 * free[early, 7].abs()).all() and held[early, 7].abs().max() < 1e-6
    assert not held[4].any()


def test_settings_that_do_nothing_are_told(monkeypatch):
    told = []
    monkeypatch.setattr(repulsive, "print_log", lambda text, *args, **kwargs: told.append(text))
    RepulsiveDistanceLoss(1.0, 10.0, reduction="softmin", temperature=0.5)
    RepulsiveDistanceLoss(1.0, 10.0, margin=1.0, margin_unit="expert")
    assert not told
    RepulsiveDistanceLoss(1.0, 10.0, temperature=0.5)
    RepulsiveDistanceLoss(1.0, 10.0, margin_unit="expert")
    assert told == [
        "RepulsiveDistanceLoss: temperature=0.5 does nothing without reduction='softmin'",
        "RepulsiveDistanceLoss: margin_unit='expert' does nothing without a margin",
    ]
