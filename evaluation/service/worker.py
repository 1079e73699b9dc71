"""A worker process of a scoring service: reads scenes itself; plans and scores are in shared memory."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import NamedTuple

from beyonddrive.evaluation.scene_scoring import SceneScorer
from beyonddrive.evaluation.service.memory import SharedSlots
from beyonddrive.evaluation.service.scenes import KeptScenes

PATIENCE = 1.0
"""Seconds after which an idle worker looks whether its parent is still there."""
READY = -1
"""Stands for a slot in the message by which a worker says that it has started."""
LONGEST_REASON = 500
"""Characters of a reason; more would not help, and fill the socket."""


class Start(NamedTuple):
    """What a worker is told first."""

    parent: int
    scorer: SceneScorer
    cache_bytes: int
    depth: int
    max_plans: int
    columns: int
    niceness: int


class Question(NamedTuple):
    """Score the first ``num_plans`` plans in a slot."""

    slot: int
    token: str
    log_name: str
    num_plans: int


class Reply(NamedTuple):
    """Scores are in the slot, or there is a reason why not."""

    slot: int
    reason: str = ""
    was_kept: bool = False
    has_times: bool = False


def main() -> None:
    """Serve until told to stop, or until the parent is gone; arguments are the two descriptors."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C ends
    socket, memory = map(int, sys.argv[1:])
    with Connection(socket) as connection:
        start: Start = connection.recv()
        os.nice(start.niceness)
        slots = SharedSlots(start.depth, start.max_plans, start.columns, memory)
        scenes = KeptScenes(start.scorer, start.cache_bytes)
        try:
            connection.send(Reply(READY))
            while (question := _next(connection, start.parent)) is not None:
                connection.send(_answer(scenes, slots, question))
        except (BrokenPipeError, ConnectionResetError, EOFError):
            return  # the parent is gone


def _next(connection: Connection, parent: int) -> Question | None:
    """The next question; None to stop."""
    # Other children of the parent may hold its end of the socket, which then outlives it.
    while not connection.poll(PATIENCE):
        if os.getppid() != parent:
            return None
    question: Question | None = connection.recv()
    return question


def _answer(scenes: KeptScenes, slots: SharedSlots, question: Question) -> Reply:
    slot, token, log_name, count = question
    was_kept = token in scenes
    scored = scenes.score(token, log_name, slots.plans[slot, :count].copy())
    if scored.values is None:
        return Reply(slot, scored.reason[:LONGEST_REASON] or "the scorer gave no reason")
    slots.scores[0, slot, :count] = scored.values
    if scored.times is not None:
        slots.scores[1, slot, :count] = scored.times
    return Reply(slot, "", was_kept, scored.times is not None)


if __name__ == "__main__":
    main()
