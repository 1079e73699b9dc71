"""Logs: what is read is what was written, and nothing in a file runs or passes for data."""

import io
import multiprocessing
import os
import pickle
import pickletools
import resource
import struct
import time
from contextlib import suppress

import numpy as np
import pytest

from beyonddrive.datasets.navsim.logs import CAMERA_NAMES, LogError, read_log
from beyonddrive.datasets.navsim.scene import Scene, SceneError
from beyonddrive.datasets.navsim.sensors import SensorError, lidar_path_of


def write(path, frames, protocol=4):
    path.write_bytes(pickle.dumps(frames, protocol=protocol))
    return path


def assert_same(left, right, where="log"):
    assert type(left) is type(right) or {type(left), type(right)} <= {np.str_, str}, where
    if isinstance(left, dict):
        assert list(left) == list(right), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype and left.shape == right.shape, where
        np.testing.assert_array_equal(left, right, err_msg=where)
    else:
        assert left == right, where


def test_golden_logs_are_read_as_pickle_reads_them(golden):
    paths = sorted((golden / "pdms" / "data" / "navsim_logs" / "golden").glob("*.pkl"))
    assert len(paths) == 12
    for path in paths:
        assert_same(read_log(path), pickle.loads(path.read_bytes()))


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("core", ["core", "_core"])
def test_every_protocol_and_both_numpys(tmp_path, frames, protocol, core):
    frames = frames[:2]
    frames[0]["can_bus"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    frames[0]["flag"] = np.bool_(True)
    frames[0]["number"] = np.float32(2.5)
    frames[0]["none"] = np.zeros((0, 7))
    frames[0]["big_endian"] = np.arange(3, dtype=">i4")
    frames[0]["names"] = np.array(["a", ["b", 1], ["c", 2]], dtype=object)
    frames[0]["bytes"] = [b"", b"\xff\x00"]
    frames[0]["strided"] = np.arange(10)[::2]
    path = write(tmp_path / "log.pkl", frames, protocol)
    content = path.read_bytes()
    if protocol < 4:  # names are in the clear: pretend that the other numpy wrote them
        content = content.replace(b"cnumpy._core.", b"cnumpy." + core.encode() + b".")
        path.write_bytes(content)
    read = read_log(path)
    assert_same(read, frames)
    assert read[0]["can_bus"].flags.writeable
    read[0]["can_bus"][0, 0] = 7.0


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "builtins.eval"), (exec, "builtins.exec"), (getattr, "builtins.getattr")],
)
@pytest.mark.parametrize("deep", [False, True])
def test_hostile_log_is_refused_and_does_nothing(tmp_path, frames, function, name, deep):
    marker = tmp_path / "marker"
    code = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w').close()"
    payload = Call(function, code, "x") if function is getattr else Call(function, code)
    if deep:
        frames[5]["anns"]["track_tokens"][0] = payload
        payload = frames
    path = write(tmp_path / "log.pkl", payload)
    if function is not getattr:  # the payload would work
        pickle.loads(path.read_bytes())
        assert marker.exists()
        marker.unlink()
    with pytest.raises(LogError, match=rf"log\.pkl: refused to load .*{name.split('.')[-1]}.*nothing .* run"):
        read_log(path)
    assert not marker.exists()


def test_numpys_own_loaders_are_refused(tmp_path):
    path = write(tmp_path / "log.pkl", [Call(np.load, "x.npy")])
    with pytest.raises(LogError, match="refused to load numpy"):
        read_log(path)


def test_array_made_by_calling_its_class_is_refused(tmp_path):
    # ndarray(shape, object, buffer) would read bytes as pointers.
    path = write(tmp_path / "log.pkl", [Call(np.ndarray, (1,), np.dtype("f8"), b"8 bytes.")])
    with pytest.raises(LogError, match="by hand"):
        read_log(path)


def build(*states):
    """A pickle that makes an empty array and gives it a state."""
    out = io.BytesIO()
    reconstruct = np.zeros(1).__reduce__()[0]
    pickler = pickle.Pickler(out, protocol=4)

    class Forged:
        def __reduce__(self):
            return reconstruct, (np.ndarray, (0,), b"b"), states[0]

    pickler.dump([Forged()])
    return out.getvalue()


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ((1, (1,), np.dtype("O"), False, b"8 bytes."), "list"),
        ((1, (4,), np.dtype("f8"), False, b"8 bytes."), "8 bytes"),
        ((1, (-1,), np.dtype("f8"), False, b""), "shape"),
        ((1, (1 << 62,), np.dtype("f8"), False, b""), "bytes"),
        ((1, (1,), np.dtype([("a", "f8")]), False, b"8 bytes."), "array type"),
        ((1, (1,), np.dtype("M8[s]"), False, b"8 bytes."), "array type"),
        ((1, (1,), "f8", False, b"8 bytes."), "type"),
        ((1, (1,), np.dtype("f8"), False, None), "without its bytes"),
        ((1, 2), "corrupt"),
    ],
)
def test_forged_arrays_are_refused(tmp_path, state, complaint):
    path = tmp_path / "log.pkl"
    path.write_bytes(build(state))
    with pytest.raises(LogError, match=complaint):
        read_log(path)


def test_pickle_that_patches_its_reader_is_refused(tmp_path):
    # BUILD with a state of (None, {...}) sets attributes of whatever is on the stack.
    state = pickle.dumps((None, {"_make": 1}), protocol=4)[2:-1]
    state = state[9:] if state[:1] == b"\x95" else state
    path = tmp_path / "log.pkl"
    path.write_bytes(b"\x80\x04cnumpy\ndtype\n" + state + b"b.")
    assert "BUILD" in {op.name for op, _, _ in pickletools.genops(path.read_bytes())}
    with pytest.raises(LogError, match="alters what reads it"):
        read_log(path)


def test_other_ways_to_ask_for_an_object(tmp_path):
    path = tmp_path / "log.pkl"
    for content in (
        b"\x80\x04\x8c\x01xQ.",  # a persistent id
        b"\x80\x02\x82\x01.",  # the extension registry
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\no.",  # OBJ
        b"cnumpy\ndtype\n.",  # a bare allowed name
        b"]cnumpy\ndtype\na.",
        b"\x80\x04]\x94h\x00a.",  # a list in itself
    ):
        path.write_bytes(content)
        with pytest.raises(LogError, match=r"log\.pkl"):
            read_log(path)


def test_damaged_logs_are_errors_and_never_half_a_log(tmp_path, log_path):
    content = log_path.read_bytes()
    path = tmp_path / "log.pkl"
    for size in (0, 1, 2, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(LogError, match=r"log\.pkl.*corrupt or truncated.*restore"):
            read_log(path)
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 40):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert isinstance(read_log(path), list)  # only numbers or letters were hit
        except LogError as error:
            assert str(path) in str(error)


def test_files_that_are_no_logs(tmp_path):
    with pytest.raises(LogError, match=r"absent\.pkl: there is no such log"):
        read_log(tmp_path / "absent.pkl")
    with pytest.raises(LogError, match="cannot be read"):
        read_log(tmp_path)
    with pytest.raises(LogError, match="list of frames, this is a dict"):
        read_log(write(tmp_path / "dict.pkl", {"frames": []}))
    with pytest.raises(LogError, match="frame 0: a frame is a dict"):
        read_log(write(tmp_path / "list.pkl", [1, 2]))
    assert read_log(write(tmp_path / "empty.pkl", [])) == []


REQUIRED = [
    *("token", "timestamp", "log_name", "scene_token", "map_location", "roadblock_ids", "traffic_lights"),
    *("ego2global_translation", "ego2global_rotation", "ego_dynamic_state", "driving_command"),
    "cams",
]


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_key_is_named(tmp_path, frames, key):
    del frames[4][key]
    with pytest.raises(LogError, match=rf"log\.pkl: frame 4: key '{key}' is missing; restore"):
        read_log(write(tmp_path / "log.pkl", frames))


def test_annotations_and_lidar_may_be_missing(tmp_path, frames):
    """As in private tests; whoever needs them is told so."""
    for frame in frames:
        del frame["anns"], frame["lidar_path"]
    log = read_log(write(tmp_path / "log.pkl", frames))
    with pytest.raises(SceneError, match=r"frame 4 has no annotations \(anns\)"):
        Scene("log", "split", log).objects(4)
    with pytest.raises(SensorError, match="lidar_path is empty"):
        lidar_path_of(log[3], tmp_path)


@pytest.mark.parametrize("key", ["gt_boxes", "gt_names", "gt_velocity_3d", "instance_tokens", "track_tokens"])
def test_missing_or_short_annotation_is_named(tmp_path, frames, key):
    frames[2]["anns"][key] = frames[2]["anns"][key][:-1]
    with pytest.raises(LogError, match=r"frame 2: key 'anns\."):
        read_log(write(tmp_path / "log.pkl", frames))
    del frames[2]["anns"][key]
    with pytest.raises(LogError, match=rf"frame 2: key 'anns\.{key}' is missing"):
        read_log(write(tmp_path / "log.pkl", frames))


@pytest.mark.parametrize("value", [None, 5, np.array(5), "text"])
@pytest.mark.parametrize("key", ["gt_boxes", "gt_names", "gt_velocity_3d", "instance_tokens", "track_tokens"])
def test_annotation_that_is_no_list_is_named(tmp_path, frames, key, value):
    frames[2]["anns"][key] = value
    with pytest.raises(LogError, match=rf"frame 2: key 'anns\.{key}'"):
        read_log(write(tmp_path / "log.pkl", frames))


def test_missing_or_wrong_camera_is_named(tmp_path, frames):
    frames[1]["cams"]["CAM_B0"]["cam_intrinsic"] = np.eye(4)
    with pytest.raises(LogError, match=r"frame 1: key 'cams\.CAM_B0\.cam_intrinsic'.*\(3, 3\)"):
        read_log(write(tmp_path / "log.pkl", frames))
    for name in CAMERA_NAMES:
        frames[1]["cams"].pop(name)
        with pytest.raises(LogError, match=rf"frame 1: key 'cams\.{CAMERA_NAMES[0]}' is missing"):
            read_log(write(tmp_path / "log.pkl", frames))
        break


def test_a_camera_beyond_the_eight_is_looked_at_alike(tmp_path, frames):
    frames[1]["cams"]["CAM_X9"] = {**frames[1]["cams"]["CAM_B0"]}
    assert "CAM_X9" in read_log(write(tmp_path / "log.pkl", frames))[1]["cams"]
    del frames[1]["cams"]["CAM_X9"]["cam_intrinsic"]
    with pytest.raises(LogError, match=r"frame 1: key 'cams\.CAM_X9\.cam_intrinsic' is missing"):
        read_log(write(tmp_path / "log.pkl", frames))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ego2global_translation", np.zeros(2)),
        ("ego2global_rotation", np.array(["a", "b", "c", "d"])),
        ("ego2global_rotation", [[1.0], [2.0, 3.0]]),
        ("ego_dynamic_state", [1.0, 2.0, 3.0]),
        ("driving_command", np.eye(4)),
        ("timestamp", "now"),
        ("timestamp", float("nan")),
        ("timestamp", np.float64("inf")),
        ("token", 12),
        ("token", ""),
        ("token", "../../outside"),
        ("roadblock_ids", None),
        ("roadblock_ids", np.array(5)),
        ("traffic_lights", [(1, True, 3)]),
        ("traffic_lights", [5]),
        ("traffic_lights", [(None, True)]),
        ("traffic_lights", [(float("nan"), True)]),
        ("driving_command", [float("nan"), 0.0, 0.0, 0.0]),
        ("driving_command", [0.5, 0.5, 0.0, 0.0]),
        ("anns", []),
        ("lidar_path", 5),
    ],
)
def test_wrong_value_is_named(tmp_path, frames, key, value):
    frames[0][key] = value
    with pytest.raises(LogError, match=rf"frame 0: key '{key}'"):
        read_log(write(tmp_path / "log.pkl", frames))


def test_time_stamps_may_be_of_any_kind_of_number(tmp_path, frames):
    """As in the official reader, which takes whole microseconds of them."""
    stamps = [frame["timestamp"] for frame in frames]
    for kind, part in ((float, 0.0), (np.float64, 0.7), (np.int64, 0)):
        for frame, stamp in zip(frames, stamps, strict=True):
            frame["timestamp"] = kind(stamp + part)
        log = read_log(write(tmp_path / "log.pkl", frames))
        assert Scene("log", "split", log).timestamp_us == stamps[3]


def test_repeated_token_and_wrong_order(tmp_path, frames):
    frames[3]["token"] = frames[1]["token"]
    with pytest.raises(LogError, match=r"frame 3: key 'token'.*frame 1"):
        read_log(write(tmp_path / "log.pkl", frames))
    frames[3]["token"] = "0" * 16
    frames[6], frames[7] = frames[7], frames[6]
    with pytest.raises(LogError, match="frame 7: key 'timestamp'"):
        read_log(write(tmp_path / "log.pkl", frames))


def test_lengths_beyond_the_file_set_no_memory_aside(tmp_path):
    path = tmp_path / "log.pkl"
    huge = struct.pack("<Q", 1 << 40)
    for content in (
        b"\x80\x04]r" + struct.pack("<I", 0xFFFFFFFF) + b".",  # memo index: 64 GB of pointers
        b"\x80\x04\x96" + huge + b".",  # bytearray
        b"\x80\x04\x8e" + huge + b".",
        b"\x80\x04B" + b"\xff\xff\xff\x7f.",
        b"\x80\x04\x8c",
        b"\x80\x04cnumpy",
        b"\x80\x04cnumpy\ndtype\n0cnumpy\ndtype",  # a line without end after lines with one
        b"p99999999999\n.",  # protocol 0
    ):
        path.write_bytes(content)
        started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(LogError, match="corrupt"):
            read_log(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started < 100_000  # kB


def test_shared_containers_are_walked_once(tmp_path):
    lists, tuples = [1.0], (np.zeros(1),)
    for _ in range(200):  # 2 ** 200 paths lead to the innermost one
        lists, tuples = [lists, lists], (tuples, tuples)
    with pytest.raises(LogError, match="frame 0"):
        read_log(write(tmp_path / "log.pkl", [lists, tuples]))


def memo(pickled, index):
    """Push a value and keep it as a numbered one."""
    return pickled + b"q" + bytes([index]) + b"0"


def test_the_same_bytes_named_many_times_set_no_memory_aside(tmp_path):
    size = 200_000
    names = {
        "bytes": b"B" + struct.pack("<I", size) + bytes(size),
        "text": b"X" + struct.pack("<I", size) + b"a" * size,
        "items": b"](" + b"".join(b"J" + struct.pack("<i", i) for i in range(size // 5)) + b"e",
    }
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R"
    shape = b"J" + struct.pack("<i", size) + b"\x85"
    copies = {
        "bytes": b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01" + shape + b"X\x01\x00\x00\x00CtR",
        "text": b"c_codecs\nencode\nh\x00\x85R",
        "items": b"cbuiltins\nset\nh\x00\x85R",
    }
    path = tmp_path / "log.pkl"
    for name, value in names.items():
        for count in (1, 300):
            path.write_bytes(
                b"\x80\x04" + memo(value, 0) + memo(dtype, 1) + b"](" + copies[name] * count + b"e."
            )
            complaint = "frame 0: a frame is a dict" if count == 1 else "unfolds into more than it holds"
            with pytest.raises(LogError, match=complaint):
                read_log(path)


def test_a_list_shared_by_all_items_of_an_array_is_walked_once(tmp_path):
    shared = np.empty(2000, dtype=object)
    shared[:] = [[1.0] * 20_000] * 2000
    started = time.process_time()
    with pytest.raises(LogError, match="this is a ndarray"):
        read_log(write(tmp_path / "log.pkl", shared))
    assert time.process_time() - started < 1.0  # 3 s if walked for every item


def test_arrays_of_arrays_in_either_order(tmp_path, frames):
    nested = np.empty((2, 2), dtype=object, order="F")
    nested[:] = [[np.arange(3), [np.zeros(2)]], [(np.ones(1), "x"), None]]
    frames[0]["can_bus"] = nested
    read = read_log(write(tmp_path / "log.pkl", frames[:1]))[0]["can_bus"]
    assert read.shape == (2, 2) and read[1, 1] is None
    for place in ((0, 0), (0, 1), (1, 0)):
        assert_same(read[place], nested[place])


DEEP = 200_000


@pytest.mark.parametrize(
    "body",
    [
        b"})" + b"\x85" * DEEP + b"K\x01s",
        b"}(" + b")" + b"\x85" * DEEP + b"K\x01u",
        b"(" + b")" + b"\x85" * DEEP + b"K\x01d",
        b"}K\x00" + b"q\x00\x86" * DEEP + b"K\x01s",  # fewer values on the stack than it takes
        b"})" + b"q\x000h\x00\x85" * DEEP + b"K\x01s",
        b"cbuiltins\nset\n](" + b")" + b"\x85" * DEEP + b"e\x85R",
        b"\x8f()" + b"\x85" * DEEP + b"\x90",
        b"()" + b"\x85" * DEEP + b"\x91",
        b")" + b"\x85" * DEEP,
        b"]" * DEEP + b"a" * (DEEP - 1),
    ],
)
def test_depth_never_ends_the_reader(tmp_path, body):
    """In a process of its own: a stack that overflows while nested tuples are hashed ends it."""
    path = tmp_path / "log.pkl"
    path.write_bytes(b"\x80\x04" + body + b".")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        message = pool.apply_async(_complaint, (path,)).get(timeout=60)
    assert str(path) in message


def _complaint(path):
    with pytest.raises(LogError) as error:
        read_log(path)
    return str(error.value)


def test_arrays_of_objects_in_one_another_are_refused_even_if_filled_late(tmp_path):
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R0"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    with pytest.raises(LogError, match="array of objects in an array of objects"):
        inner, outer = np.empty(1, object), np.empty(1, object)
        outer[0] = inner
        read_log(write(tmp_path / "log.pkl", outer))
    # The inner one is put into the outer one before its own state arrives.
    state = b"(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R\x89](%set"
    body = empty + b"q\x000" + empty + state % b"h\x00" + b"b0h\x00" + state % b"N" + b"b"
    (tmp_path / "late.pkl").write_bytes(b"\x80\x04" + dtype + body + b".")
    with pytest.raises(LogError, match="array of objects in an array of objects"):
        read_log(tmp_path / "late.pkl")


def test_random_pickles_are_data_or_refused(tmp_path):
    """Whatever opcodes come in whatever order, the reader returns data or says what is wrong."""
    rng = np.random.default_rng(0)
    names = [
        b"cnumpy\ndtype\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cbuiltins\nset\n",
        b"X\x02\0\0\0O8",
    ]
    parts = [bytes([code]) for code in b"()]}NQRabedlst\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x81012u"]
    parts += [b"K\x01", b"h\x00", b"q\x00", b"C\x01b", b"G" + bytes(8), *names]
    path = tmp_path / "log.pkl"
    started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3000):
        chosen = rng.integers(0, len(parts), rng.integers(1, 40))
        path.write_bytes(b"\x80\x04" + b"".join(parts[i] for i in chosen) + b".")
        with suppress(LogError):
            assert read_log(path) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started < 50_000  # kB


def test_damaged_bytes_anywhere_are_data_or_refused(tmp_path, log_path):
    rng, content, path = np.random.default_rng(1), log_path.read_bytes(), tmp_path / "log.pkl"
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), rng.integers(1, 6)):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with suppress(LogError):
            assert isinstance(read_log(path), list)
