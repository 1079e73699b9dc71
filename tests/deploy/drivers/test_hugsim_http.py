"""The package's own client drives a server of ours, and survives servers that misbehave."""

import json
import os
import pickle
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from beyonddrive.deploy.drivers import hugsim, hugsim_http
from beyonddrive.deploy.drivers.engines import DriverError
from beyonddrive.deploy.drivers.hugsim import HugsimConventions, answer_of
from beyonddrive.deploy.drivers.hugsim_http import HttpSettings, drive_http, open_client
from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import command_of
from beyonddrive.tests.deploy.drivers.conftest import observation

hugsim_client = pytest.importorskip("hugsim_client", reason="the extra 'hugsim' is not installed")


class Server:
    """The official server's behaviour (HUGSIM, section 4), and what it may do wrong."""

    def __init__(self, steps=(2, 1), token="", port=0):
        self.steps, self.token = steps, token
        self.scenario = self.step = 0
        self.plans, self.bodies, self.states_sent = [], [], 0
        self.spoil = lambda path, number, content: (200, content)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer()

            def do_POST(self):
                self.answer()

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, content = server.serve(self.path, self.headers.get("auth-token"), body)
                if status is None:  # (the line goes dead)
                    self.connection.close()
                    return
                with suppress(BrokenPipeError):  # (of a client that has given up)
                    self.send_response(status)
                    if status == 302:
                        self.send_header("Location", content.decode())
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def serve(self, path, token, body):
        if token is None or token != self.token:
            return 401, b"wrong token"
        if path == "/reset":
            self.scenario = self.step = 0
            return self.spoil(path, 0, b'{"success": true}')
        if path == "/get_current_state":
            content = self.state(False)
        elif path == "/execute_action":
            told = json.loads(json.loads(body)["plan_traj"])
            self.bodies.append(json.loads(body))
            self.plans.append(np.array(told["data"], told["dtype"]).reshape(told["shape"]))
            self.step += 1
            over = self.step == self.steps[self.scenario]
            if over and self.scenario + 1 < len(self.steps):
                self.scenario, self.step = self.scenario + 1, 0
            content = self.state(over)
        else:
            return 404, b"no such page"
        self.states_sent += 1
        return self.spoil(path, self.states_sent, content)

    def state(self, over):
        obs, info = observation(self.step)
        done = self.step >= self.steps[self.scenario]
        obs = {"rgb": obs["rgb"]}
        return pickle.dumps(
            {"done": done, "cur_scene_done": over or done, "state": {"obs": obs, "info": info}}
        )


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    """The tracker of the self-test is compiled first: on a fresh machine that takes longer than any limit."""
    hugsim.self_test(HugsimConventions())


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """The package waits five seconds between its attempts."""
    monkeypatch.setattr(hugsim_client.HugsimClient._execute_action.retry, "sleep", lambda seconds: None)


def test_all_scenarios_are_driven(server, driver, told, tmp_path):
    report = drive_http(HttpSettings(server.address + "/"), driver, {"planner": "Told"}, tmp_path)
    assert not report.trouble and report.headline() == "3 plans in 2 session(s)"
    assert {name: r.counts for name, r in report.sessions.items()} == {
        "scenario 1": {"inference": 2},
        "scenario 2": {"inference": 1},
    }
    wanted = answer_of(told.answer, HugsimConventions())
    assert all(np.array_equal(plan, wanted) and plan.dtype == np.float64 for plan in server.plans)
    assert len({body["transaction_id"] for body in server.bodies}) == 3
    kept = json.loads((tmp_path / "driver.json").read_text())
    assert kept["protocol"] == "hugsim-http" and kept["plans"] == 3


def test_published_rows_are_driven_in_float32(server, driver):
    drive_http(HttpSettings(server.address, conventions=HugsimConventions.released()), driver)
    assert {plan.dtype for plan in server.plans} == {np.dtype(np.float32)}


def test_a_run_that_the_server_ends_at_a_released_plan_says_why(server, driver, told):
    told.answer = np.zeros((8, 3))
    server.spoil = lambda path, number, content: (
        (500, b"AssertionError") if path == "/execute_action" else (200, content)
    )
    report = drive_http(HttpSettings(server.address, conventions=HugsimConventions.released()), driver)
    assert "AssertionError" in report.trouble
    assert report.headline().startswith("TROUBLES: point_at_ego 1; 1 plans in 1 session(s)")
    (session,) = report.sessions.values()
    assert "first_release fails at it" in session.reasons["point_at_ego"]


def test_fallbacks_of_an_ego_that_stands_can_be_tracked_as_released(server, driver, told, monkeypatch):
    standing = partial(observation, ego_velo=0.0)
    monkeypatch.setitem(globals(), "observation", standing)
    told.answer = RuntimeError("gone")
    drive_http(HttpSettings(server.address, conventions=HugsimConventions.released()), driver)
    assert len(server.plans) == 3
    for plan in server.plans:
        command_of(plan, 0.0, 0.0, "first_release")


def test_an_answer_that_means_another_thing_does_not_start(server, driver, monkeypatch):
    monkeypatch.setattr(hugsim, "answer_of", lambda *args: answer_of(*args) * [-1.0, 1.0])
    with pytest.raises(DriverError, match="self-test"):
        drive_http(HttpSettings(server.address), driver)
    assert server.states_sent == 0


def test_the_client_opens_no_listener(server, monkeypatch):
    """Which the package does by default, on all interfaces; so a second one in a process would fail, too."""
    monkeypatch.setenv("IN_HF_SPACE", "true")
    before = set(threading.enumerate())
    open_client(HttpSettings(server.address))
    open_client(HttpSettings(server.address))
    # (one that answered an earlier test may end meanwhile)
    assert set(threading.enumerate()) <= before and os.environ["IN_HF_SPACE"] == "true"


def test_a_wrong_token_is_said_so(driver):
    server = Server(token="secret")
    try:
        report = drive_http(HttpSettings(server.address, "guess"), driver)
        assert "refuses the token (401): give the right one by --token-file" in report.trouble
        assert not drive_http(HttpSettings(server.address, "secret"), driver).trouble
    finally:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def free_port():
    """A port of this machine at which nobody listens but a server of the test.

    It stays bound, so that no other process is given it; a server may have it all the same.
    """
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_server_that_is_not_up_yet_is_waited_for(driver, free_port):
    began = []
    timer = threading.Timer(0.5, lambda: began.append(Server(port=free_port)))
    timer.start()
    try:
        report = drive_http(HttpSettings(f"http://127.0.0.1:{free_port}", first_wait=30.0), driver)
    finally:
        timer.join()
        began[0].http.shutdown()
        began[0].http.server_close()
    assert not report.trouble and report.headline() == "3 plans in 2 session(s)"


def test_a_gateway_with_nothing_behind_it_is_waited_for(server, driver, monkeypatch):
    monkeypatch.setattr(hugsim_http, "_RETRY", 0.01)
    answers = iter([502, 503, 504, 200])
    server.spoil = lambda path, number, content: (next(answers) if path == "/reset" else 200, content)
    assert not drive_http(HttpSettings(server.address, first_wait=30.0), driver).trouble
    answers = iter([503])
    assert "not up (503 Service Unavailable)" in drive_http(HttpSettings(server.address), driver).trouble


def test_a_server_that_never_comes_up_is_given_up(driver, free_port):
    address = f"http://127.0.0.1:{free_port}"
    started = time.monotonic()
    trouble = drive_http(HttpSettings(address), driver).trouble
    assert f"there is no server at {address}: --first-wait SECONDS waits for one" in trouble
    assert time.monotonic() - started < 5
    started = time.monotonic()
    trouble = drive_http(HttpSettings(address, first_wait=0.5), driver).trouble
    assert f"no server at {address}: it has not come up within 0.5 s (--first-wait)" in trouble
    assert 0.5 <= time.monotonic() - started < 10
    for wait in (-1.0, float("nan"), float("inf")):
        with pytest.raises(DriverError, match="--first-wait: must be finite and not negative"):
            HttpSettings(address, first_wait=wait)


@pytest.mark.parametrize(("status", "said"), [(401, "refuses the token"), (500, "out of memory")])
def test_who_refuses_is_not_waited_for(server, driver, status, said):
    server.spoil = lambda path, number, content: (status, b"out of memory")
    started = time.monotonic()
    assert said in drive_http(HttpSettings(server.address, first_wait=30.0), driver).trouble
    assert time.monotonic() - started < 5


def _code(path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(path),)

    return pickle.dumps({"done": False, "cur_scene_done": False, "state": {"obs": {}, "info": Evil()}})


@pytest.mark.parametrize("where", ["/get_current_state", "/execute_action"])
def test_code_from_the_server_is_never_run(server, driver, tmp_path, where):
    mark = tmp_path / "ran"
    server.spoil = lambda path, number, content: (200, _code(mark) if path == where else content)
    report = drive_http(HttpSettings(server.address), driver)
    assert "refused to load" in report.trouble and not mark.exists()


@pytest.mark.parametrize("where", ["/reset", "/get_current_state", "/execute_action"])
def test_nobody_is_sent_elsewhere_with_the_token(server, driver, tmp_path, where):
    """Whatever ends in /reset is no pickle, and was not looked at."""
    mark, asked = tmp_path / "ran", []
    elsewhere = Server()
    elsewhere.serve = lambda path, token, body: asked.append(token) or (200, _code(mark))
    place = f"{elsewhere.address}/x/reset".encode()
    server.spoil = lambda path, number, content: (302, place) if path == where else (200, content)
    report = drive_http(HttpSettings(server.address), driver)
    elsewhere.http.shutdown()
    elsewhere.http.server_close()
    assert "sends its clients elsewhere (302)" in report.trouble and elsewhere.address in report.trouble
    assert not asked and not mark.exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path, number, content: (200, content[:-50]), "cannot be read"),
        (lambda path, number, content: (200, b""), "empty"),
        (lambda path, number, content: (200, pickle.dumps([1])), "no state with obs and info"),
        (lambda path, number, content: (200, pickle.dumps({"state": None})), "no state with obs and info"),
        (lambda path, number, content: (500, b"out of memory"), "out of memory"),
        (lambda path, number, content: (404, b"no such page"), "no such page"),
        (lambda path, number, content: (None, b""), "ConnectionError"),
    ],
    ids=["half", "empty", "list", "none", "500", "404", "dead"],
)
def test_a_server_that_fails_leaves_a_report(server, driver, tmp_path, spoil, said):
    server.spoil = lambda path, number, content: (
        (200, content) if number < 2 else spoil(path, number, content)
    )
    report = drive_http(HttpSettings(server.address, wait=5.0), driver, None, tmp_path)
    assert said in report.trouble and report.trouble.startswith("execute_action: ")
    kept = json.loads((tmp_path / "driver.json").read_text())
    assert kept["plans"] == 1 and kept["sessions"]["scenario 1"]["ended"] == "the server went away"


def test_a_server_that_says_much_is_quoted_a_little(server, driver, tmp_path):
    server.spoil = lambda path, number, content: (500, b"<html>" * 10**6)
    report = drive_http(HttpSettings(server.address), driver, None, tmp_path)
    assert report.trouble.startswith("reset: Exception: Failed to reset environment: <html>")
    assert len(report.headline()) < 500 and (tmp_path / "driver.json").stat().st_size < 2000


def test_a_failed_action_is_repeated_by_the_package(server, driver):
    """Three attempts with one transaction id; the server steps once."""
    failures = iter([True, True, False, False, False])
    server.spoil = lambda path, number, content: (
        (503, b"busy") if path == "/execute_action" and next(failures) else (200, content)
    )
    server.steps = (5,)
    assert not drive_http(HttpSettings(server.address), driver).trouble
    ids = [body["transaction_id"] for body in server.bodies]
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_a_silent_server_is_given_up(server, driver):
    server.spoil = lambda path, number, content: time.sleep(1.0) or (200, content)
    started = time.monotonic()
    report = drive_http(HttpSettings(server.address, wait=0.1), driver)
    assert "reset: ReadTimeout" in report.trouble and time.monotonic() - started < 5


@pytest.mark.parametrize(
    "harm",
    [
        lambda info: info.update(ego_velo=float("nan")),
        lambda info: info["cam_params"]["CAM_FRONT"]["intrinsic"].update(W=float("inf")),
        lambda info: info.update(ego_velo=1e308),
    ],
    ids=["nan", "inf", "fast"],
)
def test_a_state_that_cannot_be_driven_by_gets_a_fallback(server, driver, harm):
    def spoil(path, number, content):
        if number == 2 and path == "/execute_action":
            value = pickle.loads(content)
            harm(value["state"]["info"])
            content = pickle.dumps(value)
        return 200, content

    server.spoil = spoil
    report = drive_http(HttpSettings(server.address), driver)
    assert report.sessions["scenario 1"].counts == {"inference": 1, "bad_frame": 1, "cached_plan": 1}
    assert not report.trouble
    assert report.headline().startswith("FALLBACKS: 1 of 3 plans")


def test_a_state_that_cannot_be_read_is_answered_for_the_controller_that_was_told(server, driver, told):
    """The other's way of standing would turn the wheels."""

    def spoil(path, number, content):
        if path == "/reset":
            return 200, content
        value = pickle.loads(content)
        value["state"]["info"].update(ego_velo=0.0, controller="pr57")
        if number == 2:
            value["state"]["info"] = {}
        return 200, pickle.dumps(value)

    told.answer = np.zeros((8, 3))
    server.spoil = spoil
    report = drive_http(HttpSettings(server.address), driver)
    assert report.sessions["scenario 1"].counts == {"inference": 1, "bad_frame": 1, "cached_plan": 1}
    assert len(server.plans) == 3 and not any(plan.any() for plan in server.plans)


def test_no_address_and_no_more_bytes_than_allowed(server, driver):
    with pytest.raises(DriverError, match="must begin with http"):
        HttpSettings("localhost:8065")
    report = drive_http(HttpSettings(server.address, limit=1000), driver)
    assert "more than 1000 bytes" in report.trouble
