"""Scene filters: NAVSIM's yaml files, and which windows they keep."""

import pytest

from beyonddrive.datasets.navsim.scene_filter import SceneFilter, SceneFilterError

NAVTEST = """
_target_: navsim.common.dataclasses.SceneFilter
_convert_: 'all'

num_history_frames: 4
num_future_frames: 10
frame_interval: 1
has_route: true
max_scenes: null
log_names:
  - '2021.05.25.14.16.10_veh-35_00169_00303'
tokens: ['19572b1d5c7c5b4e', 'e7ba4e3cbf0d57f1']
"""


def test_yaml_of_a_split(tmp_path):
    path = tmp_path / "navtest.yaml"
    path.write_text(NAVTEST)
    scene_filter = SceneFilter.from_yaml(path)
    assert scene_filter == SceneFilter(
        frame_interval=1,
        log_names=["2021.05.25.14.16.10_veh-35_00169_00303"],
        tokens=["19572b1d5c7c5b4e", "e7ba4e3cbf0d57f1"],
    )
    assert SceneFilter.from_dict(scene_filter.to_dict()) == scene_filter


def test_what_another_version_has_switched_off_is_passed_over():
    later = {"frame_interval": 1, "include_synthetic_scenes": False, "synthetic_scene_tokens": None}
    assert SceneFilter.from_dict(later) == SceneFilter(frame_interval=1)
    with pytest.raises(SceneFilterError, match=r"unknown keys \['include_synthetic_scenes'\]"):
        SceneFilter.from_dict({**later, "include_synthetic_scenes": True})


@pytest.mark.parametrize(
    ("num_frames", "interval", "starts"),
    [
        (13, None, []),
        (14, None, [0]),
        (27, None, [0]),
        (28, None, [0, 14]),
        (16, 1, [0, 1, 2]),
        (17, 2, [0, 2]),
        (0, 1, []),
    ],
)
def test_windows(num_frames, interval, starts):
    assert list(SceneFilter(frame_interval=interval).window_starts(num_frames)) == starts


def test_windows_without_future():
    scene_filter = SceneFilter(num_future_frames=0)
    assert scene_filter.num_frames == scene_filter.interval == 4
    assert list(scene_filter.window_starts(9)) == [0, 4]


def test_which_windows_are_kept():
    on_route, off_route = {"token": "a", "roadblock_ids": ["1"]}, {"token": "b", "roadblock_ids": []}
    assert SceneFilter().keeps(on_route) and not SceneFilter().keeps(off_route)
    assert SceneFilter(has_route=False).keeps(off_route)
    assert SceneFilter(tokens=["a"]).keeps(on_route) and not SceneFilter(tokens=["b"]).keeps(on_route)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"num_history_frames": 5}, "only 4"),
        ({"num_future_frames": -1}, "num_future_frames"),
        ({"num_future_frames": None}, "num_future_frames"),
        ({"frame_interval": 0}, "frame_interval"),
        ({"frame_interval": 1.5}, "frame_interval"),
        ({"max_scenes": 0}, "max_scenes"),
        ({"has_route": "yes"}, "has_route"),
        ({"tokens": "19572b1d5c7c5b4e"}, "tokens: must be a list"),
        ({"tokens": [1234567890123456]}, "quotes"),
        ({"log_names": [1]}, "log_names"),
        ({"tokns": []}, r"unknown keys \['tokns'\]"),
    ],
)
def test_values_that_are_not_understood(values, complaint):
    with pytest.raises(SceneFilterError, match=complaint):
        SceneFilter.from_dict(values)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "frame_interval: none_at_all", "\x00"])
def test_bad_yaml_names_the_file(tmp_path, text):
    path = tmp_path / "split.yaml"
    path.write_text(text)
    with pytest.raises(SceneFilterError, match=r"split\.yaml"):
        SceneFilter.from_yaml(path)


def test_missing_yaml(tmp_path):
    with pytest.raises(SceneFilterError, match="no such scene filter"):
        SceneFilter.from_yaml(tmp_path / "absent.yaml")


def test_a_folder_is_no_yaml(tmp_path):
    with pytest.raises(SceneFilterError, match=r"cannot be read as a scene filter \(Is a directory\)"):
        SceneFilter.from_yaml(tmp_path)


def test_yaml_runs_nothing(tmp_path):
    path = tmp_path / "split.yaml"
    path.write_text(f"tokens: !!python/object/apply:os.system ['touch {tmp_path}/marker']")
    with pytest.raises(SceneFilterError, match="not a yaml"):
        SceneFilter.from_yaml(path)
    assert not (tmp_path / "marker").exists()
