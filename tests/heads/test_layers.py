"""The encoder layer is torch's, its gradients included."""

import pytest
import torch
from torch import nn

from beyonddrive.heads.layers import EncoderLayer


@pytest.mark.parametrize("training", [False, True])
def test_it_equals_the_layer_of_torch(training):
    torch.manual_seed(0)
    original = nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True).train(training)
    torch.manual_seed(0)
    layer = EncoderLayer(16, 4, 32).train(training)
    # The same initial weights, by the same names.
    for name, weight in original.state_dict().items():
        assert torch.equal(layer.state_dict()[name], weight), name
    original.load_state_dict(layer.state_dict())
    x = torch.randn(3, 7, 16, requires_grad=True)
    ours, theirs = layer(x), original(x)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    expected = torch.autograd.grad((theirs * weights).sum(), [x, *original.parameters()])
    for gradient, wanted in zip(
        torch.autograd.grad((ours * weights).sum(), [x, *layer.parameters()]), expected, strict=True
    ):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), original(x))
        layer.hold()
        torch.testing.assert_close(layer(x), original(x))
