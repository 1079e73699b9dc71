"""One bad scene does not end an evaluation, and does not disappear either."""

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader

from beyonddrive.engine import loops
from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.loops import BadScene, ReadableScenes, collate_readable, predict
from beyonddrive.engine.runner import build_test_runner, build_train_runner, evaluate, load_config
from beyonddrive.engine.samplers import RoundDownSampler
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


# ------------------------------------------------------------------ no scene is left out
@pytest.mark.parametrize(
    ("num_scenes", "sampler", "settings", "refused"),
    [
        (5, RoundDownSampler, {}, r"RoundDownSampler, which gives 4 of 5 scenes: .*DefaultSampler"),
        (6, RoundDownSampler, {}, None),
        (5, DefaultSampler, {"round_up": False}, None),
        (5, DefaultSampler, {}, None),
        (5, InfiniteSampler, {}, "never end"),
    ],
)
def test_samplers_of_two_ranks_must_give_every_scene(monkeypatch, num_scenes, sampler, settings, refused):
    samplers = []
    for rank in range(2):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, 2))
        samplers.append(sampler(range(num_scenes), shuffle=False, seed=0, **settings))
    monkeypatch.setattr(loops, "all_gather_object", lambda _: [len(own) for own in samplers])
    for own in samplers:
        loader = DataLoader(range(num_scenes), 2, sampler=own)
        if refused is None:
            loops._check_visits_all("val_dataloader", loader)
        else:
            with pytest.raises(ConfigError, match=rf"val_dataloader\.sampler\.type=.*{refused}"):
                loops._check_visits_all("val_dataloader", loader)


@pytest.mark.parametrize(
    ("key", "value"),
    [("drop_last", True), ("num_batch_per_epoch", 1), ("sampler.type", "InfiniteSampler")],
)
def test_a_loader_that_leaves_scenes_out_is_refused_before_work(tmp_path, blind_recipe, key, value):
    for part in ("val", "test"):
        config = load_config(blind_recipe, {f"{part}_dataloader.{key}": value})
        build = build_train_runner if part == "val" else build_test_runner
        runner = build(config, work_dir=str(tmp_path / part))
        with pytest.raises(ConfigError, match=rf"{part}_dataloader\.{key}={value}: "):
            (runner.train if part == "val" else runner.test)()


@pytest.mark.parametrize("part", ["val", "test"])
def test_loops_that_do_not_tell_of_lost_scenes_are_refused(tmp_path, blind_recipe, part):
    stock = "ValLoop" if part == "val" else "TestLoop"
    runner = build_train_runner(load_config(blind_recipe), str(tmp_path / "w"))
    build = getattr(runner, f"build_{part}_loop")
    with pytest.raises(ConfigError, match=rf"{part}_cfg.type={stock}: it does not tell PDMSMetric .*Scene"):
        build({"type": stock})
    loop = build({"fp16": True})
    assert type(loop).__name__ == f"Scene{stock}" and loop.fp16


@pytest.mark.parametrize("metric", ["PDMSMetric", "PlanWriter"])
def test_a_scene_that_nothing_is_heard_of_counts_as_failed(tmp_path, blind_recipe, monkeypatch, metric):
    monkeypatch.setattr(loops, "_check_visits_all", lambda *_: None)
    config = load_config(blind_recipe, {"test_dataloader.drop_last": True, "test_dataloader.batch_size": 2})
    config.test_cfg = {}
    if metric == "PlanWriter":
        config.test_evaluator = {"type": "PlanWriter", "plans_file": str(tmp_path / "plans.npz")}
    runner = build_test_runner(config, work_dir=str(tmp_path / "w"))
    result = evaluate(runner)
    prefix = "plans" if metric == "PlanWriter" else "pdms"
    assert result.metrics[f"{prefix}/num_scenes"] == 2 and result.metrics[f"{prefix}/num_failed"] == 1
    ((token, reason),) = result.failures.items()
    assert token == runner.test_dataloader.dataset.dataset.tokens[-1]
    assert "was not planned: the loader left it out (drop_last" in reason
    if metric == "PDMSMetric":
        assert result.shares == {"pdms": "2 of 3 scenes"}
