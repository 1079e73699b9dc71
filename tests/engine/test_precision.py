"""bfloat16 where it is faster, and a word where it is not."""

import logging

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from beyonddrive.engine import mmengine_compat
from beyonddrive.engine.precision import bfloat16_autocast


class Products(TorchDispatchMode):
    """Notes products and attention with the type of their last argument."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("bmm", "addmm") or "attention" in name:
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            self.seen.add((name, tensors[-1].dtype))
        return func(*args, **(kwargs or {}))


def products(context):
    attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    tokens = torch.randn(2, 5, 16, requires_grad=True)
    with Products() as noted:
        with context:
            y = attention(tokens, tokens, tokens, need_weights=False)[0]
            y = y + F.scaled_dot_product_attention(y[:, None], y[:, None], y[:, None])[:, 0]
        y.float().square().sum().backward()
    return noted.seen


def test_on_a_cpu_attention_is_in_float32_and_all_else_in_bfloat16():
    seen = products(bfloat16_autocast("cpu"))
    assert {dtype for name, dtype in seen if name == "bmm"} == {torch.float32}
    assert ("addmm", torch.bfloat16) in seen
    assert not [name for name, _ in seen if "attention" in name]


def test_autocast_alone_has_the_slow_kernel():
    seen = products(torch.autocast("cpu", torch.bfloat16))
    assert [name for name, dtype in seen if "attention" in name and dtype == torch.bfloat16], (
        "bfloat16_autocast can be torch.autocast"
    )


@pytest.mark.parametrize("has", [True, False])
def test_a_device_that_emulates_is_told_once(monkeypatch, has):
    said = []
    monkeypatch.setattr(mmengine_compat, "has_bfloat16", lambda device: has)
    monkeypatch.setattr(mmengine_compat, "print_log", lambda *args: said.append(args))
    model = torch.nn.Linear(2, 2)
    wrapper = mmengine_compat.AutocastOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), 0.1))
    for _ in range(2):
        with wrapper.optim_context(model):
            assert model(torch.ones(1, 2)).dtype == torch.bfloat16
    assert len(said) == (not has)
    assert has or ("emulates" in said[0][0] and said[0][2] == logging.WARNING)
