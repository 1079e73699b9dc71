"""Plans at the door: the right shape and finite, or an error that says what is wrong."""

import numpy as np
import pytest

from beyonddrive.structures.plan import PlanError, check_plans


def test_any_number_type_becomes_float64():
    assert check_plans(np.ones((3, 8, 3), dtype=np.float32)).dtype == np.float64
    assert check_plans(np.ones((0, 8, 3))).shape == (0, 8, 3)


@pytest.mark.parametrize("shape", [(8, 3), (2, 10, 3), (2, 8, 2), (2, 8, 3, 1)])
def test_a_wrong_shape_is_named(shape):
    with pytest.raises(PlanError, match=r"token-7.*\(N, 8, 3\).*got \("):
        check_plans(np.zeros(shape), "token-7")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found(value):
    plans = np.zeros((4, 8, 3))
    plans[2, 5, 1] = value
    with pytest.raises(PlanError, match="the first is plan 2"):
        check_plans(plans)


@pytest.mark.parametrize(
    "plans", [np.full((1, 8, 3), "x"), np.full((1, 8, 3), None), np.zeros((1, 8, 3), complex)]
)
def test_what_is_not_a_number_is_refused(plans):
    with pytest.raises(PlanError, match="must be numbers"):
        check_plans(plans)
