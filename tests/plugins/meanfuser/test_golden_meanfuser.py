"""MeanFuser equals its original, takes any number of steps, and says what is wrong with its mixture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beyonddrive.checkpoints.conversion import to_native, to_official
from beyonddrive.checkpoints.golden import GoldenFile
from beyonddrive.checkpoints.loading import build_planner, load_weights
from beyonddrive.checkpoints.releases import ConversionError
from beyonddrive.checkpoints.weight_files import read_weights, write_weights
from beyonddrive.generators.vocabulary import (
    assign_plans,
    build_vocabulary,
    describe_vocabulary,
    write_vocabulary,
)
from beyonddrive.heads.plan_prior import PriorError
from beyonddrive.plugins.meanfuser.head import MeanFlowHead
from beyonddrive.plugins.meanfuser.losses import mean_velocity
from beyonddrive.plugins.meanfuser.planner import MeanFuserPlanner
from beyonddrive.tests.plugins.small import scene_tokens
from beyonddrive.tools import convert_checkpoint

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "models"
CLUSTERS = "meanfuser_model._meanflow_head.cluster_trajs"
CENTER = "trajectory_head.mixture.center"
SMALL: dict[str, Any] = {
    "dim": 16,
    "num_context": 3,
    "map_size": (4, 4),
    "bev_size": (2, 2),
    "bev_channels": 4,
    "denoiser": {"num_heads": 4, "ffn_dim": 32},
    "reconstruction": {"hidden": 16, "num_layers": 1, "num_heads": 4, "ffn_dim": 32},
    "num_components": 4,
    "num_proposals": 4,
}


@pytest.fixture(scope="module")
def golden() -> GoldenFile:
    return GoldenFile(GOLDEN, "bd_meanfuser")


def experts(count: int = 60) -> np.ndarray:
    generator = np.random.default_rng(0)
    plans = np.zeros((count, 8, 3))
    plans[..., 0] = generator.uniform(0.5, 6, (count, 1)) * np.arange(1, 9)
    plans[..., 1:] = generator.normal(size=(count, 8, 2)).cumsum(axis=1) * 0.2
    return plans


@pytest.fixture
def head() -> MeanFlowHead:
    torch.manual_seed(0)
    small = MeanFlowHead(**SMALL)
    small.mixture.fit(experts())
    return small.eval()


def test_planner_equals_its_original(golden: GoldenFile, assert_parity: Callable[[GoldenFile], None]) -> None:
    assert_parity(golden)


def test_conversion_takes_the_means_from_the_data_file(golden: GoldenFile) -> None:
    conversion = golden.conversion
    assert conversion.release.name == "meanfuser"
    assert conversion.settings == {"backbone.latent": True, "backbone.lidar_channels": 4}
    assert torch.equal(conversion.state[CENTER], torch.from_numpy(golden.data["center_points"]))
    back = to_official(conversion.state).state
    assert back.keys() == golden.keys.keys()
    assert all(torch.equal(back[key], value) for key, value in golden.weights().items())


def test_conversion_without_the_means(golden: GoldenFile) -> None:
    """Known for the published clusters; for others there is no telling."""
    weights = golden.weights()
    native = to_native(weights).state
    torch.testing.assert_close(native[CENTER], torch.from_numpy(golden.data["center_points"]))
    others = to_native(weights | {CLUSTERS: weights[CLUSTERS] + 1.0})
    assert others.absent == ("center_points",) and CENTER not in others.state
    assert to_official(others.state).state.keys() == weights.keys()
    with pytest.raises(ConversionError, match=r"lacks 'center_points'.*--data"):
        build_planner(others)
    with pytest.raises(ConversionError, match=r"mixture\.center \(3, 4\) for \(8, 4\)"):
        to_native(weights, data={"center_points": np.zeros((3, 4), np.float32)})
    with pytest.raises(ConversionError, match="NaN"):
        to_native(weights, data={"center_points": np.full((8, 4), np.nan, np.float32)})


def test_a_checkpoint_without_the_means_converts_but_does_not_load(
    golden: GoldenFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, ours, data = tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "data.npz"
    weights = golden.weights()
    write_weights(source, weights | {CLUSTERS: weights[CLUSTERS] + 1.0}, {})
    assert convert_checkpoint.main([str(source), str(ours)]) == 0
    assert "b.safetensors: lacks 'center_points'" in capsys.readouterr().err
    for path in (source, ours):
        with pytest.raises(ConversionError, match=rf"{path.name}: lacks 'center_points'.*--data"):
            load_weights(torch.nn.Identity(), path)
    np.savez(data, center_points=golden.data["center_points"])
    assert convert_checkpoint.main([str(source), str(ours), "--data", str(data)]) == 0
    assert not capsys.readouterr().err
    assert CENTER in read_weights(ours).state and "absent" not in read_weights(ours).meta


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("count", [1, 4, 6])
def test_any_number_of_steps_and_proposals(head: MeanFlowHead, steps: int, count: int) -> None:
    with torch.no_grad():
        context = head.denoiser.prepare(head.context(scene_tokens()))
        plans = head.sample(context, head.draw(2, count), steps)
    assert plans.shape == (2, count, 8, 4) and plans.isfinite().all()
    assert MeanFlowHead(**SMALL | {"num_proposals": count}).reconstruction.num_proposals == count


def test_proposals_share_the_components_evenly(head: MeanFlowHead) -> None:
    starts = head.start_points(torch.zeros(1, 8, 8, 4))
    wanted = 0.5 * head.mixture.center.repeat_interleave(2, dim=0)[:, None].expand(-1, 8, -1)
    torch.testing.assert_close(starts[0], wanted)


def test_mixture_is_made_of_the_steps_of_clusters(head: MeanFlowHead) -> None:
    plans = torch.from_numpy(experts()).float()
    centers = build_vocabulary(experts(), 4)
    torch.testing.assert_close(head.mixture.plans, torch.from_numpy(centers))
    members = plans[torch.from_numpy(assign_plans(experts(), centers)) == 0]
    torch.testing.assert_close(
        head.mixture.center[0], head.encode(members).mean(dim=(0, 1)), atol=1e-5, rtol=1e-4
    )
    assert (head.mixture.std == 0.1).all()


def test_component_of_an_expert_wraps_headings(head: MeanFlowHead) -> None:
    plans = head.mixture.plans.clone()
    assert head.expert_components(plans).tolist() == [0, 1, 2, 3]
    turned = plans.clone()
    turned[..., 2] += 2 * torch.pi  # the same plans
    assert head.expert_components(turned).tolist() == [0, 1, 2, 3]
    head.mixture.plans[:] = torch.zeros(4, 8, 3)
    head.mixture.plans[1, :, 2] = torch.pi - 0.1
    expert = torch.zeros(1, 8, 3)
    expert[..., 2] = -torch.pi + 0.1
    assert head.expert_components(expert).tolist() == [1]
    head.cluster_distance = "reference"
    assert head.expert_components(expert).tolist() == [0]


def test_mean_velocity_is_that_of_finite_differences() -> None:
    """u + (t - r) du/dt, with the derivative along the path."""
    weight = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def network(point: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        start, end = times.unbind(1)
        return torch.tanh(point @ weight + (end**2 * (1 + start))[:, None, None])

    generator = torch.Generator().manual_seed(1)
    point = torch.randn(2, 8, 4, dtype=torch.float64, generator=generator)
    velocity = torch.randn(2, 8, 4, dtype=torch.float64, generator=generator)
    times = torch.tensor([[0.2, 0.7], [0.5, 0.5]], dtype=torch.float64)
    h = 1e-5
    step = torch.tensor([0.0, h], dtype=torch.float64)
    change = network(point + h * velocity, times + step) - network(point - h * velocity, times - step)
    wanted = network(point, times) + (times[:, 1] - times[:, 0])[:, None, None] * change / (2 * h)
    torch.testing.assert_close(mean_velocity(network, point, times, velocity), wanted, atol=1e-8, rtol=1e-6)


def test_reconstruction_loss_reaches_the_flow_only_if_asked(golden: GoldenFile) -> None:
    for reaches in (False, True):
        torch.manual_seed(0)
        head = MeanFlowHead(**SMALL, proposal_gradient=reaches)
        head.mixture.fit(experts())
        output = head.training_output(scene_tokens(), golden.samples())
        head.loss(output, golden.samples())["loss_trajectory"].backward()
        grads = [p.grad for p in head.denoiser.parameters()]
        assert any(g is not None and bool(g.any()) for g in grads) == reaches
        modes = head.modes(output, golden.samples())
        assert (modes is None) == (not reaches)
        if modes is not None:
            assert modes.shape == (2, 4, 8, 4) and modes.requires_grad


def test_missing_mixture_is_named(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"has no mixture: load a checkpoint .*build-vocabulary"):
        MeanFlowHead(**SMALL)(scene_tokens())
    with pytest.raises(PriorError, match=r"nowhere\.npz: there is no vocabulary here"):
        MeanFlowHead(mixture=tmp_path / "nowhere.npz", **SMALL)(scene_tokens())
    np.save(tmp_path / "few.npy", np.zeros((3, 8, 3)))
    with pytest.raises(PriorError, match="holds 3 plans, 4 are wanted"):
        MeanFlowHead(mixture=tmp_path / "few.npy", **SMALL)(scene_tokens())


def test_a_state_without_means_is_named(head: MeanFlowHead) -> None:
    state = head.state_dict()
    state["mixture.center"] = torch.full_like(state["mixture.center"], torch.nan)
    head.load_state_dict(state)
    with pytest.raises(PriorError, match="has no mixture"):
        head(scene_tokens())
    state["mixture.center"][0] = 0.0
    head.load_state_dict(state)
    with pytest.raises(PriorError, match=r"center\) hold NaN"):
        head(scene_tokens())


def test_mixture_of_a_file(head: MeanFlowHead, tmp_path: Path) -> None:
    described = describe_vocabulary(experts(), build_vocabulary(experts(), 4), {})
    write_vocabulary(tmp_path / "plans.npz", described)
    other = MeanFlowHead(mixture=tmp_path / "plans.npz", **SMALL)
    other.mixture.require()
    for name, buffer in other.mixture.named_buffers():
        torch.testing.assert_close(buffer, head.mixture.get_buffer(name))
    # A file without statistics gives those of its plans.
    np.save(tmp_path / "plans.npy", described.plans)
    plain = MeanFlowHead(mixture=tmp_path / "plans.npy", **SMALL)
    plain.mixture.require()
    torch.testing.assert_close(plain.mixture.center, plain.encode(plain.mixture.plans).mean(dim=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps and num_proposals must be at least 1"),
        ({"start": "uniform"}, "start must be one of"),
        ({"cluster_distance": "l1"}, "cluster_distance must be one of"),
        ({"flow_weight": 0.0}, "must be positive"),
        ({"initial_std": 0.0}, "std of the mixture must be positive"),
        ({"time_std": -1.0}, "time_std not negative"),
        ({"instant_probability": 5.0}, r"instant_probability must be in \[0, 1\]"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeanFlowHead(**SMALL | settings)


def test_another_encoder_is_named(head: MeanFlowHead) -> None:
    scene = scene_tokens()
    scene.bev = torch.zeros(2, 4, 16, 16)
    with pytest.raises(ValueError, match=r"map_size is \(4, 4\).*gives \(8, 8\)"):
        head(scene)


def test_planner_wants_its_own_head() -> None:
    with pytest.raises(ValueError, match="must be a MeanFlowHead, got AbsoluteTrajectoryHead"):
        MeanFuserPlanner(trajectory_head={"type": "AbsoluteTrajectoryHead"}, backbone={}, decoder={})
