"""The encoder layer by parts is torch's, its gradients included."""

import pytest
import torch
from torch import nn

from beyonddrive.heads.encoder_layer import encode


@pytest.mark.parametrize("training", [False, True])
def test_it_equals_the_layer_of_torch(training):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True).train(training)
    x = torch.randn(3, 7, 16, requires_grad=True)
    ours, theirs = encode(layer, x), layer(x)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    parameters = [x, *layer.parameters()]
    expected = torch.autograd.grad((theirs * weights).sum(), parameters)
    for gradient, wanted in zip(
        torch.autograd.grad((ours * weights).sum(), parameters), expected, strict=True
    ):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(encode(layer, x), layer(x))
