"""Files of runs that somebody else made: long ones are read, and none asks for far more than it has."""

import json
import pickle
import re
import resource
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.evaluation.closed_loop.hugsim.record import Frame
from beyonddrive.evaluation.closed_loop.hugsim.run_files import MAX_RECORD, read_points, read_record
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

GOLDEN = Path(__file__).parents[3] / "data" / "golden" / "hugsim" / "records.json"


@pytest.fixture(autouse=True)
def little_memory():
    """No more than 4 GB beyond what is used, so that a test that asks for all fails and ends no machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def write(path, frames):
    path.write_bytes(pickle.dumps([{"type": "closeloop", "frames": frames}]))
    return path


def frame(agents=2, **changes):
    boxes = np.abs(np.random.default_rng(agents).normal(size=(agents, 7)))
    made = Frame(0.25, np.arange(7.0), boxes, ("car",) * agents, np.ones((5, 3)), 0.5, False, 0.1)
    return {**made.to_dict(), **changes}


def doubled(levels):
    value = [0.0] * 7
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize("levels", [16, 30])
def test_a_list_that_is_named_again_and_again_is_refused(tmp_path, levels):
    path = write(tmp_path / "data.pkl", [frame(obj_boxes=doubled(levels))])
    assert path.stat().st_size < 1000
    with pytest.raises(HugsimError) as caught:
        read_record(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: the record has ") and "write every list out" in told
    assert "most of them in [0]['frames'][0]['obj_boxes']" in told


def test_a_file_that_is_far_too_large_is_not_read(tmp_path):
    path = tmp_path / "data.pkl"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        HugsimError, match=rf"{re.escape(str(path))}: has more than the {MAX_RECORD} bytes.*a record per run"
    ):
        read_record(path)
    with pytest.raises(HugsimError, match=rf"/dev/zero: has more than the {MAX_RECORD} bytes"):
        read_record(Path("/dev/zero"))


def test_records_of_thousands_of_frames_are_read(tmp_path):
    """Names and keys are the same in all frames, and pickles name them again."""
    path = write(tmp_path / "data.pkl", [frame(agents=3) for _ in range(3000)])
    frames = read_record(path)
    assert len(frames) == 3000 and frames[-1].obj_boxes.shape == (3, 7)
    # As a loop of somebody else may write them that keeps one list of those who stand.
    standing = frame(agents=50)["obj_boxes"]
    again = read_record(write(path, [frame(agents=50, obj_boxes=standing) for _ in range(500)]))
    assert again[-1].obj_boxes.tolist() == standing


def test_official_records_are_read(tmp_path):
    for item in json.loads(GOLDEN.read_text()):
        path = write(tmp_path / "data.pkl", item["record"]["frames"])
        assert len(read_record(path)) == len(item["record"]["frames"])


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"time_stamp": 10**400}, "time_stamp: must be a finite number, got an integer of 1329 bits"),
        ({"rc": list(range(10_000))}, r"rc: must be a finite number, got \[0, 1, 2, 3, 4, 5, \.\.\.\]$"),
        ({"ego_box": [10**400] * 7}, "ego_box: holds no numbers"),
        (
            {"ego_box": [0.0, 0.0, 0.0, 1.6, 3.0, -1.5, 0.0]},
            "ego_box: its sizes must be positive, got width 1.6, length 3, height -1.5",
        ),
        (
            {"obj_boxes": [[1.0] * 7, [0.0, 0.0, 0.0, 2.0, -4.0, 1.0, 0.0]]},
            r"obj_boxes\[1\]: has a negative size, width 2, length -4, height 1",
        ),
    ],
)
def test_numbers_that_are_none_are_named_and_not_written_out(tmp_path, changes, told):
    path = write(tmp_path / "data.pkl", [frame(), frame(**changes)])
    with pytest.raises(HugsimError, match=f"{re.escape(str(path))}: frame 1: {told}"):
        read_record(path)


HEADER = """ply
format {kind} 1.0
comment element vertex 9
element vertex {count}
property float x
property float y
property float z
{more}end_header
"""


def ply(path, kind, count, body, more=""):
    path.write_bytes(HEADER.format(kind=kind, count=count, more=more).encode() + body)
    return path


ROWS = {"ascii": b"1 2 3\n4 5 6\n", "binary_little_endian": np.arange(6, dtype="<f4").tobytes()}


@pytest.mark.parametrize("kind", ROWS)
def test_points_are_read_in_text_and_binary(tmp_path, kind):
    assert len(read_points(ply(tmp_path / "ground.ply", kind, 2, ROWS[kind]))) == 2


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("more", ["", "property list uchar int parts\n"], ids=["points", "lists"])
def test_a_header_that_claims_far_more_points_than_there_are_is_named(tmp_path, kind, more):
    path = ply(tmp_path / "ground.ply", kind, 10**13, ROWS[kind], more)
    with pytest.raises(
        HugsimError,
        match=rf"{re.escape(str(path))}: element vertex: the header claims {10**13} rows.*cut off",
    ):
        read_points(path)


def test_other_elements_and_endless_headers_are_refused_too(tmp_path):
    faces = "element face 10000000000000\nproperty list uchar int vertex_indices\n"
    path = ply(tmp_path / "ground.ply", "ascii", 2, ROWS["ascii"], faces)
    with pytest.raises(HugsimError, match=rf"{re.escape(str(path))}: element face: the header claims"):
        read_points(path)
    path.write_bytes(b"ply\nformat ascii 1.0\ncomment " + b"a" * (1 << 21))
    with pytest.raises(HugsimError, match="is no ply file: no end_header"):
        read_points(path)
    path = ply(path, "ascii", "many", ROWS["ascii"])
    with pytest.raises(HugsimError, match="is no ply file"):
        read_points(path)
