"""A training step that is recorded once and replayed: graphs of the GPU, and the host's work between them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from beyonddrive.structures.host_work import Solver, recording
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.scene_random import SEED_KEY, SceneRandom

_WARM_UPS = 3
"""Steps before the recording: libraries choose their kernels and take their memory in the first ones."""


@dataclass
class _Draw:
    """Random numbers of a step: who draws them, and where they go."""

    source: int
    method: str
    args: tuple[int, ...]
    host: Tensor
    values: Tensor


@dataclass
class _Solve:
    """Something that the host solves between two graphs."""

    question: Tensor
    host_question: Tensor
    solver: Solver
    answer: Tensor
    host_answer: Tensor


class RecordedStep:
    """A step of training for scenes by number; on a GPU a graph that is replayed, elsewhere the step itself.

    Args:
        step: Forward, backward and update for the scenes ``index`` (B,) int64; returns the total loss ().
        batch: Scenes B of a step.
        device: Of the planner and the scenes.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], batch: int, device: torch.device) -> None:
        self.device = device
        self.index = torch.zeros(batch, dtype=torch.int64, device=device)
        self.loss = torch.zeros((), device=device)
        self._step = step
        self._on_gpu = device.type == "cuda"
        self._host_index = torch.zeros(batch, dtype=torch.int64, pin_memory=self._on_gpu)
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        self._parts: list[torch.cuda.CUDAGraph | _Solve] = []
        self._draws: list[_Draw] = []
        self._seeds: Sequence[int] = ()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._pool: Any = None
        self._done = torch.cuda.Event() if self._on_gpu else None
        self._at = 0
        self._into: Tensor | None = None
        self._drawn = self._sources = 0

    def record(self, restore: Callable[[], None]) -> None:
        """Record the step; nothing to do without a GPU.

        Args:
            restore: Undoes what the steps before the recording have changed.
        """
        if not self._on_gpu:
            return
        assert self._stream is not None
        self._seeds = [0] * len(self.index)
        torch.cuda.synchronize(self.device)
        with torch.cuda.stream(self._stream), recording(self):
            for _ in range(_WARM_UPS):
                self._restart()
                self._step(self.index)
            torch.cuda.synchronize(self.device)
            self._restart()
            self._pool = torch.cuda.graph_pool_handle()
            gc.collect()
            gc.disable()  # what is freed while a graph is recorded could end the recording
            try:
                self._begin()
                self.loss.copy_(self._step(self.index).detach())
                self._end()
            except BaseException:
                self._give_up()
                raise
            finally:
                gc.enable()
            restore()
        torch.cuda.synchronize(self.device)

    def _give_up(self) -> None:
        """End a recording that failed, so that the next one can begin."""
        self._parts.clear()
        if self._graph is not None:
            with suppress(RuntimeError):
                self._graph.capture_end()
            self._graph = None

    def start(self, numbers: Sequence[int], seeds: Sequence[int], into: Tensor | None = None) -> None:
        """Begin a step; :meth:`advance` does the rest.

        Args:
            numbers: Of the B scenes.
            seeds: Of their random numbers.
            into: () on the device, which gets the loss of the step; None if it is not to be kept.
        """
        self._seeds, self._into = seeds, into
        self._host_index.copy_(torch.as_tensor(numbers))
        if not self._on_gpu:
            self.index.copy_(self._host_index)
            self._fill()
            self._restart()
            with recording(self):
                self.loss.copy_(self._step(self.index).detach())
            if into is not None:
                into.copy_(self.loss)
            return
        with torch.cuda.stream(self._stream):
            self.index.copy_(self._host_index, non_blocking=True)
            self._fill()
            self._at = 0
            self._go_on()

    def advance(self) -> bool:
        """Do what is due without waiting; True once the step is done."""
        if not self._on_gpu:
            return True
        assert self._done is not None
        if not self._done.query():
            return False
        if self._at >= len(self._parts):
            return True
        work = self._parts[self._at]
        assert isinstance(work, _Solve)
        work.host_answer.copy_(torch.from_numpy(work.solver(work.host_question.numpy())))
        with torch.cuda.stream(self._stream):
            work.answer.copy_(work.host_answer, non_blocking=True)
            self._at += 1
            self._go_on()
        return False

    def _go_on(self) -> None:
        """Replay up to what the host has to solve next, or to the end."""
        assert self._done is not None
        while self._at < len(self._parts):
            part = self._parts[self._at]
            if isinstance(part, _Solve):
                part.host_question.copy_(part.question, non_blocking=True)
                break
            part.replay()
            self._at += 1
        if self._at == len(self._parts) and self._into is not None:
            self._into.copy_(self.loss)
        self._done.record(self._stream)

    # What a step asks of its tape (structures/host_work.py).

    def next_source(self) -> int:
        """See ``Tape``."""
        self._sources += 1
        return self._sources - 1

    def draw(self, source: int, method: str, *args: int) -> Tensor:
        """See ``Tape``."""
        if self._drawn == len(self._draws):
            example = getattr(_random(self._seeds), method)(*args)
            host = torch.empty(example.shape, dtype=example.dtype, pin_memory=self._on_gpu)
            self._draws.append(
                _Draw(source, method, args, host, torch.empty_like(example, device=self.device))
            )
            self._fill(self._drawn)
        known = self._draws[self._drawn]
        if (known.source, known.method, known.args) != (source, method, args):
            raise RuntimeError(f"the step drew {known.method}{known.args} before, and now {method}{args}")
        self._drawn += 1
        return known.values

    def solve(self, values: Tensor, solver: Solver) -> Tensor:
        """See ``Tape``."""
        if self._graph is None:
            return torch.from_numpy(solver(values.cpu().numpy())).to(self.device)
        self._end()
        example = torch.from_numpy(solver(torch.zeros(values.shape, dtype=values.dtype).numpy()))
        answer = torch.zeros_like(example, device=self.device)
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._parts.append(_Solve(values, host, solver, answer, example.pin_memory()))
        self._begin()
        return answer

    def _begin(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def _end(self) -> None:
        assert self._graph is not None
        self._graph.capture_end()
        self._parts.append(self._graph)
        self._graph = None

    def _restart(self) -> None:
        self._drawn = self._sources = 0

    def _fill(self, first: int = 0) -> None:
        """Draw the random numbers of the step, from the draw ``first`` on."""
        sources: dict[int, SceneRandom] = {}
        for number, draw in enumerate(self._draws):
            random = sources.setdefault(draw.source, _random(self._seeds))
            values = getattr(random, draw.method)(*draw.args)
            if number >= first:
                draw.host.copy_(values)
                draw.values.copy_(draw.host, non_blocking=True)


def _random(seeds: Sequence[int]) -> SceneRandom:
    """What a source of a step draws from: all start alike, as in an ordinary step."""
    samples = [PlanSample(metainfo={SEED_KEY: seed}) for seed in seeds]
    with recording(None):
        return SceneRandom(samples, len(samples), torch.device("cpu"))
