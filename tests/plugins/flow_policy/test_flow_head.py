"""The flow head: sampling, guidance, training draws."""

import math

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from beyonddrive.heads.denoiser import PlanDenoiser, sinusoidal_embedding
from beyonddrive.heads.repulsive import RepulsiveHead
from beyonddrive.plugins.flow_policy.head import FlowHead
from beyonddrive.plugins.flow_policy.losses import FlowDraws
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import SceneTokens

SIZES = {"dim": 16, "num_context": 5, "num_heads": 2, "ffn_dim": 8}


def _head(**kwargs):
    torch.manual_seed(0)
    head = FlowHead(denoiser=SIZES, **kwargs).eval()
    nn.init.normal_(head.denoiser.cond_pos_emb)
    return head


def _tokens(batch=2):
    generator = torch.Generator().manual_seed(1)
    return SceneTokens(queries=torch.randn(batch, 6, 16, generator=generator), status=torch.zeros(batch, 8))


def _samples(batch=2):
    samples = []
    for row in range(batch):
        sample = PlanSample(metainfo={"token": f"scene{row}"})
        sample.gt = BaseDataElement(trajectory=torch.randn(8, 3).cumsum(0))
        sample.negatives = BaseDataElement(plans=torch.randn(1, 8, 3), valid=torch.tensor([True]))
        samples.append(sample)
    return samples


def test_denoiser_equals_a_plain_transformer_decoder():
    """Shared keys, values and the one-token shortcut change nothing."""
    torch.manual_seed(0)
    net = PlanDenoiser(num_layers=2, **SIZES).eval()
    for parameter in (net.pos_emb, net.cond_pos_emb):
        nn.init.normal_(parameter)
    plans, context = torch.randn(3, 4, 8, 4), torch.randn(3, 5, 16)
    time = torch.tensor([0.1, 0.5, 0.9])
    memory = torch.cat([sinusoidal_embedding(time, 16)[:, None], context], dim=1) + net.cond_pos_emb
    for proposal in range(4):
        x = net.input_proj(plans[:, proposal].flatten(1))[:, None] + net.pos_emb
        for layer in net.layers:
            x = layer(x, memory)
        expected = net.output_proj(net.norm(x)).view(3, 8, 4)
        torch.testing.assert_close(net(plans, time, context)[:, proposal], expected)


def test_velocity_prediction_integrates_a_constant_field():
    head = _head(prediction="v")
    nn.init.zeros_(head.denoiser.output_proj.weight)
    nn.init.constant_(head.denoiser.output_proj.bias, 0.25)
    draws = torch.randn(2, 3, 8, 4)
    for steps in (1, 4):
        end = head.sample(head.context(_tokens()), draws, noise=0.5, steps=steps)
        torch.testing.assert_close(end, 0.5 * draws + 0.25)


def test_plan_prediction_reaches_the_predicted_plan():
    head = _head(prediction="x")
    nn.init.zeros_(head.denoiser.output_proj.weight)
    nn.init.constant_(head.denoiser.output_proj.bias, 0.25)
    end = head.sample(head.context(_tokens()), torch.randn(2, 3, 8, 4), steps=5)
    torch.testing.assert_close(end, torch.full_like(end, 0.25))


def test_guidance_interpolates_between_unconditional_and_conditional():
    head, context = _head(), _head().context(_tokens())
    draws = torch.randn(2, 3, 8, 4)
    conditional, unconditional = (head.sample(context, draws, guidance=g, steps=1) for g in (1.0, 0.0))
    half = head.sample(context, draws, guidance=0.5, steps=1)
    torch.testing.assert_close(half, (conditional + unconditional) / 2)
    zeros = head.sample(torch.zeros_like(context), draws, guidance=1.0, steps=1)
    torch.testing.assert_close(unconditional, zeros)
    assert not torch.allclose(conditional, unconditional)


def test_proposals_of_a_scene_do_not_depend_on_each_other_or_on_the_batch():
    head, tokens = _head(), _tokens(3)
    context, draws = head.context(tokens), torch.randn(3, 4, 8, 4)
    full = head.sample(context, draws)
    torch.testing.assert_close(head.sample(context[1:2], draws[1:2, 2:3]), full[1:2, 2:3])


def test_planning_is_deterministic_and_the_seed_matters():
    tokens = _tokens()
    first = _head(num_proposals=3)(tokens)
    assert first.proposals.shape == (2, 3, 8, 3)
    assert torch.equal(first.trajectory, _head(num_proposals=3)(tokens).trajectory)
    assert not torch.equal(first.trajectory, _head(num_proposals=3, seed=1)(tokens).trajectory)
    torch.testing.assert_close(first.trajectory, first.proposals.mean(1))


def test_circular_mean_of_headings_near_pi():
    head = _head(num_proposals=2, heading_mean="circular")
    angles = torch.tensor([3.1, -3.1])
    encoded = torch.stack([torch.zeros(2), torch.zeros(2), angles.sin(), angles.cos()], -1)
    head.sample = lambda *_: encoded[None, :, None].expand(2, 2, 8, 4)
    circular = head(_tokens()).trajectory[..., 2].abs()
    torch.testing.assert_close(circular, torch.full((2, 8), math.pi))
    head.heading_mean = "arithmetic"
    assert head(_tokens()).trajectory[..., 2].abs().max() < 1e-5


def test_context_is_dropped_in_training_only():
    head, tokens, samples = _head(), _tokens(), _samples()
    draws = FlowDraws(torch.zeros(2), torch.randn(2, 8, 4), torch.tensor([0.05, 0.5]))
    planned = head.training_output(tokens, samples, draws=draws).encoded
    head.train()
    trained = head.training_output(tokens, samples, draws=draws).encoded
    blind = SceneTokens(queries=torch.zeros_like(tokens.queries), status=tokens.status)
    unconditional = head.training_output(blind, samples, draws=draws).encoded
    torch.testing.assert_close(trained[0], unconditional[0])
    torch.testing.assert_close(trained[1], planned[1])
    assert not torch.allclose(trained[0], planned[0])


@pytest.mark.parametrize("prediction", ["x", "v"])
def test_training_recovers_the_clean_plan_and_repels_it(prediction):
    head = RepulsiveHead(
        head={"type": "FlowHead", "denoiser": SIZES, "prediction": prediction},
        loss={"type": "RepulsiveDistanceLoss", "weight": 5.0},
    )
    samples = _samples()
    output = head.training_output(_tokens(), samples)
    losses = head.loss(output, samples)
    assert set(losses) == {"loss_flow", "loss_repulsive", "negative_share"}
    negatives = head.encode(torch.stack([sample.negatives.plans[0] for sample in samples]))
    expected = -5.0 * (output.encoded - negatives).abs().mean()
    torch.testing.assert_close(losses["loss_repulsive"], expected)
    torch.testing.assert_close(output.trajectory, head.decode(output.encoded))


def test_perfect_prediction_has_no_loss():
    samples = _samples()
    for prediction in ("x", "v"):
        head = _head(prediction=prediction)
        draws = FlowDraws(torch.randn(2), torch.randn(2, 8, 4))
        data = head.expert(samples, draws.noise)
        perfect = data if prediction == "x" else data - head.noise * draws.noise
        head.denoiser.forward = lambda plans, time, context, perfect=perfect: perfect[:, None]
        output = head.training_output(_tokens(), samples, draws=draws)
        torch.testing.assert_close(output.encoded, data)
        assert head.loss(output, samples)["loss_flow"].item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prediction": "e"}, "prediction must be"),
        ({"heading_mean": "median"}, "heading_mean must be"),
        ({"num_proposals": 0}, "num_proposals and steps must be at least 1"),
        ({"steps": 0}, "num_proposals and steps must be at least 1"),
        ({"guidance": float("nan")}, "guidance finite"),
        ({"flow_weight": -50.0}, "flow_weight and noise must be positive"),
        ({"noise": 0.0}, "flow_weight and noise must be positive"),
        ({"time_std": -0.8}, "time_std not negative"),
        ({"drop_probability": 10}, r"drop_probability must be in \[0, 1\]"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        _head(**settings)


def test_bad_sampling():
    with pytest.raises(ValueError, match="at least one step"):
        _head().sample(torch.zeros(1, 5, 16), torch.zeros(1, 1, 8, 4), steps=0)
    with pytest.raises(ValueError, match="even and at least 4"):
        PlanDenoiser(dim=3)
