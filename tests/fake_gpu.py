"""A GPU that is late, for tests on the CPU: it works when it is waited for, or when a test lets it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

READS = {
    Tensor.__bool__,
    Tensor.__float__,
    Tensor.__int__,
    Tensor.cpu,
    Tensor.item,
    Tensor.numpy,
    Tensor.tolist,
}
"""What makes the host wait for a value on a GPU."""


class FakeGpu:
    """One stream, whose work is done in its order and never before somebody waits for it.

    Attributes:
        log: ``record``, ``query`` and ``synchronize`` of events, each with the number of its event, counted
            from 1, and ``read`` for values that were read on the device itself, which waits as well.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self._stream: deque[Callable[[], None]] = deque()
        self._recorded = 0
        self._type = type("OnGpu", (_OnGpu,), {"gpu": self})

    def put(self, value: Tensor) -> Tensor:
        """The same values, on this GPU."""
        return value.as_subclass(self._type)

    def catch_up(self) -> None:
        """Do all the work that is left."""
        while self._stream:
            self._stream.popleft()()

    def waits(self) -> list[str]:
        """What the host has waited for."""
        return [entry for entry in self.log if not entry.startswith(("record", "query"))]

    def copy(self, host: Tensor, value: Tensor) -> None:
        """Send values to the host as they are at this place of the stream."""
        sent = value.detach().as_subclass(Tensor).clone()
        self._stream.append(lambda: host.copy_(sent))

    def event(self) -> _Event:
        """What stands for ``torch.cuda.Event``."""
        return _Event(self)


class _Event:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.number = 0
        self.is_done = False

    def _note(self, what: str) -> None:
        self.gpu.log.append(f"{what} {self.number}")

    def record(self) -> None:
        self.gpu._recorded += 1
        self.number = self.gpu._recorded
        self._note("record")
        self.gpu._stream.append(self._arrive)

    def _arrive(self) -> None:
        self.is_done = True

    def query(self) -> bool:
        self._note("query")
        return self.is_done

    def synchronize(self) -> None:
        self._note("synchronize")
        while not self.is_done:
            self.gpu._stream.popleft()()


class _OnGpu(Tensor):
    """A tensor that says it is on a GPU."""

    gpu: FakeGpu

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.copy_ and not isinstance(args[0], _OnGpu) and kwargs.get("non_blocking"):
            cls.gpu.copy(args[0], args[1])
            return args[0]
        if func in READS or (func is Tensor.copy_ and not isinstance(args[0], _OnGpu)):
            cls.gpu.log.append("read")
        return super().__torch_function__(func, types, args, kwargs)


def install(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Put a GPU in place of what torch has; memory that waits for a copy holds no good values."""
    fake = FakeGpu()
    empty, to = torch.empty, Tensor.to

    def pinned(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        found = empty(*args, **kwargs)
        if pin_memory:
            found.fill_(float("nan") if found.is_floating_point() else 0)
        return found

    def moved(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rest = [arg for arg in args if not (isinstance(arg, torch.device) and arg.type == "cuda")]
        found = to(value, *rest, **kwargs) if rest or kwargs else value
        return found if len(rest) == len(args) else fake.put(found)

    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(Tensor, "to", moved)
    monkeypatch.setattr(torch.cuda, "Event", fake.event)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return fake
