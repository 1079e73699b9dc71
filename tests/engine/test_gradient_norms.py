"""Norms of gradients are measured once for all who listen, and for nobody not at all."""

import torch
from mmengine.optim import OptimWrapper

from beyonddrive.engine import gradient_norms


def test_two_listeners_hear_one_measurement(monkeypatch):
    measured = []
    original = gradient_norms.norm_of_gradients
    monkeypatch.setattr(
        gradient_norms,
        "norm_of_gradients",
        lambda optimizer: measured.append(original(optimizer)) or measured[-1],
    )
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    wrapper = OptimWrapper(torch.optim.SGD([weight], 0.1))
    heard = {"a": [], "b": []}
    listeners = [gradient_norms.on_update(wrapper, heard[name].append) for name in heard]

    def update():
        weight.grad = torch.tensor([3.0, 4.0])
        wrapper.step()

    update()
    assert len(measured) == 1 and heard == {"a": [5.0], "b": [5.0]}
    listeners[0].remove()
    update()
    assert len(measured) == 2 and [len(norms) for norms in heard.values()] == [1, 2]
    listeners[1].remove()
    update()
    assert len(measured) == 2
