"""The feature store beside gzip pickles, at its smallest: what is reported and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.benchmarks import data_loading
from beyonddrive.datasets.navsim.plain_pickle import load_plain_pickle
from beyonddrive.tests.sensor_files import write_sensors

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "pdms" / "data"
IMAGE = 256 * 1024 * 3
"""Bytes of a strip of pictures."""


@pytest.fixture(scope="module")
def pictured_root(tmp_path_factory):
    """A data root with images of the two scenes of its split ``train``."""
    root = tmp_path_factory.mktemp("data")
    (root / "navsim_logs" / "train").mkdir(parents=True)
    (root / "maps").symlink_to(GOLDEN / "maps")
    for number, log in enumerate(sorted((GOLDEN / "navsim_logs" / "golden").glob("*.pkl"))[:2]):
        shutil.copy(log, root / "navsim_logs" / "train")
        write_sensors(root / "sensor_blobs" / "train", load_plain_pickle(log)[3], number)
    return root


@pytest.fixture(scope="module")
def scene(pictured_root):
    """Features of one scene by its token, without noise."""
    scenes, _ = data_loading.scenes_of(pictured_root, "train", 1)
    return data_loading.repeated(scenes, 1, 0.0)


def test_every_layout_is_reported_beside_the_pickles(pictured_root, capsys):
    given = ["--data-root", str(pictured_root), "--split", "train", "--scenes", "4", "--distinct", "2"]
    given += ["--batch", "2", "--seconds", "0", "--encodings", "raw", "webp-90", "--json"]
    assert data_loading.main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 scenes of 2, images 1024 x 256, noise 2,")
    found = json.loads(lines[-1], parse_constant=pytest.fail)  # (neither NaN nor infinity)
    assert found["noise"] == 2.0 and found["making"] > 0
    pickles, raw, webp = found["rows"]
    assert [row["layout"] for row in found["rows"]] == ["gzip pickles", "raw", "webp-90"]
    assert (pickles["faster"], pickles["smaller"]) == (1.0, 1.0)
    assert all(row["rate"] > 0 and row["write"] > 0 for row in found["rows"])
    for row in (raw, webp):
        assert row["faster"] == pytest.approx(row["rate"] / pickles["rate"])
        assert row["smaller"] == pytest.approx(pickles["bytes"] / row["bytes"])
    assert IMAGE < raw["bytes"] < IMAGE + 50_000
    assert 0 < webp["bytes"] < raw["bytes"]
    assert pickles["files"] == 2 * data_loading.NAVTRAIN
    assert raw["files"] == webp["files"] == 1718  # shards of 60 scenes, and a manifest
    for row in found["rows"]:
        assert sum(line.startswith(row["layout"]) for line in lines) == 2  # in both tables


def test_files_and_their_bytes_are_counted(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"123")
    assert data_loading.size_of(tmp_path) == (8, 2)
    assert [data_loading.files_of_store(scenes) for scenes in (1, 60, 61)] == [2, 2, 3]


@pytest.mark.parametrize("encoding", ["raw", "png", "webp-lossless", "jpeg-75"])
def test_both_layouts_hold_the_same(tmp_path, scene, encoding):
    """Of the noise of these images a lossy picture keeps little: it is refused as a lossless one."""
    data_loading.write_pickles(tmp_path / "pickles", scene)
    data_loading.write_store(tmp_path / "store", scene, data_loading.ENCODINGS[encoding])
    pickles = data_loading.Pickles(tmp_path / "pickles", list(scene))
    stored = data_loading.Stored(tmp_path / "store")
    if encoding.startswith("jpeg"):
        with pytest.raises(RuntimeError, match="the inputs differ, images by 0"):
            data_loading.check_equal(pickles, stored, 1e-6)
    else:
        data_loading.check_equal(pickles, stored, 1e-6)


@pytest.mark.parametrize("key", ["camera", "status", "trajectory", "bev_semantic_map"])
def test_a_layout_that_differs_is_refused(tmp_path, scene, key):
    data_loading.write_pickles(tmp_path / "pickles", scene)
    changed = {token: {**arrays, key: np.roll(arrays[key], 1)} for token, arrays in scene.items()}
    data_loading.write_store(tmp_path / "store", changed, None)
    pickles = data_loading.Pickles(tmp_path / "pickles", list(scene))
    inputs = key in data_loading.INPUTS
    with pytest.raises(RuntimeError, match="the inputs differ" if inputs else f"target {key} differs"):
        data_loading.check_equal(pickles, data_loading.Stored(tmp_path / "store"), 1e-6)


def test_every_scene_is_compared(tmp_path, scene):
    """One that differs is refused wherever it is, and so is one that is missing."""
    (arrays,) = scene.values()
    scenes = {f"{number:016x}": arrays for number in range(3)}
    data_loading.write_pickles(tmp_path / "pickles", scenes)
    pickles = data_loading.Pickles(tmp_path / "pickles", list(scenes))
    changed = {**scenes, f"{2:016x}": {**arrays, "status": np.roll(arrays["status"], 1)}}
    data_loading.write_store(tmp_path / "store", changed, None)
    with pytest.raises(RuntimeError, match="the inputs differ"):
        data_loading.check_equal(pickles, data_loading.Stored(tmp_path / "store"), 1e-6)
    data_loading.write_store(tmp_path / "fewer", dict(list(scenes.items())[:2]), None)
    with pytest.raises(RuntimeError, match="the scenes differ"):
        data_loading.check_equal(pickles, data_loading.Stored(tmp_path / "fewer"), 1e-6)


def test_what_is_written_counts_as_it_does_for_the_pickles(tmp_path, scene, monkeypatch):
    """Also the write itself, by a clock that only it advances."""
    now = [0.0]
    write = data_loading.ShardWriter.write

    def slow(self, *given):
        now[0] += 4.0
        return write(self, *given)

    monkeypatch.setattr(data_loading.ShardWriter, "write", slow)
    monkeypatch.setattr(data_loading.time, "perf_counter", lambda: now[0])
    assert data_loading.write_store(tmp_path / "store", scene, None) == 1 / 4.0


def test_fewer_scenes_than_a_batch_are_refused(capsys):
    with pytest.raises(SystemExit):
        data_loading.main(["--scenes", "3"])
    assert "--scenes 3 are less than a batch of 16" in capsys.readouterr().err
