"""What the two sides of HUGSIM's loop say, as pickles that are only data (HUGSIM, sections 3, 4, 10).

A pickle of another process is code, so both sides read with the allow-list of the suite, and what is written
names numpy's constructors as numpy 1 and 2 know them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.plain_pickle import PlainPickleError, loads_plain_pickle
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError
from beyonddrive.evaluation.submissions.pickle_writer import PickleWriter
from beyonddrive.structures.errors import shown

DONE = "Done"
"""What a simulator says after an episode."""
MAX_MESSAGE = 512 * 2**20
"""A message may have as many bytes; six cameras of 450 x 800 with depth and classes are 17 MB."""
_UNFOLDS, _SMALL = 16, 2**10
"""A message may say the same thing again, but not unfold into more than so often its size, or that of a small
one [bytes and items]."""
_PATH = 100
"""The way to what unfolds is shown as far as this [characters]."""


class MessageError(HugsimError):
    """A message is damaged, too long, or holds something that is not data; nothing of it was run."""


def write_message(value: Any) -> bytes:
    """A message: numbers, texts, arrays of numbers, and lists, tuples and dictionaries of them.

    Raises:
        UnwritableError: If something else is in it.

    >>> read_message(write_message(({"rgb": {}}, {"command": np.int64(2)})))
    ({'rgb': {}}, {'command': 2})
    """
    file = io.BytesIO()
    PickleWriter(file).write(value)
    return file.getvalue()


def read_message(content: bytes, limit: int = MAX_MESSAGE) -> Any:
    """What a message holds, written under numpy 1 or 2.

    Raises:
        MessageError: If it is empty, half, damaged, longer than ``limit``, holds anything but data, or names
            the same things so often that whoever writes or converts it would fill the memory.
    """
    if not content:
        raise MessageError("the message is empty: the other side closed the pipe without writing")
    return read_data(content, limit, "the message")


def read_data(content: bytes, limit: int, what: str) -> Any:
    """What a pickle of somebody else holds, if it is data and stays about as large as it is written.

    Args:
        content: The pickle.
        limit: It may have, and unfold into, as many bytes.
        what: Its name in errors.

    Raises:
        MessageError: As :func:`read_message`; says where in it most of what unfolds is.
    """
    if len(content) > limit:
        raise MessageError(f"{what} has {len(content)} bytes, {limit} are allowed")
    known: dict[int, float] = {}
    try:
        value = loads_plain_pickle(content)
        unfolded = _unfolded(value, known)
    except (PlainPickleError, RecursionError) as error:
        raise MessageError(f"{what} cannot be read: {error}") from error
    if unfolded > min(limit, _UNFOLDS * max(len(content), _SMALL)):
        place = _where_most_is(value, known)
        raise MessageError(
            f"{what} has {len(content)} bytes and unfolds into {unfolded:.3g}"
            + (f", most of them in {place}" if place else "")
            + ": write every list out, instead of naming one again and again"
        )
    return value


def plan_message(plan: NDArray[np.floating] | dict[str, Any] | None) -> bytes:
    """The answer of a planner: (N, 2) right, ahead [m] every 0.5 s; None if it gives up."""
    return write_message(plan)


def _unfolded(value: Any, known: dict[int, float]) -> float:
    """Bytes and items of a value if whatever is named twice is there twice; infinite if it holds itself."""
    size = 1.0
    if isinstance(value, (str, bytes, bytearray)):
        return size + len(value)
    if isinstance(value, np.ndarray):
        size += value.nbytes
        if not value.dtype.hasobject:
            return size
    elif not isinstance(value, (list, tuple, dict, set, frozenset)):
        return size
    if id(value) not in known:
        known[id(value)] = math.inf  # (of what holds itself, it is asked before it is known)
        items: Any = value.flat if isinstance(value, np.ndarray) else value
        if isinstance(value, dict):
            items = [*value, *value.values()]
        known[id(value)] = size + sum(_unfolded(item, known) for item in items)
    return known[id(value)]


def _where_most_is(value: Any, known: dict[int, float]) -> str:
    """The way to the smallest part that has more than half of what a value unfolds into; empty for itself."""
    path = ""
    while len(path) < _PATH and isinstance(value, (list, tuple, dict)):
        parts: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
        most = _unfolded(value, known) / 2
        found = next(((key, part) for key, part in parts if _unfolded(part, known) > most), None)
        if found is None:
            break
        path, value = f"{path}[{shown(found[0])}]", found[1]
    return path
