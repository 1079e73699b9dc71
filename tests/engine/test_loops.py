"""One bad scene does not end an evaluation, and does not disappear either."""

import pytest
import torch

from beyonddrive.engine.loops import BadScene, ReadableScenes, collate_readable, predict
from beyonddrive.structures.plan import PlanError
from beyonddrive.structures.sample import PlanSample


class Scenes:
    """Three scenes, of which the second cannot be read."""

    def __init__(self):
        self.tokens = ["a", "b", "c"]
        self.split = "test"
        self.metainfo = {"dataset": "three"}

    def __len__(self):
        return 3

    def get_data_info(self, index):
        return {"token": self.tokens[index]}

    def __getitem__(self, index):
        if index == 1:
            raise ValueError("scene b: cam_f0.jpg is missing")
        sample = PlanSample(metainfo={"token": self.tokens[index]})
        return {"inputs": {"status": torch.full((8,), float(index))}, "data_samples": sample}


class Model:
    """Plans batches, unless one of its scenes is in ``refused``."""

    def __init__(self, *refused):
        self.refused = refused
        self.batches = []

    def test_step(self, data):
        tokens = [sample.metainfo["token"] for sample in data["data_samples"]]
        assert set(data) == {"inputs", "data_samples"} and len(data["inputs"]["status"]) == len(tokens)
        self.batches.append(tokens)
        for token in tokens:
            if token in self.refused:
                raise PlanError(f"scene {token}: NaN")
        return data["data_samples"]


def batch():
    dataset = ReadableScenes(Scenes())
    assert dataset.metainfo == {"dataset": "three", "splits": ["test"]}
    return collate_readable([dataset[index] for index in range(len(dataset))])


def test_an_unreadable_scene_is_listed_and_the_others_are_planned():
    data = batch()
    model = Model()
    assert [sample.token for sample in predict(model, data)] == ["a", "c"]
    assert model.batches == [["a", "c"]]
    assert data["bad_scenes"] == [BadScene("b", "scene b: cam_f0.jpg is missing")]


def test_a_scene_that_the_planner_refuses_does_not_take_its_batch_with_it():
    data = batch()
    model = Model("c")
    assert [sample.token for sample in predict(model, data)] == ["a"]
    assert [scene.token for scene in data["bad_scenes"]] == ["b", "c"]
    assert "scene c: NaN" in data["bad_scenes"][1].reason


def test_a_batch_without_a_readable_scene_reaches_no_planner():
    data = collate_readable([BadScene("a", "x")])
    model = Model()
    assert predict(model, data) == [] and model.batches == []


def test_other_errors_still_end_the_loop():
    class Broken(Model):
        def test_step(self, data):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        predict(Broken(), batch())
