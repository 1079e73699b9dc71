"""Named pipes that neither a dead nor a silent peer can block for ever (HUGSIM, section 3)."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path

from beyonddrive.evaluation.closed_loop.hugsim.messages import MAX_MESSAGE, MessageError
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

OBSERVATIONS, PLANS = "obs_pipe", "plan_pipe"
"""Names of the pipes in the output folder: simulator to planner, planner to simulator."""
_CHUNK = 1 << 20
_BLINK = 0.2
"""How often it is asked whether the peer still lives [s]."""
_RETRY = 0.002
"""How often a writer looks whether there is a reader [s]."""

Alive = Callable[[], bool]


class PeerError(HugsimError):
    """The other side of a pipe is dead, or has not answered in time."""


class Pipe:
    """One direction: a message is open, write, close; its reader reads to the end of the file.

    Args:
        path: The FIFO; it is made if it is not there, whichever side is first.

    Raises:
        PeerError: If there is something else at ``path``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            os.mkfifo(path)
        except FileExistsError:
            if not stat.S_ISFIFO(path.stat().st_mode):
                raise PeerError(
                    f"{path}: is there and is no pipe; remove it, or give another folder"
                ) from None

    def receive(
        self, seconds: float | None = None, alive: Alive | None = None, limit: int = MAX_MESSAGE
    ) -> bytes:
        """The next message.

        Args:
            seconds: Longest wait for it to begin, and then for the rest of it; None waits for ever.
            alive: Whether the other side lives; without it only the time tells.
            limit: Most bytes.

        Raises:
            PeerError: If the peer dies, stays silent, or has removed the pipe.
            MessageError: If the message is longer than ``limit``.
        """
        # (not blocking, because opening would wait for a writer that may never come)
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise self._gone(error) from error
        try:
            parts: list[bytes] = []
            size, since, what = 0, time.monotonic(), "has sent nothing"
            while self._wait(handle, select.POLLIN, since, seconds, alive, what):
                part = os.read(handle, _CHUNK)
                if not part:
                    break
                if not parts:
                    since, what = time.monotonic(), "has not sent all of its message"
                size += len(part)
                if size > limit:
                    raise MessageError(f"{self.path}: the message is longer than {limit} bytes")
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(handle)

    def send(self, message: bytes, seconds: float | None = None, alive: Alive | None = None) -> None:
        """Send a message; returns when the other side has it, or the kernel has the rest.

        Args:
            message: It.
            seconds: Longest wait for a reader to come, and then until it has read; None waits for ever.
            alive: As for :meth:`receive`.

        Raises:
            PeerError: If the peer dies, stays silent, has removed the pipe, or closes it before it has
                everything.
        """
        handle = self._open_for_writing(seconds, alive)
        try:
            rest, since = memoryview(message), time.monotonic()
            while rest:
                self._wait(handle, select.POLLOUT, since, seconds, alive, "has not read all of the message")
                rest = rest[os.write(handle, rest[:_CHUNK]) :]
        except BrokenPipeError:
            raise PeerError(f"{self.path}: the other side closed the pipe before it had everything") from None
        finally:
            os.close(handle)

    def _open_for_writing(self, seconds: float | None, alive: Alive | None) -> int:
        started = asked = time.monotonic()
        while True:
            try:
                return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # (there is no reader yet)
                    raise self._gone(error) from error
            now = time.monotonic()
            if seconds is not None and now - started > seconds:
                raise PeerError(f"{self.path}: nobody has come to read for {seconds:g} s")
            if alive is not None and now - asked > _BLINK:
                asked = now
                if not alive():
                    raise PeerError(f"{self.path}: the other side has ended")
            time.sleep(_RETRY)

    def _gone(self, error: OSError) -> PeerError:
        """Of a pipe that was there when it was made: scripts clean up behind them, also when they fail."""
        return PeerError(
            f"{self.path}: cannot be opened any more ({error.strerror}): the other side has removed it, or "
            "its folder"
        )

    def _wait(
        self, handle: int, event: int, since: float, seconds: float | None, alive: Alive | None, what: str
    ) -> bool:
        """Wait until the pipe can be used, ``seconds`` from ``since`` on."""
        poll = select.poll()
        poll.register(handle, event)
        while True:
            left = None if seconds is None else since + seconds - time.monotonic()
            blink = _BLINK if left is None else min(max(left, 0.0), _BLINK)
            if poll.poll(1000 * blink):
                return True
            if alive is not None and not alive():
                # (what it wrote last may have come meanwhile)
                if poll.poll(0):
                    return True
                raise PeerError(f"{self.path}: the other side has ended")
            if left is not None and left <= 0:
                raise PeerError(f"{self.path}: the other side {what} for {seconds:g} s")
