"""Messages are data whoever wrote them, and pipes survive a peer that dies, stays silent or says half."""

import os
import pickle
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from beyonddrive.evaluation.closed_loop.hugsim.messages import DONE, MessageError, read_message, write_message
from beyonddrive.evaluation.closed_loop.hugsim.pipes import PeerError, Pipe

LONG = 60.0
"""Nobody waits so long, unless something is wrong, or the machine has much else to do [s]."""
OBSERVATION = (
    {"rgb": {"CAM_FRONT": np.arange(24, dtype=np.uint8).reshape(2, 4, 3)}},
    {"ego_velo": np.float64(3.5), "command": np.int64(2), "ego_pos": [0.0, 1.0, 2.0], "flag": np.bool_(True)},
)


def _talk(pipe, act):
    thread = threading.Thread(target=act, args=(pipe,))
    thread.start()
    return thread


def _same(left, right):
    assert (left[0]["rgb"]["CAM_FRONT"] == right[0]["rgb"]["CAM_FRONT"]).all()
    assert left[1] == right[1]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_the_official_side_writes_is_read(protocol):
    _same(read_message(pickle.dumps(OBSERVATION, protocol)), OBSERVATION)
    assert read_message(pickle.dumps(DONE, protocol)) == DONE
    assert read_message(pickle.dumps(None, protocol)) is None


def test_names_of_another_numpy_are_read():
    """numpy 1 writes numpy.core, numpy 2 numpy._core."""
    here, other = ("_core", "core") if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else ("core", "_core")
    text = pickle.dumps(OBSERVATION, 2).replace(f"numpy.{here}".encode(), f"numpy.{other}".encode())
    _same(read_message(text), OBSERVATION)


def test_what_we_write_names_what_numpy_1_23_has():
    text = write_message(OBSERVATION)
    assert b"numpy._core" not in text and b"numpy.core.multiarray" in text
    _same(pickle.loads(text), OBSERVATION)


@pytest.mark.parametrize("payload", ["code", "half", "empty", "long", "torn array"])
def test_what_is_no_data_is_refused_and_nothing_runs(tmp_path, payload):
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    content = {
        "code": pickle.dumps((OBSERVATION[0], Evil())),
        "half": pickle.dumps(OBSERVATION)[:-40],
        "empty": b"",
        "long": pickle.dumps(np.zeros(5000)),
        "torn array": pickle.dumps(np.zeros(3)).replace(b"\x03\x85", b"\x7f\x85"),
    }[payload]
    with pytest.raises(MessageError):
        read_message(content, limit=4000)
    assert not mark.exists()


def _doubling(inner, times, by=10):
    for _ in range(times):
        inner = [inner] * by
    return inner


def _in_itself():
    value = [1.0]
    value += [value, value]
    return value


def _objects(item, count):
    array = np.empty(count, object)
    array[:] = [item] * count
    return array


@pytest.mark.parametrize(
    "value",
    [
        _doubling(0.0, 12),
        {"info": tuple([_doubling(0.0, 12)] * 2)},
        _doubling(np.zeros(10_000), 5),
        _doubling("word" * 1000, 5),
        _doubling(_objects([0.0] * 1000, 1000), 3),
        _doubling(bytearray(10_000), 5),
        _doubling(0.0, 16, by=2),
        _doubling(0.0, 30, by=2),
        _in_itself(),
    ],
    ids=["numbers", "dictionary", "array", "text", "objects", "bytes", "16 levels", "30 levels", "in itself"],
)
def test_what_would_fill_the_memory_is_refused(value):
    """A message of a few bytes may name the same list again and again."""
    content = pickle.dumps(value, 5)  # (bytes that can change are data from protocol 5 on)
    assert len(content) < 100_000
    with pytest.raises(MessageError, match="unfolds into"):
        read_message(content)


def test_where_most_of_it_is_is_told():
    sent = {"rgb": {}, "info": [{"command": 2}, {"obj_boxes": _doubling(0.0, 30, by=2)}]}
    with pytest.raises(
        MessageError, match=r"2\.15e\+09, most of them in \['info'\]\[1\]\['obj_boxes'\]: write"
    ):
        read_message(pickle.dumps(sent))


def test_what_is_named_twice_may_be_there_twice():
    """As simulators do that have one black image for all cameras."""
    black, lens = np.zeros((450, 800), np.float32), {"fovx": 1.0, "fovy": 0.5}
    names = [f"CAM_{number}" for number in range(6)]
    sent = {"depth": dict.fromkeys(names, black), "cam_params": dict.fromkeys(names, lens)}
    read = read_message(pickle.dumps(sent))
    assert read["cam_params"] == sent["cam_params"] and all(
        d.shape == (450, 800) for d in read["depth"].values()
    )
    many = list(range(300_000))
    assert read_message(pickle.dumps(many), 1 << 21) == many


def test_a_message_larger_than_the_pipe_goes_both_ways(tmp_path):
    content = write_message(np.arange(300_000, dtype=np.float32))
    for number in range(3):  # the same pipe, one message after another
        pipe = Pipe(tmp_path / "p")
        writer = _talk(pipe, lambda p: p.send(content, LONG))
        assert pipe.receive(LONG) == content, number
        writer.join()


def test_a_peer_with_blocking_files_is_understood(tmp_path):
    """As the released simulator opens them."""
    pipe = Pipe(tmp_path / "p")

    def official(p):
        with p.path.open("wb") as file:
            file.write(pickle.dumps(OBSERVATION))
        with p.path.open("rb") as file:
            answers.append(pickle.loads(file.read()))

    answers = []
    peer = _talk(pipe, official)
    _same(read_message(pipe.receive(LONG)), OBSERVATION)
    pipe.send(write_message(np.zeros((8, 2))), LONG)
    peer.join()
    assert answers[0].shape == (8, 2)


def test_a_silent_peer_is_given_up(tmp_path):
    pipe = Pipe(tmp_path / "p")
    started = time.monotonic()
    with pytest.raises(PeerError, match=r"has sent nothing for 0\.1 s"):
        pipe.receive(0.1)
    with pytest.raises(PeerError, match="nobody has come to read"):
        pipe.send(b"x", 0.1)
    assert time.monotonic() - started < 5


def test_a_dead_peer_is_noticed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    for act in (lambda p: p.receive(None, lambda: process.poll() is None),):
        with pytest.raises(PeerError, match="has ended"):
            act(Pipe(tmp_path / "p"))
    with pytest.raises(PeerError, match="has ended"):
        Pipe(tmp_path / "p").send(b"x", None, lambda: False)


def test_a_peer_that_stops_in_the_middle(tmp_path):
    pipe = Pipe(tmp_path / "p")

    def half(p):
        with p.path.open("wb") as file:
            file.write(pickle.dumps(OBSERVATION)[:50])

    writer = _talk(pipe, half)
    with pytest.raises(MessageError):
        read_message(pipe.receive(LONG))
    writer.join()

    def reads_a_little(p):
        handle = os.open(p.path, os.O_RDONLY)
        os.read(handle, 10)
        os.close(handle)

    reader = _talk(pipe, reads_a_little)
    with pytest.raises(PeerError, match="before it had everything"):
        pipe.send(bytes(10_000_000), LONG)
    reader.join()


def test_too_much_is_not_read_to_its_end(tmp_path):
    pipe = Pipe(tmp_path / "p")

    def endless(p):
        with p.path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except BrokenPipeError:
                pass

    writer = _talk(pipe, endless)
    with pytest.raises(MessageError, match="longer than"):
        pipe.receive(LONG, limit=3 << 20)
    writer.join()


def test_another_file_in_its_place_is_left_alone(tmp_path):
    path = tmp_path / "p"
    path.write_text("mine")
    with pytest.raises(PeerError, match="is no pipe"):
        Pipe(path)
    assert path.read_text() == "mine"


def test_a_peer_that_removes_the_pipe_is_one_that_has_gone(tmp_path):
    pipe = Pipe(tmp_path / "p")
    pipe.path.unlink()
    for act in (lambda: pipe.receive(LONG), lambda: pipe.send(b"x", LONG)):
        with pytest.raises(PeerError, match="has removed it"):
            act()
    assert not pipe.path.exists()


def test_a_peer_that_sends_a_byte_now_and_then_is_given_up(tmp_path):
    pipe = Pipe(tmp_path / "p")

    def drips(p):
        with suppress(BrokenPipeError), p.path.open("wb", buffering=0) as file:
            for _ in range(100):
                file.write(b"x")
                time.sleep(0.05)

    writer = _talk(pipe, drips)
    with pytest.raises(PeerError, match=r"has not sent all of its message for 1 s"):
        pipe.receive(1.0)
    writer.join()
