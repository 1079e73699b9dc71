from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from beyonddrive.engine.schedulers import WarmupCosineLR
from beyonddrive.registry import PARAM_SCHEDULERS

GOLDEN = np.load(Path(__file__).parents[1] / "data/golden/schedules/lr_schedules.npz")
RECIPES = {
    "diffusiondrive(lr6e-4,min1e-6,warm3,100ep)[epoch,group]": (6e-4, 1e-6, 3),
    "bd(lr2e-4,min1e-7,warm3,100ep)": (2e-4, 1e-7, 3),
    "bd_flowpolicy(lr3e-4,min1e-7,warm2,100ep)": (3e-4, 1e-7, 2),
}


def rates(optimizer, scheduler, steps):
    """Learning rate of every group in every step (steps, groups)."""
    table = []
    for _ in range(steps):
        table.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return np.array(table)


def two_groups(lr, lr_mult=1.0):
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    return torch.optim.AdamW([{"params": [a]}, {"params": [b], "lr": lr * lr_mult}], lr=lr)


@pytest.mark.parametrize("name", RECIPES)
def test_every_published_epoch_has_the_published_rate(name):
    lr, floor, warmup = RECIPES[name]
    optimizer = two_groups(lr)
    scheduler = PARAM_SCHEDULERS.build(
        {"type": "WarmupCosineLR", "warmup": warmup, "eta_min": floor, "optimizer": optimizer, "end": 100}
    )
    expected = GOLDEN[name].reshape(100, -1)
    table = rates(optimizer, scheduler, 100)
    np.testing.assert_allclose(table, np.broadcast_to(expected[:, :1], (100, 2)), rtol=1e-12)


def test_a_group_with_its_own_scale_keeps_it_at_every_epoch():
    optimizer = two_groups(2e-4, lr_mult=0.1)
    scheduler = WarmupCosineLR(optimizer, warmup=3, eta_min=1e-7, end=100)
    table = rates(optimizer, scheduler, 100)
    np.testing.assert_allclose(table[:, 0], GOLDEN["bd(lr2e-4,min1e-7,warm3,100ep)"], rtol=1e-12)
    np.testing.assert_allclose(table[:, 1], 0.1 * table[:, 0], rtol=1e-12)


def test_stepping_by_iteration_has_the_same_curve_on_a_finer_grid():
    optimizer = two_groups(1.0)
    scheduler = PARAM_SCHEDULERS.build(
        {"type": "WarmupCosineLR", "warmup": 2, "end": 10, "convert_to_iter_based": True},
        default_args={"optimizer": optimizer, "epoch_length": 5},
    )
    table = rates(optimizer, scheduler, 50)[:, 0]
    assert table[4] == pytest.approx(0.5) and table[9] == pytest.approx(1.0)
    # half way through the cosine, at iteration 10 + 40 / 2
    assert table[30] == pytest.approx(0.5)
    assert (np.diff(table[10:]) < 0).all()


def test_a_resumed_schedule_takes_up_its_position_but_follows_the_config_horizon():
    optimizer = two_groups(1.0)
    scheduler = WarmupCosineLR(optimizer, warmup=1, end=10)
    rates(optimizer, scheduler, 4)
    state = scheduler.state_dict()
    resumed_optimizer = two_groups(1.0)
    resumed = WarmupCosineLR(resumed_optimizer, warmup=1, end=20)
    resumed.load_state_dict(state)
    whole_optimizer = two_groups(1.0)
    whole = rates(whole_optimizer, WarmupCosineLR(whole_optimizer, warmup=1, end=20), 20)
    resumed_optimizer.step()
    resumed.step()
    np.testing.assert_allclose(resumed_optimizer.param_groups[0]["lr"], whole[5, 0], rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "word"), [({"warmup": 11}, "warmup"), ({"warmup": 1, "eta_min": 2.0}, "eta_min")]
)
def test_impossible_schedules_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        WarmupCosineLR(two_groups(1.0), end=10, **settings)
