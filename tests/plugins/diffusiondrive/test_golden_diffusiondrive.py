"""DiffusionDrive equals its original, takes any number of steps, and says what is wrong with its anchors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from beyonddrive.checkpoints.conversion import to_native, to_official
from beyonddrive.checkpoints.golden import GoldenFile
from beyonddrive.checkpoints.releases import ConversionError
from beyonddrive.engine.checkpoint_files import CheckpointError, check_weights
from beyonddrive.heads.plan_prior import PriorError
from beyonddrive.plugins.diffusiondrive.head import TruncatedDiffusionHead, denormalise, normalise
from beyonddrive.plugins.diffusiondrive.planner import DiffusionDrivePlanner
from beyonddrive.tests.plugins.small import scene_tokens

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "models"
ANCHORS = "_transfuser_model._trajectory_head.plan_anchor"


@pytest.fixture(scope="module")
def golden() -> GoldenFile:
    return GoldenFile(GOLDEN, "diffusiondrive")


@pytest.fixture
def head() -> TruncatedDiffusionHead:
    torch.manual_seed(0)
    small = TruncatedDiffusionHead(
        num_anchors=5,
        denoiser={"dim": 16, "num_heads": 4, "ffn_dim": 32, "time_dim": 32},
        bev_size=(2, 2),
        bev_channels=4,
    )
    small.anchors.fit(np.random.default_rng(0).normal(size=(50, 8, 3)).cumsum(axis=1))
    return small.eval()


def test_planner_equals_its_original(golden: GoldenFile, assert_parity: Callable[[GoldenFile], None]) -> None:
    assert_parity(golden)


def test_conversion_keeps_the_anchors_and_goes_both_ways(golden: GoldenFile) -> None:
    conversion = golden.conversion
    assert conversion.release.name == "diffusiondrive"
    assert torch.equal(
        conversion.state["trajectory_head.anchors.points"], torch.from_numpy(golden.data[ANCHORS])
    )
    back = to_official(conversion.state).state
    assert back.keys() == golden.keys.keys()
    assert all(torch.equal(back[key], value) for key, value in golden.weights().items())


def test_conversion_without_or_with_damaged_anchors_is_refused(golden: GoldenFile) -> None:
    weights = golden.weights()
    with pytest.raises(ConversionError, match="plan_anchor"):
        to_native({key: value for key, value in weights.items() if key != ANCHORS})
    with pytest.raises(ConversionError, match=r"plan_anchor \(19, 8, 2\) for \(20, 8, 2\)"):
        to_native(weights | {ANCHORS: weights[ANCHORS][:19]})
    with pytest.raises(ConversionError, match="NaN"):
        to_native(weights | {ANCHORS: weights[ANCHORS] * torch.nan})


@pytest.mark.parametrize(("steps", "times"), [(1, [0]), (2, [10, 0]), (5, [16, 12, 8, 4, 0])])
def test_any_number_of_steps(head: TruncatedDiffusionHead, steps: int, times: list[int]) -> None:
    assert head.step_times(steps) == times
    with torch.no_grad():
        output = head(scene_tokens(), steps=steps)
    assert output.proposals is not None
    assert output.proposals.shape == (2, 5, 8, 3)
    assert output.proposals.isfinite().all()


@pytest.mark.parametrize("steps", [0, 21])
def test_impossible_numbers_of_steps(steps: int) -> None:
    with pytest.raises(ValueError, match=f"needs 1 to 20 steps .*got {steps}"):
        TruncatedDiffusionHead(denoiser={"dim": 16}, steps=steps)


@pytest.mark.parametrize("settings", [{"window": 1001}, {"train_window": 0}, {"noise_time": 1000}], ids=str)
def test_impossible_diffusion_times(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="noise_time must be below 1000"):
        TruncatedDiffusionHead(denoiser={"dim": 16}, **settings)


def test_plan_is_the_mode_with_the_highest_score(head: TruncatedDiffusionHead) -> None:
    with torch.no_grad():
        output = head(scene_tokens())
    assert output.scores is not None and output.proposals is not None
    best = output.scores.argmax(dim=1)
    assert torch.equal(output.trajectory, output.proposals[torch.arange(2), best])


def test_scene_features_are_computed_once_for_all_steps(head: TruncatedDiffusionHead) -> None:
    calls: list[str] = []
    for layer in head.denoiser.layers:
        layer.map_value.conv.register_forward_hook(lambda *_: calls.append("map"))
    with torch.no_grad():
        head(scene_tokens(), steps=4)
    assert len(calls) == len(head.denoiser.layers)


def test_a_mode_does_not_depend_on_the_others(head: TruncatedDiffusionHead) -> None:
    with torch.no_grad():
        context = head.context(scene_tokens())
        draws = head.draw(2, 12, torch.Generator().manual_seed(3))
        poses, logits = head.sample(context, draws)
        fewer, _ = head.sample(context, draws[:, :3])
    assert poses.shape == (2, 12, 8, 3) and logits.shape == (2, 12)
    torch.testing.assert_close(poses[:, :3], fewer)


def test_supervised_follows_the_anchor_nearest_to_the_expert(
    head: TruncatedDiffusionHead, golden: GoldenFile
) -> None:
    anchors = head.anchors()
    expert = torch.cat([anchors[[3, 1]] + 0.01, torch.zeros(2, 8, 1)], dim=-1)
    assert head.expert_modes(expert).tolist() == [3, 1]
    samples = golden.samples()
    for sample, plan in zip(samples, expert, strict=True):
        sample.gt.trajectory = plan
    output = head.training_output(scene_tokens(), samples)
    poses = output.extras["poses"]
    supervised = head.supervised(output, samples)
    assert supervised.shape == (2, 2, 8, 3)  # after each of two layers
    assert torch.equal(supervised[0], poses[0, :, 3]) and torch.equal(supervised[1], poses[1, :, 1])
    modes = head.modes(output, samples)
    assert modes is not None and torch.equal(modes, poses[:, -1])


def test_normalisation_is_inverted() -> None:
    points = torch.randn(7, 2) * 20
    torch.testing.assert_close(denormalise(normalise(points)), points, atol=1e-4, rtol=1e-5)


def test_missing_anchors_are_named(tmp_path: Path) -> None:
    settings = {
        "num_anchors": 5,
        "denoiser": {"dim": 16, "num_heads": 4, "ffn_dim": 32},
        "bev_size": (2, 2),
        "bev_channels": 4,
    }
    with pytest.raises(PriorError, match=r"has no anchors: load a checkpoint .*build-vocabulary"):
        TruncatedDiffusionHead(**settings)(scene_tokens())
    with pytest.raises(PriorError, match=r"nowhere\.npz: there is no vocabulary here"):
        TruncatedDiffusionHead(anchors=tmp_path / "nowhere.npz", **settings)(scene_tokens())
    np.save(tmp_path / "few.npy", np.zeros((4, 8, 3)))
    with pytest.raises(PriorError, match="holds 4 plans, 5 are wanted"):
        TruncatedDiffusionHead(anchors=tmp_path / "few.npy", **settings)(scene_tokens())
    np.save(tmp_path / "shape.npy", np.zeros((5, 8, 2)))
    with pytest.raises(PriorError, match=r"must have shape \(N, 8, 3\)"):
        TruncatedDiffusionHead(anchors=tmp_path / "shape.npy", **settings)(scene_tokens())
    np.save(tmp_path / "nan.npy", np.full((5, 8, 3), np.nan))
    with pytest.raises(PriorError, match="NaN"):
        TruncatedDiffusionHead(anchors=tmp_path / "nan.npy", **settings)(scene_tokens())


def test_anchors_of_a_file_and_of_a_checkpoint(head: TruncatedDiffusionHead, tmp_path: Path) -> None:
    plans = np.random.default_rng(5).normal(size=(5, 8, 3))
    np.save(tmp_path / "plans.npy", plans)
    settings = {"num_anchors": 5, "denoiser": {"dim": 16, "num_heads": 4, "ffn_dim": 32, "time_dim": 32}}
    other = TruncatedDiffusionHead(
        anchors=tmp_path / "plans.npy", bev_size=(2, 2), bev_channels=4, **settings
    )
    assert other.anchors.missing  # built without reading the file
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.anchors(), head.anchors())  # the checkpoint's win
    fresh = TruncatedDiffusionHead(
        anchors=tmp_path / "plans.npy", bev_size=(2, 2), bev_channels=4, **settings
    )
    torch.testing.assert_close(fresh.anchors(), torch.from_numpy(plans[..., :2]).float())


def test_a_checkpoint_without_anchors_is_refused(head: TruncatedDiffusionHead) -> None:
    state = head.state_dict()
    state["anchors.points"] = torch.full_like(state["anchors.points"], torch.nan)
    with pytest.raises(CheckpointError, match=r"anchors\.points"):
        check_weights(head, state, "file.pth")
    head.load_state_dict(state)
    with pytest.raises(PriorError, match="has no anchors"):
        head(scene_tokens())
    state["anchors.points"][0] = 0.0  # NaN in some of them only
    head.load_state_dict(state)
    with pytest.raises(PriorError, match=r"points\) hold NaN"):
        head(scene_tokens())


def test_another_encoder_is_named(head: TruncatedDiffusionHead) -> None:
    scene = scene_tokens()
    assert scene.memory is not None
    scene.memory = scene.memory[:, :4]
    with pytest.raises(ValueError, match=r"bev_size \(2, 2\) .* do not fit an encoder with 4 memory tokens"):
        head(scene)


def test_planner_wants_its_own_head() -> None:
    with pytest.raises(ValueError, match="must be a TruncatedDiffusionHead, got AbsoluteTrajectoryHead"):
        DiffusionDrivePlanner(trajectory_head={"type": "AbsoluteTrajectoryHead"}, backbone={}, decoder={})
