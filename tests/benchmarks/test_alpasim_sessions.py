"""``benchmarks/alpasim_sessions.py`` in its smallest size: every step has a plan, and each is counted."""

import multiprocessing
import re
import threading
from types import SimpleNamespace

import cv2
import pytest
import torch

pytest.importorskip("carla_driver_interface", reason="the extra 'alpasim' is not installed")

from beyonddrive.benchmarks import alpasim_sessions

SESSIONS, STEPS = 2, 2


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """The server is a thread of this process, which has imported what it needs."""
    made = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=threading.Thread)
    monkeypatch.setattr(alpasim_sessions, "multiprocessing", SimpleNamespace(get_context=lambda method: made))
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture
def taken(monkeypatch):
    """Seconds of each step and of all of them, by session."""
    found = {}

    def drive(port, number, *arguments):
        found[number] = alpasim_drive(port, number, *arguments)
        return found[number]

    alpasim_drive = alpasim_sessions.drive
    monkeypatch.setattr(alpasim_sessions, "drive", drive)
    return found


def test_sessions_get_a_plan_for_every_step(taken, capsys):
    given = ["--sessions", str(SESSIONS), "--steps", str(STEPS), "--width", "320", "--planner", "eager"]
    alpasim_sessions.main(given)
    printed = capsys.readouterr().out

    def numbers(pattern):
        found = re.search(pattern, printed)
        assert found, f"no {pattern} in\n{printed}"
        return [float(number) for number in found.groups()]

    assert f"{SESSIONS} sessions, images 320 x 180, reduced decode, planner eager" in printed
    assert sorted(taken) == list(range(SESSIONS))
    for *steps, whole in taken.values():
        assert len(steps) == STEPS and min(steps) > 0
        assert whole >= 0.1  # the second step is not asked for before its time
    slowest, share = numbers(r"slowest session ([\d.]+) Hz, ([\d.]+) of the 10 Hz")
    assert slowest == pytest.approx(min(STEPS / times[-1] for times in taken.values()), abs=0.01)
    assert 0 < share == pytest.approx(slowest / 10, abs=0.01)
    median, high = numbers(r"a step takes (\d+) ms \(median\), (\d+) ms \(95 %\)")
    assert 0 < median <= high
    served, asked, cores = numbers(r"per plan ([\d.]+) ms \(clients ([\d.]+) ms\): .* need ([\d.]+) cores")
    assert served > 0 and asked > 0
    assert cores == pytest.approx(served * SESSIONS / 100, abs=0.01)
    assert len(re.findall(r"1/\d [\d.]+ ms", printed)) == 4
    assert numbers(r"one plan alone ([\d.]+) ms")[0] > 0
    assert numbers(r"(\d+) of (\d+) plans are fallbacks") == [0, SESSIONS * STEPS]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_does_not_start_ends_the_benchmark():
    with pytest.raises(SystemExit, match="the server has ended"):
        alpasim_sessions.main(["--config", "no_such_config", "--width", "320"])


def test_a_session_that_fails_ends_the_others(monkeypatch):
    def serve(pipe, *settings):
        pipe.send((0, 0.1))

    def drive(port, number, steps, size, start):
        if number == 0:
            raise ConnectionError("refused")
        start.wait()

    monkeypatch.setattr(alpasim_sessions, "serve", serve)
    monkeypatch.setattr(alpasim_sessions, "drive", drive)
    with pytest.raises((ConnectionError, threading.BrokenBarrierError)):
        alpasim_sessions.main(["--sessions", "3"])
