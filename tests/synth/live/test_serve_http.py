"""The live world as a RealADSim server: the package's client, ours, and clients that misbehave."""

import html
import http.client
import json
import pickle
import socket
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from beyonddrive.evaluation.closed_loop.hugsim.run_files import read_record
from beyonddrive.synth.live import batch, episode_files, serve_http
from beyonddrive.synth.live.serve_http import MAX_BODY, HttpSimulator, http_server
from beyonddrive.tests.deploy.drivers.conftest import driver, observation, told  # noqa: F401
from beyonddrive.tests.synth.live.conftest import TINY
from beyonddrive.tools._live_film import write_video

TOKEN = "open sesame"
AHEAD = np.column_stack([np.zeros(8), 2.0 * np.arange(1, 9)])


class Client:
    """Requests as anybody may write them."""

    def __init__(self, port):
        self.port = port

    def ask(self, method, path, body=None, token=TOKEN):
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        line.request(method, path, body, {} if token is None else {"auth-token": token})
        reply = line.getresponse()
        return reply.status, reply.read()

    def state(self):
        return pickle.loads(self.ask("GET", "/get_current_state")[1])

    def act(self, plan=AHEAD, transaction=None, **fields):
        status, content = self.ask("POST", "/execute_action", action(plan, transaction, **fields))
        return status, pickle.loads(content) if status == 200 else json.loads(content)["detail"]


def action(plan, transaction=None, **fields):
    given = {"data": np.asarray(plan).tolist(), "shape": list(np.shape(plan)), "dtype": "float64", **fields}
    return json.dumps({"plan_traj": json.dumps(given), "transaction_id": transaction or uuid.uuid4().hex})


def jobs_in(live_folder, out, steps=3):
    settings = replace(TINY, max_steps=steps, pivot="camera", hugsim=TINY.hugsim.changed(resets=1))
    return batch.jobs_of(live_folder, out, settings, (0,), ("easy",))


@contextmanager
def served(jobs, filming=None):
    simulator = HttpSimulator(jobs, TOKEN, filming)
    server = http_server(simulator, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield simulator, Client(server.server_address[1]), jobs
    server.shutdown()
    server.server_close()
    simulator.close()


@pytest.fixture
def serving(live_folder, tmp_path):
    """Serve two scenarios of three steps."""
    with served(jobs_in(live_folder, tmp_path)) as serving:
        yield serving


def test_our_driver_drives_it_by_the_packages_client(serving, driver, told):  # noqa: F811
    pytest.importorskip("hugsim_client", reason="the extra 'hugsim' is not installed")
    from beyonddrive.deploy.drivers.hugsim_http import HttpSettings, drive_http

    simulator, client, jobs = serving
    report = drive_http(HttpSettings(f"http://127.0.0.1:{client.port}", TOKEN), driver)
    assert not report.trouble and report.headline() == "6 plans in 2 session(s)"
    assert len(told.given) == 6 and simulator.is_done
    for job in jobs:
        episode = episode_files.read_episode(job.folder)
        assert episode["steps"] == 3 and episode["ends"] == ["3 steps"]
        frames = read_record(job.folder / "data.pkl")
        assert [frame.time for frame in frames] == [0.25, 0.5, 0.75]
    # The plan is an arc to the left.
    assert frames[-1].ego_box[6] > 0.0


def test_it_says_what_hugsim_says(serving):
    state = serving[1].state()
    obs, info = observation()
    assert set(state) == {"done", "cur_scene_done", "state"} and set(state["state"]) == {"obs", "info"}
    assert set(state["state"]["obs"]) == {"rgb"} and set(state["state"]["info"]) == {*info, "controller"}
    assert state["state"]["info"]["controller"] == "pr57"
    assert list(state["state"]["obs"]["rgb"]) == list(obs["rgb"])
    assert {image.shape for image in state["state"]["obs"]["rgb"].values()} == {(450, 800, 3)}
    for name, wanted in info["cam_params"].items():
        given = state["state"]["info"]["cam_params"][name]
        for key, value in wanted["intrinsic"].items():
            assert given["intrinsic"][key] == pytest.approx(value, abs=6e-3), (name, key)
        # (level cameras, and HUGSIM's own to some centimetres and a degree)
        np.testing.assert_allclose(given["v2c"][:3, :3], wanted["v2c"][:3, :3], atol=0.03)
    after = serving[1].act()[1]["state"]["info"]
    assert set(after) == {*info, "controller", "rc", "collision"} and after["timestamp"] == 0.25


def test_what_is_no_action_is_refused_and_moves_nothing(serving):
    _, client, _ = serving
    assert client.ask("GET", "/get_current_state", token="sesame")[0] == 401
    assert client.ask("POST", "/execute_action", action(AHEAD), token=None)[0] == 422
    assert client.ask("GET", "/execute_action")[0] == 405 and client.ask("GET", "/nowhere")[0] == 404
    # (as a client asks whose address ends with a slash)
    assert client.ask("POST", "//reset")[0] == 404
    assert client.ask("POST", "/execute_action", b" " * (MAX_BODY + 1))[0] == 413
    for body in (
        b"",
        b"{",
        b"[1]",
        b"[" * 100_000,
        b'{"plan_traj": "{}"}',
        b'{"plan_traj": {}, "transaction_id": "a"}',
    ):
        assert client.ask("POST", "/execute_action", body)[0] == 422
    broken = AHEAD.copy()
    broken[3, 1] = np.nan
    for plan, fields, said in (
        (broken, {}, "NaN"),
        (AHEAD[:1], {}, "N at least 2"),
        (np.zeros((0, 2)), {"shape": [0]}, "N at least 2"),
        (1e200 * AHEAD, {}, "more than 1e+06 m away"),
        (np.ones((90_000, 2), int), {}, "has 90000 points, 200 are allowed"),
        (AHEAD, {"shape": [2, 8]}, "not [2, 8]"),
        (AHEAD, {"dtype": "object"}, "dtype 'object' is none of"),
        (AHEAD, {"data": "rm -rf"}, "cannot be read"),
        (AHEAD, {"data": [[0, 10**400]] * 8}, "cannot be read"),
    ):
        status, detail = client.act(plan, **fields)
        assert status == 400 and said in detail
    assert client.state()["state"]["info"]["timestamp"] == 0
    assert client.act()[0] == 200


def test_the_reason_of_a_refusal_arrives_however_long_the_body(serving):
    """A client that still sends when it is refused would else see a broken pipe instead of the reason."""
    _, client, _ = serving
    body = b" " * (8 * MAX_BODY)
    for _ in range(5):
        assert client.ask("POST", "/execute_action", body)[0] == 413
        assert client.ask("POST", "/nowhere", body)[0] == 404
        assert client.ask("POST", "/execute_action", body, token="sesame")[0] == 401
    assert client.act()[0] == 200


def test_clients_that_stop_half_way_hold_nobody_up(serving):
    _, client, _ = serving
    half = socket.create_connection(("127.0.0.1", client.port))
    half.sendall(b"POST /execute_action HTTP/1.1\r\nauth-token: open sesame\r\nContent-Length: 500\r\n\r\n{")
    # Its answer is never read; the action counts, and is not done twice.
    body = action(AHEAD, "once").encode()
    deaf = socket.create_connection(("127.0.0.1", client.port))
    head = f"POST /execute_action HTTP/1.1\r\nauth-token: {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    deaf.sendall(head.encode() + body)
    deaf.close()
    for _ in range(2):
        status, reply = client.act(AHEAD, "once")
        assert status == 200 and reply["state"]["info"]["timestamp"] == 0.25
    half.close()
    assert client.act()[1]["state"]["info"]["timestamp"] == 0.5


@pytest.mark.parametrize("whole", [False, True], ids=["head", "body"])
def test_a_client_that_sends_byte_by_byte_holds_no_thread(monkeypatch, whole):
    """Each byte would else give it as much time again."""
    monkeypatch.setattr(serve_http, "PATIENCE", 0.5)
    with served([]) as (_, client, _), socket.create_connection(("127.0.0.1", client.port)) as drip:
        head = f"POST /execute_action HTTP/1.1\r\nauth-token: {TOKEN}\r\nContent-Length: 500\r\n"
        drip.sendall(f"{head}\r\n".encode() if whole else b"")
        drip.settimeout(0.1)
        began, told = time.monotonic(), b""
        while time.monotonic() - began < 40.0:  # (500 bytes take 50 s)
            try:
                drip.sendall(b"x")
                came = drip.recv(1000)
            except TimeoutError:
                continue
            except OSError:
                break
            told += came
            if not came:
                break
        assert time.monotonic() - began < 20.0
        assert not whole or (told.split()[1] == b"408" and b"has not come within 0.5 s" in told)


def test_a_client_that_reads_slowly_gets_all(monkeypatch):
    class Small(serve_http._Server):
        def server_bind(self):  # (what the kernel takes in, the client seems to have read)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
            super().server_bind()

    monkeypatch.setattr(serve_http, "_Server", Small)
    monkeypatch.setattr(serve_http, "PATIENCE", 2.0)
    with served([]) as (simulator, client, _):
        monkeypatch.setattr(simulator, "state", lambda: bytes(48 << 20))
        line = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
        line.connect()
        line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        line.request("GET", "/get_current_state", None, {"auth-token": TOKEN})
        reply, size = line.getresponse(), 0
        while part := reply.read1(1 << 18):
            size += len(part)
            time.sleep(0.01)
        assert size == 48 << 20


def test_after_the_end_nothing_moves_and_a_reset_begins_again(serving):
    _, client, jobs = serving
    replies = [client.act()[1] for _ in range(6)]
    assert [(r["done"], r["cur_scene_done"]) for r in replies] == [
        (False, False), (False, False), (False, True), (False, False), (False, False), (True, True)
    ]  # fmt: skip
    # The reply that ends a scenario holds the first state of the next.
    assert [r["state"]["info"]["timestamp"] for r in replies] == [0.25, 0.5, 0.0, 0.25, 0.5, 0.75]
    assert "rc" not in replies[2]["state"]["info"]
    record = (jobs[1].folder / "data.pkl").read_bytes()
    for reply in (client.act()[1], client.state()):
        assert reply["done"] and reply["state"]["info"]["timestamp"] == 0.75
    assert (jobs[1].folder / "data.pkl").read_bytes() == record
    assert b"all scenarios are done" in client.ask("GET", "/submition_info", token=None)[1]
    assert client.ask("POST", "/reset") == (200, b'{"success": true}')
    assert not client.state()["done"] and episode_files.read_episode(jobs[0].folder) is None
    # (nor does a scorer find a record of the drive before)
    assert not (jobs[0].folder / "data.pkl").exists()
    assert episode_files.read_episode(jobs[1].folder) and (jobs[1].folder / "data.pkl").exists()


def test_a_line_that_is_added_meanwhile_breaks_no_page(monkeypatch):
    simulator = HttpSimulator([])
    try:
        simulator._say("a scenario begins")
        escape = html.escape

        def slowly(line):
            simulator._say("another one is done")  # as the thread does that drives
            return escape(line)

        monkeypatch.setattr(html, "escape", slowly)
        assert b"a scenario begins" in simulator.page()
    finally:
        simulator.close()


def test_a_video_is_of_the_episode_beside_it(live_folder, tmp_path):
    """What was refused is not in it, and it goes with its episode when that is driven anew."""
    job = jobs_in(live_folder, tmp_path, steps=2)[0]
    with served([job], batch.Filming(write_video)) as (_, client, _):
        assert client.act()[0] == 200 and client.act(AHEAD[:1])[0] == 400
        assert not (job.folder / episode_files.VIDEO).exists()
        assert client.act(AHEAD[:5])[1]["done"]
        with Image.open(job.folder / episode_files.VIDEO) as film:
            assert film.n_frames == 2 == episode_files.read_episode(job.folder)["steps"]
        assert client.ask("POST", "/reset")[0] == 200
        assert (
            episode_files.read_episode(job.folder) is None and not (job.folder / episode_files.VIDEO).exists()
        )
        # The first drive is not in the film of the second.
        client.act()
        assert client.act()[1]["done"]
        with Image.open(job.folder / episode_files.VIDEO) as film:
            assert film.n_frames == 2


def test_the_record_so_far_stays(serving):
    simulator, client, jobs = serving
    for _ in range(2):
        client.act()
    simulator.ask(simulator._session.close)
    # By a name that no scorer takes for an episode.
    assert len(read_record(jobs[0].folder / episode_files.FAILED_RECORD)) == 2
    assert not (jobs[0].folder / "data.pkl").exists() and episode_files.read_episode(jobs[0].folder) is None
    about = json.loads((jobs[0].folder / episode_files.FAILED).read_text())
    assert about["reason"] == "broken off before its end" and about["steps"] == 2


def test_a_scenario_that_fails_gives_way_to_the_next(serving, monkeypatch):
    simulator, client, jobs = serving
    client.act()

    def fails(plan):
        raise RuntimeError("SUMO is gone")

    with monkeypatch.context() as patch:
        patch.setattr(simulator._session, "step", fails)
        status, reply = client.act()
    assert status == 200 and reply["cur_scene_done"] and not reply["done"]
    assert reply["state"]["info"]["timestamp"] == 0.0 and "rc" not in reply["state"]["info"]
    assert simulator.failed == {jobs[0].folder.name: "RuntimeError: SUMO is gone"}
    assert len(read_record(jobs[0].folder / episode_files.FAILED_RECORD)) == 1
    assert b"its record up to there is" in client.ask("GET", "/submition_info", token=None)[1]
    assert episode_files.read_episode(jobs[0].folder) is None
    assert client.act()[1]["state"]["info"]["timestamp"] == 0.25
    # After a reset it is tried again.
    assert client.ask("POST", "/reset")[0] == 200 and not simulator.failed
    assert client.act()[0] == 200


def test_a_sumo_that_does_not_end_costs_the_scenario_that_would_begin(serving, monkeypatch):
    """And not the one before; what an earlier drive left of it would be taken for one of this drive."""
    simulator, client, jobs = serving
    for _ in range(4):
        client.act()
    assert episode_files.read_episode(jobs[0].folder) and simulator._session.index == 1
    end = simulator._session._end

    def fails():
        monkeypatch.setattr(simulator._session, "_end", end)
        raise RuntimeError("SUMO does not end")

    monkeypatch.setattr(simulator._session, "_end", fails)
    assert client.ask("POST", "/reset")[0] == 200
    assert simulator.failed == {jobs[0].folder.name: "RuntimeError: SUMO does not end"}
    assert episode_files.read_episode(jobs[0].folder) is None
    assert simulator._session.index == 1 and client.act()[0] == 200


def test_a_scenario_that_cannot_be_written_gives_way_to_the_next(serving):
    simulator, client, jobs = serving
    replies = [client.act()[1]]
    (jobs[0].folder / "data.pkl").mkdir()  # (where its record would go)
    replies += [client.act()[1] for _ in range(5)]
    assert [reply["cur_scene_done"] for reply in replies] == [False, False, True] * 2 and replies[-1]["done"]
    assert list(simulator.failed) == [jobs[0].folder.name]
    assert episode_files.read_episode(jobs[0].folder) is None and episode_files.read_episode(jobs[1].folder)


def test_a_scenario_that_cannot_be_set_up_gives_way_to_the_next(live_folder, tmp_path):
    good, last = jobs_in(live_folder, tmp_path, steps=1)
    lost = replace(good, towns=tmp_path / "nowhere", folder=tmp_path / "lost")
    with served([good, lost, last, replace(lost, folder=tmp_path / "lost_too")]) as (simulator, client, _):
        first, second, third = (client.act()[1] for _ in range(3))
        assert not first["done"] and first["state"]["info"]["timestamp"] == 0.0
        assert second["done"] and second["cur_scene_done"]
        assert second["state"]["info"]["timestamp"] == third["state"]["info"]["timestamp"] == 0.25
        assert list(simulator.failed) == ["lost", "lost_too"]
        assert all("there is no such town" in reason for reason in simulator.failed.values())
        assert b"lost: no episode: " in client.ask("GET", "/submition_info", token=None)[1]
        assert episode_files.read_episode(good.folder) and episode_files.read_episode(last.folder)
        assert client.ask("POST", "/reset")[0] == 200 and not client.state()["done"]


def test_where_no_scenario_can_be_set_up_all_are_done(live_folder, tmp_path):
    job = jobs_in(live_folder, tmp_path)[0]
    with served([replace(job, towns=tmp_path / "nowhere")]) as (simulator, client, _):
        assert client.ask("POST", "/reset")[0] == 200
        for reply in (client.state(), client.act()[1]):
            assert reply["done"] and reply["state"] == {"obs": {}, "info": {}}
        assert simulator.is_done and len(simulator.failed) == 1


def test_replies_are_kept_for_those_who_ask_again_but_not_for_ever(serving, monkeypatch):
    monkeypatch.setattr(serve_http, "KEPT_REPLIES", 1)
    simulator, client, _ = serving
    times = [client.act(AHEAD, name)[1]["state"]["info"]["timestamp"] for name in ("a", "a", "b", "a")]
    assert times == [0.25, 0.25, 0.5, 0.0]  # (the third step ends the scenario)
    assert len(simulator._replies) == 1


def test_tokens_are_compared_in_the_same_time_whatever_they_are(monkeypatch):
    compared = []

    def compare(given, token):
        compared.append((given, token))
        return True

    monkeypatch.setattr(serve_http.hmac, "compare_digest", compare)
    HttpSimulator([], TOKEN).check_token("sesame")
    assert compared == [(b"sesame", TOKEN.encode())]


def test_the_end_waits_for_nobody_who_asks_nothing_and_keeps_the_record(live_folder, tmp_path):
    jobs = jobs_in(live_folder, tmp_path)
    simulator = HttpSimulator(jobs, TOKEN)
    server = http_server(simulator, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    client = Client(server.server_address[1])
    client.act()
    idle = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(2)]
    idle[0].sendall(b"POST /execute_action HTTP/1.1\r\nauth-token: open")
    while sum(work.is_alive() for work, _ in server._open) < len(idle):
        time.sleep(0.01)  # (until the server has taken both)
    server.shutdown()
    started = time.monotonic()
    simulator.close()
    assert len(read_record(jobs[0].folder / episode_files.FAILED_RECORD)) == 1
    server.server_close()
    assert time.monotonic() - started < 10.0
    for line in idle:
        line.close()
    # What is asked after the end begins nothing.
    with pytest.raises(RuntimeError):
        simulator.ask(simulator.state)


def test_a_length_that_is_no_number_is_refused(serving):
    _, client, _ = serving
    for length in ("9" * 5000, "\u00b2", "-1", "many"):
        line = socket.create_connection(("127.0.0.1", client.port), timeout=60)
        head = f"POST /reset HTTP/1.1\r\nauth-token: {TOKEN}\r\nContent-Length: {length}\r\n\r\n"
        line.sendall(head.encode("latin-1"))
        assert line.recv(12).endswith(b"413")
        line.close()
