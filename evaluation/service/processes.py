"""Worker processes of this machine as the backend of a scoring service."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer, SceneScores
from beyonddrive.evaluation.service.backends import Answer, Backend, Loss
from beyonddrive.evaluation.service.memory import SharedSlots
from beyonddrive.evaluation.service.settings import ServiceSettings
from beyonddrive.evaluation.service.worker import READY, Question, Reply, Start

# Not multiprocessing, whose children import the parent's script and with it all of torch.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from beyonddrive.evaluation.service.worker import main; main()"
)
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
_SECONDS_TO_END = 5.0


@dataclass
class _Process:
    """A running worker, and the scenes in its slots."""

    process: subprocess.Popen[bytes]
    connection: Connection
    asked: dict[int, ScenePlans] = field(default_factory=dict)
    has_started: bool = False


class ProcessBackend(Backend):
    """Processes that share memory with this one.

    Args:
        scorer: Where scenes come from and how they are scored.
        columns: Scores of a plan.
        settings: Of the service.
    """

    def __init__(self, scorer: SceneScorer, columns: int, settings: ServiceSettings) -> None:
        self._start = Start(
            os.getpid(),
            scorer,
            settings.cache_bytes // settings.num_workers,
            settings.depth,
            settings.max_plans,
            columns,
            settings.niceness,
        )
        sizes = settings.depth, settings.max_plans, columns
        self._slots = [SharedSlots(*sizes) for _ in range(settings.num_workers)]
        self._workers: dict[int, _Process] = {}

    @property
    def process_ids(self) -> list[int]:
        """Process of each worker."""
        return [self._workers[worker].process.pid for worker in sorted(self._workers)]

    def start(self, worker: int) -> None:
        """Start a process."""
        if worker in self._workers:
            self._end(self._workers.pop(worker), 0.0)
        memory = self._slots[worker].descriptor
        ours, theirs = socket.socketpair()
        with theirs:
            handed = theirs.fileno(), memory
            command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), *map(str, handed)]
            process = subprocess.Popen(
                command, pass_fds=handed, stdin=subprocess.DEVNULL, env={**os.environ, **_ONE_THREAD}
            )
        self._workers[worker] = _Process(process, Connection(ours.detach()))
        with suppress(OSError):
            self._workers[worker].connection.send(self._start)

    def ask(self, worker: int, slot: int, scene: ScenePlans) -> None:
        """Put the plans into the slot, and the question behind those that the worker has."""
        self._slots[worker].plans[slot, : len(scene.plans)] = scene.plans
        state = self._workers[worker]
        state.asked[slot] = scene
        with suppress(OSError):
            state.connection.send(Question(slot, scene.token, scene.log_name, len(scene.plans)))

    def wait(self, timeout: float | None) -> list[Answer | Loss]:
        """Answers of all workers that have one."""
        by_connection = {state.connection: worker for worker, state in self._workers.items()}
        events: list[Answer | Loss] = []
        for connection in wait(list(by_connection), timeout):
            assert isinstance(connection, Connection)
            events += self._read(by_connection[connection])
        return events

    def _read(self, worker: int) -> list[Answer | Loss]:
        state = self._workers[worker]
        events: list[Answer | Loss] = []
        try:
            while state.connection.poll():
                reply: Reply = state.connection.recv()
                if reply.slot == READY:
                    state.has_started = True
                else:
                    events.append(self._answer(worker, reply))
        except (OSError, EOFError):
            return [*events, Loss(worker, _how_it_ended(state.process), state.has_started)]
        return events

    def _answer(self, worker: int, reply: Reply) -> Answer:
        scene, slots = self._workers[worker].asked.pop(reply.slot), self._slots[worker]
        values = times = None
        if not reply.reason:
            values, times = slots.scores[:, reply.slot, : len(scene.plans)].copy()
        scores = SceneScores(
            scene.token, scene.log_name, values, reply.reason, times if reply.has_times else None
        )
        return Answer(worker, reply.slot, scores, reply.was_kept)

    def close(self) -> None:
        """End all processes: asked to, and killed if they do not within some seconds."""
        for state in self._workers.values():
            with suppress(OSError):
                state.connection.send(None)
        for state in self._workers.values():
            # What is being scored takes milliseconds; what is being compiled would take long.
            self._end(state, _SECONDS_TO_END if not state.asked else 0.0)
        self._workers = {}
        for slots in self._slots:
            slots.close()
        self._slots = []

    @staticmethod
    def _end(state: _Process, patience: float) -> None:
        state.connection.close()
        try:
            state.process.wait(patience)
        except subprocess.TimeoutExpired:
            state.process.kill()
            state.process.wait()


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL), most likely for lack of memory: give the service fewer cache_bytes"
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with exit code {code}; what it said is above"
