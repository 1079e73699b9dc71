"""The live world behind the HTTP protocol of the RealADSim server (HUGSIM, section 4)."""

from __future__ import annotations

import contextlib
import hmac
import html
import io
import json
import logging
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.closed_loop.hugsim.messages import write_message
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError
from beyonddrive.structures.errors import describe_error
from beyonddrive.synth.live.batch import Filming
from beyonddrive.synth.live.episode_files import Job
from beyonddrive.synth.live.server import SimulatorSession
from beyonddrive.synth.live.town import LiveError

logger = logging.getLogger(__name__)

MAX_BODY = 1 << 20
MAX_UNREAD = 16 * MAX_BODY
"""Of a refused request so much is taken in, so that its client is not cut off before it reads why [byte]."""
KEPT_REPLIES = 100
LOG_LINES = 100
PATIENCE = 30.0
"""A request has to be there within this, however its client parts it, and so has a reader every piece of an
answer [s]."""
_PIECE = 1 << 20
"""An answer is sent in pieces of so many bytes."""
_TYPES = ("float32", "float64")
Answer = TypeVar("Answer")


class RequestError(HugsimError):
    """A request that cannot be answered: its status is the first argument of the reply."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class HttpSimulator:
    """Answers requests; one session for everybody, as the official server has it.

    Args:
        jobs: Scenarios in the order in which they are driven.
        token: That a request must carry; empty for none.
        filming: Which scenarios get a video; None for no videos.

    Attributes:
        is_done: Whether the last scenario is over.
        failed: Scenarios that gave no episode, and why; the next one began in their place.
    """

    def __init__(self, jobs: Sequence[Job], token: str = "", filming: Filming | None = None) -> None:
        self._session = SimulatorSession(jobs, filming)
        self._token = token
        self._replies: OrderedDict[str, bytes] = OrderedDict()
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        # One thread does all that touches SUMO, so that requests may come in as they like.
        self._worker = ThreadPoolExecutor(1, "simulator")
        self._state: dict[str, Any] = {"obs": {}, "info": {}}
        self.is_done = False
        self._has_begun = self._is_closed = False
        self.failed: dict[str, str] = {}

    def check_token(self, given: str | None) -> None:
        """Refuse a wrong token, in the same time whatever it is.

        Raises:
            RequestError: 401, or 422 without one.
        """
        if self._token:
            if given is None:
                raise RequestError(422, "the header auth-token is missing")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                raise RequestError(401, "the auth-token is another")

    def ask(self, work: Callable[..., Answer], *args: Any) -> Answer:
        """Do something as soon as what was asked before is done.

        Raises:
            RequestError: 503 if the end comes before.
        """

        def unless_closed() -> Answer:
            if self._is_closed:
                raise RequestError(503, "the simulator has ended")
            return work(*args)

        return self._worker.submit(unless_closed).result()

    def reset(self) -> bytes:
        """Start again at the first scenario."""
        self.is_done = False
        self._begin(0)
        return json.dumps({"success": True}).encode()

    def state(self) -> bytes:
        """The present state; the last one after the end, without views if no scenario could be set up."""
        if not self._has_begun:
            self._begin(0)
        return self._reply(self.is_done)

    def act(self, body: bytes) -> bytes:
        """Take a plan.

        Raises:
            RequestError: If it is none; nothing has moved then.
        """
        plan, transaction = read_action(body)
        if transaction in self._replies:
            return self._replies[transaction]
        if not self._has_begun:
            self._begin(0)
        if self.is_done:
            return self._reply(True)
        goes_on = self._drive(plan)
        if not goes_on:
            self._begin(self._session.index + 1)
        reply = self._reply(not goes_on)
        self._replies[transaction] = reply
        while len(self._replies) > KEPT_REPLIES:
            self._replies.popitem(last=False)
        return reply

    def page(self) -> bytes:
        """What happened last, for people."""
        # (a copy: the scenario that is driven meanwhile may add a line)
        lines = "<br>".join(map(html.escape, list(self._lines)))
        return f"<html><body>{lines}</body></html>".encode()

    def close(self) -> None:
        """End SUMO; of a scenario that is not over the record so far stays. Nothing is answered then."""
        try:
            self._worker.submit(self._close).result()
        finally:
            self._worker.shutdown()

    def _close(self) -> None:
        self._is_closed = True
        self._session.close()

    def _begin(self, first: int) -> None:
        """Begin a scenario, or the next one that can be set up; behind the last one all are done."""
        self._has_begun = True
        for index in range(first, len(self._session.jobs)):
            name = self._session.jobs[index].folder.name
            self.failed.pop(name, None)
            try:
                self._session.begin(index)
                self._look()
            except Exception as error:  # (SUMO raises what it likes)
                self._fail(error)
            else:
                self._say(f"scenario {name} begins")
                return
        self.is_done = True
        self._say("all scenarios are done")

    def _drive(self, plan: NDArray[np.floating]) -> bool:
        """Drive a step; returns whether the scenario goes on. One that fails is over, too."""
        try:
            goes_on = self._session.step(plan)
        except HugsimError as error:
            raise RequestError(400, str(error)) from error
        except Exception as error:
            self._fail(error)
            return False
        try:
            self._look()
            if not goes_on:
                written = self._session.finish()
                scores = ", ".join(f"{name} {value:.4f}" for name, value in written["scores"].items())
                why = f"; {written['unscored']}" if written["unscored"] else ""
                self._say(f"{written['name']}: {', '.join(written['ends'])}; {scores}{why}")
        except Exception as error:
            self._fail(error)
            return False
        return goes_on

    def _fail(self, error: Exception) -> None:
        failed = self._session.failed(error)
        self.failed[failed.name] = failed.reason
        kept = "" if failed.record is None else f"; its record up to there is {failed.record}"
        self._say(f"{failed.name}: no episode: {failed.reason}{kept}")

    def _look(self) -> None:
        obs, info = self._session.observe()
        self._state = {"obs": obs, "info": info}

    def _reply(self, scene_done: bool) -> bytes:
        return write_message({"done": self.is_done, "cur_scene_done": scene_done, "state": self._state})

    def _say(self, line: str) -> None:
        logger.info(line)
        self._lines.append(line)


def read_action(body: bytes) -> tuple[NDArray[np.floating], str]:
    """Plan and transaction of the body of ``/execute_action``.

    Raises:
        RequestError: 422 if a field is missing or no text, 400 if the plan cannot be read.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(422, f"the body is no JSON ({error})") from error
    names = ("plan_traj", "transaction_id")
    if not isinstance(fields, dict) or not all(isinstance(fields.get(name), str) for name in names):
        raise RequestError(422, "the body needs the texts plan_traj and transaction_id")
    try:
        given = json.loads(fields["plan_traj"])
        kind = str(given["dtype"])
        if kind not in _TYPES:
            raise ValueError(f"dtype {kind!r} is none of {', '.join(_TYPES)}")
        plan = np.array(given["data"], dtype=kind)
        if list(plan.shape) != list(given["shape"]):
            raise ValueError(f"data have the shape {list(plan.shape)}, not {given['shape']}")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RequestError(400, f"plan_traj: cannot be read ({describe_error(error)})") from error
    return plan, fields["transaction_id"]


_ROUTES = {
    "/reset": "POST",
    "/get_current_state": "GET",
    "/execute_action": "POST",
    "/submition_info": "GET",
}


def http_server(simulator: HttpSimulator, host: str, port: int) -> ThreadingHTTPServer:
    """A server of a simulator; port 0 takes a free one.

    What is wrong with a request is answered, with the status of its :class:`RequestError`.

    Raises:
        LiveError: If the address cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE

        def setup(self) -> None:
            super().setup()
            self.rfile.close()
            self._sent = _InTime(self.connection)
            self.rfile = io.BufferedReader(self._sent)

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            try:
                kind, reply = self._reply(method)
                status = 200
            except RequestError as error:
                kind, reply, status = "application/json", _detail(str(error)), error.status
            except Exception as error:  # (a server outlives a scenario that fails)
                logger.warning("%s", describe_error(error), exc_info=True)
                kind, reply, status = "application/json", _detail(describe_error(error)), 500
            try:
                self.connection.settimeout(PATIENCE)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                # (the time is that of a whole write: in one, a slow reader would be taken for none)
                for start in range(0, len(reply), _PIECE):
                    self.wfile.write(reply[start : start + _PIECE])
            except OSError as error:  # (the client has gone; it may ask again, with the same transaction)
                logger.warning("a client went away: %s", describe_error(error))
            if status != 200:
                self._take_in_the_rest()

        def _take_in_the_rest(self) -> None:
            """Read what a refused client still sends: closed on unread bytes, TCP would drop the answer."""
            unread = MAX_UNREAD
            self._sent.wait_anew()
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_WR)
                while unread > 0 and (taken := len(self.rfile.read1(min(unread, 1 << 16)))):
                    unread -= taken

        def _reply(self, method: str) -> tuple[str, bytes]:
            # (self.path would be /reset where //reset was asked for, which the official server does not know)
            path = self.requestline.split()[1]
            if path not in _ROUTES:
                raise RequestError(404, f"there is no {path}")
            if _ROUTES[path] != method:
                raise RequestError(405, f"{path} takes {_ROUTES[path]}")
            if path == "/submition_info":
                return "text/html; charset=utf-8", simulator.page()
            simulator.check_token(self.headers.get("auth-token"))
            if path == "/get_current_state":
                return "application/octet-stream", simulator.ask(simulator.state)
            length = self.headers.get("Content-Length", "0")
            # (as many digits as nobody needs are no number to Python)
            if not (length.isascii() and length.isdigit() and len(length) < 20) or int(length) > MAX_BODY:
                raise RequestError(413, f"a body may have {MAX_BODY} bytes")
            try:
                body = self.rfile.read(int(length))
            except TimeoutError as error:
                raise RequestError(408, f"the body has not come within {PATIENCE:g} s") from error
            if path == "/reset":
                return "application/json", simulator.ask(simulator.reset)
            return "application/octet-stream", simulator.ask(simulator.act, body)

        def log_message(self, format: str, *args: Any) -> None:
            logger.debug(format, *args)

    try:
        return _Server((host, port), Handler)
    except OSError as error:
        raise LiveError(
            f"--host, --port: cannot listen at {host}:{port} ({error}); choose another port, 0 for a free one"
        ) from error


class _InTime(io.RawIOBase):
    """What a client sends, as long as it takes no longer than :data:`PATIENCE` in all.

    A time-out of the socket begins anew with every byte.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.wait_anew()

    def wait_anew(self) -> None:
        """From now on there is as much time again."""
        self._until = time.monotonic() + PATIENCE

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, or wait for it.

        Raises:
            TimeoutError: If the time is over.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the client takes too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Server(ThreadingHTTPServer):
    """Sends its last answers before it ends, and waits for nobody who has not asked anything yet."""

    def __init__(self, *args: Any) -> None:
        # (before anything else: a server that cannot have its address is closed in there)
        self._open: list[tuple[threading.Thread, socket.socket]] = []
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own."""
        work = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._open = [pair for pair in self._open if pair[0].is_alive()] + [(work, request)]
        work.start()

    def server_close(self) -> None:
        """Listen no longer; returns when all are answered, or do not read on."""
        super().server_close()
        for _, connection in self._open:
            with contextlib.suppress(OSError):  # (it has ended)
                connection.shutdown(socket.SHUT_RD)
        until = time.monotonic() + PATIENCE
        for work, _ in self._open:
            work.join(max(until - time.monotonic(), 0.0))


def _detail(reason: str) -> bytes:
    return json.dumps({"detail": reason}).encode()
