"""A planner as the client of a RealADSim server, by the package ``hugsim-client`` (HUGSIM, section 4)."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from beyonddrive.deploy.drivers.core import PlannerDriver
from beyonddrive.deploy.drivers.engines import DriverError
from beyonddrive.deploy.drivers.hugsim import HugsimConventions, answer_of, planned, self_test
from beyonddrive.deploy.drivers.run_report import RunReport
from beyonddrive.evaluation.closed_loop.hugsim.messages import (
    MAX_MESSAGE,
    MessageError,
    read_message,
    write_message,
)
from beyonddrive.evaluation.closed_loop.hugsim.pipes import PeerError
from beyonddrive.structures.errors import BeyondDriveError, clipped, describe_error

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
_CONNECTS = 10.0
"""A server that is there takes a connection within this [s]."""
_RETRY = 1.0
"""How often it is looked whether a server is up [s]."""
_NOT_UP = (502, 503, 504)
"""What a gateway answers as long as there is nothing behind it."""
_SWITCH = "IN_HF_SPACE"
"""Unless this says otherwise the client opens a listener on all interfaces, port 7860."""


@dataclass(frozen=True)
class HttpSettings:
    """How a server is driven.

    Attributes:
        server: Where it is.
        token: What it asks for; None leaves it to the package, which reads ``HUGSIM_API_TOKEN``.
        wait: Longest wait for a part of an answer [s].
        first_wait: Longest wait for a server that is not up yet [s]; 0 for none.
        hf_space: Let the client answer the health check of a hosted space, on all interfaces.
        limit: Most bytes of an answer.
        conventions: How frames are read and plans written.

    Raises:
        DriverError: If ``server`` is no address, or one of the waits no time.
    """

    server: str = "http://localhost:8065"
    token: str | None = None
    wait: float = 300.0
    hf_space: bool = False
    limit: int = MAX_MESSAGE
    conventions: HugsimConventions = field(default_factory=HugsimConventions)
    first_wait: float = 0.0

    def __post_init__(self) -> None:
        if not self.server.startswith(("http://", "https://")):
            raise DriverError(f"--server: must begin with http:// or https://, got {self.server!r}")
        if not 0 < self.wait < math.inf:
            raise DriverError(f"--wait: must be positive and finite, got {self.wait}")
        if not 0 <= self.first_wait < math.inf:
            raise DriverError(f"--first-wait: must be finite and not negative, got {self.first_wait}")


class NotUpError(PeerError):
    """A gateway answers for a server that is not up."""


def drive_http(
    settings: HttpSettings,
    driver: PlannerDriver,
    about: Mapping[str, Any] | None = None,
    report_dir: Path | None = None,
) -> RunReport:
    """Drive all scenarios of a server.

    Args:
        settings: Where and how.
        driver: Drives.
        about: For the report.
        report_dir: Where the report goes; nowhere if None.

    Returns:
        The report; its ``trouble`` says if the server refused something or went away.

    Raises:
        ImportError: If ``hugsim-client`` is not installed.
    """
    self_test(settings.conventions)
    client = open_client(settings)
    about = {"protocol": "hugsim-http", "server": settings.server, **(about or {})}
    with RunReport(report_dir, about) as report:
        number, session, ended = 1, "scenario 1", "the driver ended"
        driver.reset(session)
        conventions = settings.conventions
        try:
            _reset(client, settings)
            state = _ask("get_current_state", client.get_current_state)
            if state.done:
                report.trouble = "the server is done before it has begun: it has no scenario"
            while not state.done:
                started = time.perf_counter()
                told = state.state
                # (with the controller that was named: the next state may be none that can be read)
                conventions = conventions.told_by(told.info)
                plan, moment = planned(driver, told.obs, told.info, session, conventions)
                report.planned(session, moment, plan, time.perf_counter() - started)
                points = answer_of(plan.poses, conventions, plan.source)
                state = _ask("execute_action", client.execute_action, points)
                if state.cur_scene_done or state.done:
                    report.session_ended(session, driver.close(session), "done")
                    number, session = number + 1, f"scenario {number + 1}"
                    driver.reset(session)
                    conventions = settings.conventions
        except PeerError as error:
            report.trouble, ended = str(error), "the server went away"
        finally:
            rest = driver.close(session)
            if rest.counts:
                report.session_ended(session, rest, ended)
    return report


def open_client(settings: HttpSettings) -> Any:
    """The package's client, which waits no longer than it is told and unpickles nothing but data.

    Raises:
        ImportError: If ``hugsim-client`` is not installed.
    """
    try:
        from hugsim_client import HugsimClient
    except ImportError as error:
        raise ImportError(
            "--protocol hugsim-http needs hugsim-client: pip install 'beyonddrive[hugsim]'"
        ) from error
    # (with a slash at the end the official server does not know its own routes)
    with _no_listener(settings.hf_space):
        client: Any = HugsimClient(settings.server.rstrip("/"), settings.token)
    # The client has no timeouts, and unpickles what it gets; both are mended in its session of requests.
    session = client._session
    for scheme in ("http://", "https://"):
        adapter = session.get_adapter(scheme)
        adapter.send = _with_timeout(adapter.send, (min(settings.wait, _CONNECTS), settings.wait))
    session.hooks["response"].append(lambda response, **_: _made_safe(response, settings.limit))
    return client


def _with_timeout(send: Callable[..., Any], seconds: tuple[float, float]) -> Callable[..., Any]:
    return lambda request, **options: send(request, **{**options, "timeout": seconds})


def _reset(client: Any, settings: HttpSettings) -> None:
    """Begin at the first scenario, as soon as there is a server.

    Raises:
        PeerError: If there is none in time, or it refuses.
    """
    from requests import ConnectionError as NoConnectionError

    until, has_told = time.monotonic() + settings.first_wait, False
    while True:
        try:
            return _ask("reset", client.reset_env)
        except PeerError as error:
            if not isinstance(error.__cause__, (NoConnectionError, NotUpError)):
                raise
            left = until - time.monotonic()
            if left <= 0:
                advice = "--first-wait SECONDS waits for one that is not up yet"
                if settings.first_wait:
                    advice = f"it has not come up within {settings.first_wait:g} s (--first-wait)"
                raise PeerError(f"there is no server at {settings.server}: {advice} ({error})") from error
            if not has_told:
                logger.info("there is no server at %s yet: %s", settings.server, error)
            has_told = True
            time.sleep(min(_RETRY, left))


def _made_safe(response: Any, limit: int) -> Any:
    """An answer whose pickle has been read by the allow-list and written anew: unpickling it is harmless."""
    if response.status_code in (401, 403):
        raise PeerError(
            f"the server refuses the token ({response.status_code}): give the right one by --token-file"
        )
    if response.is_redirect:
        # (the token would be sent there, too, and a path that ends in /reset would not be looked at)
        raise PeerError(
            f"the server sends its clients elsewhere ({response.status_code}), which is not followed: if "
            f"that server is meant, give its address by --server: {clipped(response.headers['location'])}"
        )
    if response.status_code in _NOT_UP and response.request.path_url.endswith("/reset"):
        raise NotUpError(f"the server is not up ({response.status_code} {response.reason})")
    parts, size = [], 0
    for part in response.iter_content(1 << 20):
        size += len(part)
        if size > limit:
            response.close()
            raise MessageError(f"the answer has more than {limit} bytes")
        parts.append(part)
    content = b"".join(parts)
    if response.status_code == 200 and not response.request.path_url.endswith("/reset"):
        content = write_message(_checked_state(read_message(content, limit)))
    response._content = content
    return response


def _checked_state(value: Any) -> Any:
    state = value.get("state") if isinstance(value, Mapping) else None
    if not isinstance(state, Mapping) or not {"obs", "info"} <= state.keys():
        raise MessageError("the answer holds no state with obs and info")
    for key in ("done", "cur_scene_done"):
        if not isinstance(value.get(key), bool):
            raise MessageError(f"the answer's {key} is not true or false")
    return value


def _ask(what: str, call: Callable[..., Answer], *args: Any) -> Answer:
    try:
        return call(*args)
    except Exception as error:  # (the package raises Exception itself)
        # (tenacity wraps what the last of three attempts raised)
        attempt = getattr(error, "last_attempt", None)
        cause = error if attempt is None else attempt.exception() or error
        if isinstance(cause, PeerError):
            raise cause from error
        said = str(cause) if isinstance(cause, BeyondDriveError) else describe_error(cause)
        raise PeerError(f"{what}: {clipped(said)}") from error


@contextmanager
def _no_listener(wanted: bool) -> Iterator[None]:
    before = os.environ.pop(_SWITCH, None)
    os.environ.update({_SWITCH: "true" if wanted else "false"})
    try:
        yield
    finally:
        os.environ.pop(_SWITCH, None)
        if before is not None:
            os.environ.update({_SWITCH: before})
