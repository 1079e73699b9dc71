"""A planner's ``repulsion`` field wraps its trajectory head."""

import pytest
import torch
from torch import nn

from beyonddrive.registry import MODELS

HEAD = {"type": "AbsoluteTrajectoryHead", "hidden": None, "loss": {"type": "PlanL1Loss", "weight": 2.0}}
PLANNER = {"type": "EgoStatusMLP", "hidden": 8, "num_layers": 1, "trajectory_head": HEAD}


def build(**settings):
    return MODELS.build({**PLANNER, **settings})


def test_the_field_and_the_wrapper_in_the_config_are_the_same():
    margin = {"weight": 1.0, "margin": 0.5, "margin_unit": "expert"}
    planner = build(repulsion={"weight": 1.5, "reach": 2.0, "window": {"before": 2.0}, "mode_loss": margin})
    explicit = build(
        trajectory_head={
            "type": "RepulsiveHead",
            "head": HEAD,
            "loss": {"weight": 1.5, "reach": 2.0, "window": {"before": 2.0}},
            "mode_loss": margin,
        }
    )
    assert str(planner) == str(explicit)
    for name in ("repulsion", "mode_repulsion"):
        first, second = (getattr(p.trajectory_head, name) for p in (planner, explicit))
        for key in ("weight", "attraction_weight", "reach", "margin", "margin_unit", "average"):
            assert getattr(first, key) == getattr(second, key)
    assert planner.trajectory_head.repulsion.window.before == 2.0


def test_checkpoints_have_the_same_keys_with_and_without():
    planner, bare = build(repulsion={"weight": 1.0}), build()
    assert set(planner.state_dict()) == set(bare.state_dict())
    bare.load_state_dict(planner.state_dict(), strict=True)
    status = {"status": torch.ones(2, 8)}
    assert torch.equal(planner(status)["trajectory"], bare(status)["trajectory"])


def test_none_wraps_nothing_and_a_weight_of_zero_wraps():
    bare, wrapped = (build(repulsion=given).trajectory_head for given in (None, {"weight": 0}))
    assert bare.bare is bare and wrapped.bare is not wrapped
    assert wrapped.repulsion.weight == 0


def test_a_head_is_not_repelled_twice():
    wrapped = {"type": "RepulsiveHead", "head": HEAD, "loss": {"weight": 1.0}}
    with pytest.raises(ValueError, match=r"repelled twice: set the planner's repulsion, or .* not both"):
        build(trajectory_head=wrapped, repulsion={"weight": 1.0})
    with pytest.raises(ValueError, match="repelled twice"):
        MODELS.build({"type": "RepulsiveHead", "head": wrapped})


@pytest.mark.parametrize(
    ("repulsion", "error", "words"),
    [
        ({"weight": 2.0}, ValueError, "must be smaller than attraction_weight"),
        ({"wieght": 1.0}, TypeError, "wieght"),
        ({"mode_loss": {"weight": 1.0}, "weight": 1.0}, ValueError, "mode_loss needs a margin"),
    ],
)
def test_settings_that_make_no_sense_are_refused(repulsion, error, words):
    with pytest.raises(error, match=words):
        build(repulsion=repulsion)


@pytest.mark.parametrize("repulsion", [None, {"weight": 1.0}])
def test_what_is_no_trajectory_head_is_refused(repulsion):
    with pytest.raises(ValueError, match="head must be a TrajectoryHead, got Identity"):
        build(trajectory_head={"type": nn.Identity}, repulsion=repulsion)


def test_raw_outputs_are_calibrated_too_so_that_an_export_is():
    planner, bare = build(calibration={"turn": 0.1, "stretch": 0.9}), build()
    bare.load_state_dict(planner.state_dict())
    status = {"status": torch.ones(2, 8)}
    expected = planner.calibration(bare(status)["trajectory"])
    assert torch.equal(planner(status)["trajectory"], expected)
    assert not torch.equal(expected, bare(status)["trajectory"])
