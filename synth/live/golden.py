"""What a RealADSim client and server were seen to say beside what ours say (HUGSIM, section 4)."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.evaluation.closed_loop.hugsim.messages import read_message
from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import check_plan
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError
from beyonddrive.evaluation.golden import FileComparison
from beyonddrive.synth.live.serve_http import HttpSimulator, RequestError, http_server, read_action

HTTP = "http.json"
_PLAN = {"data": [[0.0, 1.0], [0.0, 2.0]], "shape": [2, 2], "dtype": "float64"}
_GOOD = {"plan_traj": json.dumps(_PLAN), "transaction_id": "0" * 32}
_REQUESTS: dict[str, tuple[str, str, str]] = {
    # by what the recorded case is called: method, path, body
    "transaction_id missing": ("POST", "/execute_action", json.dumps({"plan_traj": _GOOD["plan_traj"]})),
    "no body": ("POST", "/execute_action", ""),
    "plan_traj an object instead of a string": (
        "POST",
        "/execute_action",
        json.dumps({**_GOOD, "plan_traj": _PLAN}),
    ),
    "plan_traj not JSON": ("POST", "/execute_action", json.dumps({**_GOOD, "plan_traj": "{"})),
    "GET /reset": ("GET", "/reset", ""),
    "unknown path": ("GET", "/nowhere", ""),
    "//reset": ("POST", "//reset", ""),
}
_PLANS = {"plan with one point": [[0.0, 1.0]], "plan with NaN": [[0.0, 1.0], [float("nan"), 2.0]]}
"""Plans that a server refuses, by what the recorded case is called."""
_BROKEN, _REFUSED = 500, 400
"""The official server breaks on a plan that is none; ours refuses it with a reason."""


def compare_http(path: Path, found: FileComparison) -> None:
    """Compare how bodies are read, and what a server without scenarios answers, with what was recorded."""
    recorded = json.loads(path.read_text())
    for i, sent in enumerate(recorded["client"]["execute_action_bodies"]):
        plan, transaction = read_action(json.dumps(sent["body"]).encode())
        found.add(f"plan {i}", plan, np.array(_numbers(sent["plan"]), dtype=sent["dtype"]))
        same = str(plan.dtype) == sent["dtype"] and transaction == sent["body"]["transaction_id"]
        found.add(f"type and transaction of plan {i}", same, True)
    server = recorded["server"]
    with _asked() as ask:
        for case in server["errors"]:
            found.add(case["case"], _status(case["case"], ask), _ours(case["status"]))
        for case in server["ok"]:
            _compare_answer(case, ask, found)
    if any(case["status"] == _BROKEN for case in server["errors"]):
        found.note(f"where the official server breaks with {_BROKEN}, ours refuses with {_REFUSED}")


def _numbers(plan: Any) -> Any:
    """A recorded plan; one with NaN or infinity is recorded as a text."""
    if not isinstance(plan, str):
        return plan
    return json.loads(plan.replace("nan", "NaN").replace("inf", "Infinity"))


def _ours(status: int) -> int:
    return _REFUSED if status == _BROKEN else status


Ask = Callable[[str, str, str], tuple[int, str, bytes]]


def _status(case: str, ask: Ask) -> int:
    """What ours says in a recorded case.

    Raises:
        HugsimError: If nobody knows what was sent in it.
    """
    if case in _PLANS:
        # (without a scenario, a server has nobody who would drive it)
        given = {"data": _PLANS[case], "shape": [len(_PLANS[case]), 2], "dtype": "float64"}
        try:
            check_plan(read_action(json.dumps({**_GOOD, "plan_traj": json.dumps(given)}).encode())[0])
        except RequestError as error:
            return error.status
        except HugsimError:
            return _REFUSED
        return 200
    if case not in _REQUESTS:
        raise HugsimError(f"{HTTP}: the case {case!r} is not known here")
    return ask(*_REQUESTS[case])[0]


def _compare_answer(case: Mapping[str, Any], ask: Ask, found: FileComparison) -> None:
    method, _, path = case["request"].partition(" ")
    status, kind, content = ask(method, path, json.dumps(_GOOD) if path == "/execute_action" else "")
    found.add(f"{case['request']}: status", status, case["status"])
    if "json" in case:
        found.add(f"{case['request']}: content", json.loads(content) == case["json"], True)
    if "type" in case:
        found.add(f"{case['request']}: type", kind == case["type"], True)
    if "pickle_keys" in case:
        answer = read_message(content)
        keys = list(answer) == case["pickle_keys"] and list(answer["state"]) == case["state_keys"]
        found.add(f"{case['request']}: keys", keys, True)


@contextmanager
def _asked() -> Iterator[Ask]:
    """A server without scenarios on this machine, and how to ask it."""
    simulator = HttpSimulator([])
    server = http_server(simulator, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()

    def ask(method: str, path: str, body: str) -> tuple[int, str, bytes]:
        line = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
        try:
            line.request(method, path, body)
            answer = line.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            line.close()

    try:
        yield ask
    finally:
        server.shutdown()
        server.server_close()
        simulator.close()
        thread.join()
