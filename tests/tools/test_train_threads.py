"""Threads of a training that shares its cores."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from beyonddrive.tools import train


def test_the_policy_is_set_before_torch_is_there():
    """Whoever waits for threads reads it once, when it is loaded."""
    script = "import sys; from beyonddrive.tools import train; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_unless_the_environment_says_otherwise(monkeypatch, given, expected):
    environment = {} if given is None else {"OMP_WAIT_POLICY": given}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(train, "run_distributed", lambda *arguments: 0)
    assert train.main(["config.py"]) == 0
    assert environment["OMP_WAIT_POLICY"] == expected


@pytest.mark.parametrize(
    ("load", "threads", "config", "is_told"),
    [(1.9, 2, {}, True), (0.4, 2, {}, False), (1.9, 1, {}, False), (1.9, 2, {"num_threads": 2}, False)],
)
def test_busy_cores_are_told_of(monkeypatch, load, threads, config, is_told):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    told = []
    monkeypatch.setattr("mmengine.logging.print_log", lambda message, *_: told.append(message))
    train._advise_on_threads(SimpleNamespace(get=config.get))
    assert len(told) == is_told
    assert all("num_threads=1" in message for message in told)
