"""Spoiled copies of a tiny data root: what is wrong is found, named, and said how to put right."""

import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from beyonddrive.datasets.navsim.blob_files import image_problem, sweep_problem
from beyonddrive.datasets.navsim.findings import KINDS
from beyonddrive.datasets.navsim.log_health import HealthSettings, examine_log, needed_frames
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.sensors import write_pcd
from beyonddrive.datasets.navsim.validation import ValidationError, kept_parts, validate_split
from beyonddrive.engine.executors import ProcessExecutor
from beyonddrive.engine.files import file_lock
from beyonddrive.tools import validate_data as tool


@pytest.fixture(scope="module")
def healthy(tmp_path_factory, golden_data):
    """A data root: split ``mini`` with two logs of 14 frames, all images and sweeps, and no objects."""
    root = tmp_path_factory.mktemp("healthy")
    logs = root / "navsim_logs" / "mini"
    logs.mkdir(parents=True)
    (root / "maps").symlink_to(golden_data / "maps")
    picture = cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))[1].tobytes()
    write_pcd(root / "sweep.pcd", np.ones((6, 5)))
    sweep = (root / "sweep.pcd").read_bytes()
    for source in sorted((golden_data / "navsim_logs" / "golden").glob("*.pkl"))[:2]:
        frames = pickle.loads(source.read_bytes())
        for frame in frames:
            frame["anns"] = {key: value[:0] for key, value in frame["anns"].items()}
            for camera in frame["cams"].values():
                write(root / "sensor_blobs" / "mini" / camera["data_path"], picture)
            write(root / "sensor_blobs" / "mini" / frame["lidar_path"], sweep)
        (logs / source.name).write_bytes(pickle.dumps(frames))
    return root


@pytest.fixture(scope="module")
def golden_data():
    return Path(__file__).parents[2] / "data/golden/pdms/data"


@pytest.fixture
def root(healthy, tmp_path):
    """A copy that may be spoiled."""
    shutil.copytree(healthy, tmp_path / "root", symlinks=True)
    return tmp_path / "root"


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def logs_of(root):
    return sorted((root / "navsim_logs" / "mini").glob("*.pkl"))


def spoil(root, change, log=0):
    """Change the frames of a log and write them back."""
    path = logs_of(root)[log]
    frames = pickle.loads(path.read_bytes())
    change(frames)
    path.write_bytes(pickle.dumps(frames))


def found(root, **settings):
    where = NavsimRoot(root)
    settings = HealthSettings(where.maps_root, where.sensor_root("mini"), **settings)
    return validate_split(where, "mini", settings)


def test_a_healthy_root_has_no_findings(root):
    health = found(root, decode=True)
    assert health.findings == ()
    assert (health.num_logs, health.num_frames, health.num_blobs) == (2, 28, 28 * 9)


BOX = {"gt_boxes": np.zeros((1, 7)), "gt_names": ["vehicle"], "gt_velocity_3d": np.zeros((1, 3)),
       "instance_tokens": ["i"], "track_tokens": ["t"]}  # fmt: skip


def with_objects(index, **changes):
    return lambda frames: frames[index].update(anns={**BOX, **changes})


def with_nan(key, index, place=0):
    def change(frames):
        values = np.array(frames[index][key], np.float64)
        values[place] = np.nan
        frames[index][key] = values

    return change


SPOILED = {
    "position": (with_nan("ego2global_translation", 5), "pose", "ego2global_translation", 5, "is not finite"),
    "quaternion": (
        lambda frames: frames[2].update(ego2global_rotation=np.zeros(4)),
        "pose", "ego2global_rotation", 2, "is zero",
    ),
    "speed": (with_nan("ego_dynamic_state", 3), "ego-state", "ego_dynamic_state", 3, "is not finite"),
    "camera": (
        lambda frames: frames[1]["cams"]["CAM_F0"].update(cam_intrinsic=np.full((3, 3), np.nan)),
        "camera", "cams.CAM_F0.cam_intrinsic", 1, "is not finite",
    ),
    "box": (
        with_objects(13, gt_boxes=np.full((1, 7), np.inf)), "objects", "anns.gt_boxes", 13, "t is not finite"
    ),
    "size": (
        with_objects(13, gt_boxes=np.array([[0, 0, 0, 4, -2, 1, 0.0]])),
        "objects", "anns.gt_boxes", 13, "t has a negative size",
    ),
    "class": (with_objects(13, gt_names=["tram"]), "objects", "anns.gt_names", 13, "'tram' is no class"),
    "reserved": (
        with_objects(13, track_tokens=["red_light_1"]), "objects", "anns.track_tokens", 13, "is reserved"
    ),
    "single": (with_objects(6), "no-future", "anns.track_tokens", 6, "t: in this frame only"),
    "gap": (
        lambda frames: [f.update(timestamp=f["timestamp"] + 700_000) for f in frames[8:]],
        "time-gap", "timestamp", 8, "1.20 s after",
    ),
    "location": (
        lambda frames: frames[4].update(map_location="sg-two-north"),
        "map", "map_location", 4, "no version of 'sg-two-north'",
    ),
    "route": (
        lambda frames: frames[3].update(roadblock_ids=[*frames[3]["roadblock_ids"], "987654321", "x"]),
        "route-off-map", "roadblock_ids", 3, "987654321, x not in",
    ),
    "far": (
        lambda frames: frames[7].update(ego2global_translation=np.array([0.0, 0.0, 0.0])),
        "ego-off-map", "ego2global_translation", 7, "no road of",
    ),
    "outside": (
        lambda frames: frames[0]["cams"]["CAM_B0"].update(data_path="../../secret.jpg"),
        "image", "cams.CAM_B0.data_path", 0, "leaves the folder of the split",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_spoiled_is_found_where_it_is(root, name):
    change, kind, key, index, words = SPOILED[name]
    spoil(root, change)
    (finding,) = found(root).findings
    path = logs_of(root)[0]
    assert (finding.kind, finding.log, finding.key, finding.frames) == (kind, path.stem, key, (index,))
    assert words in finding.message
    assert finding.token == pickle.loads(path.read_bytes())[index]["token"]
    assert str(finding).startswith(f"{path.stem}, frame {index} ({finding.token}), {key}: ")
    assert str(finding).endswith(KINDS[kind].remedy)


def test_a_track_twice_in_a_frame(root):
    twice = {key: np.concatenate([value, value]) for key, value in BOX.items()}
    spoil(root, lambda frames: frames[13].update(anns=twice))
    assert [f.message for f in found(root).findings] == ["track t is there 2 times"]


def test_files_that_are_missing_cut_off_or_something_else(root):
    log = logs_of(root)[1]
    frames = pickle.loads(log.read_bytes())
    blobs = root / "sensor_blobs" / "mini"
    images = [blobs / frames[i]["cams"]["CAM_L1"]["data_path"] for i in range(4)]
    images[0].unlink()
    images[1].unlink()
    images[2].write_bytes(images[2].read_bytes()[:-20])
    images[3].write_bytes(b"no image at all")
    sweeps = [blobs / frames[i]["lidar_path"] for i in range(3)]
    sweeps[0].unlink()
    sweeps[1].write_bytes(sweeps[1].read_bytes()[:-3])
    sweeps[2].write_bytes(b"no cloud at all")
    key = "cams.CAM_L1.data_path"
    said = {(f.key, f.frames): f.message for f in found(root).findings}
    assert said.keys() == {(key, (0, 1)), (key, (2,)), (key, (3,)), *(("lidar_path", (i,)) for i in range(3))}
    assert said[key, (0, 1)] == said["lidar_path", (0,)] == "is missing"
    assert said[key, (2,)] == "is truncated" and said[key, (3,)] == "is no image"
    assert "bytes are promised" in said["lidar_path", (1,)] and "no DATA line" in said["lidar_path", (2,)]


def test_a_damaged_middle_is_found_by_decoding_only(tmp_path):
    png = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))[1].tobytes()
    path = tmp_path / "a.png"
    path.write_bytes(png[:33] + bytes(200) + png[233:])
    assert image_problem(path) == "" and "truncated" in image_problem(path, decode=True)
    path.write_bytes(png + b"something behind it")
    assert image_problem(path) == ""
    write_pcd(tmp_path / "a.pcd", np.ones((6, 4)))
    assert sweep_problem(tmp_path / "a.pcd") == sweep_problem(tmp_path / "a.pcd", decode=True) == ""


def test_tokens_of_two_logs_and_of_one(root):
    first, second = logs_of(root)
    token = pickle.loads(first.read_bytes())[4]["token"]
    spoil(root, lambda frames: frames[9].update(token=token), log=1)
    (finding,) = found(root).findings
    assert (finding.kind, finding.log, finding.frames, finding.token) == (
        "token-twice",
        second.stem,
        (9,),
        token,
    )
    assert finding.message == f"is also in log {first.stem}"
    spoil(root, lambda frames: frames[5].update(token=token))
    assert [f.kind for f in found(root).findings if f.log == first.stem] == ["token-twice"]
    spoil(root, lambda frames: frames[5].pop("token"))
    assert [f.kind for f in found(root).findings if f.log == first.stem] == ["log"]


def test_logs_that_cannot_be_read_and_short_and_renamed_ones(root):
    first, second = logs_of(root)
    first.write_bytes(first.read_bytes()[:-100])
    spoil(root, lambda frames: frames.__delitem__(slice(9, None)), log=1)
    second.rename(second.with_name("other.pkl"))
    kinds = {(f.kind, f.severity, f.log) for f in found(root).findings}
    assert kinds == {
        ("log", "error", first.stem), ("short-log", "warning", "other"), ("log-name", "warning", "other"),
    }  # fmt: skip


def test_only_the_files_that_scenes_see(root):
    log = logs_of(root)[0]
    frames = pickle.loads(log.read_bytes())
    assert needed_frames(frames, SceneFilter(), "log") == [0, 1, 2, 3]
    assert needed_frames(frames, SceneFilter(tokens=["elsewhere"]), "log") == []
    assert needed_frames(frames, SceneFilter(log_names=["elsewhere"]), "log") == []
    # A filter knows a log by its file, as whatever trains on it does, not by what its frames call it.
    assert needed_frames(frames, SceneFilter(log_names=["log"]), "log") == [0, 1, 2, 3]
    where = NavsimRoot(root)
    settings = HealthSettings(where.maps_root, where.sensor_root("mini"), needed_by=SceneFilter())
    (where.sensor_root("mini") / frames[9]["lidar_path"]).unlink()
    health = examine_log(log, settings)
    assert health.findings == () and health.num_blobs == 4 * 9


def test_the_tool_reports_resumes_and_counts_in_processes(root, tmp_path, capsys, monkeypatch):
    spoil(root, SPOILED["position"][0])
    spoil(root, SPOILED["gap"][0], log=1)
    out = tmp_path / "found.json"
    assert tool.main([str(root), "--out", str(out), "--no-sensors"]) == 1
    printed = capsys.readouterr().out
    assert "split mini: 2 logs, 28 frames: 1 errors, 1 warnings" in printed
    assert "ego2global_translation: is not finite" in printed
    report = json.loads(out.read_text())
    assert report["environment"]["packages"]["numpy"] == np.__version__
    (split,) = report["splits"]
    assert split["kinds"] == {"pose": {"count": 1, "logs": 1}, "time-gap": {"count": 1, "logs": 1}}
    assert {"kind", "severity", "log", "key", "message", "frames", "token", "remedy"} == split["findings"][
        0
    ].keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found.json", "root"]  # no parts left
    where = NavsimRoot(root)
    settings = HealthSettings(where.maps_root)
    assert validate_split(where, "mini", settings, ProcessExecutor(2)) == validate_split(
        where, "mini", settings
    )
    # A log that was looked at is not looked at again, unless it has changed.
    parts = tmp_path / "parts"
    health = validate_split(where, "mini", settings, parts=parts)
    monkeypatch.setattr("beyonddrive.datasets.navsim.validation.examine_log", lambda *_: pytest.fail("again"))
    assert validate_split(where, "mini", settings, parts=parts) == health
    monkeypatch.undo()
    spoil(root, lambda frames: frames[0].update(map_location="nowhere"))
    assert "map" in {f.kind for f in validate_split(where, "mini", settings, parts=parts).findings}


def test_files_that_have_come_since_are_not_missed_by_a_job_that_goes_on(root, tmp_path):
    where, parts = NavsimRoot(root), tmp_path / "parts"
    image = next((root / "sensor_blobs/mini").rglob("*.jpg"))
    kept = image.read_bytes()
    image.unlink()
    settings = HealthSettings(where.maps_root, where.sensor_root("mini"))
    assert [f.kind for f in validate_split(where, "mini", settings, parts=parts).findings] == ["image"]
    image.write_bytes(kept)
    assert not validate_split(where, "mini", settings, parts=parts).findings


def test_exit_codes_and_refusals(root, tmp_path, capsys):
    words = [str(root), "--no-sensors"]
    assert tool.main(words) == 0
    spoil(root, SPOILED["gap"][0])
    assert tool.main(words) == 0 and tool.main([*words, "--strict"]) == 1
    assert tool.main([str(tmp_path / "nothing")]) == 2
    assert tool.main([*words, "--split", "other"]) == 2
    assert "no such split" in capsys.readouterr().err
    for idle in ("--decode", "--scene-filter=navtrain.yaml"):
        with pytest.raises(SystemExit):
            tool.parse_args([*words, idle])
        assert "goes with sensor files, which --no-sensors leaves out" in capsys.readouterr().err
    busy = pytest.raises(ValidationError, match="another job")
    with file_lock(tmp_path / ".a.json.lock"), busy, kept_parts(tmp_path / "a.json"):
        pass


def test_a_log_that_is_a_link_to_nowhere_is_a_finding(root, tmp_path):
    (root / "navsim_logs/mini/0.pkl").symlink_to(tmp_path / "gone.pkl")
    assert tool.main([str(root), f"--out={tmp_path / 'found.json'}"]) == 1
    split = json.loads((tmp_path / "found.json").read_text())["splits"][0]
    assert split["num_logs"] == 3 and split["kinds"] == {"log": {"count": 1, "logs": 1}}


def test_a_filter_that_finds_less_than_it_names_is_no_clean_bill(root, tmp_path, capsys):
    frames = pickle.loads(logs_of(root)[0].read_bytes())
    path, out = tmp_path / "filter.yaml", tmp_path / "found.json"
    words = [str(root), f"--scene-filter={path}", f"--out={out}"]
    for values, said in (
        ({"tokens": [frames[3]["token"]]}, []),
        (
            {"tokens": [frames[3]["token"], "gone"]},
            ["1 of 2 tokens of the scene filter are no scene, such as gone"],
        ),
        ({"log_names": ["gone"]}, ["1 of 1 logs of the scene filter are not there, such as gone"]),
        ({"num_future_frames": 30}, ["no window is a scene of the scene filter"]),
    ):
        path.write_text(json.dumps(values))
        assert tool.main(words) == bool(said)
        err = capsys.readouterr().err
        assert json.loads(out.read_text())["absent"] == said
        assert all(f"{path}: {line} (looked at: mini)" in err for line in said)
