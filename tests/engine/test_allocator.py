import subprocess
import sys
from types import SimpleNamespace

import pytest

from beyonddrive.engine import allocator

# Page faults of ten rounds of filling and freeing 64 MiB, after two that the heap may grow in. Huge pages, of
# which a machine has more or fewer, are off (prctl, PR_SET_THP_DISABLE): all are small.
SCRIPT = """
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)
import numpy as np
from beyonddrive.engine.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        np.ones(64 << 20, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(2)
print(kept, faults(10))
"""


def outcome(mode, **environment):
    call = [sys.executable, "-c", SCRIPT, mode]
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=environment)
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is tuned")
def test_freed_memory_is_not_asked_for_again(monkeypatch):
    assert outcome("leave")[1] > 1000
    kept, faults = outcome("keep")
    assert kept == "True"
    assert faults < 100


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}],
)
def test_who_tunes_the_allocator_is_left_alone(environment):
    assert outcome("keep", **environment)[0] == "False"


@pytest.mark.parametrize(
    ("most", "wanted"),
    [
        (None, {-3: 1 << 30, -1: 2**31 - 1, -2: 64 << 20}),
        (32 << 20, {-3: 32 << 20, -1: 2**31 - 1, -2: 64 << 20}),  # (of older glibc)
        (0, {}),
    ],
)
def test_what_a_c_library_refuses_changes_nothing(most, wanted, monkeypatch):
    """It would otherwise map large blocks anew each time."""
    taken = {}

    def mallopt(name, value):
        if name == -3 and most is not None and value > most:
            return 0
        taken[name] = value
        return 1

    library = SimpleNamespace(mallopt=mallopt, gnu_get_libc_version=None)
    monkeypatch.setattr(allocator, "ctypes", SimpleNamespace(CDLL=lambda name: library))
    monkeypatch.setattr(allocator, "os", SimpleNamespace(environ={}))
    assert allocator.keep_freed_memory() is bool(wanted)
    assert taken == wanted
