"""The data root: splits, windows, search by token; one bad log stops nothing."""

import pickle
import shutil
import subprocess
import sys

import pytest

from beyonddrive.datasets.navsim.logs import LogError, read_log
from beyonddrive.datasets.navsim.root import NavsimRoot, NavsimRootError
from beyonddrive.datasets.navsim.scene_filter import SceneFilter


@pytest.fixture
def root(world):
    return NavsimRoot(world)


def rewrite(path, change):
    frames = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(change(frames) or frames))


def cutroute(world):
    return next((world / "navsim_logs" / "mini").glob("*cutroute.pkl"))


def test_layout(root, world):
    assert root.splits() == ["mini"]
    assert [path.stem.split("veh-g_")[1] for path in root.log_paths("mini")] == [
        "straight_free",
        "straight_cutroute",
        "curve_free",
    ]
    assert root.sensor_root("mini") == world / "sensor_blobs" / "mini"
    assert root.map("us-ma-boston").path.parent.parent.name == "us-ma-boston"


def test_wrong_folders(tmp_path, world, root):
    with pytest.raises(NavsimRootError, match=r"no folder navsim_logs in it"):
        NavsimRoot(tmp_path / "absent")
    with pytest.raises(NavsimRootError, match=r"navsim_logs/test: no such split; .* has \['mini'\]"):
        root.log_paths("test")


def test_maps_may_be_elsewhere(world, tmp_path):
    shutil.move(world / "maps", tmp_path / "maps")
    root = NavsimRoot(world, tmp_path / "maps")
    assert len(root.map("us-ma-boston").layer("lanes_polygons")) == 20


def test_windows_of_a_split(root):
    assert [len(scene.frames) for scene in root.scenes("mini")] == [14, 14, 14]
    dense = list(root.scenes("mini", SceneFilter(frame_interval=1)))
    assert len(dense) == 1 + 4 + 1  # 14, 17 and 14 frames
    assert len({scene.token for scene in dense}) == 6
    assert len(list(root.scenes("mini", SceneFilter(frame_interval=1, max_scenes=3)))) == 3
    assert root.problems == []


def test_windows_off_route_are_left_out(world):
    def change(frames):
        frames[4]["roadblock_ids"] = []

    rewrite(cutroute(world), change)
    root = NavsimRoot(world)
    assert len(list(root.scenes("mini", SceneFilter(frame_interval=1)))) == 5
    assert len(list(root.scenes("mini", SceneFilter(frame_interval=1, has_route=False)))) == 6


def test_filter_by_log_and_token(root, frames, log_path):
    only = list(root.scenes("mini", SceneFilter(log_names=[log_path.stem, "absent_log"])))
    assert [scene.log_name for scene in only] == [log_path.stem]
    assert "1 of 2 logs" in root.problems[0] and "absent_log" in root.problems[0]
    scenes = root.scenes("mini", SceneFilter(frame_interval=1, tokens=[frames[5]["token"], "f" * 16]))
    assert [scene.token for scene in scenes] == [frames[5]["token"]]
    assert "1 tokens" in root.problems[1] and "f" * 16 in root.problems[1]


def test_unreadable_log_is_reported_and_the_rest_is_read(world):
    path = cutroute(world)
    path.write_bytes(path.read_bytes()[:5000])
    root = NavsimRoot(world)
    assert [scene.map_location for scene in root.scenes("mini")] == ["us-ma-boston", "us-nv-las-vegas-strip"]
    assert len(root.problems) == 1 and str(path) in root.problems[0]
    list(root.scenes("mini"))
    assert len(root.problems) == 1  # said once


def test_scenes_read_one_log_at_a_time(root, monkeypatch):
    read = []

    def recording(path):
        read.append(path)
        return read_log(path)

    monkeypatch.setattr("beyonddrive.datasets.navsim.root.read_log", recording)
    scenes = root.scenes("mini", SceneFilter(frame_interval=1))
    next(scenes)
    assert len(read) == 1
    list(scenes)
    assert len(read) == 3  # each log once, although the second has four scenes


def test_find_any_frame_with_enough_around_it(root, frames):
    tokens = [frame["token"] for frame in frames]
    found, reasons = root.find("mini", [*tokens, "0" * 16])
    assert list(found) == tokens[3:7]  # 17 frames: 3 .. 6 have 3 before and 10 after
    assert [scene.token for scene in found.values()] == tokens[3:7]
    assert list(reasons) == [*tokens[:3], *tokens[7:], "0" * 16]
    assert "frame 2 of" in reasons[tokens[2]] and "2 frames before" in reasons[tokens[2]]
    assert "9 after" in reasons[tokens[7]]
    assert "no frame of split mini" in reasons["0" * 16]
    window = found[tokens[5]]
    assert [frame["token"] for frame in window.frames] == tokens[2:16]


def test_find_says_that_a_token_may_be_in_an_unreadable_log(world, frames):
    cutroute(world).write_bytes(b"not a pickle")
    root = NavsimRoot(world)
    other = next(iter(root.scenes("mini"))).token
    found, reasons = root.find("mini", [frames[3]["token"], other])
    assert list(found) == [other]
    assert "cannot be read" in reasons[frames[3]["token"]] and "cutroute" in reasons[frames[3]["token"]]


def test_find_looks_on_for_a_scene_that_is_cut_off_in_one_log(world, frames):
    """A log that ends early comes first; what it holds of the scene must not end the search."""
    short = cutroute(world).with_name("0_short_one.pkl")
    short.write_bytes(pickle.dumps(frames[:6]))
    root = NavsimRoot(world)
    token = frames[3]["token"]
    found, reasons = root.find("mini", [token])
    assert list(found) == [token] and not reasons


def test_find_reads_no_more_logs_than_it_needs(root, monkeypatch):
    first = next(iter(root.scenes("mini"))).token
    monkeypatch.setattr("beyonddrive.datasets.navsim.root.read_log", lambda path: pytest.fail(f"read {path}"))
    assert list(root.find("mini", [first])[0]) == [first]


def test_log_replaced_after_it_was_indexed(world):
    root = NavsimRoot(world)
    ref = next(r for r in root.refs("mini") if "cutroute" in r.log_path.name)
    rewrite(ref.log_path, lambda frames: frames[2:])
    with pytest.raises(LogError, match=r"cutroute\.pkl: scene .* no longer where it was"):
        NavsimRoot(world).load(ref)


def test_root_travels_to_another_process_without_its_logs(root):
    next(iter(root.scenes("mini")))
    assert len(pickle.dumps(root)) < 2000
    assert len(list(pickle.loads(pickle.dumps(root)).scenes("mini"))) == 3


def test_reading_needs_neither_torch_nor_mmengine():
    code = (
        "import sys; import beyonddrive.datasets.navsim.root, beyonddrive.datasets.navsim.sensors; "
        "assert not {'torch', 'mmengine'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
