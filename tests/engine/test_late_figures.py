"""Figures of a step on a GPU wait until somebody reads them, in their order."""

from __future__ import annotations

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper

from beyonddrive.engine import late_figures, mmengine_compat
from beyonddrive.structures import transfers

mmengine_compat.apply()


@pytest.fixture
def started(monkeypatch):
    """Tensors count as if they were on a GPU; the names of those whose copy was waited for."""
    waited = []
    monkeypatch.setattr(late_figures, "_is_late", lambda value: isinstance(value, torch.Tensor))

    def start(value):
        wait = transfers.start_to_host(value)
        return lambda: (waited.append(float(value)), wait())[1]

    monkeypatch.setattr(late_figures, "start_to_host", start)
    return waited


@pytest.mark.parametrize("read", [lambda hub: hub.log_scalars, lambda hub: hub.state_dict()])
def test_figures_wait_until_they_are_read(started, read):
    hub = MessageHub("late")
    loss = torch.tensor(3.0)
    hub.update_scalar("train/loss", loss)
    hub.update_scalar("train/lr", 0.1)
    loss.fill_(7.0)  # the next step reuses the memory
    hub.update_scalar("train/loss", loss)
    assert started == []
    read(hub)
    assert len(started) == 2
    assert hub.get_scalar("train/loss").data[0].tolist() == [3.0, 7.0]
    assert hub.get_scalar("train/lr").current() == 0.1


def test_on_a_gpu_a_figure_is_recorded_and_waited_for_when_it_is_read(gpu):
    hub = MessageHub("gpu")
    for value in (3.0, 7.0):
        hub.update_scalar("train/loss", gpu.put(torch.tensor(value)))
        hub.update_scalar("train/lr", 0.1)
    assert gpu.log == ["record 1", "record 2"]
    assert hub.get_scalar("train/loss").data[0].tolist() == [3.0, 7.0]
    assert gpu.log[2:] == ["synchronize 1", "synchronize 2"]
    hub.state_dict()  # (nothing is left to wait for)
    assert len(gpu.log) == 4


def test_who_reads_one_figure_does_not_wait_for_the_others(gpu):
    """As mmengine's timer does in every step."""
    hub = MessageHub("one")
    hub.update_scalar("train/loss", gpu.put(torch.tensor(3.0)))
    hub.update_scalar("train/time", 0.5)
    assert hub.get_scalar("train/time").current() == 0.5
    assert gpu.waits() == []
    with pytest.raises(KeyError, match="is not found"):
        hub.get_scalar("train/loss_of_another_name")
    assert hub.get_scalar("train/loss").current() == 3.0


def test_numbers_do_not_overtake_figures(started):
    hub = MessageHub("order")
    hub.update_scalar("train/loss", torch.tensor(1.0))
    hub.update_scalar("train/loss", 2.0)
    assert hub.get_scalar("train/loss").data[0].tolist() == [1.0, 2.0]


def test_a_log_that_nobody_writes_does_not_grow(started, monkeypatch):
    monkeypatch.setattr(late_figures, "LIMIT", 3)
    hub = MessageHub("full")
    for value in range(4):
        hub.update_scalar("train/loss", torch.tensor(float(value)))
    assert len(started) == 4


def test_the_norm_of_clipping_is_a_late_figure(started):
    layer = torch.nn.Linear(2, 1, bias=False)
    wrapper = OptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.0), clip_grad={"max_norm": 1.0})
    MessageHub.get_instance("clipping")
    wrapper.message_hub = hub = MessageHub.get_current_instance()
    wrapper.update_params(layer(torch.tensor([[3.0, 4.0]])).sum())
    assert started == []
    assert hub.get_scalar("train/grad_norm").current() == pytest.approx(5.0)
    wrapper.clip_func, wrapper.clip_grad_kwargs = torch.nn.utils.clip_grad_value_, {"clip_value": 1.0}
    wrapper.update_params(layer(torch.tensor([[3.0, 4.0]])).sum())
    assert len(hub.get_scalar("train/grad_norm").data[0]) == 1


def test_applied_twice_it_is_applied_once():
    before = MessageHub.update_scalar
    late_figures.apply()
    assert MessageHub.update_scalar is before
