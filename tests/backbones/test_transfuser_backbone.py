"""Backbone and decoder: shapes, the latent shortcut, initial weights, and bad input."""

import pytest
import torch
from safetensors.torch import save_file

from beyonddrive.backbones.query_decoder import QueryDecoder
from beyonddrive.backbones.resnet import PretrainedWeightsError, StagedResNet
from beyonddrive.backbones.transfuser import FusedFeatures, TransFuserBackbone

NARROW = {
    "name": "resnet18",
    "layers": (1, 1, 1, 1),
    "channels": (8, 8, 16, 16),
    "stem_type": "deep",
    "stem_width": 4,
}


def _backbone(**kwargs):
    settings = {"image_size": (64, 128), "bev_size": (64, 64), "num_layers": 1, "top_down_channels": 8}
    torch.manual_seed(0)
    return TransFuserBackbone(image_encoder=NARROW, bev_encoder=NARROW, **{**settings, **kwargs})


@pytest.mark.parametrize(("latent", "channels"), [(True, 1), (True, 4), (False, 1), (False, 2)])
def test_shapes(latent, channels):
    backbone = _backbone(latent=latent, lidar_channels=channels).eval()
    lidar = None if latent else torch.rand(2, channels, 64, 64)
    features = backbone(torch.rand(2, 3, 64, 128), lidar)
    assert features.bev.shape == (2, 16, 2, 2)
    assert features.image.shape == (2, 16, 2, 4)
    assert features.top_down.shape == (2, 8, 16, 16)
    assert backbone.out_channels == 16
    assert backbone.out_size == (2, 2)


def test_top_down_is_optional():
    backbone = _backbone(latent=True, top_down=False)
    assert backbone(torch.rand(1, 3, 64, 128)).top_down is None
    assert not any("conv5" in name for name, _ in backbone.named_parameters())


@pytest.mark.parametrize("training", [False, True])
def test_latent_run_once_equals_latent_repeated_over_the_batch(training):
    """The shortcut gives the features and gradients of a LiDAR branch fed with B copies of the latent."""
    camera = torch.rand(3, 3, 64, 128)
    latent = _backbone(latent=True, dropout=0.0).train(training)
    repeated = _backbone(latent=False, dropout=0.0).train(training)
    repeated.load_state_dict({k: v for k, v in latent.state_dict().items() if k != "lidar_latent"})
    copy = latent.lidar_latent.detach().clone().requires_grad_()
    outputs = []
    for backbone, lidar in ((latent, None), (repeated, copy.expand(3, -1, -1, -1))):
        features = backbone(camera, lidar)
        (features.bev.square().mean() + features.top_down.mean()).backward()
        outputs.append(features.bev.detach())
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(latent.lidar_latent.grad, copy.grad, rtol=1e-3, atol=1e-6)
    grads = [dict(b.named_parameters())["bev_encoder.layer1.0.conv1.weight"].grad for b in (latent, repeated)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-6)


def test_both_branches_reach_the_output():
    backbone = _backbone().eval()
    camera, lidar = torch.rand(1, 3, 64, 128), torch.rand(1, 1, 64, 64)
    fused = backbone(camera, lidar).bev
    assert not torch.allclose(fused, backbone(camera.flip(-1), lidar).bev)
    assert not torch.allclose(fused, backbone(camera, lidar.flip(-1)).bev)


@pytest.mark.parametrize(
    ("camera", "lidar", "words"),
    [
        (torch.rand(1, 3, 32, 128), torch.rand(1, 1, 64, 64), r"camera must be \(B, 3, 64, 128\)"),
        (torch.zeros(1, 3, 64, 128, dtype=torch.uint8), torch.rand(1, 1, 64, 64), "must be float"),
        (torch.rand(1, 3, 64, 128), torch.rand(1, 2, 64, 64), r"lidar must be \(B, 1, 64, 64\)"),
        (torch.rand(1, 3, 64, 128), None, "have no 'lidar' and the planner is not latent"),
    ],
)
def test_wrong_inputs_are_named(camera, lidar, words):
    with pytest.raises(ValueError, match=words):
        _backbone()(camera, lidar)


def test_sizes_must_suit_the_stride():
    with pytest.raises(ValueError, match="image_size must be two multiples of 32"):
        _backbone(image_size=(60, 128))


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
        _backbone(num_heads=3)


def test_initial_fusion_weights_are_the_published_ones():
    transformer = _backbone().fusions[3].transformer
    linear = transformer.blocks[0].mlp[0]
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not linear.bias.any()
    assert not transformer.pos_emb.any()


def test_pretrained_weights_from_a_file(tmp_path):
    source = StagedResNet(**NARROW)
    path = tmp_path / "resnet.safetensors"
    save_file({**source.state_dict(), "fc.weight": torch.zeros(2, 16), "fc.bias": torch.zeros(2)}, path)
    target = StagedResNet(**NARROW, pretrained=str(path))
    assert not torch.equal(target.conv1[0].weight, source.conv1[0].weight)
    target.init_weights()
    assert torch.equal(target.conv1[0].weight, source.conv1[0].weight)


def test_pretrained_weights_that_do_not_fit_or_are_not_there(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(PretrainedWeightsError, match="do not fit resnet18"):
        StagedResNet(**NARROW, pretrained=str(path)).init_weights()
    with pytest.raises(PretrainedWeightsError, match="no such checkpoint"):
        StagedResNet(**NARROW, pretrained=str(tmp_path / "absent.safetensors")).init_weights()
    path.write_bytes(b"no tensors")
    with pytest.raises(PretrainedWeightsError, match=r"other\.safetensors: cannot be read"):
        StagedResNet(**NARROW, pretrained=str(path)).init_weights()


def test_only_resnets_with_four_stages():
    with pytest.raises(ValueError, match="not a timm ResNet"):
        StagedResNet("vit_tiny_patch16_224")


def test_decoder_tokens():
    decoder = QueryDecoder(in_channels=16, bev_size=(2, 3), dim=32, num_queries=5, num_heads=4, ffn_dim=16)
    features = FusedFeatures(torch.rand(2, 16, 2, 3), torch.rand(2, 4, 1, 2), torch.rand(2, 8, 4, 4))
    status = torch.rand(2, 8)
    tokens = decoder(features, status)
    assert tokens.queries.shape == (2, 5, 32)
    assert tokens.memory.shape == (2, 7, 32)
    assert tokens.bev is features.top_down
    # Row by row, then the status.
    expected = decoder.bev_proj(features.bev)[:, :, 1, 0]
    torch.testing.assert_close(tokens.memory[:, 3], expected + decoder.memory_embedding.weight[3])
    expected = decoder.status_proj(status)
    torch.testing.assert_close(tokens.memory[:, 6], expected + decoder.memory_embedding.weight[6])
    weights = [layer.linear1.weight for layer in decoder.layers]
    assert not torch.equal(weights[0], weights[1])  # layers start from different weights


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    def offline(name, pretrained, **kwargs):
        assert pretrained
        raise OSError("Name or service not known")

    encoder = StagedResNet(**NARROW, pretrained=True)
    monkeypatch.setattr("timm.create_model", offline)
    words = r"Name or service not known.*model\.backbone\.image_encoder\.pretrained=/path/to/resnet18\.safet"
    with pytest.raises(PretrainedWeightsError, match=words):
        encoder.init_weights()


def test_a_decoder_has_a_query_for_the_plan():
    with pytest.raises(ValueError, match="num_queries must be at least 1, got 0"):
        QueryDecoder(num_queries=0)
