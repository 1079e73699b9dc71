"""What a training read, by what its starts left."""

import json
import os

import pytest

from beyonddrive.engine.sweeps.data import data_of

DATA = {
    "split": "train",
    "scenes": 2,
    "tokens": "t",
    "files": 2,
    "digest": "d",
    "by": "content",
    "stores": [],
}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "epoch_2.pth"
    path.write_text("weights")
    os.utime(path, (100, 100))
    return path


def start(work_dir, name, time, first_step=1, **changes):
    path = work_dir / name / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"first_step": first_step, "data": [{**DATA, **changes}]}))
    os.utime(path, (time, time))


def test_it_is_of_the_starts_that_the_checkpoint_is_of(tmp_path, checkpoint):
    assert data_of(tmp_path, checkpoint) is None
    start(tmp_path, "a", 10, digest="killed before its first checkpoint")
    start(tmp_path, "b", 20)
    start(tmp_path, "c", 30, first_step=5)
    start(tmp_path, "d", 200, first_step=9, digest="had nothing left to do")
    other = tmp_path / "elsewhere"
    start(other, "a", 50, by="name and size", files=1)
    assert data_of(tmp_path, checkpoint) == data_of(other, checkpoint) is not None


def test_a_training_that_went_on_with_other_data_is_of_neither(tmp_path, checkpoint):
    for name, digests in (("one", "xx"), ("two", "yy"), ("both", "xy")):
        for step, digest in enumerate(digests):
            start(tmp_path / name, f"start{step}", 10 + step, first_step=step, digest=digest)
    assert len({data_of(tmp_path / name, checkpoint) for name in ("one", "two", "both")}) == 3


def test_the_weights_that_it_began_with_are_part_of_it(tmp_path, checkpoint):
    for name, digest in (("none", None), ("one", "1"), ("other", "2"), ("killed", "1")):
        weights = digest and {"file": "epoch_9.pth", "sha256": digest}
        start(tmp_path / name, "a", 10)
        told = tmp_path / name / "a" / "run.json"
        told.write_text(json.dumps({**json.loads(told.read_text()), "load_from": weights}))
        os.utime(told, (10, 10))
    start(tmp_path / "killed", "b", 20, first_step=5)
    found = {name: data_of(tmp_path / name, checkpoint) for name in ("none", "one", "other", "killed")}
    assert found["one"] == found["killed"] and len(set(found.values())) == 3


def test_a_damaged_record_tells_nothing(tmp_path, checkpoint):
    start(tmp_path, "a", 10)
    known = data_of(tmp_path, checkpoint)
    for name, text in (("b", "{"), ("c", "[]"), ("d", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
        os.utime(tmp_path / name / "run.json", (20, 20))
    assert data_of(tmp_path, checkpoint) == known
