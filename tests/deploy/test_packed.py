"""Packed layers and Winograd convolutions give what torch's own layers give."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
import torch
from torch import Tensor, nn

from beyonddrive.deploy.cpu import winograd
from beyonddrive.deploy.cpu.packed import PackedConv2d, PackedLinear, pack
from beyonddrive.deploy.cpu.vectors import LANES, has_fused_multiply
from beyonddrive.deploy.cpu.winograd_kernels import SMALL

needs_fused_multiply = pytest.mark.skipif(
    not has_fused_multiply(), reason="this processor has no fused multiply-add"
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def convolved(x: Tensor, conv: nn.Conv2d, other: Tensor | None = None, relu: bool = False) -> Tensor:
    """The convolution in double precision."""
    bias = None if conv.bias is None else conv.bias.double()
    result = nn.functional.conv2d(x.double(), conv.weight.double(), bias, conv.stride, conv.padding)
    if other is not None:
        result = result + other
    return result.relu() if relu else result


@needs_fused_multiply
@pytest.mark.parametrize(
    ("batch", "channels", "filters", "size", "padding", "outputs_per_side"),
    [
        (1, 64, 64, (16, 16), 1, 4),
        (2, 64, 128, (4, 48), 1, 4),
        (9, 256, 64, (10, 14), 0, 4),
        (2, 64, 128, (6, 10), 1, 2),
        (1, 128, 64, (2, 64), 1, 2),
        (3, 256, 64, (12, 6), 0, 2),
        (40, 64, 64, (4, 4), 0, 2),
        (1, 512, 512, (8, 8), 1, 2),
    ],
)
def test_winograd_convolutions_are_exact(batch, channels, filters, size, padding, outputs_per_side):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, filters, 3, padding=padding).requires_grad_(False)
    x = draw(batch, channels, *size)
    expected = convolved(x, conv)
    other = draw(*expected.shape, seed=1)
    packed, rectified = PackedConv2d(conv), PackedConv2d(conv, relu=True)
    chosen = winograd.best_filter(x, conv)
    assert winograd.can_convolve(conv) and chosen is not None and chosen.outputs == outputs_per_side
    for outputs, wanted in (
        (packed(x), expected),
        (packed(x.contiguous(memory_format=torch.channels_last)), expected),
        (rectified(x), convolved(x, conv, relu=True)),
        (packed(x, other), convolved(x, conv, other)),
        (rectified(x, other), convolved(x, conv, other, relu=True)),
    ):
        assert outputs.is_contiguous(memory_format=torch.channels_last)
        allowed = 3e-6 if outputs_per_side == 2 else 1.5e-5
        torch.testing.assert_close(outputs.double(), wanted, rtol=0, atol=allowed)


@needs_fused_multiply
@pytest.mark.parametrize("size", [(8, 12), (16, 20)])
def test_threads_and_batches_change_no_bit(size):
    conv = PackedConv2d(nn.Conv2d(64, 128, 3, padding=1).requires_grad_(False))
    x = draw(3, 64, *size)
    before, threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = conv(x)
        torch.set_num_threads(2)
        assert torch.equal(conv(x), expected)
        if winograd.best_filter(x[:1], conv) is winograd.best_filter(x, conv):
            assert torch.equal(torch.cat([conv(image[None]) for image in x]), expected)
        with ThreadPoolExecutor(4) as pool:
            assert all(torch.equal(result, expected) for result in pool.map(conv, [x] * 8))
    finally:
        torch.set_num_threads(before)
    assert numba.get_num_threads() == threads


@needs_fused_multiply
def test_nan_and_infinity_are_not_rectified_away():
    conv = PackedConv2d(nn.Conv2d(64, 64, 3, padding=1, bias=False).requires_grad_(False), relu=True)
    x = draw(1, 64, 8, 8)
    x[0, 3, 2, 2] = torch.nan
    assert bool(conv(x)[0, :, 1:4, 1:4].isnan().all())


def test_other_convolutions_are_direct():
    torch.manual_seed(0)
    for conv in (
        nn.Conv2d(256, 256, 3, 2, 1),
        nn.Conv2d(64, 64, 3, dilation=2, padding=1),
        nn.Conv2d(64, 64, 3, padding=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(32, 256, 3, 1, 1),
        nn.Conv2d(256, 64, 1),
        nn.Conv2d(64 + LANES // 2, 64, 3, padding=1),
    ):
        conv.requires_grad_(False)
        packed = PackedConv2d(conv)
        assert not winograd.can_convolve(conv)
        x = draw(2, conv.in_channels, 9, 12)
        torch.testing.assert_close(packed(x), conv(x), rtol=1e-4, atol=1e-5)
        other = torch.rand_like(conv(x))
        torch.testing.assert_close(packed(x, other), conv(x) + other, rtol=1e-4, atol=1e-5)
    conv = nn.Conv2d(256, 256, 3, padding=1).requires_grad_(False)
    for size in ((5, 8), (4, 4)):
        x = draw(2, 256, *size)
        assert winograd.best_filter(x, conv) is None
        torch.testing.assert_close(PackedConv2d(conv)(x), conv(x), rtol=1e-4, atol=1e-5)


def test_linear_layers():
    linear = nn.Linear(200, 100).requires_grad_(False)
    for x in (draw(200), draw(3, 200), draw(2, 5, 200), draw(200, 7).T, draw(0, 200)):
        torch.testing.assert_close(PackedLinear(linear)(x), linear(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(PackedLinear(linear, relu=True)(x), linear(x).relu(), rtol=1e-5, atol=1e-5)


def test_a_relu_is_taken_into_the_layer_before_it():
    torch.manual_seed(0)
    planner = nn.Sequential(
        nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.Dropout(), nn.ReLU()),
        nn.TransformerDecoderLayer(128, 4, 256, batch_first=True),
    )
    layers, decoder = planner
    decoder.forward = lambda x: nn.TransformerDecoderLayer.forward(decoder, x, memory)
    memory, x = draw(2, 5, 128, seed=1), draw(2, 3, 128)
    planner.eval().requires_grad_(False)
    expected = planner(x)
    pack(planner)
    assert layers[0].relu and isinstance(layers[1], nn.Identity)
    assert not layers[2].relu and isinstance(layers[4], nn.ReLU)  # the dropout may read it
    assert decoder.linear1.relu and isinstance(decoder.activation, nn.Identity)
    torch.testing.assert_close(planner(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(LANES != 16, reason="this processor has no wider registers than those below")
def test_registers_of_eight_lanes(tmp_path):
    script = """
import torch
from beyonddrive.deploy.cpu.vectors import LANES, ROWS
from beyonddrive.deploy.cpu import winograd
from beyonddrive.deploy.cpu.winograd_kernels import LARGE, SMALL

assert (LANES, ROWS) == (8, 4)
torch.manual_seed(0)
x, weight, bias = torch.randn(1, 64, 8, 12), torch.randn(96, 64, 3, 3), torch.randn(96)
expected = torch.nn.functional.conv2d(x, weight, bias, padding=1)
for filtering in (SMALL, LARGE):
    outputs = winograd.convolve(x, winograd.transform_kernel(weight, filtering), bias)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=2e-4)
"""
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@needs_fused_multiply
def test_what_does_not_fit_is_refused():
    conv = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    kernels = winograd.transform_kernel(conv.weight, SMALL)
    x = draw(1, 64, 8, 8)
    for arguments in (
        (draw(1, 32, 8, 8), kernels, conv.bias),
        (draw(1, 64, 7, 8), kernels, conv.bias),
        (x.double(), kernels, conv.bias),
        (x, kernels, conv.bias.double()),
        (x, kernels, conv.bias, x[:, :, :1, :1]),
        (x, kernels, conv.bias, x.double()),
    ):
        with pytest.raises(ValueError, match="convolve: "):
            winograd.convolve(*arguments)
    packed = PackedConv2d(conv)
    for wrong in (draw(1, 32, 8, 8), x.double()):
        with pytest.raises(RuntimeError):
            packed(wrong)


@needs_fused_multiply
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_convolves_too(tmp_path):
    script = """
import os, torch
from torch import nn
from beyonddrive.deploy.cpu import winograd
from beyonddrive.deploy.cpu.packed import PackedConv2d

torch.set_num_threads(1)
conv = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
x, packed = torch.randn(1, 64, 8, 8), PackedConv2d(conv)
expected = packed(x)
child = os.fork()
if child == 0:
    torch.testing.assert_close(packed(x), expected, rtol=1e-4, atol=1e-5)
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert torch.equal(packed(x), expected)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_layers_that_do_more_stay_as_they_are():
    class Shifted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    class Twice(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(super().forward(x))

    torch.manual_seed(0)
    planner = nn.Sequential(
        Shifted(128, 128),
        Twice(nn.Linear(128, 128), nn.ReLU()),
        nn.Sequential(OrderedDict(first=nn.Linear(128, 128), act=nn.ReLU())),
    ).requires_grad_(False)
    x = draw(3, 128)
    expected = planner(x)
    pack(planner)
    assert isinstance(planner[0], Shifted) and isinstance(planner[1][1], nn.ReLU)
    assert planner[2].first.relu and isinstance(planner[2].act, nn.Identity)
    torch.testing.assert_close(planner(x), expected, rtol=1e-4, atol=1e-5)


def test_packed_layers_can_be_copied_and_pickled():
    layers = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.Flatten(2), nn.Linear(64, 300))
    layers.requires_grad_(False)
    pack(layers)
    assert isinstance(layers[2], PackedLinear)
    x = draw(1, 64, 8, 8)
    expected = layers(x)
    for other in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
        assert torch.equal(other(x), expected)
